// The kernels that an instruction set provides, each with its contract. One table per instruction
// set and element type; everything outside this folder calls kernels through a table only.
#pragma once

#include <cstdint>

#include "core/types.hpp"

namespace pyconv {

// How many k (one input channel under one tap) a panel holds at most: 256 k x 48 pixels of float32
// are 48 KiB, a small part of any L2, while one stop per 256 k costs the tile 1 % in partial sums.
inline constexpr std::int64_t kPanelDepth = 256;

// Elements between rows of a row-major A: not a multiple of 4 KiB, so that the rows of a tile do
// not fall into one set of a cache.
inline constexpr std::int64_t kRowStride = kPanelDepth + 16;

// k from one cache line that a tile asks for to the next: see GemmTileArgs.
inline constexpr std::int64_t kAheadTurn = 4;

// How many rows ahead copies ask for, each in a page of its own, which no hardware prefetcher
// follows.
inline constexpr std::int64_t kRowsAhead = 4;

inline constexpr int kMaxTileRows = 14;
inline constexpr int kMaxTileVectors = 3;
inline constexpr int kMaxChannelsVectors = 4;
inline constexpr int kMaxDirectVectors = 12;

// Where a tile's finished sums go without a detour over memory:
//     out[i * out_stride + j] = min(high, max(low, (sum + bias) + residual[i * residual_stride +
//     j]))
// with bias[i] or, for bias_per_column, bias[j]; bias and residual may be null (no addition).
// Elements of the last vector at `tail` lanes and beyond do not exist.
template <class T>
struct TileEnd {
  const T* bias;
  bool bias_per_column;
  const T* residual;
  std::int64_t residual_stride;
  T* out;
  std::int64_t out_stride;
  std::int64_t tail;
  T low;
  T high;
};

// sum[i][j] = (accumulate ? c[i * c_stride + j] : +0), then for k in [0, depth) in this order:
//     sum[i][j] = fma(A(i, k), b[k * width + j], sum[i][j])
// for i < rows and j < width = vectors * lanes. A(i, k) is a[k * rows + i] (interleaved) or
// a[i * kRowStride + k] (row-major). The sums go to c, or where `end` says if it is not null. The
// same for `tiles` in a row: b of the next is b_pitch rows on, everything that has columns goes on
// `width` to the right, and `end.tail` is that of the last. Every kAheadTurn k an interleaved tile
// of vectors asks for the next cache line, `ahead_step` on from the one before, if `ahead` is not
// null: the first at `ahead`.
template <class T>
struct GemmTileArgs {
  std::int64_t tiles;
  std::int64_t depth;
  const T* a;
  const T* b;
  std::int64_t b_pitch;
  T* c;
  std::int64_t c_stride;
  bool accumulate;
  const TileEnd<T>* end;
  const T* ahead;  // goes on `width` to the right
  std::int64_t ahead_step;
};

template <class T>
using GemmTile = void (*)(const GemmTileArgs<T>& args);

// Pixels of a block, in groups of one vector, under one width tap: lanes [begin, end) of a vector
// read row[offset + lane * step], where `row` is the input row under the run.
struct PixelSpan {
  std::int64_t offset;
  std::int32_t run;
  std::int16_t begin;
  std::int16_t end;
};

// Where finished sums of pixels go that stand in rows of `pitch` elements, of which only some are
// outputs. Vector j of the tiles has the spans ends[j - 1] (`first` for j = 0) to ends[j]: lanes
// [begin, end) are row `run` of the output, lane 0 would be its column `offset`. Clamped to
// [low, high] after bias[i] and residual, which may be null. The first span of a tile is there even
// if it has none: the tile asks for the cache lines from it on before it computes.
template <class T>
struct RowsEnd {
  const PixelSpan* spans;
  const std::int32_t* ends;
  std::int64_t first;
  const T* bias;
  const T* residual;
  std::int64_t residual_channel;
  std::int64_t residual_row;
  T* out;
  std::int64_t out_channel;
  std::int64_t out_row;
  T low;
  T high;
};

// sum[i][j] = (accumulate ? c[i * c_stride + j] : +0), then for k in [0, depth) in this order:
//     sum[i][j] = fma(a[k * rows + i], b[offsets[k] + j], sum[i][j])
// for i < rows and j < tiles * vectors * lanes. The sums go to c, or, where one is not null, to
// `end`, whose tail is that of the last tile, or `rows_end`. Prefetches for each k the line at
// ahead + k * ahead_step, from which tiles are as far apart as their pixels, and which need not be
// readable, unless ahead_step is 0.
template <class T>
struct DirectTileArgs {
  std::int64_t tiles;
  std::int64_t depth;
  const T* a;
  const T* b;
  const std::int32_t* offsets;
  const T* ahead;
  std::int64_t ahead_step;
  T* c;
  std::int64_t c_stride;
  bool accumulate;
  const TileEnd<T>* end;
  const RowsEnd<T>* rows_end;
};

template <class T>
using DirectTile = void (*)(const DirectTileArgs<T>& args);

// The part of a padded plane that one tap of a stride reads: elements row_step and column_step
// apart, of which exactly [first, last) of each row lie inside the plane's columns.
struct PadPhase {
  std::int64_t row;  // of the first element, from row_start
  std::int64_t column;
  std::int64_t first;
  std::int64_t last;
  std::int64_t offset;  // from `to`
};

// Columns of a padded row up to which it shares the masks of its vectors with a few others.
constexpr std::int64_t kFewPaddedColumns = 64;

// Phases of a padded plane, row after row of it: for each phase, r < rows and j < count
//     to[phase.offset + r * count + j] =
//         plane[row_start + phase.row + r * row_step][phase.column + j * column_step]
// as padding extends the plane of row_in x column_in elements. Phases of a row follow each other,
// and every row has the same. A null plane is one of zeros. Where it takes every second column of
// one phase, it asks for what is `ahead` elements on.
template <class T>
struct PadPlaneArgs {
  const T* plane;
  std::int64_t row_in;
  std::int64_t row_stride;
  std::int64_t row_start;
  std::int64_t row_step;
  std::int64_t rows;
  std::int64_t column_in;
  std::int64_t column_stride;
  std::int64_t column_step;
  std::int64_t count;
  PaddingMode padding_mode;
  const PadPhase* phases;
  std::int64_t phase_count;
  std::int64_t ahead;
  T* to;
};

// Ends of an output row. A tap may meet padding only under the first or the last pixel of a row.
enum RowEdge : std::int32_t { kNoEdge = 0, kFirstPixel = 1, kLastPixel = 2 };

// Where one tap finds the pixels of a tile whose lanes are output channels, its number in the
// row-major order of the kernel, and at which edge it meets zero padding: not at both.
struct TapUnit {
  std::int32_t offset;
  std::int16_t tap;
  std::int16_t edge;
};

// Pixels stand next to each other, kChannelBlock elements apart, each with the channels of one
// block; blocks are a_block elements apart. With width = vectors * lanes,
//     sum[i][j] = (accumulate ? c[i * c_stride + j] : +0), then in this order
//     for block, for unit, for channel of the block:
//         sum[i][j] = fma(a[block * a_block + unit.offset + i * kChannelBlock + channel],
//                         b[((block * kChannelBlock) * taps + unit.tap * n + channel) * width + j],
//                         sum[i][j])
// for i < rows and j < width, where n is the number of channels of the block. The first (last) i is
// left out under a unit of that edge if it is one of `edges`, which the tile touches. The sums go
// to c, or where `end` says if it is not null. Under every unit of every block, prefetches so many
// further cache lines from `ahead`, which need not be readable.
template <class T>
struct ChannelsTileArgs {
  const T* a;
  std::int64_t a_block;
  const TapUnit* units;
  std::int64_t unit_count;
  std::int64_t channels;
  std::int64_t taps;
  std::int32_t edges;
  const T* b;
  T* c;
  std::int64_t c_stride;
  bool accumulate;
  const T* ahead;
  std::int64_t lines_ahead;
  const TileEnd<T>* end;
};

template <class T>
using ChannelsTile = void (*)(const ChannelsTileArgs<T>& args);

// Consecutive elements of the input that are consecutive k: from `offset` on, which is relative to
// a tile's first pixel.
struct WindowRow {
  std::int32_t offset;
  std::int32_t k;
};

// Pixels stand a_row elements apart, and each meets rows of `length` elements. With width = vectors
// * lanes,
//     sum[i][j] = +0, then for row, for k in [0, length) in this order:
//         sum[i][j] = fma(a[i * a_row + row.offset + k], b[(row.k + k) * width + j], sum[i][j])
// for i < rows and j < width. The sums go to c, or where `end` says if it is not null. For every 64
// bytes of every row, prefetches so many further cache lines from `ahead`, which need not be
// readable.
template <class T>
struct WindowTileArgs {
  const T* a;
  std::int64_t a_row;
  const WindowRow* rows;
  std::int64_t row_count;
  std::int64_t length;
  const T* b;
  T* c;
  std::int64_t c_stride;
  const T* ahead;
  std::int64_t lines_ahead;
  const TileEnd<T>* end;
};

template <class T>
using WindowTile = void (*)(const WindowTileArgs<T>& args);

// The columns of one input row under some channels, as ChannelsTileArgs and WindowTileArgs want
// them:
//     to[c / kChannelBlock * block_pitch + j % phases * phase_pitch + j / phases * pitch +
//        c % kChannelBlock] = from[c][start + j * step]
// for j < count and c < channels (up to kChannelBlock of them have no use for block_pitch), as
// padding extends the row of column_in elements. Exactly
// first <= j < last lie inside it.
template <class T>
struct PixelRowArgs {
  const T* from;
  std::int64_t channel_stride;
  std::int64_t column_stride;
  std::int64_t channels;
  std::int64_t column_in;
  std::int64_t start;
  std::int64_t step;
  std::int64_t count;
  std::int64_t first;
  std::int64_t last;
  PaddingMode padding_mode;
  std::int64_t phases;
  std::int64_t phase_pitch;
  std::int64_t pitch;
  std::int64_t block_pitch;
  T* to;
};

// A run of output pixels within one output row.
struct PixelRun {
  std::int64_t position[kSpatialAxes];  // depth, height, width of the first output pixel
  std::int64_t count;
};

// One tap of one axis. Output o meets the input at o * stride + shift, which lies inside the input
// exactly for first <= o < last.
struct TapRange {
  std::int64_t shift;
  std::int64_t first;
  std::int64_t last;
};

struct AxisTaps {
  std::int64_t in;
  std::int64_t stride;
  std::int64_t kernel;
  const TapRange* taps;  // kernel of them
};

// Makes columns of `rows` rows of `count` elements each:
//     to[j / run * run_pitch + j % run * pitch + i] = from[i * row_stride + j]
// for j < count, with zeros for rows <= i < padded_rows.
template <class T>
struct TransposeArgs {
  const T* from;
  std::int64_t row_stride;
  std::int64_t rows;
  std::int64_t padded_rows;
  std::int64_t count;
  std::int64_t run;
  std::int64_t run_pitch;
  std::int64_t pitch;
  T* to;
};

// What the packing kernels read: pixel runs of one image under the units [unit_begin, unit_end) of
// the accumulation order. Unit u is block u / taps of kChannelBlock channels under tap u % taps;
// its channels are consecutive k.
template <class T>
struct PackArgs {
  const T* image;  // first channel of the group
  Strides strides;
  std::int64_t channels;  // of the group
  AxisTaps axes[kSpatialAxes];
  PaddingMode padding_mode;
  const PixelRun* runs;
  std::int64_t run_count;
  std::int64_t unit_begin;
  std::int64_t unit_end;
  T* panel;
};

// What lanes of pixels need beside. The spans of vector v under width tap t are
//     spans[t * span_stride + (v ? ends[t * vectors + v - 1] : 0)]  to  ends[t * vectors + v]
// and with `one_tap` the only list is that of the units' width tap.
struct ColumnArgs {
  const PixelSpan* spans;
  std::int64_t span_stride;
  const std::int32_t* ends;
  bool one_tap;
  std::int32_t step;                   // elements between lanes
  std::int64_t vectors;                // ceil(pixels / lanes)
  const std::int32_t* column_vectors;  // vectors of each column panel
  std::int64_t column_count;
  std::int64_t depth;    // k of the panel
  std::int64_t k_begin;  // first k to fill
  const void** rows;     // scratch: one pointer per run
};

// Splits rows into panels of panel_vectors[i] vectors each, in which rows follow each other: a
// row's part of a panel is row first + r of `pitch` rows, panels follow each other. Row r is from[r
// * row_stride] on, `count` elements; the panels end with the vector of the last one, whose other
// lanes are zeros.
template <class T>
struct SplitRowsArgs {
  const T* from;
  std::int64_t row_stride;
  std::int64_t rows;
  std::int64_t count;
  const std::int32_t* panel_vectors;
  std::int64_t panel_count;
  std::int64_t first;
  std::int64_t pitch;
  T* to;
};

// One row-by-column block of finished sums on its way to the output:
//     out(i, j) = activation((acc[i][j] + bias(i, j)) + residual(i, j))
// where X(i, j) is X[i * X_row + j * X_column]. bias and residual may be null (no addition).
template <class T>
struct EpilogueArgs {
  std::int64_t rows;
  std::int64_t columns;
  const T* acc;
  std::int64_t acc_row;
  const T* bias;
  std::int64_t bias_row;
  std::int64_t bias_column;
  const T* residual;
  std::int64_t residual_row;
  std::int64_t residual_column;
  T* out;
  std::int64_t out_row;
  std::int64_t out_column;
  Activation activation;
};

// Depthwise kernels exist for square kernels of some sizes, at equal steps of rows and columns
// (that of 2 for undilated columns alone), and for any (0) at column stride 1.
struct DepthwiseShape {
  int size;
  int step;
};
inline constexpr DepthwiseShape kDepthwiseShapes[] = {{0, 1}, {3, 1}, {4, 1}, {5, 1}, {6, 1},
                                                      {7, 1}, {3, 2}, {4, 2}, {5, 2}};
inline constexpr int kDepthwiseShapeCount = sizeof(kDepthwiseShapes) / sizeof(DepthwiseShape);

// Output rows of a tile. 7 divides the heights 7, 14, 28, 56, 112, 224 of most networks.
inline constexpr int kDepthwiseRows[] = {1, 2, 4, 7};
inline constexpr int kDepthwiseRowCounts = sizeof(kDepthwiseRows) / sizeof(int);
inline constexpr int kMaxDepthwiseRows = kDepthwiseRows[kDepthwiseRowCounts - 1];

// out(r, j) = min(high, max(low, (sum(r, j) + bias) + residual(r, j))) for r < rows, where X(r, j)
// is X[r * X_row + j]. No bias is -0, no bound is infinite, residual may be null (no addition).
template <class T>
struct DepthwiseEnd {
  std::int64_t rows;
  T bias;
  T low;
  T high;
  const T* residual;
  std::int64_t residual_row;
  T* out;
  std::int64_t out_row;
};

// kDepthwiseRows[n] output rows of one channel, of which the first end.rows are wanted. For columns
// j in [0, columns), one chain over d, h, w:
//     sum(r, j) = fma(weights[d][h][w],
//                     rows[d * row_pitch + r * row_step + h][j * stride + shifts[w]], sum)
// that starts at +0, with the column stride of the kernel's shape, where elements outside [first,
// last) of a row count as +0 and are not read. A vector that needs no mask may read any element of
// [first, last).
template <class T>
struct DepthwiseArgs {
  const T* const* rows;
  std::int64_t row_pitch;
  std::int64_t row_step;
  std::int64_t kernel[kSpatialAxes];
  const std::int64_t* shifts;
  std::int64_t first;
  std::int64_t last;
  const T* weights;
  std::int64_t columns;
  DepthwiseEnd<T> end;
};

// Planes that are read where they are by square kernels of these sizes and strides, or with the
// taps of a row apart (d). Rows a dilation apart are a plane of their own.
enum class DepthwisePlaneShape : std::uint8_t { k3, k4, k5, k7, k3s2, k4s2, k5s2, k7s2, k3d, k5d };
inline constexpr int kDepthwisePlaneShapes = static_cast<int>(DepthwisePlaneShape::k5d) + 1;

// A depth tap that meets the input: its plane and its weights, of the first channel.
template <class T>
struct DepthwisePlane {
  const T* x;
  const T* weights;
};

// Rows of a plane that are as far apart as the taps of a column, as a plane of their own: where its
// input, outputs and residual begin, in elements from those of the plane.
struct DepthwisePhase {
  std::int64_t x;
  std::int64_t out;
  std::int64_t residual;
  std::int64_t in_rows;
  std::int64_t pad_row;  // negative where the first output meets a later row
  std::int64_t rows;     // of outputs
};

// The outputs of each of some channels, which are x_channel, weights_channel and so on apart, in
// columns [column, column + columns) of each phase; each output is one chain over the planes and
// the taps of the kernel in row-major order:
//     sum(r, j) = fma(plane.weights[h][w], X[r * stride + h - pad_row][j * stride +
//     w * tap_step - pad_column], sum(r, j)), where X begins at plane.x + phase.x,
// for r < rows and columns j of the whole plane, without the taps outside the phase's in_rows and
// with +0 outside in_columns. No phase has more rows than the first, nor over one fewer; k7, k4s2,
// k5s2 and k7s2 have a single plane. `end.out` and `end.residual` are those of the first output,
// end.rows does not count; `biases` has one per channel in place of end.bias, unless it is null.
// May ask for cache lines `ahead` elements after those that it reads.
template <class T>
struct DepthwisePlaneArgs {
  const DepthwisePlane<T>* planes;
  std::int64_t plane_count;
  const DepthwisePhase* phases;
  std::int64_t phase_count;
  std::int64_t x_row;  // stride, of a phase
  std::int64_t in_columns;
  std::int64_t pad_column;
  std::int64_t tap_step;  // 1 but for k3d and k5d
  std::int64_t column;
  std::int64_t columns;
  std::int64_t ahead;
  DepthwiseEnd<T> end;
  std::int64_t channels;
  std::int64_t x_channel;
  std::int64_t weights_channel;
  std::int64_t out_channel;
  std::int64_t residual_channel;
  const T* biases;
};

// Where sums go whose lanes are channels that are next to each other, for row r, column p, channel
// c:
//     out(r, p, c) = min(high, max(low, (sum(r, p, c) + bias[c]) + residual(r, p, c)))
// where X(r, p, c) is X[r * X_row + p * X_column + c]. bias and residual may be null.
template <class T>
struct ChannelsEnd {
  const T* bias;
  T low;
  T high;
  const T* residual;
  std::int64_t residual_row;
  std::int64_t residual_column;
  T* out;
  std::int64_t out_row;
  std::int64_t out_column;
};

// Tiles of output pixels where channels are next to each other, at most kMaxDepthwiseChannelRows x
// kDepthwiseColumns each. With one table row of width = (kDepthwiseColumns - 1) * column_step +
// kernel[2] pixels per input row, and height = (tile rows - 1) * row_step + kernel[1] input rows
// per depth, for channels c in [0, channels) one chain over d, h, w from +0:
//     sum(r, p, c) = fma(W(c, d, h, w), pixels[(d * height + r * row_step + h) * width +
//                                              p * column_step + w][c], sum(r, p, c))
// which ends as `end` says for r < rows, p < columns. If `spread` is not null, channels of the
// output have fewer of the input under them: the vector of channels from c on finds those of its
// lanes at pixels[...][in_begins[c / lanes] + spread[c + lane]], of in_channels that may be read.
// W(c, tap) is weights[(c / lanes * taps + tap) * lanes + c % lanes]. The same for `tiles` of
// kDepthwiseColumns columns in a row, each of which finds its pixels `tile_step` elements behind
// those of the one before.
template <class T>
struct DepthwiseChannelsArgs {
  const T* const* pixels;
  const std::int32_t* spread;
  const std::int64_t* in_begins;
  std::int64_t in_channels;
  std::int64_t tiles;
  std::int64_t tile_step;
  std::int64_t row_step;
  std::int64_t column_step;
  std::int64_t kernel[kSpatialAxes];
  const T* weights;
  std::int64_t channels;
  std::int64_t rows;
  std::int64_t columns;
  ChannelsEnd<T> end;
};

inline constexpr int kMaxDepthwiseChannelRows = 2;
inline constexpr int kDepthwiseColumns = 4;

// Kernels whose lanes are output channels of several groups. How a lane meets the input channels of
// its group: all groups have one channel and one output, groups share the vector, or one group has
// all lanes.
enum class GroupedSpread : std::uint8_t { same, permuted, broadcast };
inline constexpr int kGroupedSpreads = 3;

// Widths of the kernel, at steps of the columns, and channels per group, of the input and of the
// output alike, that kernels know.
struct GroupedShape {
  int channels;
  int size;
  int step;
};
inline constexpr GroupedShape kGroupedShapes[] = {
    {1, 3, 1}, {1, 4, 1}, {1, 5, 1}, {1, 6, 1}, {1, 7, 1}, {1, 3, 2}, {1, 4, 2}, {1, 5, 2},
    {2, 3, 1}, {2, 3, 2}, {3, 3, 1}, {3, 3, 2}, {4, 3, 1}, {4, 3, 2}, {8, 3, 1}, {8, 3, 2},
};
inline constexpr int kGroupedShapeCount = sizeof(kGroupedShapes) / sizeof(GroupedShape);

inline constexpr int kMostGroupedColumns = 14;

// One row of the kernel: its number, and where the input row under it stands in a table of pixels.
struct TapRow {
  std::int32_t offset;
  std::int32_t tap;
};

// Tiles of `columns` output columns in `rows` output rows, one vector of output channels. Row r has
// the units unit_ends[r - 1] (first_unit for r = 0) to unit_ends[r], and for p < columns one chain
//     sum(r, p) = fma(weights[((unit.tap * size + w) * channels + i) * lanes + lane],
//                     pixels[unit.offset + p * column_step + w * tap_step][X(i, lane)], sum(r, p))
// over unit, w, i that starts at +0, where X is channel + lane (same), channel + spread[i * lanes +
// lane] (permuted) or channel + i (broadcast). May read whole vectors. Ends as `end` says for
// lane < lanes. Tiles of copies have groups of one channel, and instead of the pixels at an offset
//     copy[unit.offset + (p * column_step + w * tap_step) * lanes + lane]
template <class T>
struct GroupedArgs {
  const T* const* pixels;
  const T* copy;
  std::int64_t channel;
  const TapRow* units;
  const std::int32_t* unit_ends;
  std::int32_t first_unit;
  std::int64_t rows;
  std::int64_t size;
  std::int64_t channels;
  std::int64_t tap_step;
  std::int64_t column_step;
  const T* weights;
  const std::int32_t* spread;
  std::int64_t lanes;
  ChannelsEnd<T> end;
};

template <class T>
using GroupedTile = void (*)(const GroupedArgs<T>& args);

// Tiles of copies know the column steps up to this one; index 0 is for any.
inline constexpr int kGroupedCopyStep = 2;

// Winograd F(m, r) with m + r - 1 = 6, along both axes or along one of them: a tile of 6 x 6, 1 x 6
// or 6 x 1 input pixels becomes as many points, which are multiplied and summed over input channels
// each by itself, and then become m x m, 1 x m or m x 1 output pixels.
inline constexpr int kWinogradIn = 6;
inline constexpr int kMostWinogradPoints = kWinogradIn * kWinogradIn;
inline constexpr int kFewestWinogradOuts = 2;  // m
inline constexpr int kMostWinogradOuts = 4;

// Of an axis with m outputs in a tile; 1 where it is not transformed.
constexpr int winograd_taps(int outs) { return outs == 1 ? 1 : kWinogradIn + 1 - outs; }
constexpr int winograd_points(int outs) { return outs == 1 ? 1 : kWinogradIn; }

// In between, pixels are vectors of channels in a strip of kWinogradIn rows: 12 KiB, which stay in
// L1.
inline constexpr int kWinogradStripRow = 32;  // pixels
inline constexpr int kWinogradStrip = kWinogradIn * kWinogradStripRow;

// At most this many neighbouring tiles of one tile row are transformed at once, those that a strip
// holds: 7 tiles of 4 x 4 are 30 input and 28 output pixels, which fill two vectors of 16 best.
constexpr int winograd_segment(int outs) {
  return (kWinogradStripRow - winograd_taps(outs) + 1) / outs;
}

// How many channels of weights all tiles of a block meet before the next: 64 x 64 weights of a
// tile of 4 vectors are 16 KiB of an L1. Whole chains.
inline constexpr std::int64_t kWinogradDepth = 64;

// Input channels are summed in blocks: a chain of fused multiply-adds over each of these, and block
// sums added in order. Of 2048 channels the error is then a fraction of that with one chain. Few
// channels, of which direct float32 has a small error itself, need shorter chains: the sums' own
// rounding is more than half of the variance. Long ones send sums to memory less often: those of 32
// and 16 channels in place of 64 take 3 and 9 % longer on a Zen 4.
constexpr std::int64_t winograd_chain(std::int64_t channels) {
  std::int64_t chain = 8;
  while (3 * chain <= channels && chain < kWinogradDepth) chain *= 2;
  return chain;
}

inline constexpr int kMaxWinogradRows = 12;
inline constexpr int kMaxWinogradVectors = 4;

// For each block of `chain` k in [0, depth), the last one perhaps shorter, in this order:
//     sum = +0;  for k in block:  sum = fma(A(i, k), b[k * width + j], sum)
//     c[i * width + j] = accumulate or not the first block ? c[i * width + j] + sum : sum
// for i < rows and j < width = vectors * lanes, where
// A(i, k) = a[k / lanes * a_block + i * lanes + k % lanes]. Prefetches `depth` cache lines from
// `ahead`, which need not be readable.
template <class T>
using WinogradTile = void (*)(std::int64_t depth, std::int64_t chain, const T* a,
                              std::int64_t a_block, const T* b, T* c, bool accumulate,
                              const T* ahead);

// The last tile of an axis may have fewer outputs, `left` of them. It needs the first left + r - 1
// points only: what lies behind its last output is chosen so that it is zero at the others.
constexpr std::int64_t winograd_points_met(int outs, std::int64_t left) {
  return left < outs ? left + winograd_taps(outs) - 1 : winograd_points(outs);
}

// One spatial axis of the input: output o of tile t meets the input at m * t + o + tap - pad.
struct WinogradAxis {
  std::int64_t in;
  std::int64_t pad;
  std::int64_t end;  // of the positions, counted from the input's first, that outputs look at
};

// Where some neighbouring tiles of one tile row are at each point, among those of a block: the
// first one, which the others follow, and the last one, which is apart where it has fewer points.
struct WinogradSlots {
  std::int64_t met_rows;     // of points, by all of the tiles
  std::int64_t met_columns;  // by the last one
  std::int64_t first[kMostWinogradPoints];
  std::int64_t last[kMostWinogradPoints];
};

// Transforms the input of `tiles` neighbouring tiles of one tile row, some channels of a group:
//
//   points[p * point_stride + (block * tiles_in_block + slot) * lanes + lane]
//
// for channel block * lanes + lane; lanes past the last channel are zero.
template <class T>
struct WinogradInputArgs {
  const T* image;  // of the first channel
  Strides strides;
  std::int64_t channels;
  WinogradAxis height;
  WinogradAxis width;
  PaddingMode padding_mode;
  std::int64_t tile_row;
  std::int64_t tile_column;  // of the first tile
  std::int64_t tiles;        // at most winograd_segment(m)
  const WinogradSlots* slots;
  T* points;
  std::int64_t point_stride;
  std::int64_t tiles_in_block;
  T* strip;  // scratch: kWinogradStrip vectors
};

// The inverse: `channels` output channels of `tiles` neighbouring tiles of one tile row, from
// sums[p * point_stride + slot * width + channel], through the epilogue to the output.
template <class T>
struct WinogradOutputArgs {
  const T* sums;
  const WinogradSlots* slots;
  std::int64_t point_stride;
  std::int64_t width;
  std::int64_t channels;
  std::int64_t tiles;    // at most winograd_segment(m)
  std::int64_t rows;     // output rows of the tiles that exist, 1 to m
  std::int64_t columns;  // output columns of all tiles together that exist
  const T* bias;         // or null
  const T* residual;     // or null; at the first output pixel of the first tile and channel
  Strides residual_strides;
  T* out;  // likewise
  Strides out_strides;
  Activation activation;
  T* strip;  // scratch: kWinogradStrip vectors
};

// Points of the weights of one input channel and `lanes` output channels, computed in double:
//
//   to[offsets[p] + lane] from the weights at from[row * row_stride + column * column_stride +
//   lane]
//
// for rows, columns <= r; the missing ones are zeros. Points of negative offsets are left out.
// With past_caches, vectors of a cache line go to memory, and no cache has to read the lines
// before: `to` and the offsets are then those of whole lines, and another thread needs a fence to
// read them.
template <class T>
struct WinogradWeightsArgs {
  const T* from;
  std::int64_t row_stride;
  std::int64_t column_stride;
  std::int64_t rows;
  std::int64_t columns;
  const std::int64_t* offsets;
  T* to;
  bool past_caches;
};

template <class T>
struct WinogradTransforms {
  void (*input)(const WinogradInputArgs<T>&);
  void (*output)(const WinogradOutputArgs<T>&);
  void (*weights)(const WinogradWeightsArgs<T>&);
};

template <class T>
struct KernelTable {
  std::int64_t lanes;
  std::int64_t tile_rows;     // largest rows of a tile
  std::int64_t tile_vectors;  // largest vectors of a tile, both of GEMM

