// Winograd F(m, r) with m + r = 7, along both axes or along one: convolution with a half to a
// quarter of the multiplications.
//
// A task takes a block of tiles (m x m, 1 x m or m x 1 output pixels each, in row-major order) of
// one image and group, transforms its input channels, and goes through its panels of output
// channels:
//
//   points [slice][36 or 6][channels / lanes][tile][lanes]
//   weights [panel][36 or 6][slice][channel][width]
//
//                 +-----------------+
//        channel  |     weights     |  kWinogradDepth channels of one point and panel: L1
//                 +-----------------+
//      +-------+  +-----------------+
//  tile| points|  |      sums       |  [36 or 6][tile][width]: L2
//      +-------+  +-----------------+
//       channel      width: output channels of a panel
//
// Weights are read once per task and in the order of their addresses, the next ones prefetched
// while the tiles of a block meet the current ones. Where points of all channels would leave room
// for few tiles, a task takes some channels at a time through all panels, whose sums wait.
//
// At the end of an axis tiles may have fewer outputs than m, and points. Each point has the tiles
// that need it in front; its sums of the others are zeros.
//
// Slices are input planes that count like further channels. There is one for each tap of a depth
// axis; at stride 2 for each combination of even and odd input rows and columns, which the even and
// odd rows and columns of the kernel meet at stride 1; and for each part of a kernel with more than
// r taps. Where a part has less than r taps, the point at infinity is zero and left out.
//
// A dilated convolution is as many undilated ones as it has phases: of d x d pixels that are
// neighbours, each belongs to another one, whose pixels are d apart. Channels-first, the phases
// that read the same rows change their layout together, unless they are more than a block has
// tiles: blocks are made of units, the tiles of all of them in a span of a row of tiles. Elsewhere
// a unit is a tile.
#include <xmmintrin.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "algorithms/common.hpp"
#include "core/padding.hpp"
#include "core/parallel.hpp"
#include "core/partition.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

// What a task works on: the points of a block of tiles, and sums. Fewer than 14 tiles wait for
// weights (512 channels on 28 x 28: 240 effective GFLOP/s with 7 tiles, 320 with 14, 383 with 28).
// Points may leave L2, since each element that comes back is used by a whole panel.
constexpr std::int64_t kMostTiles = 28;            // of 36 points
constexpr std::int64_t kMostTilesFar = 56;         // where an L3 cache may not hold the weights
constexpr std::int64_t kBlockBytes = 4000 << 10;   // with copies of rows less than 4 MiB
constexpr std::int64_t kL3WeightBytes = 8 << 20;   // that an L3 cache holds beside arrays
constexpr std::int64_t kFewestPassChannels = 256;  // or waiting sums take the room and the time
constexpr std::int64_t kMostPanelChannels = 64;

constexpr std::int64_t kMostDilation = 64;  // its square is the number of phases

// Of a group, times the slices: 576 KiB of points per tile in float32.
constexpr std::int64_t kMostChannels = 4096;

// Of a group: a plan lists the panels of them.
constexpr std::int64_t kMostOutChannels = 1 << 20;

constexpr std::int64_t kMostStride = 2;
constexpr std::int64_t kMostParts = 4;  // of an axis

// How an axis is divided: the outputs of a tile, 1 where it is not transformed, and the parts of
// its kernel, each of at most `taps`.
struct Side {
  int outs;
  std::int64_t taps;
  int points;
  std::int64_t parts;
};

// How both axes are divided.
struct Sides {
  Side row;
  Side column;

  std::int64_t parts() const { return row.parts * column.parts; }
  int points() const { return row.points * column.points; }
};

// Taps of one spatial axis, a stride apart, and the input that they meet: every step-th pixel from
// `first_in` on.
struct WinogradPart {
  WinogradAxis axis;
  std::int64_t out;
  std::int64_t first_in;
  std::int64_t first_tap;
  std::int64_t taps;
};

// Every dilation-th pixel of both axes, from (out_row, out_column) of the output on.
struct WinogradPhase {
  std::int64_t out_row;
  std::int64_t out_column;
  WinogradPart rows[kMostParts];
  WinogradPart columns[kMostParts];
  std::int64_t first_unit;

  std::int64_t height() const { return rows[0].out; }
  std::int64_t width() const { return columns[0].out; }
  std::int64_t tile_rows(const Sides& sides) const { return ceil_div(height(), sides.row.outs); }
  std::int64_t tile_columns(const Sides& sides) const {
    return ceil_div(width(), sides.column.outs);
  }
};

// From one input pixel of a part to the next. An axis has a stride or a dilation, not both.
std::int64_t step_of(const Axis& axis) { return axis.stride * axis.dilation; }

// Calls visit(first tap, taps) for the parts of a kernel.
template <class Visit>
void for_each_part(const Axis& axis, std::int64_t taps, const Visit& visit) {
  for (std::int64_t first = 0; first < std::min(axis.stride, axis.kernel); ++first) {
    const std::int64_t count = ceil_div(axis.kernel - first, axis.stride);
    for (std::int64_t from = 0; from < count; from += taps) {
      visit(first + from * axis.stride, std::min(taps, count - from));
    }
  }
}

// How many points the parts of an axis have together.
std::int64_t part_points(const Axis& axis, const Side& side) {
  std::int64_t points = 0;
  for_each_part(axis, side.taps, [&](std::int64_t, std::int64_t taps) {
    points += side.points - (taps < side.taps ? 1 : 0);
  });
  return points;
}

Side side_of(const Axis& axis, int outs) {
  Side side{outs, winograd_taps(outs), winograd_points(outs), 0};
  for_each_part(axis, side.taps, [&](std::int64_t, std::int64_t) { ++side.parts; });
  return side;
}

// Into the fewest parts, since weights grow with them, then so that an output pixel takes the
// fewest products.
std::optional<Sides> best_sides(const ConvProblem& problem) {
  const Axis& height = problem.axes[1];
  const Axis& width = problem.axes[2];
  const std::int64_t most_taps = kMostParts * winograd_taps(kFewestWinogradOuts);
  if (std::max(height.kernel, width.kernel) > most_taps) return std::nullopt;
  std::optional<Sides> best;
  double best_products = 0;
  for (int outs = kFewestWinogradOuts; outs <= kMostWinogradOuts; ++outs) {
    const Sides sides{side_of(height, height.kernel > 1 ? outs : 1),
                      side_of(width, width.kernel > 1 ? outs : 1)};
    if (std::max(sides.row.parts, sides.column.parts) > kMostParts) continue;
    const auto products =
        static_cast<double>(part_points(height, sides.row) * part_points(width, sides.column)) /
        (sides.row.outs * sides.column.outs);
    if (!best || sides.parts() < best->parts() ||
        (sides.parts() == best->parts() && products < best_products)) {
      best = sides;
      best_products = products;
    }
  }
  return best;
}

void fill_parts(const Axis& axis, const Side& side, std::int64_t out,
                WinogradPart (&parts)[kMostParts]) {
  const std::int64_t step = step_of(axis);
  WinogradPart* part = parts;
  for_each_part(axis, side.taps, [&](std::int64_t first, std::int64_t taps) {
    const std::int64_t from = out + first * axis.dilation - axis.pad_before;
    part->first_in = (from % step + step) % step;
    part->first_tap = first;
    part->taps = taps;
    part->axis.in = part->first_in < axis.in ? ceil_div(axis.in - part->first_in, step) : 0;
    part->out = ceil_div(axis.out - out, axis.dilation);
    part->axis.pad = (part->first_in - from) / step;
    part->axis.end = part->out + taps - 1 - part->axis.pad;
    ++part;
  });
}

