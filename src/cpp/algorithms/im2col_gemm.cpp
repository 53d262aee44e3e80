// im2col + GEMM without the im2col matrix: a block of pixels is packed under at most kPanelDepth k
// at a time, multiplied with packed weights, and its partial sums stay in a cache-sized buffer.
//
// Either side may be the lanes of the micro-kernel:
//
//   lanes are pixels (channels first)         lanes are output channels (channels last)
//
//          pixels: [column panel][k][width]        output channels: [column panel][k][width]
//            +------------------+                    +------------------+
//          k |        b         |                  k |     weights      |
//            +------------------+                    +------------------+
//     +---+  +------------------+             +---+  +------------------+
//  c  | w |  |       sums       |       pixel | a |  |       sums       |
//     +---+  +------------------+             +---+  +------------------+
//       k                                       k
//   weights: [row tile][k][rows]             pixels: [pixel][kRowStride]
//
// The bits are the same: each sum is one chain over k in either case.
#include <algorithm>

#include "algorithms/common.hpp"
#include "algorithms/output.hpp"
#include "algorithms/pixel_spans.hpp"
#include "algorithms/weight_panels.hpp"
#include "core/parallel.hpp"
#include "core/partition.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

// Budgets for what a task touches between two passes over its weights: the packed pixels and the
// sums. Together with a tile's weights they fit a 512 KiB L2.
constexpr std::int64_t kPanelBytes = 192 << 10;
constexpr std::int64_t kSumsBytes = 192 << 10;
constexpr std::int64_t kLargestPixelBlock = 1024;

// Width taps whose spans are kept for a pixel block; wider kernels list them tap by tap.
constexpr std::int64_t kMostSpanTaps = 16;

template <class T>
class Im2colGemmPlan final : public RowsPlan {
 public:
  explicit Im2colGemmPlan(ConvProblem problem_in)
      : RowsPlan(std::move(problem_in)),
        table_(kernels<T>()),
        lanes_are_channels_(choose_lanes()),
        panels_(problem(), table_, channels_of(1),
                lanes_are_channels_ ? table_.tile_vectors : table_.tile_rows, Split::by_limit) {
    const ConvProblem& p = problem();
    for (int axis = 0; axis < kSpatialAxes; ++axis) {
      taps_[axis] = tap_ranges(p.axes[static_cast<std::size_t>(axis)]);
    }
    rows_blocks_ = blocking(1);
  }

  std::string name() const override { return "im2col_gemm"; }

  std::string packing() const override {
    return lanes_are_channels_ ? "im2col_gemm" : RowTiles<T>::packing();
  }

