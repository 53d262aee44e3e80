// Winograd F(4x4, 3x3): 3x3 kernels at stride 1 with a quarter of the multiplications.
//
// A task takes a block of tiles (4 x 4 output pixels each, in row-major order) of one image and
// group, transforms all its input channels, and goes through its panels of output channels:
//
//   points [36][channels / lanes][tile][lanes]     weights [panel][36][channel][width]
//
//                 +-----------------+
//        channel  |     weights     |  kWinogradDepth channels of one point and panel: L1
//                 +-----------------+
//      +-------+  +-----------------+
//  tile| points|  |      sums       |  [36][tile][width]: L2
//      +-------+  +-----------------+
//       channel      width: output channels of a panel
//
// Weights are read once per task and in the order of their addresses, the next ones prefetched
// while the tiles of a block meet the current ones.
//
// A dilated convolution is as many undilated ones as it has phases: of d x d pixels that are
// neighbours, each belongs to another one, whose pixels are d apart.
#include <algorithm>
#include <numeric>

#include "algorithms/common.hpp"
#include "core/parallel.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

// Tiles per block. Fewer than 14 wait for weights (512 channels on 28 x 28: 240 effective GFLOP/s
// with 7 tiles, 320 with 14, 383 with 28), more than 28 gain nothing. Points may leave L2, since
// each element that comes back is used by a whole panel.
constexpr std::int64_t kMostTiles = 28;
constexpr std::int64_t kPointsBytes = 5 << 19;  // 2.5 MiB

constexpr std::int64_t kMostDilation = 64;  // its square is the number of phases

constexpr std::int64_t kMostChannels = 4096;  // of a group: 576 KiB of points per tile in float32

// Every dilation-th pixel of both axes, from (out_row, out_column) of the output and from (in_row,
// in_column) of the input on.
struct WinogradPhase {
  WinogradAxis height;
  WinogradAxis width;
  std::int64_t out_row;
  std::int64_t out_column;
  std::int64_t in_row;
  std::int64_t in_column;
  std::int64_t first_tile;

  std::int64_t tiles() const {
    return ceil_div(height.out, kWinogradOut) * ceil_div(width.out, kWinogradOut);
  }
};

// The phases that have outputs, at least one.
std::vector<WinogradPhase> list_phases(const ConvProblem& problem) {
  const auto phase_of = [](const Axis& axis, std::int64_t out, WinogradAxis& part) {
    const std::int64_t from = out - axis.pad_before;
    const std::int64_t in = (from % axis.dilation + axis.dilation) % axis.dilation;
    part.in = in < axis.in ? ceil_div(axis.in - in, axis.dilation) : 0;
    part.out = ceil_div(axis.out - out, axis.dilation);
    part.pad = (in - from) / axis.dilation;
    return in;
  };
  const Axis& height = problem.axes[1];
  const Axis& width = problem.axes[2];
  std::vector<WinogradPhase> phases;
  std::int64_t tiles = 0;
  for (std::int64_t row = 0; row < std::min(height.dilation, height.out); ++row) {
    for (std::int64_t column = 0; column < std::min(width.dilation, width.out); ++column) {
      WinogradPhase phase;
      phase.out_row = row;
      phase.out_column = column;
      phase.in_row = phase_of(height, row, phase.height);
      phase.in_column = phase_of(width, column, phase.width);
      phase.first_tile = tiles;
      tiles += phase.tiles();
      phases.push_back(phase);
    }
  }
  return phases;
}

// Tiles of all phases: over as many phases of an axis, each tile is of another row.
std::int64_t count_tiles(const Axis& axis) {
  const std::int64_t phases = std::min(axis.dilation, axis.out);
  const std::int64_t longer = axis.out % axis.dilation;
  const std::int64_t length = axis.out / axis.dilation;
  if (length == 0) return phases;
  return longer * ceil_div(length + 1, kWinogradOut) +
         (phases - longer) * ceil_div(length, kWinogradOut);
}

template <class T>
class WinogradPlan final : public Plan {
 public:
  explicit WinogradPlan(ConvProblem problem_in)
      : Plan(std::move(problem_in)), table_(kernels<T>()) {
    const ConvProblem& p = problem();
    phases_ = list_phases(p);
    tiles_ = phases_.back().first_tile + phases_.back().tiles();
    for (const Group& group : p.groups) {
      const std::int64_t vectors = ceil_div(group.out_channels, table_.lanes);
      groups_.push_back({Split::by_limit(vectors, table_.winograd_vectors), {}});
      GroupPlan& plan = groups_.back();
      for (std::int64_t panel = 0; panel < plan.panels.count(); ++panel) {
        plan.packed_offsets.push_back(packed_elements_);
        packed_elements_ +=
            kWinogradPoints * point_stride(group.in_channels * width_of(plan.panels, panel));
      }
      most_channels_ = std::max(most_channels_, group.in_channels);
      most_panels_ = std::max(most_panels_, groups_.back().panels.count());
      widest_ = std::max(widest_, groups_.back().panels.largest() * table_.lanes);
    }
  }