// The phases that have outputs, at least one: [row][column].
std::vector<WinogradPhase> list_phases(const ConvProblem& problem, const Sides& sides) {
  const Axis& height = problem.axes[1];
  const Axis& width = problem.axes[2];
  std::vector<WinogradPhase> phases;
  for (std::int64_t row = 0; row < std::min(height.dilation, height.out); ++row) {
    for (std::int64_t column = 0; column < std::min(width.dilation, width.out); ++column) {
      WinogradPhase phase{};
      phase.out_row = row;
      phase.out_column = column;
      fill_parts(height, sides.row, row, phase.rows);
      fill_parts(width, sides.column, column, phase.columns);
      phases.push_back(phase);
    }
  }
  return phases;
}

// Of all phases: over as many phases of an axis, each tile is of another row.
struct AxisTiles {
  std::int64_t count;
  std::int64_t points;  // of all of them, along the axis
};

AxisTiles count_tiles(const Axis& axis, const Side& side) {
  AxisTiles tiles{};
  const auto add = [&](std::int64_t phases, std::int64_t length) {
    const std::int64_t whole = length / side.outs;
    const std::int64_t left = length % side.outs;
    tiles.count += phases * (whole + (left > 0 ? 1 : 0));
    tiles.points += phases * whole * side.points;
    if (left > 0) tiles.points += phases * winograd_points_met(side.outs, left);
  };
  add(axis.out % axis.dilation, axis.out / axis.dilation + 1);
  add(axis.dilation - axis.out % axis.dilation, axis.out / axis.dilation);
  return tiles;
}

// Blocks of channels of all slices.
std::int64_t channel_blocks(std::int64_t slices, std::int64_t channels) {
  return slices * ceil_div(channels, kWinogradDepth);
}

// What a task takes at a time, at most.
struct BlockSize {
  std::int64_t tiles;
  std::int64_t channel_blocks;
};

// Of so many tiles of a plane.
BlockSize block_size(std::int64_t all_tiles, std::int64_t slices, std::int64_t channels,
                     std::int64_t out_channels, std::int64_t points, std::size_t element) {
  const std::int64_t tile_bytes = points * static_cast<std::int64_t>(element);
  const bool far = slices * channels * out_channels > kL3WeightBytes / tile_bytes;
  const std::int64_t most = (far ? kMostTilesFar : kMostTiles) * kMostWinogradPoints / points;
  const std::int64_t room = kBlockBytes / tile_bytes;
  const std::int64_t tiles =
      std::clamp<std::int64_t>(room / (slices * channels + kMostPanelChannels), 1, most);
  // Passes must make up for keeping the sums of all panels.
  const std::int64_t in_passes = std::min(most, room / (kFewestPassChannels + out_channels));
  if (tiles >= all_tiles || 2 * in_passes < 3 * tiles) {
    return {tiles, channel_blocks(slices, channels)};
  }
  return {in_passes, (room / in_passes - out_channels) / kWinogradDepth};
}

template <class T>
class WinogradPlan final : public Plan {
 public:
  explicit WinogradPlan(ConvProblem problem_in)
      : Plan(std::move(problem_in)), table_(kernels<T>()) {
    const ConvProblem& p = problem();
    sides_ = *best_sides(p);
    points_ = sides_.points();
    transforms_ = table_.winograd[sides_.row.outs][sides_.column.outs];
    phases_ = list_phases(p, sides_);
    list_slices();
    reads_ahead_ = should_read_ahead();
    for (const Group& group : p.groups) {
      const std::int64_t vectors = ceil_div(group.out_channels, table_.lanes);
      groups_.push_back({Split::by_limit(vectors, table_.winograd_vectors), {}});
      GroupPlan& plan = groups_.back();
      for (std::int64_t panel = 0; panel < plan.panels.count(); ++panel) {
        plan.packed_offsets.push_back(packed_elements_);
        const std::int64_t elements = group.in_channels * width_of(plan.panels, panel);
        for (const std::int64_t slices : slices_at_) {
          packed_elements_ += point_stride(slices * elements);
        }
      }
      most_channels_ = std::max(most_channels_, group.in_channels);
      most_panels_ = std::max(most_panels_, groups_.back().panels.count());
      widest_ = std::max(widest_, groups_.back().panels.largest() * table_.lanes);
    }
    tiles_ = count_tiles(p.axes[1], sides_.row).count * count_tiles(p.axes[2], sides_.column).count;
    block_ = block_size(tiles_, slice_count(), most_channels_, most_panels_ * widest_, points_,
                        sizeof(T));
    choose_units();
  }

  std::string name() const override { return "winograd"; }
  std::string packing() const override { return "winograd"; }