  std::size_t packed_bytes() const override { return static_cast<std::size_t>(panels_.bytes()); }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    panels_.pack(weights, packed);
  }

  std::size_t workspace_bytes(int threads) const override {
    return static_cast<std::size_t>(threads) * carve(nullptr, blocking(threads)).bytes;
  }

  std::string partition(int threads) const override {
    return partition_of(blocking(threads)).text();
  }

  std::string tile() const override {
    const std::string rows = std::to_string(table_.tile_rows);
    const std::string columns = std::to_string(table_.tile_vectors * table_.lanes);
    return lanes_are_channels_ ? rows + " pixels x " + columns + " channels"
                               : rows + " channels x " + columns + " pixels";
  }

  std::string reason() const override {
    return lanes_are_channels_ ? "lanes are output channels" : "lanes are pixels";
  }

  void run(const ConvArrays& arrays, int threads) const override {
    const ConvProblem& p = problem();
    const Blocking blocks = blocking(threads);
    const std::size_t bytes = carve(nullptr, blocks).bytes;
    const Workspace workspace(bytes * static_cast<std::size_t>(threads));
    const auto partition = partition_of(blocks);
    parallel_for(partition.tasks(), threads, [&](std::int64_t index, int thread) {
      std::byte* base = workspace.get();
      const Scratch scratch = carve(base + static_cast<std::size_t>(thread) * bytes, blocks);
      const auto [image, pixel_block, within_block] = partition.at(index);
      Task task;
      task.image = image;
      const auto group =
          std::upper_bound(blocks.task_begin.begin(), blocks.task_begin.end(), within_block) - 1;
      task.group = static_cast<std::size_t>(group - blocks.task_begin.begin());
      task.channel_block = within_block - *group;
      task.begin = blocks.pixels.begin(pixel_block) * blocks.pixel_quantum;
      task.end = std::min(blocks.pixels.end(pixel_block) * blocks.pixel_quantum, p.out_pixels());
      run_task(arrays, blocks, task, scratch);
    });
  }

  std::size_t rows_workspace_bytes() const override { return carve(nullptr, rows_blocks_).bytes; }

  void run_rows(const ConvArrays& arrays, std::int64_t begin, std::int64_t end,
                void* workspace) const override {
    const Scratch scratch = carve(workspace, rows_blocks_);
    const std::int64_t width = problem().axes[2].out;
    const std::int64_t quantum = rows_blocks_.pixel_quantum;
    const Split quanta =
        Split::by_limit(ceil_div((end - begin) * width, quantum), rows_blocks_.pixels.largest());
    for (std::int64_t block = 0; block < quanta.count(); ++block) {
      Task task;
      task.image = 0;
      task.begin = begin * width + quanta.begin(block) * quantum;
      task.end = std::min(begin * width + quanta.end(block) * quantum, end * width);
      for (task.group = 0; task.group < problem().groups.size(); ++task.group) {
        const std::int64_t channel_blocks = rows_blocks_.channel_blocks[task.group].count();
        for (task.channel_block = 0; task.channel_block < channel_blocks; ++task.channel_block) {
          run_task(arrays, rows_blocks_, task, scratch);
        }
      }
    }
  }

 private:
  // How the work is cut, which depends on the number of threads; the results do not.
  struct Blocking {
    std::int64_t pixel_quantum = 1;
    Split pixels;                          // blocks of quanta
    std::int64_t largest_block = 0;        // pixels, rounded up to whole vectors
    std::vector<Split> channel_blocks;     // per group: blocks of weight parts
    std::int64_t largest_channels = 0;     // of a channel block, rounded up to whole vectors
    std::vector<std::int64_t> task_begin;  // per group: its first task within a pixel block
    std::int64_t tasks_per_pixel_block = 0;
  };

  Partition<3> partition_of(const Blocking& blocks) const {
    return Partition({{"images", problem().batch},
                      {"blocks of pixels", blocks.pixels.count()},
                      {"blocks of output channels", blocks.tasks_per_pixel_block}});
  }

  struct Scratch {
    T* panel;
    T* sums;
    PixelRun* runs;
    const void** rows;  // one per run
    std::int32_t* column_vectors;
    PixelSpan* spans;
    std::int32_t* span_ends;
    std::size_t bytes;
  };

  struct Task {
    std::int64_t image;
    std::int64_t begin;  // pixels [begin, end)
    std::int64_t end;
    std::size_t group;
    std::int64_t channel_block;
  };

  // Which side's idle lanes, packing and epilogue cost less, in vector instructions per vector of
  // outputs, as measured. Where lanes are channels, a channels-first image is transposed on its way
  // in (5 per k) and out (8), else packing takes 9 per k and the epilogue 3; with channels last,
  // pixels as lanes would need gathers and scatters, so lanes must be less than half full for it.
  bool choose_lanes() const {
    const ConvProblem& p = problem();
    const std::int64_t channels = most_out_channels(p);
    const std::int64_t depth = most_in_channels(p) * p.taps();
    if (p.channels_last) return 2 * channels >= table_.lanes;
    const auto cost = [&](std::int64_t full, std::int64_t pack, std::int64_t end) {
      return static_cast<double>(depth) * static_cast<double>(full + pack) +
             static_cast<double>(end * channels);
    };
    const auto pixels = static_cast<double>(p.out_pixels());
    const auto pixel_lanes = static_cast<double>(round_to_lanes(p.out_pixels()));
    return cost(round_to_lanes(channels), 5, 8) * pixels < cost(channels, 9, 3) * pixel_lanes;
  }

  std::int64_t round_to_lanes(std::int64_t n) const { return round_up(n, table_.lanes); }

  std::int64_t channels_of(std::int64_t weight_units) const {
    return lanes_are_channels_ ? weight_units * table_.lanes : weight_units;
  }

  std::int64_t span_taps() const {
    const std::int64_t kernel = problem().axes[2].kernel;
    return kernel <= kMostSpanTaps ? kernel : 1;
  }

  std::int64_t panel_depth() const {
    return std::min(most_in_channels(problem()) * problem().taps(), kPanelDepth);
  }

  Blocking blocking(int threads) const {
    const ConvProblem& p = problem();
    const std::int64_t pixels = p.out_pixels();
    const std::int64_t element = sizeof(T);
    Blocking blocks;

    // Channels per task: few enough that their sums leave room for one tile of pixels.
    const std::int64_t tile_pixels =
        lanes_are_channels_ ? table_.tile_rows : table_.tile_vectors * table_.lanes;
    const std::int64_t tile_channels =
        lanes_are_channels_ ? table_.tile_vectors * table_.lanes : table_.tile_rows;
    const std::int64_t most_parts =
        std::max<std::int64_t>(1, kSumsBytes / element / tile_pixels / tile_channels);

    std::int64_t most_channels = 1;
    for (std::size_t g = 0; g < p.groups.size(); ++g) {
      const Split& panels = panels_.of(g);
      const Split split = Split::by_limit(panels.count(), most_parts);
      blocks.channel_blocks.push_back(split);
      most_channels = std::max(most_channels, split.largest() * channels_of(panels.largest()));
    }

    // Pixels per task: as many as the budgets hold, so that weights are read seldom.
    const std::int64_t depth = lanes_are_channels_ ? kRowStride : panel_depth();
    const std::int64_t most_pixels = std::min(
        {kPanelBytes / element / depth, kSumsBytes / element / most_channels, kLargestPixelBlock});
    const bool whole_tiles = pixels >= 4 * threads * tile_pixels;
    const std::int64_t grain = lanes_are_channels_ ? 1 : table_.lanes;
    blocks.pixel_quantum = whole_tiles ? tile_pixels : grain;
    const std::int64_t quanta = ceil_div(pixels, blocks.pixel_quantum);
    const std::int64_t most_quanta = std::max<std::int64_t>(
        {1, most_pixels / blocks.pixel_quantum, whole_tiles ? 1 : tile_pixels / grain});
    std::int64_t pixel_blocks = ceil_div(quanta, most_quanta);

    // Few tasks must be a multiple of the threads, or some would wait for the last.
    const auto count_tasks = [&] {
      std::int64_t count = 0;
      for (const Split& split : blocks.channel_blocks) count += split.count();
      return p.batch * pixel_blocks * count;
    };
    if (count_tasks() < 8 * threads && count_tasks() % threads != 0) {
      const std::int64_t even = round_up(pixel_blocks, threads);
      if (pixels >= even * tile_pixels) {
        pixel_blocks = even;
      } else {
        for (std::size_t g = 0; g < p.groups.size(); ++g) {
          Split& split = blocks.channel_blocks[g];
          const std::int64_t parts = panels_.of(g).count();
          split = Split::by_count(parts, std::min(parts, round_up(split.count(), threads)));
        }
      }
    }
    blocks.pixels = Split::by_count(quanta, pixel_blocks);
    blocks.largest_block =
        round_to_lanes(std::min(blocks.pixels.largest() * blocks.pixel_quantum, pixels));
    for (std::size_t g = 0; g < p.groups.size(); ++g) {
      blocks.task_begin.push_back(blocks.tasks_per_pixel_block);
      blocks.tasks_per_pixel_block += blocks.channel_blocks[g].count();
      blocks.largest_channels =
          std::max(blocks.largest_channels,
                   blocks.channel_blocks[g].largest() * channels_of(panels_.of(g).largest()));
    }
    return blocks;
  }

  Scratch carve(void* base, const Blocking& blocks) const {
    const std::int64_t depth = lanes_are_channels_ ? kRowStride : panel_depth();
    Carver carver(base);
    Scratch scratch{};
    scratch.panel = carver.take<T>(depth * blocks.largest_block);
    scratch.sums = carver.take<T>(blocks.largest_channels * blocks.largest_block);
    scratch.runs = carver.take<PixelRun>(blocks.largest_block);
    if (!lanes_are_channels_) {
      const std::int64_t vectors = ceil_div(blocks.largest_block, table_.lanes);
      scratch.rows = carver.take<const void*>(blocks.largest_block);
      scratch.column_vectors = carver.take<std::int32_t>(vectors);
      scratch.spans = carver.take<PixelSpan>(span_taps() * blocks.largest_block);
      scratch.span_ends = carver.take<std::int32_t>(span_taps() * vectors);
    }
    scratch.bytes = carver.used();
    return scratch;
  }

  // Cuts pixels [begin, end) of the output, taken in row-major order, at the ends of rows.
  std::int64_t make_runs(std::int64_t begin, std::int64_t end, PixelRun* runs) const {
    const std::int64_t height = problem().axes[1].out;
    const std::int64_t width = problem().axes[2].out;
    std::int64_t count = 0;
    for (std::int64_t pixel = begin; pixel < end;) {
      const std::int64_t row = pixel / width;
      const std::int64_t column = pixel % width;
      const std::int64_t length = std::min(width - column, end - pixel);
      runs[count++] = {{row / height, row % height, column}, length};
      pixel += length;
    }
    return count;
  }

  void run_task(const ConvArrays& arrays, const Blocking& blocks, const Task& task,
                const Scratch& scratch) const {
    const ConvProblem& p = problem();
    const Group& group = p.groups[task.group];
    const Split& panels = panels_.of(task.group);
    const std::int64_t begin = task.begin;
    const std::int64_t end = task.end;
    const Split& channel_blocks = blocks.channel_blocks[task.group];
    const std::int64_t part_begin = channel_blocks.begin(task.channel_block);
    const std::int64_t part_end = channel_blocks.end(task.channel_block);
    const std::int64_t first_channel = channels_of(panels.begin(part_begin));
    const std::int64_t channels =
        std::min(channels_of(panels.begin(part_end)), group.out_channels) - first_channel;

    PackArgs<T> pack{};
    pack.image = static_cast<const T*>(arrays.x) + task.image * arrays.x_strides.batch +
                 group.in_begin * arrays.x_strides.channel;
    pack.strides = arrays.x_strides;
    pack.channels = group.in_channels;
    for (int axis = 0; axis < kSpatialAxes; ++axis) {
      const Axis& a = p.axes[static_cast<std::size_t>(axis)];
      pack.axes[axis] = {a.in, a.stride, a.kernel, taps_[axis].data()};
    }
    pack.padding_mode = p.padding_mode;
    pack.runs = scratch.runs;
    pack.run_count = make_runs(begin, end, scratch.runs);
    pack.panel = scratch.panel;

    const std::int64_t pixels = end - begin;
    const std::int64_t vectors = ceil_div(pixels, table_.lanes);
    const Split pixel_parts = lanes_are_channels_ ? Split::by_limit(pixels, table_.tile_rows)
                                                  : Split::by_limit(vectors, table_.tile_vectors);
    const SpanSource source{pack.axes[2], p.padding_mode, arrays.x_strides.axis[2], table_.lanes};
    ColumnArgs columns{};
    if (!lanes_are_channels_) columns = list_columns(pack, source, pixel_parts, pixels, scratch);
    const std::int64_t sums_stride =
        lanes_are_channels_ ? round_to_lanes(channels) : vectors * table_.lanes;

    const TileEnds ends =
        tile_ends(arrays, task, group.out_begin + first_channel, begin, pixels, channels);
    const TileEnds* const end_of_tiles = ends.usable ? &ends : nullptr;

    // Whole units at a time, so that packing never starts within one.
    const std::int64_t units = ceil_div(group.in_channels, kChannelBlock) * p.taps();
    const std::int64_t units_per_panel = std::max<std::int64_t>(
        1, kPanelDepth / std::clamp<std::int64_t>(group.in_channels, 1, kChannelBlock));
    std::int64_t unit = 0;
    std::int64_t k = 0;
    do {
      pack.unit_begin = unit;
      pack.unit_end = unit = std::min(unit + units_per_panel, units);
      const std::int64_t k_end = depth_before(group, unit);
      if (lanes_are_channels_) {
        table_.pack_pixel_rows(pack);
      } else {
        columns.depth = k_end - k;
        pack_columns(group, pack, columns, source, k, scratch);
      }
      const bool last = unit == units;
      multiply(arrays, task.group, part_begin, part_end, pixel_parts, k, k_end, sums_stride,
               scratch, last ? end_of_tiles : nullptr);
      k = k_end;
    } while (unit < units);

    if (!end_of_tiles) {
      const SumsBlock<T> sums{scratch.sums,
                              sums_stride,
                              lanes_are_channels_,
                              task.image,
                              group.out_begin + first_channel,
                              channels,
                              begin,
                              end};
      send_sums(p, table_, arrays, sums);
    }
  }

  // Where the columns of a block of pixels read, where lanes are pixels: `parts` cut its vectors.
  ColumnArgs list_columns(const PackArgs<T>& pack, const SpanSource& source, const Split& parts,
                          std::int64_t pixels, const Scratch& scratch) const {
    const std::int64_t kernel = problem().axes[2].kernel;
    for (std::int64_t part = 0; part < parts.count(); ++part) {
      scratch.column_vectors[part] = static_cast<std::int32_t>(parts.size(part));
    }
    ColumnArgs columns{};
    columns.spans = scratch.spans;
    columns.span_stride = pixels;
    columns.ends = scratch.span_ends;
    columns.one_tap = kernel > kMostSpanTaps;
    columns.step = source.lane_step();
    columns.vectors = parts.begin(parts.count());
    columns.column_vectors = scratch.column_vectors;
    columns.column_count = parts.count();
    columns.rows = scratch.rows;
    for (std::int64_t tap = 0; !columns.one_tap && tap < kernel; ++tap) {
      source.list(pack.runs, pack.run_count, tap, scratch.spans + tap * pixels,
                  scratch.span_ends + tap * columns.vectors);
    }
    return columns;
  }

  // Fills the panel's columns for the units of `pack`, whose first k is `k_begin`.
  void pack_columns(const Group& group, PackArgs<T>& pack, ColumnArgs& columns,
                    const SpanSource& source, std::int64_t k_begin, const Scratch& scratch) const {
    columns.k_begin = 0;
    if (!columns.one_tap) {
      table_.pack_pixel_columns(pack, columns);
      return;
    }
    const std::int64_t last = pack.unit_end;
    for (std::int64_t unit = pack.unit_begin; unit < last; ++unit) {
      pack.unit_begin = unit;
      pack.unit_end = unit + 1;
      source.list(pack.runs, pack.run_count, unit % problem().axes[2].kernel, scratch.spans,
                  scratch.span_ends);
      columns.k_begin = depth_before(group, unit) - k_begin;
      table_.pack_pixel_columns(pack, columns);
    }
  }

  // k that stand before `unit` in the accumulation order.
  std::int64_t depth_before(const Group& group, std::int64_t unit) const {
    const std::int64_t taps = problem().taps();
    const std::int64_t before = std::min(unit / taps * kChannelBlock, group.in_channels);
    const std::int64_t in_block = std::min(kChannelBlock, group.in_channels - before);
    return before * taps + unit % taps * in_block;
  }

  // How finished tiles reach the output straight from registers: where pixels (or channels) are
  // contiguous in the output and the activation is a clamp.
  struct TileEnds {
    bool usable = false;
    TileEnd<T> first;  // of the block's first tile
    std::int64_t column_end;
  };

  TileEnds tile_ends(const ConvArrays& arrays, const Task& task, std::int64_t channel,
                     std::int64_t pixel, std::int64_t pixels, std::int64_t channels) const {
    const ConvProblem& p = problem();
    const auto out_stride = pixel_stride(p, arrays.out_strides);
    const auto residual_stride = pixel_stride(p, arrays.residual_strides);
    const auto contiguous = [&](const std::optional<std::int64_t>& pixel_step,
                                const Strides& strides) {
      return pixel_step && (lanes_are_channels_ ? strides.channel : *pixel_step) == 1;
    };
    TileEnds ends;
    const std::optional<Clamp> clamp = clamp_of(p.activation);
    if (!clamp || !contiguous(out_stride, arrays.out_strides) ||
        (arrays.residual && !contiguous(residual_stride, arrays.residual_strides))) {
      return ends;
    }
    const auto offset = [&](const Strides& strides, std::int64_t pixel_step) {
      return task.image * strides.batch + channel * strides.channel + pixel * pixel_step;
    };
    ends.usable = true;
    ends.first.low = static_cast<T>(clamp->low);
    ends.first.high = static_cast<T>(clamp->high);
    ends.first.bias = arrays.bias ? static_cast<const T*>(arrays.bias) + channel : nullptr;
    ends.first.bias_per_column = lanes_are_channels_;
    ends.first.residual = nullptr;
    if (arrays.residual) {
      ends.first.residual = static_cast<const T*>(arrays.residual) +
                            offset(arrays.residual_strides, *residual_stride);
      ends.first.residual_stride =
          lanes_are_channels_ ? *residual_stride : arrays.residual_strides.channel;
    }
    ends.first.out = static_cast<T*>(arrays.out) + offset(arrays.out_strides, *out_stride);
    ends.first.out_stride = lanes_are_channels_ ? *out_stride : arrays.out_strides.channel;
    ends.column_end = lanes_are_channels_ ? channels : pixels;
    return ends;
  }

  // The end of tiles in a row, `vectors` in all, whose first element stands at (row, column) of the
  // block.
  TileEnd<T> end_at(const TileEnds& ends, std::int64_t row, std::int64_t column,
                    std::int64_t vectors) const {
    TileEnd<T> end = ends.first;
    if (end.bias) end.bias += end.bias_per_column ? column : row;
    if (end.residual) end.residual += row * end.residual_stride + column;
    end.out += row * end.out_stride + column;
    end.tail = std::min(table_.lanes, ends.column_end - column - (vectors - 1) * table_.lanes);
    return end;
  }

  // Adds k in [k_begin, k_end) to the sums. Weights are the outer loop: they come from far away.
  void multiply(const ConvArrays& arrays, std::size_t group, std::int64_t part_begin,
                std::int64_t part_end, const Split& pixel_parts, std::int64_t k_begin,
                std::int64_t k_end, std::int64_t sums_stride, const Scratch& scratch,
                const TileEnds* ends) const {
    const Split& panels = panels_.of(group);
    const std::int64_t depth = k_end - k_begin;
    GemmTileArgs<T> gemm{};
    gemm.depth = depth;
    gemm.b_pitch = depth;
    gemm.c_stride = sums_stride;
    gemm.accumulate = k_begin > 0;
    const std::int64_t first_channel = channels_of(panels.begin(part_begin));
    for (std::int64_t part = part_begin; part < part_end; ++part) {
      const std::int64_t size = panels.size(part);
      const std::int64_t channel = channels_of(panels.begin(part));
      const T* weights =
          panels_.find(arrays.packed_weights, group, part) + k_begin * channels_of(size);
      for (std::int64_t q = 0; q < pixel_parts.count(); q += gemm.tiles) {
        const std::int64_t at = pixel_parts.begin(q);
        const std::int64_t count = pixel_parts.size(q);
        const std::int64_t row = lanes_are_channels_ ? at : channel - first_channel;
        const std::int64_t column =
            lanes_are_channels_ ? channel - first_channel : at * table_.lanes;
        const std::int64_t rows = lanes_are_channels_ ? count : size;
        const std::int64_t vectors = lanes_are_channels_ ? size : count;
        gemm.tiles = lanes_are_channels_ ? 1 : pixel_parts.alike(q);
        gemm.a = lanes_are_channels_ ? scratch.panel + at * kRowStride : weights;
        gemm.b = lanes_are_channels_ ? weights : scratch.panel + column * depth;
        gemm.c = scratch.sums + row * sums_stride + column;
        const auto& tiles = lanes_are_channels_ ? table_.gemm_row_major : table_.gemm_interleaved;
        TileEnd<T> end;
        if (ends) end = end_at(*ends, row, column, gemm.tiles * vectors);
        gemm.end = ends ? &end : nullptr;
        tiles[rows - 1][vectors - 1](gemm);
      }
    }
  }

  const KernelTable<T>& table_;
  bool lanes_are_channels_;
  WeightPanels<T> panels_;
  std::vector<TapRange> taps_[kSpatialAxes];
  Blocking rows_blocks_;  // of run_rows
};

}  // namespace

std::unique_ptr<Plan> plan_im2col_gemm(ConvProblem problem) {
  return plan_of_dtype<Im2colGemmPlan>(std::move(problem));
}

}  // namespace pyconv
