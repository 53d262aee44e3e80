// What several algorithms need: the accumulation order of weights, tap ranges, and thread counts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "algorithms/algorithm.hpp"
#include "core/padding.hpp"
#include "core/split.hpp"
#include "core/workspace.hpp"
#include "kernels/kernel_table.hpp"

namespace pyconv {

// Arrays that an L3 cache may not hold: asking for them ahead of time pays.
inline constexpr std::int64_t kFarBytes = 12 << 20;

// Input rows from the first to the last that a block's output rows read, at most: a list has a
// place for each.
inline constexpr std::int64_t kMostRowSpan = 1 << 16;

// Of a kernel: taps are counted in 16 bits, and listed in tables.
inline constexpr std::int64_t kMostTaps = 1024;
static_assert(kMostTaps <= INT16_MAX);

// Weights that stay in a 1 MiB L2 cache beside a block's copy of its input.
inline constexpr std::int64_t kL2WeightBytes = 512 << 10;

// The input that an output meets under a tap, or a negative number where that is zero padding.
inline std::int64_t input_index(const Axis& axis, std::int64_t out, std::int64_t tap,
                                PaddingMode mode) {
  return padded_index(out * axis.stride + tap * axis.dilation - axis.pad_before, axis.in, mode);
}

// Calls visit(k, offset) for every weight of one output channel in accumulation order (types.hpp);
// `offset` is where it stands relative to the channel's first weight.
template <class Visit>
void for_each_weight(const ConvProblem& problem, const WeightView& view, std::int64_t in_channels,
                     const Visit& visit) {
  std::int64_t k = 0;
  for (std::int64_t block = 0; block < in_channels; block += kChannelBlock) {
    const std::int64_t block_end = std::min(block + kChannelBlock, in_channels);
    for (std::int64_t d = 0; d < problem.axes[0].kernel; ++d) {
      for (std::int64_t h = 0; h < problem.axes[1].kernel; ++h) {
        for (std::int64_t w = 0; w < problem.axes[2].kernel; ++w) {
          const std::int64_t tap =
              d * view.axis_stride[0] + h * view.axis_stride[1] + w * view.axis_stride[2];
          for (std::int64_t channel = block; channel < block_end; ++channel) {
            visit(k++, tap + channel * view.in_stride);
          }
        }
      }
    }
  }
}

// Where the taps of a channel stand relative to its first weight. There may be thousands of groups,
// all alike: the offsets are found again only where the strides differ from those before.
class TapOffsets {
 public:
  explicit TapOffsets(const ConvProblem& problem) : problem_(problem) {}

  const std::vector<std::int64_t>& of(const WeightView& view) {
    if (offsets_.empty() || !std::equal(strides_, strides_ + kSpatialAxes, view.axis_stride)) {
      std::copy_n(view.axis_stride, kSpatialAxes, strides_);
      offsets_.clear();
      for_each_weight(problem_, view, 1,
                      [this](std::int64_t, std::int64_t offset) { offsets_.push_back(offset); });
    }
    return offsets_;
  }