  std::size_t packed_bytes() const override {
    return static_cast<std::size_t>(packed_elements_) * sizeof(T);
  }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    const ConvProblem& p = problem();
    const AlignedBuffer memory =
        make_aligned(size_of(kChannelBlock * p.taps() * widest_) * sizeof(T));
    T* const gathered = reinterpret_cast<T*>(memory.get());
    WinogradWeightsArgs<T> args{};
    args.row_stride = p.axes[1].stride * p.axes[2].kernel * table_.lanes;
    args.column_stride = p.axes[2].stride * table_.lanes;
    args.past_caches = static_cast<std::int64_t>(packed_bytes()) > kL3WeightBytes;
    for (std::size_t g = 0; g < weights.size(); ++g) {
      const Group& group = p.groups[g];
      const Split& panels = groups_[g].panels;
      for (std::int64_t panel = 0; panel < panels.count(); ++panel) {
        const std::int64_t width = width_of(panels, panel);
        const auto offsets = point_offsets(group.in_channels * width);
        T* const to =
            static_cast<T*>(packed) + groups_[g].packed_offsets[static_cast<std::size_t>(panel)];
        for (std::int64_t c = 0; c < group.in_channels; c += kChannelBlock) {
          const std::int64_t channels = std::min(kChannelBlock, group.in_channels - c);
          const std::int64_t vector = channels * p.taps() * table_.lanes;
          for (std::int64_t v = 0; v < panels.size(panel); ++v) {
            gather(weights[g], c, channels, (panels.begin(panel) + v) * table_.lanes,
                   group.out_channels, gathered + v * vector);
          }
          for (std::size_t n = 0; n < slices_.size(); ++n) {
            const Slice& slice = slices_[n];
            args.rows = slice.rows;
            args.columns = slice.columns;
            args.offsets = &offsets[n * static_cast<std::size_t>(points_)];
            for (std::int64_t k = 0; k < channels; ++k) {
              args.from = gathered + (k * p.taps() + slice.tap) * table_.lanes;
              args.to = to + (c + k) * width;
              for (std::int64_t v = 0; v < panels.size(panel); ++v) {
                transforms_.weights(args);
                args.from += vector;
                args.to += table_.lanes;
              }
            }
          }
        }
      }
    }
    if (args.past_caches) _mm_sfence();
  }

  std::size_t workspace_bytes(int threads) const override {
    return static_cast<std::size_t>(threads) * carve(nullptr, blocking(threads)).bytes;
  }

  std::string partition(int threads) const override {
    return partition_of(blocking(threads)).text();
  }

  std::string tile() const override {
    const std::int64_t width = table_.winograd_vectors * table_.lanes;
    return std::to_string(table_.winograd_rows[table_.winograd_vectors - 1]) + " tiles of " +
           std::to_string(sides_.row.outs) + "x" + std::to_string(sides_.column.outs) +
           " pixels x " + std::to_string(width) + " channels";
  }

  std::string reason() const override {
    return std::to_string(multiplications()) + " multiplications in place of " +
           std::to_string(sides_.row.outs * sides_.column.outs * problem().taps());
  }

  void run(const ConvArrays& arrays, int threads) const override {
    const Blocking blocks = blocking(threads);
    const std::size_t bytes = carve(nullptr, blocks).bytes;
    const Workspace workspace(bytes * static_cast<std::size_t>(threads));
    const auto partition = partition_of(blocks);
    const std::int64_t tasks = partition.tasks();
    const auto task_at = [&](std::int64_t index) {
      const auto [image, group, depth, block, part] = partition.at(index);
      Task task;
      task.image = image;
      task.group = static_cast<std::size_t>(group);
      task.depth = depth;
      task.block = block;
      task.part = part;
      return task;
    };
    parallel_for(tasks, threads, [&](std::int64_t index, int thread) {
      std::byte* base = workspace.get();
      const Scratch scratch = carve(base + static_cast<std::size_t>(thread) * bytes, blocks);
      run_task(arrays, blocks, task_at(index), task_at(std::min(index + 1, tasks - 1)), scratch);
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
      args.count = channels * problem().taps();
      args.run = args.count;
      return table_.transpose(args);
    }
    args.count = 1;
    args.run = 1;
    TapOffsets taps(problem());
    const T* const first = args.from;
    for (std::int64_t c = 0; c < channels; ++c) {
      for (const std::int64_t offset : taps.of(view)) {
        args.from = first + c * view.in_stride + offset;
        table_.transpose(args);
        args.to += args.pitch;
      }
    }
  }

  // Input planes that one part of the kernel meets.
  struct Slice {
    std::int64_t depth;  // tap
    std::int64_t row_part;
    std::int64_t column_part;
    std::int64_t rows;  // taps
    std::int64_t columns;
    std::int64_t tap;  // the first
  };

  void list_slices() {
    const auto& axes = problem().axes;
    const WinogradPhase& phase = phases_.front();
    for (std::int64_t depth = 0; depth < axes[0].kernel; ++depth) {
      for (std::int64_t row = 0; row < sides_.row.parts; ++row) {
        for (std::int64_t column = 0; column < sides_.column.parts; ++column) {
          const WinogradPart& rows = phase.rows[row];
          const WinogradPart& columns = phase.columns[column];
          slices_.push_back(
              {depth, row, column, rows.taps, columns.taps,
               (depth * axes[1].kernel + rows.first_tap) * axes[2].kernel + columns.first_tap});
        }
      }
    }
    for (int point = 0; point < points_; ++point) {
      slices_at_.push_back(std::count_if(slices_.begin(), slices_.end(), [&](const Slice& slice) {
        return has_point(slice, point);
      }));
    }
  }

  // The point at infinity is the last tap, which a short part lacks.
  bool has_point(const Slice& slice, int point) const {
    return (slice.rows == sides_.row.taps ||
            point / sides_.column.points < sides_.row.points - 1) &&
           (slice.columns == sides_.column.taps ||
            point % sides_.column.points < sides_.column.points - 1);
  }

  std::int64_t multiplications() const {
    return std::accumulate(slices_at_.begin(), slices_at_.end(), std::int64_t(0));
  }

  // Where a panel's weights of each [slice][point] begin, whose slices take `elements` each; -1
  // for points that a slice lacks.
  std::vector<std::int64_t> point_offsets(std::int64_t elements) const {
    std::vector<std::int64_t> offsets(slices_.size() * static_cast<std::size_t>(points_), -1);
    std::int64_t begin = 0;
    for (int point = 0; point < points_; ++point) {
      std::int64_t at = begin;
      for (std::size_t n = 0; n < slices_.size(); ++n) {
        if (!has_point(slices_[n], point)) continue;
        offsets[n * static_cast<std::size_t>(points_) + static_cast<std::size_t>(point)] = at;
        at += elements;
      }
      begin += point_stride(at - begin);
    }
    return offsets;
  }

  struct GroupPlan {
    Split panels;                              // of vectors of output channels
    std::vector<std::int64_t> packed_offsets;  // per panel
  };

  // How the work is cut, which depends on the number of threads; the results do not.
  struct Blocking {
    Split units;
    std::int64_t parts = 1;  // of a group's panels, each with an input transform of its own
  };

  Partition<5> partition_of(const Blocking& blocks) const {
    const ConvProblem& p = problem();
    return Partition({{"images", p.batch},
                      {"groups", static_cast<std::int64_t>(p.groups.size())},
                      {"planes", p.axes[0].out},
                      {"blocks of tiles", blocks.units.count()},
                      {"blocks of output channels", blocks.parts}});
  }

  struct Scratch {
    T* points;
    T* sums;
    T* strip;
    T* span;               // of pixels of all phases of a unit
    WinogradSlots* slots;  // of the segments of a block
    std::size_t bytes;
  };

  struct Task {
    std::int64_t image;
    std::size_t group;
    std::int64_t depth;
    std::int64_t block;
    std::int64_t part;
  };

  struct Range {
    std::int64_t begin;
    std::int64_t end;
  };

  // Neighbouring tiles of one tile row.
  struct Segment {
    const WinogradPhase& phase;
    std::int64_t row;
    std::int64_t column;
    std::int64_t tiles;
  };

  // Gives the tiles of a block their slots at each point, segment by segment: in front to those
  // that need it, behind to the others.
  class SlotCounter {
   public:
    SlotCounter(const Sides& sides, std::int64_t tiles) : sides_(sides) {
      std::fill(std::begin(end_), std::end(end_), tiles);
    }

    void fill(const Segment& segment, WinogradSlots& slots) {
      const auto met = [](const Side& side, std::int64_t length, std::int64_t tile) {
        return winograd_points_met(side.outs, length - tile * side.outs);
      };
      slots.met_rows = met(sides_.row, segment.phase.height(), segment.row);
      slots.met_columns =
          met(sides_.column, segment.phase.width(), segment.column + segment.tiles - 1);
      int point = 0;
      for (int row = 0; row < sides_.row.points; ++row) {
        for (int column = 0; column < sides_.column.points; ++column, ++point) {
          // The last tile has the next slot, unless it is the only one not to need the point.
          std::int64_t& first = slots.first[point];
          std::int64_t& last = slots.last[point];
          if (row >= slots.met_rows) {
            first = end_[point] -= segment.tiles;
            last = first + segment.tiles - 1;
          } else {
            first = begin_[point];
            const bool met_by_last = column < slots.met_columns;
            last = met_by_last ? first + segment.tiles - 1 : --end_[point];
            begin_[point] += segment.tiles - (met_by_last ? 0 : 1);
          }
        }
      }
    }

    // How many tiles need a point.
    std::int64_t count(int point) const { return begin_[point]; }

   private:
    const Sides& sides_;
    std::int64_t begin_[kMostWinogradPoints] = {};
    std::int64_t end_[kMostWinogradPoints];
  };

  void choose_units() {
    const Axis& width = problem().axes[2];
    const std::int64_t phases = std::min(width.dilation, width.out);
    shares_rows_ = !problem().channels_last && phases > 1 && phases <= block_.tiles;
    if (shares_rows_) {
      column_phases_ = phases;
      const std::int64_t most =
          std::min<std::int64_t>(winograd_segment(sides_.column.outs), block_.tiles / phases);
      spans_ = Split::by_limit(phases_.front().tile_columns(sides_), most);
    }
    for (std::size_t first = 0; first < phases_.size(); first += size_of(column_phases_)) {
      for (std::int64_t column = 0; column < column_phases_; ++column) {
        phases_[first + size_of(column)].first_unit = units_;
      }
      const WinogradPhase& phase = phases_[first];
      units_ +=
          phase.tile_rows(sides_) * (shares_rows_ ? spans_.count() : phase.tile_columns(sides_));
    }
    if (shares_rows_) unit_tiles_ = tiles_of(0, 1);  // later spans are no longer
  }

  Blocking blocking(int threads) const {
    const std::int64_t tiles = tiles_;
    const std::int64_t fewest = ceil_div(units_, block_.tiles / unit_tiles_);
    const std::int64_t images = problem().batch *
                                static_cast<std::int64_t>(problem().groups.size()) *
                                problem().axes[0].out;

    Blocking best;
    if (images == 0) return best;

    // Tasks should be a multiple of the threads, or some would wait for the last. More blocks of
    // tiles mean fewer tiles per pass over the weights, more parts another transform of the input.
    double best_time = 0;
    for (std::int64_t parts = 1; parts <= std::min<std::int64_t>(most_panels_, threads); ++parts) {
      const std::int64_t even = threads / std::gcd(images * parts, std::int64_t(threads));
      for (const std::int64_t count : {fewest, round_up(fewest, even)}) {
        if (count > units_) continue;
        const double rounds = static_cast<double>(ceil_div(images * parts * count, threads));
        const double time =
            rounds * task_time(ceil_div(tiles, count), ceil_div(most_panels_, parts));
        if (best.units.count() == 0 || time < best_time) {
          best = {Split::by_count(units_, count), parts};
          best_time = time;
        }
      }
    }
    return best;
  }

  // Of a task, in vector operations per lane: a transform costs about as much as half of its points
  // in multiply-adds, and weights come from L3 no faster than 9 tiles can use them.
  double task_time(std::int64_t tiles, std::int64_t panels) const {
    const auto in = static_cast<double>(most_channels_);
    const auto out = static_cast<double>(panels * widest_);
    const auto count = static_cast<double>(tiles);
    const auto slices = static_cast<double>(slice_count());
    const auto products = static_cast<double>(multiplications());
    return points_ / 2.0 * count * (slices * in + out) +
           products / 16 * std::max(count, 9.0) * in * out;
  }

  std::int64_t width_of(const Split& panels, std::int64_t panel) const {
    return panels.size(panel) * table_.lanes;
  }

  // An odd number of cache lines between points: 36 of them are written or read at once, and a
  // power of two would bring them into one set of a cache.
  std::int64_t point_stride(std::int64_t elements) const {
    return odd_lines(elements, kAlignment / sizeof(T));
  }

  std::int64_t points_stride(std::int64_t channels, std::int64_t tiles) const {
    return point_stride(round_up(channels, table_.lanes) * tiles);
  }

  std::int64_t panel_sums(std::int64_t tiles) const {
    return points_ * point_stride(widest_ * tiles);
  }

  static std::size_t size_of(std::int64_t n) { return static_cast<std::size_t>(n); }

  Scratch carve(void* base, const Blocking& blocks) const {
    const std::int64_t tiles = blocks.units.largest() * unit_tiles_;
    Carver carver(base);
    Scratch scratch;
    const std::int64_t elements =
        std::min(slice_count() * points_stride(most_channels_, tiles),
                 block_.channel_blocks * points_stride(kWinogradDepth, tiles));
    scratch.points = carver.take<T>(points_ * elements);
    const std::int64_t panels = has_passes() ? ceil_div(most_panels_, blocks.parts) : 1;
    scratch.sums = carver.take<T>(panels * panel_sums(tiles));
    scratch.strip = carver.take<T>(kWinogradStrip * table_.lanes);
    scratch.span = carver.take<T>(shares_rows_ ? sides_.row.points * span_pitch() : 0);
    scratch.slots = carver.take<WinogradSlots>(tiles);  // at most as many segments
    scratch.bytes = carver.used();
    return scratch;
  }

  // From one row of a span to the next: an odd number of cache lines, since rows are read together.
  std::int64_t span_pitch() const {
    const std::int64_t pixels = spans_.largest() * sides_.column.outs + sides_.column.taps - 1;
    return point_stride(pixels * problem().axes[2].dilation * table_.lanes);
  }

  // The first phase of a unit.
  std::vector<WinogradPhase>::const_iterator phase_of(std::int64_t unit) const {
    const auto behind = std::upper_bound(
        phases_.begin(), phases_.end(), unit,
        [](std::int64_t index, const WinogradPhase& phase) { return index < phase.first_unit; });
    return behind - column_phases_;
  }

  // The tiles of the first phase of a unit, as many as any of its phases has.
  Segment first_segment(std::int64_t unit) const {
    const WinogradPhase& phase = *phase_of(unit);
    const std::int64_t in_phase = unit - phase.first_unit;
    const std::int64_t span = in_phase % spans_.count();
    return {phase, in_phase / spans_.count(), spans_.begin(span), spans_.size(span)};
  }

  // Calls visit(segment) for all phases of a unit, which share rows.
  template <class Visit>
  void for_each_in_unit(std::int64_t unit, const Visit& visit) const {
    const Segment first = first_segment(unit);
    for (const WinogradPhase* phase = &first.phase; phase != &first.phase + column_phases_;
         ++phase) {
      const std::int64_t tiles = std::min(first.tiles, phase->tile_columns(sides_) - first.column);
      if (tiles > 0) visit(Segment{*phase, first.row, first.column, tiles});
    }
  }

  // Calls visit(segment) for the tiles of the units [begin, end).
  template <class Visit>
  void for_each_segment(std::int64_t begin, std::int64_t end, const Visit& visit) const {
    if (shares_rows_) {
      for (std::int64_t unit = begin; unit < end; ++unit) for_each_in_unit(unit, visit);
      return;
    }
    auto phase = phase_of(begin);
    for (std::int64_t tile = begin; tile < end;) {
      const std::int64_t columns = phase->tile_columns(sides_);
      const std::int64_t in_phase = tile - phase->first_unit;
      if (in_phase >= phase->tile_rows(sides_) * columns) {
        ++phase;
        continue;
      }
      const std::int64_t column = in_phase % columns;
      const std::int64_t count = std::min(
          {std::int64_t(winograd_segment(sides_.column.outs)), columns - column, end - tile});
      visit(Segment{*phase, in_phase / columns, column, count});
      tile += count;
    }
  }

  // Of the blocks of channels of a group, those of one slice after those of another.
  Split passes_of(std::int64_t channels) const {
    return Split::by_limit(channel_blocks(slice_count(), channels), block_.channel_blocks);
  }

  bool has_passes() const { return passes_of(most_channels_).count() > 1; }

  // The channels of a slice that a pass takes, of so many.
  static Range channels_of(std::int64_t slice, const Range& pass, std::int64_t channels) {
    const std::int64_t blocks = ceil_div(channels, kWinogradDepth);
    const auto channel = [&](std::int64_t block) {
      return std::clamp<std::int64_t>((block - slice * blocks) * kWinogradDepth, 0, channels);
    };
    return {channel(pass.begin), channel(pass.end)};
  }

  void run_task(const ConvArrays& arrays, const Blocking& blocks, const Task& task,
                const Task& next, const Scratch& scratch) const {
    const Group& group = problem().groups[task.group];
    const GroupPlan& plan = groups_[task.group];
    const Split parts = Split::by_count(plan.panels.count(), blocks.parts);
    if (parts.size(task.part) == 0) return;  // another group has more
    const std::int64_t begin = blocks.units.begin(task.block);
    const std::int64_t end = blocks.units.end(task.block);
    const std::int64_t tiles = tiles_of(begin, end);
    SlotCounter slots(sides_, tiles);
    WinogradSlots* to = scratch.slots;
    for_each_segment(begin, end, [&](const Segment& segment) { slots.fill(segment, *to++); });

    const Split passes = passes_of(group.in_channels);
    for (std::int64_t index = 0; index < passes.count(); ++index) {
      const Range pass{passes.begin(index), passes.end(index)};
      const bool last = index + 1 == passes.count();
      transform_input(arrays, task, group, pass, begin, end, tiles, scratch);
      Scratch at = scratch;
      for (std::int64_t panel = parts.begin(task.part); panel < parts.end(task.part); ++panel) {
        const std::int64_t first = plan.panels.begin(panel) * table_.lanes;
        const std::int64_t width = width_of(plan.panels, panel);
        const std::int64_t channels = std::min(width, group.out_channels - first);
        const T* weights = static_cast<const T*>(arrays.packed_weights) +
                           plan.packed_offsets[static_cast<std::size_t>(panel)];
        // At each point a share of the pixels that this panel writes, and of the next task's input.
        const auto read_ahead = [&](int point) {
          if (!last) return;
          const std::int64_t panels = parts.size(task.part);
          const std::int64_t share = (panel - parts.begin(task.part)) * points_ + point;
          const auto part_of = [](std::int64_t n, std::int64_t i, std::int64_t count) {
            return Range{n * i / count, n * (i + 1) / count};
          };
          prefetch_output(arrays, task, group.out_begin + first, part_of(channels, point, points_),
                          begin, end);
          const Group& next_group = problem().groups[next.group];
          prefetch_input(arrays, next, next_group.in_begin,
                         part_of(next_group.in_channels, share, panels * points_),
                         blocks.units.begin(next.block), blocks.units.end(next.block));
        };
        multiply(weights, task.depth, group.in_channels, pass, channels, tiles, slots, at,
                 read_ahead);
        if (last) {
          transform_output(arrays, task, group.out_begin + first, channels, width, begin, end,
                           tiles, at);
        }
        if (passes.count() > 1) at.sums += panel_sums(tiles);
      }
    }
  }

  // How many tiles the units [begin, end) have.
  std::int64_t tiles_of(std::int64_t begin, std::int64_t end) const {
    if (!shares_rows_) return end - begin;
    std::int64_t tiles = 0;
    for_each_segment(begin, end, [&](const Segment& segment) { tiles += segment.tiles; });
    return tiles;
  }

  // The input plane under a slice, or -1 in padding.
  std::int64_t input_depth(std::int64_t out, const Slice& slice) const {
    return input_index(problem().axes[0], out, slice.depth, problem().padding_mode);
  }

  void transform_input(const ConvArrays& arrays, const Task& task, const Group& group,
                       const Range& pass, std::int64_t begin, std::int64_t end, std::int64_t tiles,
                       const Scratch& scratch) const {
    const ConvProblem& p = problem();
    const Strides& strides = arrays.x_strides;
    WinogradInputArgs<T> args{};
    const T* const all = static_cast<const T*>(arrays.x) + task.image * strides.batch +
                         group.in_begin * strides.channel;
    args.padding_mode = p.padding_mode;
    args.tiles_in_block = tiles;
    args.strip = scratch.strip;
    T* points = scratch.points;
    for (std::int64_t n = 0; n < slice_count(); ++n) {
      const Slice& slice = slices_[size_of(n)];
      const Range taken = channels_of(n, pass, group.in_channels);
      const std::int64_t channels = taken.end - taken.begin;
      if (channels == 0) continue;
      args.point_stride = points_stride(channels, tiles);
      const std::int64_t depth = input_depth(task.depth, slice);
      if (depth >= 0) {
        const T* const plane = all + taken.begin * strides.channel + depth * strides.axis[0];
        const WinogradSlots* slots = scratch.slots;
        if (shares_rows_ && strides.axis[2] == 1) {
          for (std::int64_t unit = begin; unit < end; ++unit) {
            args.points = points;
            slots = transform_span(plane, strides, channels, slice, unit, slots, args, scratch);
          }
        } else {
          args.strides = stepped(strides, step_of(p.axes[1]), step_of(p.axes[2]));
          args.channels = channels;
          for_each_segment(begin, end, [&](const Segment& segment) {
            const WinogradPart& rows = segment.phase.rows[slice.row_part];
            const WinogradPart& columns = segment.phase.columns[slice.column_part];
            args.image =
                plane + rows.first_in * strides.axis[1] + columns.first_in * strides.axis[2];
            args.height = rows.axis;
            args.width = columns.axis;
            args.tile_row = segment.row;
            args.tile_column = segment.column;
            args.tiles = segment.tiles;
            args.slots = slots++;
            args.points = points;
            transforms_.input(args);
          });
        }
      }
      points += points_ * args.point_stride;
    }
  }

  // Transforms the input of a unit, of one plane: some channels at a time become contiguous,
  // [row of a tile][column][lanes], in columns that all phases share. Returns the slots of the
  // next unit.
  const WinogradSlots* transform_span(const T* plane, const Strides& strides, std::int64_t channels,
                                      const Slice& slice, std::int64_t unit,
                                      const WinogradSlots* slots, WinogradInputArgs<T> args,
                                      const Scratch& scratch) const {
    const Axis& height = problem().axes[1];
    const Axis& width = problem().axes[2];
    const std::int64_t lanes = table_.lanes;
    const std::int64_t pitch = span_pitch();
    const Segment head = first_segment(unit);
    const auto first_in = [](const WinogradPart& part, const Axis& axis, std::int64_t out) {
      return part.first_in + (out - part.axis.pad) * step_of(axis);
    };
    const WinogradPart& part = head.phase.rows[slice.row_part];
    const std::int64_t out = head.row * sides_.row.outs;
    const std::int64_t row = first_in(part, height, out);
    const std::int64_t rows =
        std::min<std::int64_t>(sides_.row.points, part.axis.end + part.axis.pad - out);
    const std::int64_t column =
        first_in(head.phase.columns[slice.column_part], width, head.column * sides_.column.outs);
    const std::int64_t columns =
        (head.tiles * sides_.column.outs + sides_.column.taps - 1) * width.dilation;
    const std::int64_t first = std::clamp<std::int64_t>(-column, 0, columns);
    const std::int64_t last = std::clamp<std::int64_t>(width.in - column, first, columns);

    args.strides = {};
    args.strides.channel = 1;
    args.strides.axis[1] = pitch;
    args.strides.axis[2] = width.dilation * lanes;
    args.channels = lanes;
    args.height = {rows, 0, rows};
    TransposeArgs<T> square{};
    square.row_stride = strides.channel;
    square.padded_rows = square.pitch = lanes;
    square.count = square.run = last - first;
    const WinogradSlots* segment_slots = slots;
    for (std::int64_t c = 0; c < channels; c += lanes) {
      square.rows = std::min(lanes, channels - c);
      for (std::int64_t i = 0; i < rows; ++i) {
        const std::int64_t from = row + i * step_of(height);
        T* const to = scratch.span + i * pitch;
        const bool inside = from >= 0 && from < height.in;
        std::fill_n(to, (inside ? first : columns) * lanes, T(0));
        if (!inside) continue;
        square.from = plane + c * strides.channel + from * strides.axis[1] + column + first;
        square.to = to + first * lanes;
        table_.transpose(square);
        std::fill_n(to + last * lanes, (columns - last) * lanes, T(0));
      }
      segment_slots = slots;
      for_each_in_unit(unit, [&](const Segment& segment) {
        const WinogradAxis& axis = segment.phase.columns[slice.column_part].axis;
        const std::int64_t left = segment.column * sides_.column.outs - axis.pad;
        args.width.in = args.width.end =
            std::min(segment.tiles * sides_.column.outs + sides_.column.taps - 1, axis.end - left);
        args.image = scratch.span + segment.phase.out_column * lanes;
        args.tiles = segment.tiles;
        args.slots = segment_slots++;
        transforms_.input(args);
      });
      args.points += args.tiles_in_block * lanes;
    }
    return segment_slots;
  }

  // Fetches some channels of what the tiles [begin, end) read where rows are contiguous, from each
  // tile up to the next.
  void prefetch_input(const ConvArrays& arrays, const Task& task, std::int64_t first,
                      Range channels, std::int64_t begin, std::int64_t end) const {
    const Strides& strides = arrays.x_strides;
    const std::int64_t depth = input_depth(task.depth, slices_.front());
    if (strides.axis[2] != 1 || depth < 0 || channels.begin == channels.end) return;
    const T* const from = static_cast<const T*>(arrays.x) + task.image * strides.batch +
                          first * strides.channel + depth * strides.axis[0];
    for_each_segment(begin, end, [&](const Segment& segment) {
      const auto inside = [](const WinogradPart& part, std::int64_t out, std::int64_t count) {
        const std::int64_t at = out - part.axis.pad;
        return Range{std::clamp<std::int64_t>(at, 0, part.axis.in),
                     std::clamp<std::int64_t>(at + count, 0, part.axis.in)};
      };
      const Side& row = sides_.row;
      const Side& column = sides_.column;
      prefetch_block(from, strides, channels,
                     inside(segment.phase.rows[0], segment.row * row.outs, row.outs + row.taps - 1),
                     inside(segment.phase.columns[0], segment.column * column.outs,
                            segment.tiles * column.outs));
    });
  }

  // The same of what they write.
  void prefetch_output(const ConvArrays& arrays, const Task& task, std::int64_t first,
                       Range channels, std::int64_t begin, std::int64_t end) const {
    const Strides& strides = arrays.out_strides;
    if (strides.axis[2] != 1) return;
    const T* const from = static_cast<const T*>(arrays.out) + task.image * strides.batch +
                          first * strides.channel + task.depth * strides.axis[0];
    for_each_segment(begin, end, [&](const Segment& segment) {
      const auto inside = [](std::int64_t out, std::int64_t count, std::int64_t size) {
        return Range{out, std::min(size, out + count)};
      };
      const int row_outs = sides_.row.outs;
      const int column_outs = sides_.column.outs;
      prefetch_block(
          from, strides, channels, inside(segment.row * row_outs, row_outs, segment.phase.height()),
          inside(segment.column * column_outs, segment.tiles * column_outs, segment.phase.width()));
    });
  }

  static void prefetch_block(const T* from, const Strides& strides, Range channels, Range rows,
                             Range columns) {
    for (std::int64_t c = channels.begin; c < channels.end; ++c) {
      for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        prefetch<false>(from + c * strides.channel + row * strides.axis[1] + columns.begin,
                        columns.end - columns.begin);
      }
    }
  }

  // Adds a pass to the sums of one panel: for each point, points times weights.
  template <class ReadAhead>
  void multiply(const T* weights, std::int64_t out_depth, std::int64_t channels, const Range& pass,
                std::int64_t out_channels, std::int64_t tiles, const SlotCounter& slots,
                const Scratch& scratch, const ReadAhead& read_ahead) const {
    const std::int64_t vectors = ceil_div(out_channels, table_.lanes);
    const std::int64_t width = vectors * table_.lanes;
    const bool low = ends_low(table_, out_channels);
    const std::int64_t to_stride = point_stride(tiles * width);
    std::int64_t met = 0;
    Split rows;
    for (int point = 0; point < points_; ++point) {
      if (slots.count(point) != met) {
        met = slots.count(point);
        rows = Split::by_limit(met, table_.winograd_rows[vectors - 1]);
      }
      if (reads_ahead_) read_ahead(point);
      const T* const end =
          weights + point_stride(slices_at_[static_cast<std::size_t>(point)] * channels * width);
      const T* slice_points = scratch.points;
      T* const sums = scratch.sums + point * to_stride;
      bool accumulate = false;
      for (std::int64_t n = 0; n < slice_count(); ++n) {
        const Slice& slice = slices_[size_of(n)];
        const Range taken = channels_of(n, pass, channels);
        const std::int64_t from_stride = points_stride(taken.end - taken.begin, tiles);
        const T* const points = slice_points + point * from_stride;
        if (taken.begin < taken.end) slice_points += points_ * from_stride;
        if (!has_point(slice, point)) continue;  // has no weights
        if (input_depth(out_depth, slice) >= 0) {
          accumulate = accumulate || taken.begin > 0;  // by the pass before
          for (std::int64_t channel = taken.begin; channel < taken.end; channel += kWinogradDepth) {
            const std::int64_t depth = std::min(kWinogradDepth, taken.end - channel);
            const T* const b = weights + channel * width;
            // A pass that takes a part of a slice goes on at the next point.
            const bool turns = channel + depth == taken.end && taken.end - taken.begin < channels;
            const T* ahead = turns ? end + taken.begin * width : b + depth * width;
            for (std::int64_t part = 0; part < rows.count(); ++part) {
              const std::int64_t tile = rows.begin(part);
              table_.winograd_tile[low][rows.size(part) - 1][vectors - 1](
                  depth, winograd_chain(channels),
                  points + (channel - taken.begin) * tiles + tile * table_.lanes,
                  tiles * table_.lanes, b, sums + tile * width, accumulate, ahead);
              ahead += depth * (kAlignment / sizeof(T));
            }
            accumulate = true;
          }
        }
        weights += channels * width;
      }
      const std::int64_t first_zero = accumulate ? met : 0;
      std::fill(sums + first_zero * width, sums + tiles * width, T(0));
      weights = end;
    }
  }

  void transform_output(const ConvArrays& arrays, const Task& task, std::int64_t channel,
                        std::int64_t channels, std::int64_t width, std::int64_t begin,
                        std::int64_t end, std::int64_t tiles, const Scratch& scratch) const {
    const ConvProblem& p = problem();
    WinogradOutputArgs<T> args{};
    args.point_stride = point_stride(tiles * width);
    args.width = width;
    args.channels = channels;
    args.bias = arrays.bias ? static_cast<const T*>(arrays.bias) + channel : nullptr;
    const std::int64_t row_step = p.axes[1].dilation;
    const std::int64_t column_step = p.axes[2].dilation;
    args.residual_strides = stepped(arrays.residual_strides, row_step, column_step);
    args.out_strides = stepped(arrays.out_strides, row_step, column_step);
    args.activation = p.activation;
    args.strip = scratch.strip;
    args.sums = scratch.sums;
    const WinogradSlots* slots = scratch.slots;
    if (shares_rows_) {
      for (std::int64_t unit = begin; unit < end; ++unit) {
        slots = output_span(arrays, task, channel, channels, unit, slots, args, scratch);
      }
      return;
    }
    for_each_segment(begin, end, [&](const Segment& segment) {
      const std::int64_t row = segment.row * sides_.row.outs;
      const std::int64_t column = segment.column * sides_.column.outs;
      const WinogradPhase& phase = segment.phase;
      const auto offset = [&](const Strides& strides) {
        return task.image * strides.batch + channel * strides.channel +
               task.depth * strides.axis[0] + (phase.out_row + row * row_step) * strides.axis[1] +
               (phase.out_column + column * column_step) * strides.axis[2];
      };
      args.slots = slots++;
      args.tiles = segment.tiles;
      args.rows = std::min<std::int64_t>(sides_.row.outs, phase.height() - row);
      args.columns = std::min(segment.tiles * sides_.column.outs, phase.width() - column);
      if (arrays.residual) {
        args.residual = static_cast<const T*>(arrays.residual) + offset(arrays.residual_strides);
      }
      args.out = static_cast<T*>(arrays.out) + offset(arrays.out_strides);
      transforms_.output(args);
    });
  }

  // The outputs of a unit, which go to whole rows once all phases have theirs in a span. Returns
  // the slots of the next unit.
  const WinogradSlots* output_span(const ConvArrays& arrays, const Task& task, std::int64_t channel,
                                   std::int64_t channels, std::int64_t unit,
                                   const WinogradSlots* slots, WinogradOutputArgs<T> args,
                                   const Scratch& scratch) const {
    const Axis& height = problem().axes[1];
    const Axis& width = problem().axes[2];
    const std::int64_t lanes = table_.lanes;
    const T* const bias = args.bias;
    args.bias = nullptr;
    args.activation = {};
    args.out_strides = {};
    args.out_strides.channel = 1;
    args.out_strides.axis[1] = span_pitch();
    args.out_strides.axis[2] = width.dilation * lanes;
    const Segment head = first_segment(unit);
    const std::int64_t row = head.phase.out_row + head.row * sides_.row.outs * height.dilation;
    const std::int64_t column = head.column * sides_.column.outs * width.dilation;
    args.rows =
        std::min<std::int64_t>(sides_.row.outs, head.phase.height() - head.row * sides_.row.outs);
    EpilogueArgs<T> end{};  // rows are pixels, columns channels
    end.rows = std::min(width.out - column, head.tiles * sides_.column.outs * width.dilation);
    end.acc_row = lanes;
    end.bias_column = 1;
    end.residual_row = arrays.residual_strides.axis[2];
    end.residual_column = arrays.residual_strides.channel;
    end.out_row = arrays.out_strides.axis[2];
    end.out_column = arrays.out_strides.channel;
    end.activation = problem().activation;
    const WinogradSlots* segment_slots = slots;
    for (std::int64_t c = 0; c < channels; c += lanes) {
      args.channels = end.columns = std::min(lanes, channels - c);
      segment_slots = slots;
      for_each_in_unit(unit, [&](const Segment& segment) {
        args.slots = segment_slots++;
        args.tiles = segment.tiles;
        args.columns = std::min(segment.tiles * sides_.column.outs,
                                segment.phase.width() - segment.column * sides_.column.outs);
        args.out = scratch.span + segment.phase.out_column * lanes;
        transforms_.output(args);
      });
      args.sums += lanes;
      if (bias) end.bias = bias + c;
      for (std::int64_t i = 0; i < args.rows; ++i) {
        const auto offset = [&](const Strides& strides) {
          return task.image * strides.batch + (channel + c) * strides.channel +
                 task.depth * strides.axis[0] + (row + i * height.dilation) * strides.axis[1] +
                 column * strides.axis[2];
        };
        end.acc = scratch.span + i * span_pitch();
        end.out = static_cast<T*>(arrays.out) + offset(arrays.out_strides);
        if (arrays.residual) {
          end.residual = static_cast<const T*>(arrays.residual) + offset(arrays.residual_strides);
        }
        table_.epilogue(end);
      }
    }
    return segment_slots;
  }

  // Whether prefetching pays: 64 channels of 224 x 224 are 1.4 times as fast so, of 128 x 128 0.95
  // times. In floating point: of a plan without arrays, the input may be of any size.
  bool should_read_ahead() const {
    const ConvProblem& p = problem();
    if (p.channels_last || slices_.size() > 1) return false;
    if (step_of(p.axes[1]) > 1 || step_of(p.axes[2]) > 1) return false;
    auto inputs = static_cast<double>(p.in_channels);
    auto outputs = static_cast<double>(p.out_channels);
    for (const Axis& axis : p.axes) {
      inputs *= static_cast<double>(axis.in);
      outputs *= static_cast<double>(axis.out);
    }
    return static_cast<double>(p.batch) * (inputs + outputs) * sizeof(T) > kFarBytes;
  }

  std::int64_t slice_count() const { return static_cast<std::int64_t>(slices_.size()); }

  static Strides stepped(Strides strides, std::int64_t rows, std::int64_t columns) {
    strides.axis[1] *= rows;
    strides.axis[2] *= columns;
    return strides;
  }

  const KernelTable<T>& table_;
  Sides sides_;
  int points_;  // of a tile
  WinogradTransforms<T> transforms_;
  std::vector<WinogradPhase> phases_;
  std::vector<Slice> slices_;
  std::vector<std::int64_t> slices_at_;  // per point
  bool shares_rows_ = false;             // among column_phases_ phases
  std::int64_t column_phases_ = 1;       // of a unit
  Split spans_;                          // of the tiles of a phase's row
  std::int64_t unit_tiles_ = 1;          // at most
  std::int64_t units_ = 0;
  std::int64_t tiles_ = 0;  // of all phases
  std::vector<GroupPlan> groups_;
  std::int64_t packed_elements_ = 0;
  BlockSize block_{};
  std::int64_t most_channels_ = 0;
  std::int64_t most_panels_ = 1;  // of a group
  std::int64_t widest_ = 0;       // output channels of a panel
  bool reads_ahead_ = false;
};

}  // namespace

