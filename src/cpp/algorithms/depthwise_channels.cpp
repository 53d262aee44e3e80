// Depthwise convolution where the lanes are output channels, which are next to each other in
// memory, as those of the input are. Where an input channel has several outputs, vectors of pixels
// are spread over the lanes when they are loaded.
//
// A tile is up to two rows of four output pixels. Its kernel reads the input through a table of
// pixel pointers, in which padding is a pointer to zeros and any stride or dilation is just another
// pointer, and goes through all channels of a chunk. Away from padding, one table serves all tiles
// of a row. Weights are packed
//
//     [vector of channels][tap][lane]
//
// Where pixels under a tile share a few sets of the L1 cache, as those of 512 channels do, they
// would throw each other out: blocks of rows are copied to scratch first, some channels at a time,
// with a gap behind each pixel.
#include <algorithm>
#include <vector>

#include "algorithms/common.hpp"
#include "algorithms/depthwise.hpp"
#include "algorithms/output.hpp"
#include "core/padding.hpp"
#include "core/parallel.hpp"
#include "core/partition.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

constexpr std::int64_t kColumns = 128;           // of a task
constexpr std::int64_t kWeightBytes = 16 << 10;  // of a chunk of channels: half of the smallest L1
constexpr std::int64_t kLeastVectors = 4;        // of a chunk: the table is built once for all

constexpr std::int64_t kMostCopiedVectors = 8;  // of channels
constexpr std::int64_t kFewestCopiedVectors = 4;
constexpr std::int64_t kCopyBytes = 256 << 10;      // of a block of rows
constexpr std::int64_t kMostCopiedBytes = 8 << 20;  // of the input: from memory, copies cost more

template <class T>
class DepthwiseChannelsPlan final : public RowsPlan {
 public:
  explicit DepthwiseChannelsPlan(ConvProblem problem_in)
      : RowsPlan(std::move(problem_in)), table_(kernels<T>()) {
    const ConvProblem& p = problem();
    for (int i = 0; i < 2; ++i) {
      const Axis& axis = p.axes[static_cast<std::size_t>(1 + i)];
      tile_[i] = TileAxis(axis);
      step_[i] = std::min(tile_[i].step, axis.kernel);
    }
    shape_ = depthwise_shape(p, step_[0], step_[1]);
    columns_ = Split::by_limit(p.axes[2].out, kColumns);
    const std::int64_t vector_bytes =
        p.taps() * table_.lanes * static_cast<std::int64_t>(sizeof(T));
    chunk_ = table_.lanes * std::max(kLeastVectors, kWeightBytes / vector_bytes);
    chunk_ = std::min(chunk_, round_up(p.out_channels, table_.lanes));
    const std::int64_t rows = p.axes[1].out;
    rows_ = std::min(rows, kMaxDepthwiseChannelRows * std::min(rows, tile_[0].spacing));
    choose_copies();
    if (p.out_channels != p.in_channels) list_spreads();
  }

  std::string name() const override { return "depthwise"; }
  std::string packing() const override { return "depthwise/channels"; }

