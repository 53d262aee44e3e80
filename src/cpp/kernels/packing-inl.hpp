// im2col, one panel at a time: pixels under taps become the columns (lanes are pixels) or the rows
// (lanes are output channels) of a GEMM operand. Padding of every mode, stride and dilation end
// here.
#pragma once

#include "core/padding.hpp"
#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

static inline std::int64_t at_least(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
static inline std::int64_t at_most(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// The position of one unit in the accumulation order.
struct Unit {
  std::int64_t channel_begin;
  std::int64_t channel_count;
  std::int64_t tap[kSpatialAxes];

  template <class T>
  Unit(const PackArgs<T>& args, std::int64_t unit) {
    const std::int64_t kernel_w = args.axes[2].kernel;
    const std::int64_t kernel_hw = args.axes[1].kernel * kernel_w;
    const std::int64_t taps = args.axes[0].kernel * kernel_hw;
    const std::int64_t index = unit % taps;
    channel_begin = unit / taps * kChannelBlock;
    channel_count = at_most(kChannelBlock, args.channels - channel_begin);
    tap[0] = index / kernel_hw;
    tap[1] = index % kernel_hw / kernel_w;
    tap[2] = index % kernel_w;
  }
};

// The input row under a run of output pixels, for one unit.
template <class T>
struct SourceRow {
  const T* row;         // input column 0 of the unit's first channel; null where zeros stand
  std::int64_t column;  // input column under the run's first pixel, may lie outside
  std::int64_t first;   // pixels [first, last) of the run lie inside the row
  std::int64_t last;

  SourceRow(const PackArgs<T>& args, const Unit& unit, const PixelRun& run) {
    row = nullptr;
    first = last = 0;
    const T* base = args.image + unit.channel_begin * args.strides.channel;
    for (int axis = 0; axis < 2; ++axis) {
      const AxisTaps& taps = args.axes[axis];
      const std::int64_t position =
          run.position[axis] * taps.stride + taps.taps[unit.tap[axis]].shift;
      const std::int64_t index = padded_index(position, taps.in, args.padding_mode);
      if (index < 0) return;
      base += index * args.strides.axis[axis];
    }
    const AxisTaps& width = args.axes[2];
    const TapRange& tap = width.taps[unit.tap[2]];
    const std::int64_t begin = run.position[2];
    row = base;
    column = begin * width.stride + tap.shift;
    first = at_most(at_least(tap.first - begin, 0), run.count);
    last = at_most(at_least(tap.last - begin, first), run.count);
  }

  // Address under pixel `i` of the run, or null where zeros stand.
  const T* at(const PackArgs<T>& args, std::int64_t i) const {
    const AxisTaps& width = args.axes[2];
    const std::int64_t index = padded_index(column + i * width.stride, width.in, args.padding_mode);
    return row == nullptr || index < 0 ? nullptr : row + index * args.strides.axis[2];
  }
};

// Lanes [begin, end) of a vector read `data + lane * step`.
template <class T>
struct Piece {
  const T* data;
  std::int32_t begin;
  std::int32_t end;
};

// Loads `channels` consecutive k of one vector of pixels, made of pieces, and stores them `width`
// elements apart.
template <class T>
static inline void pack_vector(const Piece<T>* pieces, int count, std::int32_t step,
                               std::int64_t channels, std::int64_t channel_stride, T* to,
                               std::int64_t width) {
  using V = Vec<T>;
  if (count == 1 && step == 1 && pieces[0].end - pieces[0].begin == V::lanes) {
    for (std::int64_t c = 0; c < channels; ++c) {
      V::load(pieces[0].data + c * channel_stride).store(to + c * width);
    }
    return;
  }
  typename V::Mask masks[V::lanes];
  for (int i = 0; i < count; ++i) masks[i] = V::mask_range(pieces[i].begin, pieces[i].end);
  for (std::int64_t c = 0; c < channels; ++c) {
    V v = V::zero();
    for (int i = 0; i < count; ++i) {
      const T* from = pieces[i].data + c * channel_stride;
      v = step == 1 ? V::load(v, masks[i], from) : V::gather(v, masks[i], from, step);
    }
    v.store(to + c * width);
  }
}

template <class T>
void pack_pixel_columns(const PackArgs<T>& args, const std::int32_t* column_vectors) {
  constexpr std::int64_t lanes = Vec<T>::lanes;
  // A step that a gather's 32-bit index cannot hold makes every lane a piece of its own.
  const std::int64_t wide_step = args.axes[2].stride * args.strides.axis[2];
  constexpr std::int64_t step_limit = (std::int64_t(1) << 31) / 16 - 1;
  const bool single_lanes = wide_step > step_limit || wide_step < -step_limit;
  const std::int64_t step = single_lanes ? 1 : wide_step;
  const std::int64_t vectors = (args.pixels + lanes - 1) / lanes;

  std::int64_t depth = 0;
  for (std::int64_t u = args.unit_begin; u < args.unit_end; ++u) {
    depth += Unit(args, u).channel_count;
  }
  std::int64_t k = 0;
  for (std::int64_t u = args.unit_begin; u < args.unit_end; ++u) {
    const Unit unit(args, u);
    const PixelRun* run = args.runs;
    std::int64_t used = 0;  // pixels of *run that stand in earlier vectors
    SourceRow<T> source(args, unit, *run);
    T* column_panel = args.panel;
    std::int64_t column = 0;
    std::int64_t vector_in_column = 0;
    for (std::int64_t v = 0; v < vectors; ++v) {
      Piece<T> pieces[lanes];
      int count = 0;
      std::int64_t lane = 0;
      const std::int64_t filled = at_most(lanes, args.pixels - v * lanes);
      while (lane < filled) {
        if (used == run->count) {
          ++run;
          used = 0;
          source = SourceRow<T>(args, unit, *run);
        }
        const std::int64_t taken = at_most(filled - lane, run->count - used);
        if (source.row != nullptr) {
          const bool all_pieces_single = single_lanes || args.padding_mode != PaddingMode::zeros;
          const std::int64_t first = at_most(at_least(source.first - used, 0), taken);
          const std::int64_t last = at_least(at_most(source.last - used, taken), first);
          const auto single = [&](std::int64_t i) {
            const T* data = source.at(args, used + i);
            if (data == nullptr) return;
            const auto at = static_cast<std::int32_t>(lane + i);
            pieces[count++] = {data - at * step, at, at + 1};
          };
          const auto begin = static_cast<std::int32_t>(lane + first);
          const auto end = static_cast<std::int32_t>(lane + last);
          if (single_lanes) {
            for (std::int64_t i = 0; i < taken; ++i) single(i);
          } else {
            if (all_pieces_single) {
              for (std::int64_t i = 0; i < first; ++i) single(i);
            }
            if (last > first) {
              const std::int64_t at = source.column + (used + first) * args.axes[2].stride;
              pieces[count++] = {source.row + at * args.strides.axis[2] - begin * step, begin, end};
            }
            if (all_pieces_single) {
              for (std::int64_t i = last; i < taken; ++i) single(i);
            }
          }
        }
        lane += taken;
        used += taken;
      }
      const std::int64_t width = column_vectors[column] * lanes;
      pack_vector(pieces, count, static_cast<std::int32_t>(step), unit.channel_count,
                  args.strides.channel, column_panel + k * width + vector_in_column * lanes, width);
      if (++vector_in_column == column_vectors[column]) {
        column_panel += depth * width;
        vector_in_column = 0;
        ++column;
      }
    }
    k += unit.channel_count;
  }
}

template <class T>
void pack_pixel_rows(const PackArgs<T>& args) {
  using V = Vec<T>;
  const std::int64_t channel_stride = args.strides.channel;
  T* to = args.panel;
  for (std::int64_t u = args.unit_begin; u < args.unit_end; ++u) {
    const Unit unit(args, u);
    const std::int64_t whole = unit.channel_count / V::lanes * V::lanes;
    const auto tail = V::mask_range(0, static_cast<int>(unit.channel_count - whole));
    T* row = to;
    for (const PixelRun* run = args.runs; run < args.runs + args.run_count; ++run) {
      const SourceRow<T> source(args, unit, *run);
      for (std::int64_t i = 0; i < run->count; ++i, row += kRowStride) {
        const T* from = source.at(args, i);
        if (from == nullptr) {
          for (std::int64_t c = 0; c < whole; c += V::lanes) V::zero().store(row + c);
          V::zero().store(tail, row + whole);
        } else if (channel_stride == 1) {
          for (std::int64_t c = 0; c < whole; c += V::lanes) V::load(from + c).store(row + c);
          V::load(V::zero(), tail, from + whole).store(tail, row + whole);
        } else {
          for (std::int64_t c = 0; c < unit.channel_count; ++c) row[c] = from[c * channel_stride];
        }
      }
    }
    to += unit.channel_count;
  }
}

}  // namespace pyconv::PYCONV_ISA