  std::string name() const override { return "winograd_4x4_3x3"; }

  std::string packing() const override { return name(); }

  std::size_t packed_bytes() const override {
    return static_cast<std::size_t>(packed_elements_) * sizeof(T);
  }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    alignas(64) T gathered[kChannelBlock * kWinogradTaps * 64 / sizeof(T)];
    for (std::size_t g = 0; g < weights.size(); ++g) {
      const Group& group = problem().groups[g];
      const WeightView& view = weights[g];
      const Split& panels = groups_[g].panels;
      for (std::int64_t panel = 0; panel < panels.count(); ++panel) {
        const std::int64_t width = width_of(panels, panel);
        const std::int64_t stride = point_stride(group.in_channels * width);
        T* const to =
            static_cast<T*>(packed) + groups_[g].packed_offsets[static_cast<std::size_t>(panel)];
        const std::int64_t begin = panels.begin(panel) * table_.lanes;
        for (std::int64_t i = 0; i < width; i += table_.lanes) {
          for (std::int64_t c = 0; c < group.in_channels; c += kChannelBlock) {
            const std::int64_t channels = std::min(kChannelBlock, group.in_channels - c);
            gather(view, c, channels, begin + i, group.out_channels, gathered);
            for (std::int64_t n = 0; n < channels; ++n) {
              table_.winograd_weights(gathered + n * kWinogradTaps * table_.lanes,
                                      to + (c + n) * width + i, stride);
            }
          }
        }
      }
    }
  }

  int useful_threads(int limit) const override { return worthwhile_threads(problem(), limit); }

  std::size_t workspace_bytes(int threads) const override {
    return static_cast<std::size_t>(threads) * carve(nullptr, blocking(threads)).bytes;
  }

  std::string tile() const override {
    const std::int64_t width = table_.winograd_vectors * table_.lanes;
    return std::to_string(table_.winograd_rows[table_.winograd_vectors - 1]) +
           " tiles of 4x4 pixels x " + std::to_string(width) + " channels";
  }

  std::string reason() const override { return "36 multiplications in place of 144"; }

  void run(const ConvArrays& arrays, int threads) const override {
    const ConvProblem& p = problem();
    if (p.batch == 0 || p.out_pixels() == 0 || p.out_channels == 0) return;
    const Blocking blocks = blocking(threads);
    const std::size_t bytes = carve(nullptr, blocks).bytes;
    const Workspace workspace(bytes * static_cast<std::size_t>(threads));
    const std::int64_t groups = static_cast<std::int64_t>(p.groups.size());
    const std::int64_t tasks = p.batch * groups * blocks.tiles.count() * blocks.parts;
    parallel_for(tasks, threads, [&](std::int64_t index, int thread) {
      std::byte* base = workspace.get();
      const Scratch scratch = carve(base + static_cast<std::size_t>(thread) * bytes, blocks);
      Task task;
      task.part = index % blocks.parts;
      task.block = index / blocks.parts % blocks.tiles.count();
      task.group = static_cast<std::size_t>(index / blocks.parts / blocks.tiles.count() % groups);
      task.image = index / blocks.parts / blocks.tiles.count() / groups;
      run_task(arrays, blocks, task, scratch);
    });
  }

 private:
  // to[channel][tap][lane] from a block of channels and the output channels from `out` on; lanes
  // past the last output channel are zero.
  void gather(const WeightView& view, std::int64_t channel, std::int64_t channels, std::int64_t out,
              std::int64_t out_end, T* to) const {
    TransposeArgs<T> args{};
    args.from = static_cast<const T*>(view.data) + out * view.out_stride + channel * view.in_stride;
    args.row_stride = view.out_stride;
    args.rows = std::min(table_.lanes, out_end - out);
    args.padded_rows = table_.lanes;
    args.pitch = table_.lanes;
    args.to = to;
    if (taps_are_dense(problem(), view)) {
      args.count = channels * kWinogradTaps;
      args.run = args.count;
      return table_.transpose(args);
    }
    args.count = 1;
    args.run = 1;
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t i = 0; i < 3; ++i) {
        for (std::int64_t j = 0; j < 3; ++j) {
          TransposeArgs<T> tap = args;
          tap.from += c * view.in_stride + i * view.axis_stride[1] + j * view.axis_stride[2];
          table_.transpose(tap);
          args.to += args.pitch;
        }
      }
    }
  }

  struct GroupPlan {
    Split panels;                              // of vectors of output channels
    std::vector<std::int64_t> packed_offsets;  // per panel
  };

  // How the work is cut, which depends on the number of threads; the results do not.
  struct Blocking {
    Split tiles;
    std::int64_t parts = 1;  // of a group's panels, each with an input transform of its own
  };

  struct Scratch {
    T* points;
    T* sums;
    T* strip;
    std::size_t bytes;
  };

  struct Task {
    std::int64_t image;
    std::size_t group;
    std::int64_t block;
    std::int64_t part;
  };

  // Neighbouring tiles of one tile row.
  struct Segment {
    const WinogradPhase& phase;
    std::int64_t row;
    std::int64_t column;
    std::int64_t tiles;
  };

  Blocking blocking(int threads) const {
    const std::int64_t tiles = tiles_;
    const std::int64_t bytes_per_tile =
        std::max<std::int64_t>(1, kWinogradPoints * most_channels_ * sizeof(T));
    const std::int64_t fewest =
        ceil_div(tiles, std::clamp<std::int64_t>(kPointsBytes / bytes_per_tile, 1, kMostTiles));
    const std::int64_t images =
        problem().batch * static_cast<std::int64_t>(problem().groups.size());

    Blocking best;
    if (images == 0 || tiles == 0) return best;

    // Tasks should be a multiple of the threads, or some would wait for the last. More blocks of
    // tiles mean fewer tiles per pass over the weights, more parts another transform of the input.
    double best_time = 0;
    for (std::int64_t parts = 1; parts <= std::min<std::int64_t>(most_panels_, threads); ++parts) {
      const std::int64_t even = threads / std::gcd(images * parts, std::int64_t(threads));
      for (const std::int64_t count : {fewest, ceil_div(fewest, even) * even}) {
        if (count > tiles) continue;
        const double rounds = static_cast<double>(ceil_div(images * parts * count, threads));
        const double time =
            rounds * task_time(ceil_div(tiles, count), ceil_div(most_panels_, parts));
        if (best.tiles.count() == 0 || time < best_time) {
          best = {Split::by_count(tiles, count), parts};
          best_time = time;
        }
      }
    }
    return best;
  }

  // Of a task, in vector operations per lane: both transforms cost about 16 per tile and channel,
  // and weights come from L3 no faster than 9 tiles can use them.
  double task_time(std::int64_t tiles, std::int64_t panels) const {
    const auto in = static_cast<double>(most_channels_);
    const auto out = static_cast<double>(panels * widest_);
    const auto count = static_cast<double>(tiles);
    return 16 * count * (in + out) + kWinogradPoints / 16.0 * std::max(count, 9.0) * in * out;
  }

  std::int64_t width_of(const Split& panels, std::int64_t panel) const {
    return panels.size(panel) * table_.lanes;
  }

  // An odd number of cache lines between points: 36 of them are written or read at once, and a
  // power of two would bring them into one set of a cache.
  std::int64_t point_stride(std::int64_t elements) const {
    constexpr std::int64_t line = kAlignment / sizeof(T);
    return (ceil_div(elements, line) | 1) * line;
  }

  std::int64_t points_stride(std::int64_t channels, std::int64_t tiles) const {
    return point_stride(ceil_div(channels, table_.lanes) * table_.lanes * tiles);
  }

  Scratch carve(void* base, const Blocking& blocks) const {
    const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
    const std::int64_t tiles = blocks.tiles.largest();
    Carver carver(base);
    Scratch scratch;
    scratch.points = carver.take<T>(size(kWinogradPoints * points_stride(most_channels_, tiles)));
    scratch.sums = carver.take<T>(size(kWinogradPoints * point_stride(widest_ * tiles)));
    scratch.strip = carver.take<T>(size(kWinogradStrip * table_.lanes));
    scratch.bytes = carver.used();
    return scratch;
  }

  // Calls visit(segment, first tile within the block) for the tiles [begin, end).
  template <class Visit>
  void for_each_segment(std::int64_t begin, std::int64_t end, const Visit& visit) const {
    auto phase = std::upper_bound(phases_.begin(), phases_.end(), begin,
                                  [](std::int64_t tile, const WinogradPhase& p) {
                                    return tile < p.first_tile;
                                  }) -
                 1;
    for (std::int64_t tile = begin; tile < end;) {
      while (tile >= phase->first_tile + phase->tiles()) ++phase;
      const std::int64_t columns = ceil_div(phase->width.out, kWinogradOut);
      const std::int64_t in_phase = tile - phase->first_tile;
      const std::int64_t column = in_phase % columns;
      const std::int64_t count =
          std::min({std::int64_t(kWinogradSegment), columns - column, end - tile});
      visit(Segment{*phase, in_phase / columns, column, count}, tile - begin);
      tile += count;
    }
  }

  void run_task(const ConvArrays& arrays, const Blocking& blocks, const Task& task,
                const Scratch& scratch) const {
    const Group& group = problem().groups[task.group];
    const GroupPlan& plan = groups_[task.group];
    const std::int64_t begin = blocks.tiles.begin(task.block);
    const std::int64_t end = blocks.tiles.end(task.block);
    transform_input(arrays, task.image, group, begin, end, scratch);

    const Split parts = Split::by_count(plan.panels.count(), blocks.parts);
    for (std::int64_t panel = parts.begin(task.part); panel < parts.end(task.part); ++panel) {
      const std::int64_t first = plan.panels.begin(panel) * table_.lanes;
      const std::int64_t width = width_of(plan.panels, panel);
      const T* weights = static_cast<const T*>(arrays.packed_weights) +
                         plan.packed_offsets[static_cast<std::size_t>(panel)];
      multiply(weights, group.in_channels, plan.panels.size(panel), end - begin, scratch);
      transform_output(arrays, task.image, group.out_begin + first,
                       std::min(width, group.out_channels - first), width, begin, end, scratch);
    }
  }

  void transform_input(const ConvArrays& arrays, std::int64_t image, const Group& group,
                       std::int64_t begin, std::int64_t end, const Scratch& scratch) const {
    const ConvProblem& p = problem();
    WinogradInputArgs<T> args{};
    const T* const all = static_cast<const T*>(arrays.x) + image * arrays.x_strides.batch +
                         group.in_begin * arrays.x_strides.channel;
    args.strides = dilated(arrays.x_strides);
    args.channels = group.in_channels;
    args.padding_mode = p.padding_mode;
    args.tiles_in_block = end - begin;
    args.point_stride = points_stride(group.in_channels, end - begin);
    args.strip = scratch.strip;
    for_each_segment(begin, end, [&](const Segment& segment, std::int64_t tile) {
      const WinogradPhase& phase = segment.phase;
      args.image = all + phase.in_row * arrays.x_strides.axis[1] +
                   phase.in_column * arrays.x_strides.axis[2];
      args.height = phase.height;
      args.width = phase.width;
      args.tile_row = segment.row;
      args.tile_column = segment.column;
      args.tiles = segment.tiles;
      args.points = scratch.points + tile * table_.lanes;
      table_.winograd_input(args);
    });
  }

  // The sums of one panel: for each point, points times weights.
  void multiply(const T* weights, std::int64_t channels, std::int64_t vectors, std::int64_t tiles,
                const Scratch& scratch) const {
    const std::int64_t width = vectors * table_.lanes;
    const std::int64_t from_stride = points_stride(channels, tiles);
    const std::int64_t to_stride = point_stride(tiles * width);
    const Split rows = Split::by_limit(tiles, table_.winograd_rows[vectors - 1]);
    for (std::int64_t point = 0; point < kWinogradPoints; ++point) {
      std::int64_t channel = 0;
      do {
        const std::int64_t depth = std::min(kWinogradDepth, channels - channel);
        const T* ahead = weights + depth * width;
        for (std::int64_t part = 0; part < rows.count(); ++part) {
          const std::int64_t tile = rows.begin(part);
          table_.winograd_tile[rows.size(part) - 1][vectors - 1](
              depth, scratch.points + point * from_stride + channel * tiles + tile * table_.lanes,
              tiles * table_.lanes, weights, scratch.sums + point * to_stride + tile * width,
              channel > 0, ahead);
          ahead += depth * (kAlignment / sizeof(T));
        }
        weights += depth * width;
        channel += depth;
      } while (channel < channels);
      weights += point_stride(channels * width) - channels * width;
    }
  }

  void transform_output(const ConvArrays& arrays, std::int64_t image, std::int64_t channel,
                        std::int64_t channels, std::int64_t width, std::int64_t begin,
                        std::int64_t end, const Scratch& scratch) const {
    const ConvProblem& p = problem();
    WinogradOutputArgs<T> args{};
    args.point_stride = point_stride((end - begin) * width);
    args.width = width;
    args.channels = channels;
    args.bias = arrays.bias ? static_cast<const T*>(arrays.bias) + channel : nullptr;
    args.residual_strides = dilated(arrays.residual_strides);
    args.out_strides = dilated(arrays.out_strides);
    args.activation = p.activation;
    args.strip = scratch.strip;
    for_each_segment(begin, end, [&](const Segment& segment, std::int64_t tile) {
      const std::int64_t row = segment.row * kWinogradOut;
      const std::int64_t column = segment.column * kWinogradOut;
      const WinogradPhase& phase = segment.phase;
      const auto offset = [&](const Strides& strides) {
        return image * strides.batch + channel * strides.channel +
               (phase.out_row + row * p.axes[1].dilation) * strides.axis[1] +
               (phase.out_column + column * p.axes[2].dilation) * strides.axis[2];
      };
      args.sums = scratch.sums + tile * width;
      args.tiles = segment.tiles;
      args.rows = std::min<std::int64_t>(kWinogradOut, phase.height.out - row);
      args.columns = std::min(segment.tiles * kWinogradOut, phase.width.out - column);
      if (arrays.residual) {
        args.residual = static_cast<const T*>(arrays.residual) + offset(arrays.residual_strides);
      }
      args.out = static_cast<T*>(arrays.out) + offset(arrays.out_strides);
      table_.winograd_output(args);
    });
  }

  Strides dilated(Strides strides) const {
    for (std::size_t axis = 1; axis < kSpatialAxes; ++axis) {
      strides.axis[axis] *= problem().axes[axis].dilation;
    }
    return strides;
  }

  const KernelTable<T>& table_;
  std::vector<WinogradPhase> phases_;
  std::int64_t tiles_;  // of all phases
  std::vector<GroupPlan> groups_;
  std::int64_t packed_elements_ = 0;
  std::int64_t most_channels_ = 0;
  std::int64_t most_panels_ = 1;  // of a group
  std::int64_t widest_ = 0;       // output channels of a panel
};

}  // namespace