  std::size_t packed_bytes() const override {
    return static_cast<std::size_t>(round_up(problem().out_channels, table_.lanes) *
                                    problem().taps()) *
           sizeof(T);
  }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    const ConvProblem& p = problem();
    T* to = static_cast<T*>(packed);
    std::size_t group = 0;
    for (std::int64_t out = 0; out < p.out_channels; out += table_.lanes) {
      while (out >= p.groups[group].out_begin + p.groups[group].out_channels) ++group;
      pack_lanes(p, weights, group, out, std::min(table_.lanes, p.out_channels - out), 1, table_,
                 to + out * p.taps());
    }
  }

  int useful_threads(int limit) const override { return depthwise_threads(problem(), limit); }

  std::size_t workspace_bytes(int threads) const override {
    return zeros_bytes() + static_cast<std::size_t>(threads) * carve(nullptr).bytes;
  }

  // Of arrays that are not aligned: others may not be copied.
  std::string partition(int threads) const override {
    return partition_of(blocking(threads, copied_rows_ > 0)).text();
  }

  std::string tile() const override {
    return std::to_string(kMaxDepthwiseChannelRows) + " x " + std::to_string(kDepthwiseColumns) +
           " pixels x " + std::to_string(table_.lanes) + " channels";
  }

  std::string reason() const override { return "one input channel per group, lanes are channels"; }

  void run(const ConvArrays& arrays, int threads) const override {
    const Workspace workspace(workspace_bytes(threads));
    const T* const zeros = fill_zeros(workspace.get());
    std::byte* const scratch = after_zeros(workspace.get());
    const std::size_t bytes = carve(nullptr).bytes;

    const bool copies = copies_input(arrays);
    const Blocks blocks = blocking(threads, copies);
    const auto partition = partition_of(blocks);
    parallel_for(partition.tasks(), threads, [&](std::int64_t index, int thread) {
      const auto [image, depth, row, column, channel] = partition.at(index);
      Task task(carve(scratch + static_cast<std::size_t>(thread) * bytes));
      task.zeros = zeros;
      task.copies = copies;
      task.image = image;
      task.depth = depth;
      task.row_begin = blocks.rows.begin(row);
      task.row_end = blocks.rows.end(row);
      task.column_begin = blocks.columns.begin(column);
      task.column_end = blocks.columns.end(column);
      set_channels(task, blocks.vectors, channel);
      run_task(arrays, task);
    });
  }

  std::size_t rows_workspace_bytes() const override { return workspace_bytes(1); }

  void run_rows(const ConvArrays& arrays, std::int64_t begin, std::int64_t end,
                void* workspace) const override {
    Task task(carve(after_zeros(workspace)));
    task.zeros = fill_zeros(workspace);
    task.copies = copies_input(arrays);
    task.image = task.depth = 0;
    const Split rows = Split::by_limit(end - begin, task.copies ? copied_rows_ : rows_);
    const Split vectors = channel_vectors(task.copies);
    for (std::int64_t row = 0; row < rows.count(); ++row) {
      task.row_begin = begin + rows.begin(row);
      task.row_end = begin + rows.end(row);
      for (std::int64_t column = 0; column < columns_.count(); ++column) {
        task.column_begin = columns_.begin(column);
        task.column_end = columns_.end(column);
        for (std::int64_t channel = 0; channel < vectors.count(); ++channel) {
          set_channels(task, vectors, channel);
          run_task(arrays, task);
        }
      }
    }
  }

 private:
  // How the work is cut, which depends on the number of threads; the results do not.
  struct Blocks {
    Split rows;
    Split columns;
    Split vectors;  // of channels
  };

  // Input positions of an axis.
  struct Scratch {
    std::int64_t* row_offsets;  // of the tile's input rows, all depths
    std::int64_t* column_offsets;
    const T** pixels;  // the kernel's table
    T* sums;
    T* copy;
    std::size_t bytes;
  };

  struct Task : Scratch {
    explicit Task(const Scratch& scratch) : Scratch(scratch) {}
    const T* zeros;
    bool copies;
    std::int64_t image, depth, row_begin, row_end, column_begin, column_end, channel_begin,
        channel_end;
    std::int64_t row, rows;  // of a tile
    // What it reads: the image, or a copy that begins `origin` elements into one of these strides.
    const T* x;
    std::int64_t origin;
    Strides strides;
  };

  // Rows of tiles within [begin, end), of one spacing phase each; some may be empty.
  struct RowTiles {
    std::int64_t begin, end, spacing, tiles;

    std::int64_t count() const { return std::min(spacing, end - begin) * tiles; }
    void find(std::int64_t index, std::int64_t& row, std::int64_t& rows) const {
      row = begin + index / tiles + index % tiles * kMaxDepthwiseChannelRows * spacing;
      rows = std::clamp<std::int64_t>(ceil_div(end - row, spacing), 0, kMaxDepthwiseChannelRows);
    }
  };

  RowTiles row_tiles(std::int64_t begin, std::int64_t end) const {
    const std::int64_t spacing = tile_[0].spacing;
    const std::int64_t of_phase = ceil_div(end - begin, std::min(spacing, end - begin));
    return {begin, end, spacing, ceil_div(of_phase, std::int64_t(kMaxDepthwiseChannelRows))};
  }

  // Of a task's channels: all, or those that are copied together.
  Split channel_vectors(bool copies) const {
    const std::int64_t vectors = ceil_div(problem().out_channels, table_.lanes);
    return Split::by_limit(vectors, copies ? copied_vectors_ : vectors);
  }

  void set_channels(Task& task, const Split& vectors, std::int64_t part) const {
    task.channel_begin = vectors.begin(part) * table_.lanes;
    task.channel_end = std::min(vectors.end(part) * table_.lanes, problem().out_channels);
  }

  Blocks blocking(int threads, bool copies) const {
    const ConvProblem& p = problem();
    Blocks blocks{{}, columns_, channel_vectors(copies)};
    const std::int64_t others =
        p.batch * p.axes[0].out * blocks.columns.count() * blocks.vectors.count();
    const std::int64_t rows = even_blocks(ceil_div(p.axes[1].out, copies ? copied_rows_ : rows_),
                                          others, p.axes[1].out, threads);
    blocks.rows = Split::by_count(p.axes[1].out, rows);
    if (others * rows < threads) {
      blocks.columns =
          Split::by_count(p.axes[2].out, std::min<std::int64_t>(p.axes[2].out, threads));
    }
    return blocks;
  }

  Partition<5> partition_of(const Blocks& blocks) const {
    return Partition({{"images", problem().batch},
                      {"planes", problem().axes[0].out},
                      {"blocks of rows", blocks.rows.count()},
                      {"blocks of columns", blocks.columns.count()},
                      {"blocks of channels", blocks.vectors.count()}});
  }

  // Copied pixels have a vector's gap behind them, so that they stand in all sets of the cache.
  std::int64_t copy_pitch() const { return (copied_vectors_ + 1) * table_.lanes; }

  std::int64_t copy_bytes(std::int64_t rows) const {
    std::int64_t pixels = 1;
    const std::int64_t outputs[] = {1, rows, columns_.largest()};
    for (std::size_t i = 0; i < 3; ++i) {
      const Axis& axis = problem().axes[i];
      pixels *= std::min(axis.in, axis.span(outputs[i]));
    }
    return pixels * copy_pitch() * static_cast<std::int64_t>(sizeof(T));
  }

  // How many output rows and channels the input is copied for together.
  void choose_copies() {
    const ConvProblem& p = problem();
    if (p.padding_mode != PaddingMode::zeros || p.out_channels != p.in_channels) return;
    for (const Axis& axis : p.axes) {
      if (axis.stride > axis.kernel) return;
    }
    const std::int64_t pixels = p.axes[0].in * p.axes[1].in * p.axes[2].in;
    if (pixels * p.in_channels * std::int64_t(sizeof(T)) >= kMostCopiedBytes) return;
    if (!crowds(contiguous_strides(p, p.in_channels, &Axis::in), false)) return;
    const Axis& height = p.axes[1];
    const std::int64_t shared = height.span(1) - height.stride;
    for (copied_vectors_ = kMostCopiedVectors; copied_vectors_ >= kFewestCopiedVectors;
         copied_vectors_ /= 2) {
      std::int64_t rows = 0;
      if (copy_bytes(height.out) <= kCopyBytes) {
        rows = height.out;
      } else {
        while (copy_bytes(rows + 1) <= kCopyBytes) ++rows;
      }
      // An input row should not be copied more than twice, or three times for 5x5.
      const double fresh = static_cast<double>(rows * height.stride);
      const double most = std::max(2.0, static_cast<double>(p.taps()) / 8);
      if (rows == height.out || (rows > 0 && fresh + static_cast<double>(shared) <= most * fresh)) {
        copied_rows_ = rows;
        return;
      }
    }
  }

  // Whether so many pixels under a tile share a set of the L1 cache that copies pay, which vectors
  // that are not aligned fill twice as fast, for each lies in two lines. 24 of a set paid, up to
  // threefold, and 22 did not; at stride 2, where a copied pixel serves fewer outputs, 44 did.
  bool crowds(const Strides& strides, bool aligned) const {
    const ConvProblem& p = problem();
    constexpr int kSets = 64;
    const int most = p.axes[1].stride * p.axes[2].stride == 1 ? 23 : 43;
    const auto height = static_cast<std::uint64_t>(input_rows(kMaxDepthwiseChannelRows));
    const auto width = static_cast<std::uint64_t>(input_columns());
    // The product may not fit, but wraps around at a multiple of the sets.
    const auto step = [&](std::size_t i) {
      const Axis& axis = p.axes[i];
      return static_cast<std::uint64_t>(axis.kernel > 1 ? axis.dilation : 1) *
             static_cast<std::uint64_t>(strides.axis[i]) * sizeof(T);
    };
    int lines[kSets] = {};
    for (std::uint64_t row = 0; row < height; ++row) {
      for (std::uint64_t column = 0; column < width; ++column) {
        lines[(row * step(1) + column * step(2)) / kAlignment % kSets] += aligned ? 1 : 2;
      }
    }
    return *std::max_element(lines, lines + kSets) > most;
  }

  bool copies_input(const ConvArrays& arrays) const {
    const auto pitch = static_cast<std::uintptr_t>(arrays.x_strides.axis[2]) * sizeof(T);
    const bool aligned = (reinterpret_cast<std::uintptr_t>(arrays.x) | pitch) % kAlignment == 0;
    return copied_rows_ > 0 && crowds(arrays.x_strides, aligned);
  }

  // Where the input channels under each vector and under each lane begin.
  void list_spreads() {
    std::int64_t vector_begin = 0;
    for (const Group& group : problem().groups) {
      for (std::int64_t out = 0; out < group.out_channels; ++out) {
        const std::int64_t channel = group.out_begin + out;
        if (channel % chunk_ == 0) chunk_begins_.push_back(group.in_begin);
        if (channel % table_.lanes == 0) {
          vector_begin = group.in_begin;
          in_begins_.push_back(vector_begin - chunk_begins_.back());
        }
        spread_.push_back(static_cast<std::int32_t>(group.in_begin - vector_begin));
      }
    }
    spread_.resize(static_cast<std::size_t>(round_up(problem().out_channels, table_.lanes)));
  }

  // The first input channel under a chunk of output channels that begins at `channel`.
  std::int64_t in_begin(std::int64_t channel) const {
    return spread_.empty() ? channel : chunk_begins_[static_cast<std::size_t>(channel / chunk_)];
  }

  // The workspace begins with a pixel of zeros for all threads.
  T* fill_zeros(void* workspace) const {
    return std::fill_n(static_cast<T*>(workspace), chunk_, T(0)) - chunk_;
  }
  std::size_t zeros_bytes() const { return align_up(static_cast<std::size_t>(chunk_) * sizeof(T)); }
  std::byte* after_zeros(void* workspace) const {
    return static_cast<std::byte*>(workspace) + zeros_bytes();
  }

  static constexpr std::int64_t kZeros = std::numeric_limits<std::int64_t>::min();

  std::int64_t input_rows(std::int64_t rows) const {
    return (rows - 1) * step_[0] + problem().axes[1].kernel;
  }
  std::int64_t input_columns() const {
    return (kDepthwiseColumns - 1) * step_[1] + problem().axes[2].kernel;
  }

  Scratch carve(void* base) const {
    const std::int64_t rows = problem().axes[0].kernel * input_rows(kMaxDepthwiseChannelRows);
    Carver carver(base);
    Scratch scratch;
    scratch.row_offsets = carver.take<std::int64_t>(rows);
    scratch.column_offsets = carver.take<std::int64_t>(input_columns());
    scratch.pixels = carver.take<const T*>(rows * input_columns());
    scratch.sums = carver.take<T>(kMaxDepthwiseChannelRows * kDepthwiseColumns * chunk_);
    scratch.copy =
        carver.take<T>(copied_rows_ > 0 ? copy_bytes(copied_rows_) / std::int64_t(sizeof(T)) : 0);
    scratch.bytes = carver.used();
    return scratch;
  }

  // Offsets of the inputs under `count` outputs from `first` on, `outputs` of them in the table.
  void list(const Axis& axis, int i, std::int64_t stride, std::int64_t first, std::int64_t count,
            std::int64_t outputs, std::int64_t* to) const {
    std::fill_n(to, (outputs - 1) * step_[i] + axis.kernel, kZeros);
    for (std::int64_t o = 0; o < count; ++o) {
      // Inputs that the output before meets under later taps are in the table already.
      for (std::int64_t tap = o == 0 ? 0 : axis.kernel - step_[i]; tap < axis.kernel; ++tap) {
        const std::int64_t at =
            input_index(axis, first + o * tile_[i].spacing, tap, problem().padding_mode);
        if (at >= 0) to[o * step_[i] + tap] = at * stride;
      }
    }
  }

  void run_task(const ConvArrays& arrays, Task& task) const {
    task.x = static_cast<const T*>(arrays.x) + task.image * arrays.x_strides.batch;
    task.strides = arrays.x_strides;
    task.origin = 0;
    if (task.copies) copy_block(task);
    const RowTiles rows = row_tiles(task.row_begin, task.row_end);
    for (std::int64_t row = 0; row < rows.count(); ++row) {
      rows.find(row, task.row, task.rows);
      if (task.rows > 0) run_row(arrays, task);
    }
  }

  // Copies the input under the task, which is what it reads from then on.
  void copy_block(Task& task) const {
    const ConvProblem& p = problem();
    const Range depth = p.axes[0].inputs_under(task.depth, task.depth + 1);
    const Range height = p.axes[1].inputs_under(task.row_begin, task.row_end);
    const Range width = p.axes[2].inputs_under(task.column_begin, task.column_end);
    PixelRowArgs<T> row{};
    row.channel_stride = 1;
    row.column_stride = task.strides.axis[2];
    row.channels = task.channel_end - task.channel_begin;
    row.block_pitch = kChannelBlock;
    row.column_in = row.count = row.last = width.size();
    row.step = row.phases = 1;
    row.pitch = copy_pitch();
    row.to = task.copy;
    const T* const from = task.x + task.channel_begin + width.begin * task.strides.axis[2];
    for (std::int64_t d = depth.begin; d < depth.end; ++d) {
      for (std::int64_t h = height.begin; h < height.end; ++h) {
        row.from = from + d * task.strides.axis[0] + h * task.strides.axis[1];
        table_.pixel_row(row);
        row.to += width.size() * copy_pitch();
      }
    }
    task.x = task.copy;
    task.strides.axis[2] = copy_pitch();
    task.strides.axis[1] = width.size() * copy_pitch();
    task.strides.axis[0] = height.size() * task.strides.axis[1];
    task.origin = task.channel_begin + depth.begin * task.strides.axis[0] +
                  height.begin * task.strides.axis[1] + width.begin * task.strides.axis[2];
  }

  void run_row(const ConvArrays& arrays, const Task& task) const {
    const ConvProblem& p = problem();
    const Axis& depth = p.axes[0];
    const std::int64_t height = input_rows(task.rows);
    for (std::int64_t td = 0; td < depth.kernel; ++td) {
      std::int64_t* rows = task.row_offsets + td * height;
      const std::int64_t d = input_index(depth, task.depth, td, p.padding_mode);
      if (d < 0) {
        std::fill_n(rows, height, kZeros);
        continue;
      }
      list(p.axes[1], 0, task.strides.axis[1], task.row, task.rows, task.rows, rows);
      for (std::int64_t i = 0; i < height; ++i) {
        if (rows[i] != kZeros) rows[i] += d * task.strides.axis[0];
      }
    }
    std::int64_t* const rows_end = task.row_offsets + depth.kernel * height;
    const bool shared = channels_end_in_output(p, arrays) &&
                        std::find(task.row_offsets, rows_end, kZeros) == rows_end;
    const std::int64_t spacing = tile_[1].spacing;
    for (std::int64_t channel = task.channel_begin; channel < task.channel_end; channel += chunk_) {
      const std::int64_t channels = std::min(chunk_, task.channel_end - channel);
      const std::int64_t phases = std::min(spacing, task.column_end - task.column_begin);
      for (std::int64_t phase = 0; phase < phases; ++phase) {
        std::int64_t column = task.column_begin + phase;
        while (column < task.column_end) {
          const std::int64_t columns = std::min<std::int64_t>(
              ceil_div(task.column_end - column, spacing), kDepthwiseColumns);
          const std::int64_t tiles = shared ? tiles_alike(task, column) : 1;
          run_tiles(arrays, task, column, columns, tiles, channel, channels);
          column += tiles * columns * spacing;
        }
      }
    }
  }

  // How many tiles from a column on can share a table: whole ones that meet no padding, or one.
  std::int64_t tiles_alike(const Task& task, std::int64_t column) const {
    const Axis& width = problem().axes[2];
    if (column * width.stride < width.pad_before) return 1;
    const std::int64_t reach = (width.kernel - 1) * width.dilation - width.pad_before;
    if (reach >= width.in) return 1;
    const std::int64_t last = std::min(task.column_end - 1, (width.in - 1 - reach) / width.stride);
    const std::int64_t columns = ceil_div(last + 1 - column, tile_[1].spacing);
    return std::max<std::int64_t>(1, columns / kDepthwiseColumns);
  }

  void run_tiles(const ConvArrays& arrays, const Task& task, std::int64_t column,
                 std::int64_t columns, std::int64_t tiles, std::int64_t channel,
                 std::int64_t channels) const {
    const ConvProblem& p = problem();
    list(p.axes[2], 1, task.strides.axis[2], column, columns, kDepthwiseColumns,
         task.column_offsets);
    const std::int64_t first = in_begin(channel) - task.origin;
    const std::int64_t height = p.axes[0].kernel * input_rows(task.rows);
    const std::int64_t width = input_columns();
    const T** pixel = task.pixels;
    for (std::int64_t i = 0; i < height; ++i) {
      const std::int64_t row = task.row_offsets[i];
      if (row == kZeros) {
        pixel = std::fill_n(pixel, width, task.zeros);
        continue;
      }
      for (std::int64_t k = 0; k < width; ++k) {
        const std::int64_t offset = task.column_offsets[k];
        *pixel++ = offset == kZeros ? task.zeros : task.x + (first + row + offset);
      }
    }
    DepthwiseChannelsArgs<T> args{};
    args.pixels = task.pixels;
    if (!spread_.empty()) {
      args.spread = &spread_[static_cast<std::size_t>(channel)];
      args.in_begins = &in_begins_[static_cast<std::size_t>(channel / table_.lanes)];
      args.in_channels = p.in_channels - in_begin(channel);
    }
    args.tiles = tiles;
    if (tiles > 1) {  // all of them inside the row, or the product might not fit
      args.tile_step =
          kDepthwiseColumns * tile_[1].spacing * p.axes[2].stride * task.strides.axis[2];
    }
    args.row_step = step_[0];
    args.column_step = step_[1];
    for (int axis = 0; axis < kSpatialAxes; ++axis) {
      args.kernel[axis] = p.axes[static_cast<std::size_t>(axis)].kernel;
    }
    args.weights = static_cast<const T*>(arrays.packed_weights) + channel * p.taps();
    args.channels = channels;
    args.rows = task.rows;
    args.columns = columns;
    ChannelsEnd<T> end =
        output_end<T>(p, arrays, task.image, channel, task.depth, task.row, column);
    end.residual_row *= tile_[0].spacing;
    end.residual_column *= tile_[1].spacing;
    end.out_row *= tile_[0].spacing;
    end.out_column *= tile_[1].spacing;
    const bool in_registers = channels_end_in_output(p, arrays);
    args.end = in_registers ? end : scratch_end(task.sums, kDepthwiseColumns * chunk_, chunk_);
    table_.depthwise_channels[shape_][task.rows - 1](args);
    if (in_registers) return;
    EpilogueArgs<T> epilogue{};
    epilogue.rows = columns;
    epilogue.columns = channels;
    epilogue.acc_row = chunk_;
    epilogue.bias = end.bias;
    epilogue.bias_column = 1;
    epilogue.residual_column = arrays.residual_strides.channel;
    epilogue.out_column = 1;
    epilogue.activation = p.activation;
    epilogue.out_row = end.out_column;
    epilogue.residual_row = end.residual_column;
    for (std::int64_t r = 0; r < task.rows; ++r) {
      epilogue.acc = task.sums + r * kDepthwiseColumns * chunk_;
      epilogue.out = end.out + r * end.out_row;
      if (end.residual) epilogue.residual = end.residual + r * end.residual_row;
      table_.epilogue(epilogue);
    }
  }

  const KernelTable<T>& table_;
  TileAxis tile_[2];      // of the height and the width
  std::int64_t step_[2];  // of the kernel's table
  int shape_;
  Split columns_;
  std::int64_t rows_;                // of a task
  std::int64_t copied_rows_ = 0;     // of one that copies its input, or 0 if none does
  std::int64_t copied_vectors_ = 0;  // of channels, likewise
  std::int64_t chunk_;               // channels, whole vectors
  // If an input channel has several outputs: per chunk the input channel that it begins with, per
  // vector how far behind it begins, per lane how far behind that.
  std::vector<std::int64_t> chunk_begins_;
  std::vector<std::int64_t> in_begins_;
  std::vector<std::int32_t> spread_;
};

}  // namespace

std::unique_ptr<RowsPlan> plan_depthwise_channels(ConvProblem problem) {
  return plan_of_dtype<DepthwiseChannelsPlan, RowsPlan>(std::move(problem));
}

}  // namespace pyconv