  // [rows - 1][vectors - 1]
  GemmTile<T> gemm_interleaved[kMaxTileRows][kMaxTileVectors];
  GemmTile<T> gemm_row_major[kMaxTileRows][kMaxTileVectors];

  // [rows - 1][vectors - 1], and the largest vectors for [rows - 1].
  DirectTile<T> direct[kMaxTileRows][kMaxDirectVectors];
  std::int64_t direct_vectors[kMaxTileRows];
  void (*pad_plane)(const PadPlaneArgs<T>&);

  // [low][rows - 1][vectors - 1], and the largest rows for [vectors - 1]. With low, sums of the
  // upper half of the last vector are not wanted, and may be anything.
  ChannelsTile<T> channels_tile[2][kMaxTileRows][kMaxChannelsVectors];
  WindowTile<T> window_tile[2][kMaxTileRows][kMaxChannelsVectors];
  std::int64_t channels_rows[kMaxChannelsVectors];
  std::int64_t channels_vectors;  // the largest
  void (*pixel_row)(const PixelRowArgs<T>&);

  // Pixels become lanes: [column panel][k][width], k from k_begin, lanes without a pixel are zero.
  void (*pack_pixel_columns)(const PackArgs<T>&, const ColumnArgs&);

  // Pixels become rows: panel[pixel * kRowStride + k].
  void (*pack_pixel_rows)(const PackArgs<T>&);

