// 1x1 convolution whose lanes are pixels, of copied pixels: panels of up to kPanelDepth input
// channels, each as wide as a tile. Vectors of pixels that straddle cache lines take much of what
// the load ports can do, most of it where tiles have few rows; in a panel all are aligned, follow
// each other, and stay in the L1 cache for all output channels.
#include <algorithm>

#include "algorithms/common.hpp"
#include "algorithms/output.hpp"
#include "algorithms/pointwise.hpp"
#include "algorithms/weight_panels.hpp"
#include "core/parallel.hpp"
#include "core/partition.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

// What a task touches between two passes over its weights: see im2col_gemm.cpp.
constexpr std::int64_t kPanelBytes = 192 << 10;
constexpr std::int64_t kSumsBytes = 256 << 10;
constexpr std::int64_t kMostSumsBytes = 1 << 20;  // that only the epilogue reads
constexpr std::int64_t kMostPixels = 1024;
constexpr std::int64_t kMostOutChannels = 512;  // of a task

template <class T>
class PointwisePanelsPlan final : public RowsPlan {
 public:
  explicit PointwisePanelsPlan(ConvProblem problem_in)
      : RowsPlan(std::move(problem_in)), table_(kernels<T>()), tiles_(problem(), table_) {
    const ConvProblem& p = problem();
    const std::int64_t in_channels = most_in_channels(p);
    depth_ = std::min(in_channels, kPanelDepth);
    most_outs_ = std::min(most_out_channels(p), kMostOutChannels);
    const std::int64_t vector_bytes = table_.lanes * std::int64_t(sizeof(T));
    const std::int64_t sums_bytes = in_channels > kPanelDepth ? kSumsBytes : kMostSumsBytes;
    std::int64_t vectors =
        std::min(kPanelBytes / vector_bytes / depth_, sums_bytes / vector_bytes / most_outs_);
    vectors = std::min(vectors, kMostPixels / table_.lanes);
    vectors_ = std::max<std::int64_t>(1, vectors / table_.tile_vectors) * table_.tile_vectors;
  }

  std::string name() const override { return "pointwise"; }
  std::string packing() const override { return tiles_.packing(); }