std::string winograd_refuses(const ConvProblem& problem) {
  if (most_out_channels(problem) > kMostOutChannels) {
    return "a group has over " + std::to_string(kMostOutChannels) + " output channels";
  }
  const Axis& height = problem.axes[1];
  const Axis& width = problem.axes[2];
  if (height.kernel == 1 && width.kernel == 1) return "the kernel is 1x1";
  for (const Axis* axis : {&height, &width}) {
    if (axis->stride > kMostStride) return "the stride is neither 1 nor 2";
    if (step_of(*axis) == 1) continue;
    if (axis->stride > 1 && axis->dilation > 1) return "it has a stride and a dilation";
    if (problem.padding_mode != PaddingMode::zeros) {
      return "a stride or dilation needs padding by zeros";
    }
    if (axis->dilation > kMostDilation) {
      return "the dilation is more than " + std::to_string(kMostDilation);
    }
  }
  const std::optional<Sides> sides = best_sides(problem);
  if (!sides) return "the kernel has too many taps";
  const std::int64_t slices = problem.axes[0].kernel * sides->parts();
  if (slices > kMostChannels || most_in_channels(problem) * slices > kMostChannels) {
    return "a group has more than " + std::to_string(kMostChannels / slices) + " input channels";
  }
  return {};
}