  void (*split_rows)(const SplitRowsArgs<T>&);

  void (*transpose)(const TransposeArgs<T>&);

  void (*epilogue)(const EpilogueArgs<T>&);

  // [shape][n] for tiles of kDepthwiseRows[n] rows
  void (*depthwise_pixels[kDepthwiseShapeCount][kDepthwiseRowCounts])(const DepthwiseArgs<T>&);

  // [shape], or null where registers are too few or pixels of a stride cannot be told apart
  void (*depthwise_plane[kDepthwisePlaneShapes])(const DepthwisePlaneArgs<T>&);
  // Whether strips of columns go down these planes where they are single and wider than a vector,
  // not tiles along their rows.
  bool planes_roll[kDepthwisePlaneShapes];

  // [shape][tile rows - 1]
  void (*depthwise_channels[kDepthwiseShapeCount][kMaxDepthwiseChannelRows])(
      const DepthwiseChannelsArgs<T>&);

  // Most columns of a tile of listed pixels; [shape][columns - 1], null where they are few or, with
  // few registers, the shape is for tiles of copies, and for any shape [spread][columns - 1]; and
  // tiles of copies of up to kMostGroupedColumns, [step][columns - 1].
  std::int64_t grouped_columns;
  GroupedTile<T> grouped[kGroupedShapeCount][kMostGroupedColumns];
  GroupedTile<T> grouped_any[kGroupedSpreads][kMostGroupedColumns];
  GroupedTile<T> grouped_copy[kGroupedCopyStep + 1][kMostGroupedColumns];