 private:
  const ConvProblem& problem_;
  std::int64_t strides_[kSpatialAxes] = {};
  std::vector<std::int64_t> offsets_;
};

// The strides of a contiguous array in the problem's format: of the input for in_channels and
// &Axis::in, of the output likewise.
inline Strides contiguous_strides(const ConvProblem& problem, std::int64_t channels,
                                  std::int64_t Axis::* length) {
  Strides strides;
  std::int64_t elements = problem.channels_last ? channels : 1;
  for (std::size_t axis = kSpatialAxes; axis-- > 0;) {
    strides.axis[axis] = elements;
    elements *= problem.axes[axis].*length;
  }
  strides.channel = problem.channels_last ? 1 : elements;
  strides.batch = problem.channels_last ? elements : elements * channels;
  return strides;
}

// Lines a multiple of 4 KiB apart share a set of the L1 cache: more than its 8 ways would throw
// each other out.
template <class T>
bool shares_a_set(std::int64_t stride) {
  return stride * std::int64_t(sizeof(T)) % 4096 == 0;
}

// Whether elements `stride` apart crowd a few sets of it: see kCrowdingBytes.
template <class T>
bool crowds_sets(std::int64_t stride) {
  return stride * std::int64_t(sizeof(T)) % kCrowdingBytes == 0;
}

// The least odd number of lines of so many elements that holds `elements`: rows so far apart do not
// share a few sets of a cache.
inline std::int64_t odd_lines(std::int64_t elements, std::int64_t line) {
  return (ceil_div(elements, line) | 1) * line;
}

// Whether the last of the vectors that so many channels take is half empty at least.
template <class T>
bool ends_low(const KernelTable<T>& table, std::int64_t channels) {
  const std::int64_t last = channels % table.lanes;
  return last > 0 && 2 * last <= table.lanes;
}

// Asks for `count` elements, into L2 unless they are wanted at once.
template <bool kAtOnce, class T>
void prefetch(const T* from, std::int64_t count) {
  constexpr std::int64_t line = kAlignment / sizeof(T);
  for (std::int64_t i = 0; i < count; i += line) {
    __builtin_prefetch(from + i, 0, kAtOnce ? 3 : 2);
    asm volatile("");  // or GCC may take functions that only prefetch for empty ones
  }
}

inline std::int64_t most_in_channels(const ConvProblem& problem) {
  std::int64_t most = 0;
  for (const Group& group : problem.groups) most = std::max(most, group.in_channels);
  return most;
}

inline std::int64_t most_out_channels(const ConvProblem& problem) {
  std::int64_t most = 0;
  for (const Group& group : problem.groups) most = std::max(most, group.out_channels);
  return most;
}

inline bool strided(const ConvProblem& problem) {
  const auto steps = [](const Axis& axis) { return axis.stride > 1; };
  return std::any_of(problem.axes.begin(), problem.axes.end(), steps);
}

// Whether a channel's weights follow each other as in [channel][taps].
inline bool taps_are_dense(const ConvProblem& problem, const WeightView& view) {
  std::int64_t step = 1;
  for (std::size_t axis = kSpatialAxes; axis-- > 0; step *= problem.axes[axis].kernel) {
    if (problem.axes[axis].kernel > 1 && view.axis_stride[axis] != step) return false;
  }
  return view.in_stride == step;
}

// Packs a group's weights as panels [k][width], one after the other, for consecutive parts of the
// output channels; a part of the split is `unit` channels wide per element. Missing channels are 0.
template <class T>
void pack_panels(const ConvProblem& problem, const WeightView& view, const Group& group,
                 const Split& parts, std::int64_t unit, const KernelTable<T>& table, T* to) {
  const T* const from = static_cast<const T*>(view.data);
  const std::int64_t taps = problem.taps();
  const bool dense = taps_are_dense(problem, view);
  for (std::int64_t part = 0; part < parts.count(); ++part) {
    const std::int64_t width = parts.size(part) * unit;
    const std::int64_t begin = parts.begin(part) * unit;
    const std::int64_t used = std::min(width, group.out_channels - begin);
    T* const panel = to + begin * group.in_channels * taps;
    const T* const first = from + begin * view.out_stride;
    if (!dense) {
      for_each_weight(problem, view, group.in_channels, [&](std::int64_t k, std::int64_t offset) {
        T* const at = panel + k * width;
        for (std::int64_t i = 0; i < used; ++i) at[i] = first[i * view.out_stride + offset];
        std::fill(at + used, at + width, T(0));
      });
      continue;
    }
    TransposeArgs<T> args{};
    args.row_stride = view.out_stride;
    args.rows = used;
    args.padded_rows = width;
    // With one tap, channels are in order whatever their block.
    const std::int64_t step = taps == 1 ? group.in_channels : kChannelBlock;
    for (std::int64_t channel = 0; channel < group.in_channels; channel += step) {
      const std::int64_t channels = std::min(step, group.in_channels - channel);
      args.from = first + channel * taps;
      args.count = channels * taps;
      args.run = taps == 1 ? args.count : taps;
      args.run_pitch = width;
      args.pitch = taps == 1 ? width : channels * width;
      args.to = panel + channel * taps * width;
      table.transpose(args);
    }
  }
}

// Packs `count` output channels from `out` on, the first in group g, as [tap][channel][lanes] for
// the input channels of their groups; missing lanes are 0.
template <class T>
void pack_lanes(const ConvProblem& problem, const std::vector<WeightView>& weights, std::size_t g,
                std::int64_t out, std::int64_t count, std::int64_t in_channels,
                const KernelTable<T>& table, T* to) {
  const auto for_each_lane = [&](const auto& visit) {
    std::size_t group = g;
    for (std::int64_t lane = 0; lane < count; ++lane) {
      const auto end = [&] {
        return problem.groups[group].out_begin + problem.groups[group].out_channels;
      };
      while (out + lane >= end()) ++group;
      const WeightView& view = weights[group];
      visit(lane, view,
            static_cast<const T*>(view.data) +
                (out + lane - problem.groups[group].out_begin) * view.out_stride);
    }
  };
  TransposeArgs<T> args{};
  bool even = true;  // lanes are evenly spaced, usually rows of one array
  std::uintptr_t step = 0;
  for_each_lane([&](std::int64_t lane, const WeightView& view, const T* from) {
    if (lane == 0) args.from = from;
    const auto distance =
        reinterpret_cast<std::uintptr_t>(from) - reinterpret_cast<std::uintptr_t>(args.from);
    if (lane == 1) step = distance;
    even = even && taps_are_dense(problem, view) &&
           distance == static_cast<std::uintptr_t>(lane) * step;
  });
  args.row_stride = static_cast<std::int64_t>(step) / std::int64_t(sizeof(T));
  if (even) {
    args.rows = count;
    args.padded_rows = table.lanes;
    args.count = args.run = problem.taps();
    args.pitch = in_channels * table.lanes;
    for (std::int64_t channel = 0; channel < in_channels; ++channel) {
      args.to = to + channel * table.lanes;
      table.transpose(args);
      args.from += args.count;
    }
    return;
  }
  std::fill_n(to, problem.taps() * in_channels * table.lanes, T(0));
  TapOffsets taps(problem);
  for_each_lane([&](std::int64_t lane, const WeightView& view, const T* from) {
    T* at = to + lane;
    for (const std::int64_t offset : taps.of(view)) {
      for (std::int64_t i = 0; i < in_channels; ++i, at += table.lanes) {
        *at = from[offset + i * view.in_stride];
      }
    }
  });
}

inline std::vector<TapRange> tap_ranges(const Axis& axis) {
  std::vector<TapRange> ranges(static_cast<std::size_t>(axis.kernel));
  for (std::int64_t tap = 0; tap < axis.kernel; ++tap) {
    const std::int64_t shift = tap * axis.dilation - axis.pad_before;
    const std::int64_t first = shift < 0 ? ceil_div(-shift, axis.stride) : 0;
    const std::int64_t last = shift < axis.in ? ceil_div(axis.in - shift, axis.stride) : 0;
    ranges[static_cast<std::size_t>(tap)] = {shift, std::min(first, axis.out),
                                             std::min(last, axis.out)};
  }
  return ranges;
}

// The share of pairs of an output and a tap, of an axis that has outputs, that meet the input:
// direct convolution leaves out the others.
inline double met_share(const Axis& axis, PaddingMode mode) {
  if (mode != PaddingMode::zeros) return 1;
  double met = 0;
  for (const TapRange& range : tap_ranges(axis)) {
    met += static_cast<double>(std::max<std::int64_t>(0, range.last - range.first));
  }
  return met / (static_cast<double>(axis.out) * static_cast<double>(axis.kernel));
}

// The share of taps of the height and width axes that are not in zero padding: lanes of output
// channels leave out most of the others.
inline double taps_inside(const ConvProblem& p) {
  double share = 1;
  for (const Axis* axis : {&p.axes[1], &p.axes[2]}) {
    share *= met_share(*axis, p.padding_mode);
  }
  return share;
}

// Into how many blocks to cut work that has `others` such axes beside it: few tasks must be a
// multiple of the threads, or some would wait for the last. For that there may be more of them, up
// to `most`.
inline std::int64_t even_blocks(std::int64_t blocks, std::int64_t others, std::int64_t most,
                                int threads) {
  const bool uneven = blocks * others < 8 * threads && blocks * others % threads != 0;
  return uneven ? std::max(blocks, std::min(most, round_up(blocks, threads))) : blocks;
}

// Blocks of what a task goes through in one piece, unless the `others` that tasks are cut into
// beside it come out uneven among the threads.
inline Split blocks_for_even_tasks(std::int64_t total, std::int64_t others, int threads) {
  return Split::by_count(total, others % threads == 0 ? 1 : std::min<std::int64_t>(total, threads));
}

// A team costs one or a few microseconds, so every thread should have about so many
// multiply-accumulates (10 to 25 microseconds) to itself.
constexpr std::int64_t kMacsPerThread = 1 << 19;

// A plan of a template, for the problem's dtype.
template <template <class> class AnyPlan, class Base = Plan>
std::unique_ptr<Base> plan_of_dtype(ConvProblem problem) {
  if (problem.dtype == DataType::float64) {
    return std::make_unique<AnyPlan<double>>(std::move(problem));
  }
  return std::make_unique<AnyPlan<float>>(std::move(problem));
}

}  // namespace pyconv