// Fewer input channels come close to 4 times the errors of direct float32, or pass them: with 3x3
// kernels, over eight images, 8 have 3.6, 10 have 4.2, and single images more. Kernels of seven and
// more taps a side add up as many products of fewer channels: 8 have 1.9. Of 2 taps, or 3 at stride
// 2, Winograd has up to 12.
constexpr std::int64_t kFewestChannels = 16;
constexpr std::int64_t kFewestChannelsOfLarge = 8;
constexpr std::int64_t kLargeTaps = 7;
constexpr std::int64_t kFewestChannelsLine = 32;  // for speed

// Compares multiply-add instructions of 16 lanes in float32, by a model that was fitted to some
// 2200 layers. A tile costs its products, to which few output channels add the time that its points
// take to load, and two transforms per vector of channels. Weights, which are up to four times
// those of the layer, are read once per block of tiles: an L2 cache does not hold them, nor, past
// some 8 MiB, may an L3 cache. From the second block on multiplications hide most of that.
bool winograd_pays(const ConvProblem& problem) {
  constexpr double kNearBytes = kL3WeightBytes;
  constexpr double kNearByte = 0.03;
  constexpr double kFarByte = 0.2;
  constexpr double kFarByteAgain = 0.08;
  constexpr double kPerGroup = 4000;
  constexpr std::int64_t lanes = 16;
  if (problem.dtype != DataType::float32) return false;
  const auto& axes = problem.axes;
  for (const Axis* axis : {&axes[1], &axes[2]}) {
    if (axis->kernel == axis->stride + 1) return false;
  }
  const Sides sides = *best_sides(problem);
  const bool line = sides.points() == kWinogradIn;
  const bool large = std::min(axes[1].kernel, axes[2].kernel) >= kLargeTaps;
  const std::int64_t fewest = line    ? kFewestChannelsLine
                              : large ? kFewestChannelsOfLarge
                                      : kFewestChannels;
  const std::int64_t slices = axes[0].kernel * sides.parts();
  const std::int64_t products =
      axes[0].kernel * part_points(axes[1], sides.row) * part_points(axes[2], sides.column);
  const AxisTiles row_tiles = count_tiles(axes[1], sides.row);
  const AxisTiles column_tiles = count_tiles(axes[2], sides.column);
  const std::int64_t tile_rows = axes[0].out * row_tiles.count;
  const std::int64_t tile_columns = column_tiles.count;
  const double whole_tiles = static_cast<double>(axes[0].out) *
                             static_cast<double>(row_tiles.points) *
                             static_cast<double>(column_tiles.points) / sides.points();
  const std::int64_t tiles = tile_rows * tile_columns;
  const int outs = std::max(sides.row.outs, sides.column.outs);
  const double transform = line ? 5 + outs : 14 + 4.5 * outs;
  // Pixels of parts and phases are not next to each other.
  const bool apart = step_of(axes[1]) != 1 || step_of(axes[2]) != 1;

  const LaneCosts costs(problem);
  double inputs = 0;    // channels
  double pairs = 0;     // of input channels and vectors of output channels
  double direct = 0;    // of direct algorithms
  double channels = 0;  // that are transformed, in whole vectors
  std::int64_t most = 0;
  std::int64_t most_outs = 0;
  for (const Group& group : problem.groups) {
    if (group.in_channels < fewest) return false;
    if (group.out_channels < lanes / 2) return false;
    const std::int64_t vectors = ceil_div(group.out_channels, lanes);
    inputs += static_cast<double>(group.in_channels);
    pairs += static_cast<double>(group.in_channels * vectors);
    direct += static_cast<double>(group.in_channels) *
              std::min(costs.pixels(group.in_channels, group.out_channels),
                       costs.channels(group.in_channels, group.out_channels));
    channels +=
        (apart ? 1.55 : 1) * static_cast<double>(slices * round_up(group.in_channels, lanes)) +
        static_cast<double>(vectors * lanes);
    most = std::max(most, group.in_channels);
    most_outs = std::max(most_outs, vectors * lanes);
  }
  const std::int64_t block_tiles = block_size(row_tiles.count * tile_columns, slices, most,
                                              most_outs, sides.points(), sizeof(float))
                                       .tiles;
  // Transforms of fewer than four tiles in a row take almost the time of four.
  const std::int64_t phases = std::min(axes[2].dilation, axes[2].out);
  const std::int64_t rows_apart = phases > block_tiles ? phases : 1;
  const std::int64_t fours = rows_apart * ceil_div(tile_columns, 4 * rows_apart);
  const double transformed = 0.5 * static_cast<double>(tile_rows * (tile_columns + 4 * fours));
  const double bytes = static_cast<double>(products) * pairs * lanes * sizeof(float);
  const auto reading = [&](double far_byte) {
    return kNearByte * std::min(bytes, kNearBytes) + far_byte * std::max(0.0, bytes - kNearBytes);
  };
  const std::int64_t blocks = axes[0].out * ceil_div(tiles / axes[0].out, block_tiles);
  const double multiplied =
      whole_tiles * static_cast<double>(products) * (0.89 * pairs + 0.47 * inputs);
  const double winograd = kPerGroup * static_cast<double>(problem.groups.size()) + multiplied +
                          transformed * transform * channels + reading(kFarByte) +
                          static_cast<double>(blocks - 1) * reading(kFarByteAgain);

  direct *= static_cast<double>(problem.taps()) * static_cast<double>(problem.out_pixels()) /
            lanes * met_share(axes[0], problem.padding_mode);
  // Functions transform weights anew with every call, and give the same bits as layers. Under
  // stride 1 the model has a tenth to a quarter too much: less where it was fitted than on a Zen 4.
  const double share = bytes > kNearBytes ? 0.87 : strided(problem) ? 1 : 1.15;
  return winograd < share * direct;
}

std::unique_ptr<Plan> plan_winograd(ConvProblem problem) {
  return plan_of_dtype<WinogradPlan>(std::move(problem));
}

}  // namespace pyconv