std::string winograd_refuses(const ConvProblem& problem) {
  const Axis& depth = problem.axes[0];
  if (problem.spatial_rank == 1) return "it has one spatial axis, not two";
  if (depth.kernel != 1 || depth.in != 1 || depth.out != 1) return "it has a depth axis";
  for (const Axis* axis : {&problem.axes[1], &problem.axes[2]}) {
    if (axis->kernel != 3) return "the kernel is not 3x3";
    if (axis->stride != 1) return "the stride is not 1";
    if (axis->dilation == 1) continue;
    if (problem.padding_mode != PaddingMode::zeros) return "dilation needs padding by zeros";
    if (axis->dilation > kMostDilation) {
      return "the dilation is more than " + std::to_string(kMostDilation);
    }
  }
  for (const Group& group : problem.groups) {
    if (group.in_channels > kMostChannels) {
      return "a group has more than " + std::to_string(kMostChannels) + " input channels";
    }
  }
  return {};
}

// Measured in float32. The errors of fewer than 24 input channels are not always within 4 times
// those of direct float32 (16 channels with spikes: 4.3 with one seed of eight, on average 2.4; 24
// channels: at most 3.6), and fewer outputs leave less work
// between the transforms than these cost. An axis that fills its last tiles badly multiplies what
// is thrown away, and on planes of less than 3 x 3 tiles weights, fourfold, are read for too few of
// them: at 7 x 7 direct convolution, which leaves out the padding, is 1.3 times faster.
bool winograd_pays(const ConvProblem& problem) {
  if (problem.dtype != DataType::float32 || problem.groups.empty()) return false;
  for (const Group& group : problem.groups) {
    if (group.in_channels < 24 || group.out_channels < 16) return false;
  }
  const std::int64_t tiles = count_tiles(problem.axes[1]) * count_tiles(problem.axes[2]);
  const std::int64_t computed = kWinogradOut * kWinogradOut * tiles;
  return tiles >= 9 && 25 * problem.out_pixels() >= 12 * computed;
}

std::unique_ptr<Plan> plan_winograd(ConvProblem problem) {
  if (problem.dtype == DataType::float64) {
    return std::make_unique<WinogradPlan<double>>(std::move(problem));
  }
  return std::make_unique<WinogradPlan<float>>(std::move(problem));
}

}  // namespace pyconv
