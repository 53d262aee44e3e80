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

inline constexpr int kMaxTileRows = 14;
inline constexpr int kMaxTileVectors = 3;

// c[i][j] = (accumulate ? c[i][j] : +0), then for k in [0, depth) in this order:
//     c[i][j] = fma(A(i, k), b[k * width + j], c[i][j])
// for i < rows and j < width = vectors * lanes; rows of c are `c_stride` elements apart.
// A(i, k) is a[k * rows + i] (interleaved) or a[i * kRowStride + k] (row-major).
template <class T>
using GemmTile = void (*)(std::int64_t depth, const T* a, const T* b, T* c, std::int64_t c_stride,
                          bool accumulate);

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
  std::int64_t pixels;  // sum of the runs' counts
  std::int64_t unit_begin;
  std::int64_t unit_end;
  T* panel;
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

// Winograd F(4x4, 3x3): a tile of 6 x 6 input pixels becomes 36 points, which are multiplied and
// summed over input channels each by itself, and then become 4 x 4 output pixels.
inline constexpr int kWinogradIn = 6;
inline constexpr int kWinogradOut = 4;
inline constexpr int kWinogradPoints = kWinogradIn * kWinogradIn;

// At most this many neighbouring tiles of one tile row are transformed at once: 7 tiles are 30
// input and 28 output pixels, which fill two vectors of 16 (four of 8) best. In between, pixels are
// vectors of channels in a strip of kWinogradIn rows: 12 KiB, which stay in L1.
inline constexpr int kWinogradSegment = 7;
inline constexpr int kWinogradStripRow = 32;  // pixels
inline constexpr int kWinogradStrip = kWinogradIn * kWinogradStripRow;

// Input channels are summed in blocks: a chain of fused multiply-adds over each kWinogradChain of
// them, and block sums added in order. Of 32 channels the largest error is then at most 3.4 times
// that of direct float32, against 4.0 with one chain, and of 2048 channels a quarter of it.
inline constexpr std::int64_t kWinogradChain = 16;

// How many channels of weights all tiles of a block meet before the next: 32 x 64 weights of a
// tile of 4 vectors are 8 KiB of an L1, and twice that is 2 % slower. A multiple of kWinogradChain.
inline constexpr std::int64_t kWinogradDepth = 32;

inline constexpr int kMaxWinogradRows = 12;
inline constexpr int kMaxWinogradVectors = 4;

// For each block of kWinogradChain k in [0, depth), the last one perhaps shorter, in this order:
//     sum = +0;  for k in block:  sum = fma(A(i, k), b[k * width + j], sum)
//     c[i * width + j] = accumulate or not the first block ? c[i * width + j] + sum : sum
// for i < rows and j < width = vectors * lanes, where
// A(i, k) = a[k / lanes * a_block + i * lanes + k % lanes]. Prefetches `depth` cache lines from
// `ahead`, which need not be readable.
template <class T>
using WinogradTile = void (*)(std::int64_t depth, const T* a, std::int64_t a_block, const T* b,
                              T* c, bool accumulate, const T* ahead);

// One spatial axis of the input: output o of tile t meets the input at 4 * t + o + tap - pad.
struct WinogradAxis {
  std::int64_t in;
  std::int64_t out;
  std::int64_t pad;
};

// Transforms the input of `tiles` neighbouring tiles of one tile row, all channels of a group:
//
//   points[p * point_stride + (block * tiles_in_block + tile) * lanes + lane]
//
// for channel block * lanes + lane; lanes past the last channel are zero.
template <class T>
struct WinogradInputArgs {
  const T* image;  // first channel of the group
  Strides strides;
  std::int64_t channels;
  WinogradAxis height;
  WinogradAxis width;
  PaddingMode padding_mode;
  std::int64_t tile_row;
  std::int64_t tile_column;  // of the first tile
  std::int64_t tiles;        // at most kWinogradSegment
  T* points;                 // of the first tile
  std::int64_t point_stride;
  std::int64_t tiles_in_block;
  T* strip;  // scratch: kWinogradStrip vectors
};

// The inverse: `channels` output channels of `tiles` neighbouring tiles of one tile row, from
// sums[p * point_stride + tile * width + channel], through the epilogue to the output.
template <class T>
struct WinogradOutputArgs {
  const T* sums;  // of the first tile
  std::int64_t point_stride;
  std::int64_t width;
  std::int64_t channels;
  std::int64_t tiles;    // at most kWinogradSegment
  std::int64_t rows;     // output rows of the tiles that exist, 1 to kWinogradOut
  std::int64_t columns;  // output columns of all tiles together that exist
  const T* bias;         // or null
  const T* residual;     // or null; at the first output pixel of the first tile and channel
  Strides residual_strides;
  T* out;  // likewise
  Strides out_strides;
  Activation activation;
  T* strip;  // scratch: kWinogradStrip vectors
};

template <class T>
struct KernelTable {
  std::int64_t lanes;
  std::int64_t tile_rows;     // largest rows of a tile
  std::int64_t tile_vectors;  // largest vectors of a tile

  // [rows - 1][vectors - 1]
  GemmTile<T> gemm_interleaved[kMaxTileRows][kMaxTileVectors];
  GemmTile<T> gemm_row_major[kMaxTileRows][kMaxTileVectors];

  // Pixels become lanes. The panel is cut into column panels as Split::by_limit(vectors,
  // tile_vectors) cuts ceil(pixels / lanes) vectors; each is [k][width], lanes past the last pixel
  // are zero. `column_vectors` holds the vectors of each column panel.
  void (*pack_pixel_columns)(const PackArgs<T>&, const std::int32_t* column_vectors);

  // Pixels become rows: panel[pixel * kRowStride + k].
  void (*pack_pixel_rows)(const PackArgs<T>&);

  void (*epilogue)(const EpilogueArgs<T>&);

  std::int64_t winograd_vectors;                    // largest vectors of a Winograd tile
  std::int64_t winograd_rows[kMaxWinogradVectors];  // largest rows, [vectors - 1]
  WinogradTile<T> winograd_tile[kMaxWinogradRows][kMaxWinogradVectors];  // [rows - 1][vectors - 1]
  void (*winograd_input)(const WinogradInputArgs<T>&);
  void (*winograd_output)(const WinogradOutputArgs<T>&);

  // 36 points of the weights of one input channel and `count` <= lanes output channels, computed in
  // double: to[p * point_stride + i] from the 3 x 3 weights at from[i * out_stride], whose rows and
  // columns are `row_stride` and `column_stride` apart. Lanes past `count` are zero.
  void (*winograd_weights)(const T* from, std::int64_t out_stride, std::int64_t row_stride,
                           std::int64_t column_stride, int count, T* to, std::int64_t point_stride);

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