  std::size_t packed_bytes() const override { return static_cast<std::size_t>(tiles_.bytes()); }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    tiles_.pack(weights, packed);
  }

  std::size_t workspace_bytes(int threads) const override {
    return static_cast<std::size_t>(threads) * carve(nullptr).bytes;
  }

  std::string tile() const override {
    return std::to_string(table_.tile_rows) + " channels x " +
           std::to_string(table_.tile_vectors * table_.lanes) + " pixels";
  }

  std::string partition(int threads) const override {
    return partition_of(blocking(threads)).text();
  }

  std::string reason() const override { return "a 1x1 kernel needs no im2col"; }

  void run(const ConvArrays& arrays, int threads) const override {
    const ConvProblem& p = problem();
    const Blocking blocks = blocking(threads);
    const std::size_t bytes = carve(nullptr).bytes;
    const Workspace workspace(bytes * static_cast<std::size_t>(threads));
    const Reading reading = make_reading(arrays);
    const auto partition = partition_of(blocks);
    parallel_for(partition.tasks(), threads, [&](std::int64_t task, int thread) {
      const auto [image, group, block, part] = partition.at(task);
      Place at;
      at.image = image;
      at.group = static_cast<std::size_t>(group);
      at.begin = blocks.units.begin(block) * blocks.unit;
      at.end = std::min(blocks.units.end(block) * blocks.unit, p.out_pixels());
      const Split parts = Split::by_count(tiles_.of(at.group).count(), blocks.parts);
      at.tile = parts.begin(part);
      at.tile_end = parts.end(part);
      if (at.tile == at.tile_end) return;  // of a group that has fewer tiles than another has parts
      run_task(arrays, at, reading,
               carve(workspace.get() + static_cast<std::size_t>(thread) * bytes));
    });
  }

  std::size_t rows_workspace_bytes() const override { return workspace_bytes(1); }

  void run_rows(const ConvArrays& arrays, std::int64_t begin, std::int64_t end,
                void* workspace) const override {
    const std::int64_t width = problem().axes[2].out;
    const Reading reading = make_reading(arrays);
    const Scratch scratch = carve(workspace);
    const Split blocks = Split::by_limit(ceil_div((end - begin) * width, table_.lanes), vectors_);
    for (std::size_t group = 0; group < problem().groups.size(); ++group) {
      const Split parts = Split::by_count(
          tiles_.of(group).count(), ceil_div(problem().groups[group].out_channels, most_outs_));
      for (std::int64_t block = 0; block < blocks.count(); ++block) {
        for (std::int64_t part = 0; part < parts.count(); ++part) {
          const Place at{0,
                         group,
                         begin * width + blocks.begin(block) * table_.lanes,
                         std::min(begin * width + blocks.end(block) * table_.lanes, end * width),
                         parts.begin(part),
                         parts.end(part)};
          run_task(arrays, at, reading, scratch);
        }
      }
    }
  }

 private:
  struct Scratch {
    T* panels;
    T* sums;
    T* row;  // of pixels that are not contiguous
    std::int32_t* panel_vectors;
    std::size_t bytes;
  };

  // How all tasks of a call meet its arrays.
  struct Reading {
    bool contiguous;  // pixels
    bool ends;        // in registers
  };

  // Pixels [begin, end) of an image under the tiles [tile, tile_end) of a group.
  struct Place {
    std::int64_t image;
    std::size_t group;
    std::int64_t begin;
    std::int64_t end;
    std::int64_t tile;
    std::int64_t tile_end;
  };

  // How the work is cut, which depends on the number of threads; the results do not.
  struct Blocking {
    std::int64_t unit;  // pixels that stay together
    Split units;
    std::int64_t parts;  // of a group's tiles
  };

  Blocking blocking(int threads) const {
    const ConvProblem& p = problem();
    const std::int64_t vectors = ceil_div(p.out_pixels(), table_.lanes);
    const std::int64_t blocks = ceil_div(vectors, vectors_);
    const std::int64_t others = p.batch * static_cast<std::int64_t>(p.groups.size());
    const std::int64_t least = fewest_parts();
    const std::int64_t most = vectors / table_.tile_vectors;
    // Whole tiles where they come out even enough among the threads.
    const std::int64_t unit = most >= 4 * threads ? table_.tile_vectors : 1;
    const std::int64_t units = ceil_div(vectors, unit);
    if (others * most >= threads) {
      return {unit * table_.lanes,
              Split::by_count(units, even_blocks(blocks, others * least, most, threads)), least};
    }
    // Threads share the output channels where pixels are too few for them.
    return {unit * table_.lanes, Split::by_count(units, blocks),
            std::max(least, std::min<std::int64_t>(tiles_.most(), threads))};
  }

  // Of the group that has the most output channels: none has more than most_outs_ and a tile.
  std::int64_t fewest_parts() const { return ceil_div(most_out_channels(problem()), most_outs_); }

  Partition<4> partition_of(const Blocking& blocks) const {
    return Partition({{"images", problem().batch},
                      {"groups", static_cast<std::int64_t>(problem().groups.size())},
                      {"blocks of pixels", blocks.units.count()},
                      {"blocks of output channels", blocks.parts}});
  }

  // Rows from one panel to the next. An odd number, or else panels may share a set of the L1 cache,
  // and a channel's pixels are written to all of them.
  static std::int64_t panel_pitch(std::int64_t depth) { return depth | 1; }

  Scratch carve(void* base) const {
    Carver carver(base);
    Scratch scratch;
    scratch.panels = carver.take<T>(panel_pitch(depth_) * vectors_ * table_.lanes);
    scratch.sums = carver.take<T>((most_outs_ + table_.tile_rows) * vectors_ * table_.lanes);
    scratch.row = carver.take<T>(vectors_ * table_.lanes);
    scratch.panel_vectors = carver.take<std::int32_t>(vectors_);
    scratch.bytes = carver.used();
    return scratch;
  }

  Reading make_reading(const ConvArrays& arrays) const {
    const ConvProblem& p = problem();
    return {pixel_stride(p, output_steps(p, arrays.x_strides)) == 1,
            pixels_end_in_output(p, arrays)};
  }

  void run_task(const ConvArrays& arrays, const Place& at, const Reading& reading,
                const Scratch& scratch) const {
    const Group& group = problem().groups[at.group];
    const Split& tiles = tiles_.of(at.group);
    const std::int64_t vectors = ceil_div(at.end - at.begin, table_.lanes);
    const Split panels = Split::by_limit(vectors, table_.tile_vectors);
    for (std::int64_t panel = 0; panel < panels.count(); ++panel) {
      scratch.panel_vectors[panel] = static_cast<std::int32_t>(panels.size(panel));
    }
    const std::int64_t first = tiles.begin(at.tile);
    const std::int64_t channels = tiles.begin(at.tile_end) - first;
    const std::int64_t channel = group.out_begin + first;
    const std::int64_t stride = vectors * table_.lanes;  // of sums
    TileEnd<T> end{};
    if (reading.ends) end = pixels_end<T>(problem(), arrays);
    const auto place = [&](const Strides& strides) { return at.image * strides.batch + at.begin; };
    const Split depths =
        Split::by_count(group.in_channels, ceil_div(group.in_channels, kPanelDepth));
    for (std::int64_t d = 0; d < depths.count(); ++d) {
      const std::int64_t depth = depths.size(d);
      const bool last = d + 1 == depths.count();
      pack_pixels(arrays, at, reading, group.in_begin + depths.begin(d), depth, panels.count(),
                  scratch);
      GemmTileArgs<T> gemm{};
      gemm.depth = depth;
      gemm.b_pitch = panel_pitch(depth);
      gemm.c_stride = stride;
      gemm.accumulate = d > 0;
      gemm.end = last && reading.ends ? &end : nullptr;
      // What will be packed next. Tiles ask for it: of kAheadTurn tiles each for a vector of one in
      // so many channels, the next tiles for another vector.
      const T* next = nullptr;
      const bool ends_block = last && at.tile_end == tiles.count();
      if (reading.contiguous && (!last || (ends_block && at.end < problem().out_pixels()))) {
        next = static_cast<const T*>(arrays.x) + place(arrays.x_strides) +
               (group.in_begin + (last ? 0 : depths.end(d))) * arrays.x_strides.channel +
               (last ? at.end - at.begin : 0);
      }
      gemm.ahead_step = kAheadTurn * arrays.x_strides.channel;
      for (std::int64_t tile = at.tile; tile < at.tile_end; ++tile) {
        const std::int64_t rows = tiles.size(tile);
        const std::int64_t out = tiles.begin(tile);
        gemm.a = tiles_.find(arrays.packed_weights, at.group, tile) + depths.begin(d) * rows;
        for (std::int64_t panel = 0; panel < panels.count(); panel += gemm.tiles) {
          const std::int64_t column = panels.begin(panel) * table_.lanes;
          gemm.tiles = panels.alike(panel);
          if (last && reading.ends) {
            const std::int64_t at_channel = group.out_begin + out;
            end.bias = arrays.bias ? static_cast<const T*>(arrays.bias) + at_channel : nullptr;
            if (arrays.residual) {
              end.residual = static_cast<const T*>(arrays.residual) +
                             place(arrays.residual_strides) +
                             at_channel * arrays.residual_strides.channel + column;
            }
            end.out = static_cast<T*>(arrays.out) + place(arrays.out_strides) +
                      at_channel * arrays.out_strides.channel + column;
            const std::int64_t tail =
                panels.begin(panel + gemm.tiles) * table_.lanes - table_.lanes;
            end.tail = std::min(table_.lanes, at.end - at.begin - tail);
          }
          gemm.b = scratch.panels + column * gemm.b_pitch;
          gemm.c = scratch.sums + (out - first) * stride + column;
          const std::int64_t turn = tile - at.tile;
          gemm.ahead = next && turn < kAheadTurn * panels.size(panel)
                           ? next + turn % kAheadTurn * arrays.x_strides.channel + column +
                                 turn / kAheadTurn * table_.lanes
                           : nullptr;
          table_.gemm_interleaved[rows - 1][panels.size(panel) - 1](gemm);
        }
      }
    }
    if (reading.ends) return;
    const SumsBlock<T> sums{scratch.sums, stride,   false,    at.image,
                            channel,      channels, at.begin, at.end};
    send_sums(problem(), table_, arrays, sums);
  }

  // Packs `channels` channels of the task's pixels: [panel][channel][width].
  void pack_pixels(const ConvArrays& arrays, const Place& at, const Reading& reading,
                   std::int64_t channel, std::int64_t channels, std::int64_t panels,
                   const Scratch& scratch) const {
    const Strides& strides = arrays.x_strides;
    const T* const image = static_cast<const T*>(arrays.x) + at.image * strides.batch;
    SplitRowsArgs<T> args{};
    args.count = at.end - at.begin;
    args.panel_vectors = scratch.panel_vectors;
    args.panel_count = panels;
    args.pitch = panel_pitch(channels);
    args.to = scratch.panels;
    if (reading.contiguous) {
      args.from = image + channel * strides.channel + at.begin;
      args.row_stride = strides.channel;
      args.rows = channels;
      return table_.split_rows(args);
    }
    args.from = scratch.row;
    args.rows = 1;
    for (std::int64_t c = 0; c < channels; ++c) {
      copy_pixels(problem(), table_, strides, image + (channel + c) * strides.channel, at.begin,
                  at.end, scratch.row);
      args.first = c;
      table_.split_rows(args);
    }
  }

  const KernelTable<T>& table_;
  RowTiles<T> tiles_;
  std::int64_t depth_ = 1;      // of panels, at most
  std::int64_t most_outs_ = 1;  // of a task
  std::int64_t vectors_ = 1;    // of pixels, per task
};

}  // namespace

std::unique_ptr<Plan> plan_pointwise_panels(ConvProblem problem) {
  return plan_of_dtype<PointwisePanelsPlan>(std::move(problem));
}

}  // namespace pyconv