  // to[i] = from[i * step] for i < count; reads nothing else.
  void (*copy_strided)(std::int64_t count, const T* from, std::int64_t step, T* to);

  std::int64_t winograd_vectors;                    // largest vectors of a Winograd tile
  std::int64_t winograd_rows[kMaxWinogradVectors];  // largest rows, [vectors - 1]
  // [low][rows - 1][vectors - 1]
  WinogradTile<T> winograd_tile[2][kMaxWinogradRows][kMaxWinogradVectors];

  // [m of the rows][m of the columns], where not null
  WinogradTransforms<T> winograd[kMostWinogradOuts + 1][kMostWinogradOuts + 1];

  // Runs `steps` times 2 * lanes * kProbeChains floating-point operations, in registers only.
  void (*fma_probe)(std::int64_t steps, T* sink);
};

inline constexpr int kProbeChains = 12;

struct Isa {
  const char* name;
  bool (*supported)();
  const KernelTable<float>* float32;
  const KernelTable<double>* float64;
};

// Best first; the last one runs on any x86-64.
extern const Isa kIsas[];
extern const int kIsaCount;

// The instruction set in use: the best supported one until select_isa names another.
const Isa& current_isa();
void select_isa(const Isa& isa);

template <class T>
const KernelTable<T>& kernels();

}  // namespace pyconv
