// im2col, one panel at a time: pixels under taps become the columns (lanes are pixels) or the rows
// (lanes are output channels) of a GEMM operand. Padding of every mode, stride and dilation end
// here.
#pragma once

#include "core/padding.hpp"
#include "kernels/gemm-inl.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/strided-inl.hpp"

namespace pyconv::PYCONV_ISA {

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

// The input row under a run of output pixels, at the unit's first channel; null where zeros stand.
template <class T>
static inline const T* source_row(const PackArgs<T>& args, const Unit& unit, const PixelRun& run) {
  const T* row = args.image + unit.channel_begin * args.strides.channel;
  for (int axis = 0; axis < 2; ++axis) {
    const AxisTaps& taps = args.axes[axis];
    const std::int64_t position =
        run.position[axis] * taps.stride + taps.taps[unit.tap[axis]].shift;
    const std::int64_t index = padded_index(position, taps.in, args.padding_mode);
    if (index < 0) return nullptr;
    row += index * args.strides.axis[axis];
  }
  return row;
}

// Loads the lanes of one vector of pixels at `channel` elements past the unit's first channel.
template <class T>
static inline Vec<T> load_pixels(const PixelSpan* span, const PixelSpan* spans_end,
                                 const void* const* rows, std::int64_t channel, std::int32_t step) {
  using V = Vec<T>;
  V v = V::zero();
  for (; span != spans_end; ++span) {
    const T* row = static_cast<const T*>(rows[span->run]);
    if (row == nullptr) continue;
    const T* from = row + channel + span->offset;
    if (step == 1) {
      v = V::load(v, V::mask_range(span->begin, span->end), from);
    } else if (step == 2) {
      v = V::load_even(v, span->begin, span->end, from);
    } else if (step == 4) {
      v = load_every_fourth(v, span->begin, span->end, from);
    } else {
      v = V::gather(v, V::mask_range(span->begin, span->end), from, step);
    }
  }
  return v;
}

template <class T>
void pack_pixel_columns(const PackArgs<T>& args, const ColumnArgs& columns) {
  using V = Vec<T>;
  std::int64_t k = columns.k_begin;
  for (std::int64_t u = args.unit_begin; u < args.unit_end; ++u) {
    const Unit unit(args, u);
    if (u == args.unit_begin || unit.tap[2] == 0) {  // other width taps have the same rows
      for (std::int64_t run = 0; run < args.run_count; ++run) {
        columns.rows[run] = source_row(args, unit, args.runs[run]);
      }
    }
    const std::int64_t list = columns.one_tap ? 0 : unit.tap[2];
    const PixelSpan* const spans = columns.spans + list * columns.span_stride;
    const std::int32_t* const ends = columns.ends + list * columns.vectors;
    for (std::int64_t c = 0; c < unit.channel_count; ++c, ++k) {
      const std::int64_t channel = c * args.strides.channel;
      T* panel = args.panel;
      const PixelSpan* span = spans;
      std::int64_t v = 0;
      for (std::int64_t column = 0; column < columns.column_count; ++column) {
        const std::int64_t width = columns.column_vectors[column] * V::lanes;
        T* const to = panel + k * width;
        for (std::int64_t lane = 0; lane < width; lane += V::lanes, ++v) {
          const PixelSpan* const end = spans + ends[v];
          const T* row = span != end ? static_cast<const T*>(columns.rows[span->run]) : nullptr;
          const T* const from = row ? row + channel + span->offset : nullptr;
          if (from) __builtin_prefetch(from + kRowsAhead * args.strides.channel);
          if (columns.step == 1 && from && end - span == 1 && span->end - span->begin == V::lanes) {
            V::load(from).store(to + lane);
          } else {
            load_pixels<T>(span, end, columns.rows, channel, columns.step).store(to + lane);
          }
          span = end;
        }
        panel += columns.depth * width;
      }
    }
  }
}

// Splits a row into whole panels of the widest tile, `pitch` elements apart, and asks for what is
// `ahead` of it.
template <class T>
static inline void split_row(const T* from, std::int64_t panels, std::int64_t ahead, T* to,
                             std::int64_t pitch) {
  using V = Vec<T>;
  constexpr std::int64_t kLine = 64 / sizeof(T);
  constexpr std::int64_t kWidth = Tile<T>::vectors * V::lanes;
  const auto split = [&]() __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int j = 0; j < Tile<T>::vectors; ++j) {
      if (j * V::lanes % kLine == 0) __builtin_prefetch(from + j * V::lanes + ahead);
      V::load(from + j * V::lanes).store(to + j * V::lanes);
    }
    from += kWidth;
    to += pitch;
  };
  repeat<kTakesFours<T>>(panels, split);
}

template <class T>
void split_rows(const SplitRowsArgs<T>& args) {
  using V = Vec<T>;
  constexpr std::int64_t kWidest = Tile<T>::vectors;
  std::int64_t panels = 0;  // that are whole, and of the widest tile
  while (panels < args.panel_count && args.panel_vectors[panels] == kWidest &&
         (panels + 1) * kWidest * V::lanes <= args.count) {
    ++panels;
  }
  const std::int64_t columns = panels * kWidest * V::lanes;
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const T* from = args.from + r * args.row_stride;
    const std::int64_t row = args.first + r;
    split_row(from, panels, kRowsAhead * args.row_stride, args.to + row * kWidest * V::lanes,
              args.pitch * kWidest * V::lanes);
    std::int64_t begin = columns;
    for (std::int64_t i = panels; i < args.panel_count; ++i) {
      const std::int64_t width = args.panel_vectors[i] * V::lanes;
      T* const to = args.to + begin * args.pitch + row * width;
      for (std::int64_t j = 0; j < width; j += V::lanes) {
        const std::int64_t left = at_most(args.count - begin - j, V::lanes);
        V::load_or_zero(V::mask_range(0, static_cast<int>(left)), from + begin + j).store(to + j);
      }
      begin += width;
    }
  }
}

// Copies one pixel's channels of a unit, or zeros.
template <class T>
static inline void pack_row(const T* from, std::int64_t stride, std::int64_t count, T* to) {
  using V = Vec<T>;
  const std::int64_t whole = count / V::lanes * V::lanes;
  const auto tail = V::mask_range(0, static_cast<int>(count - whole));
  if (from == nullptr) {
    for (std::int64_t c = 0; c < whole; c += V::lanes) V::zero().store(to + c);
    V::zero().store(tail, to + whole);
  } else if (stride == 1) {
    for (std::int64_t c = 0; c < whole; c += V::lanes) V::load(from + c).store(to + c);
    V::load(V::zero(), tail, from + whole).store(tail, to + whole);
  } else {
    for (std::int64_t c = 0; c < count; ++c) to[c] = from[c * stride];
  }
}

// Of rows whose elements are kStep apart, in squares that registers transpose: element by element,
// the copy would cost a tenth of the multiplication.
template <int kStep, class T>
static inline void transpose_rows(const TransposeArgs<T>& args) {
  using V = Vec<T>;
  constexpr std::int64_t lanes = V::lanes;
  const std::int64_t gap = args.run_pitch - args.run * args.pitch;
  for (std::int64_t c = 0; c < args.padded_rows; c += lanes) {
    const int rows = static_cast<int>(at_least(0, at_most(lanes, args.rows - c)));
    const bool whole = args.padded_rows - c >= lanes;
    const auto mask = V::mask_range(0, static_cast<int>(at_most(lanes, args.padded_rows - c)));
    const T* from = args.from + c * args.row_stride;
    T* to = args.to + c;
    std::int64_t in_run = 0;
    // The first square may begin before the rows; those lanes are masked.
    std::int64_t j = kStep == 1 ? first_columns(from, args.row_stride, args.count) - lanes : 0;
    from += j;
    for (; j < args.count; j += lanes, from += kStep * lanes) {
      const int begin = static_cast<int>(at_least(0, -j));
      const int columns = static_cast<int>(at_most(lanes, args.count - j));
      V m[lanes];
      if (kStep == 1 && rows == lanes && begin == 0 && columns == lanes) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) m[i] = V::load(from + i * args.row_stride);
      } else {
        const auto load = V::mask_range(begin, columns);
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) {
          const T* const row = from + i * args.row_stride;
          if (i >= rows) {
            m[i] = V::zero();
          } else if constexpr (kStep == 2) {
            m[i] = V::load_even(V::zero(), 0, columns, row);
          } else {
            m[i] = V::load_or_zero(load, row);
          }
        }
      }
      V::transpose(m);
      const std::int64_t left = args.run - in_run;
      if (whole && begin == 0 && columns == lanes && left + args.run >= lanes) {
        if (left > lanes) {
#pragma GCC unroll 16
          for (int i = 0; i < lanes; ++i) m[i].store(to + i * args.pitch);
        } else {
#pragma GCC unroll 16
          for (int i = 0; i < lanes; ++i) m[i].store(to + i * args.pitch + (i < left ? 0 : gap));
        }
        to += lanes * args.pitch;
        for (in_run += lanes; in_run >= args.run; in_run -= args.run) to += gap;
        continue;
      }
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) {
        if (i < begin) continue;
        if (i >= columns) break;
        if (whole) {
          m[i].store(to);
        } else {
          m[i].store(mask, to);
        }
        to += args.pitch;
        if (++in_run == args.run) {
          in_run = 0;
          to += gap;
        }
      }
    }
  }
}

template <class T>
void transpose(const TransposeArgs<T>& args) {
  transpose_rows<1>(args);
}

template <class T>
void pack_pixel_rows(const PackArgs<T>& args) {
  const AxisTaps& width = args.axes[2];
  const std::int64_t pixel_step = width.stride * args.strides.axis[2];
  T* to = args.panel;
  for (std::int64_t u = args.unit_begin; u < args.unit_end; ++u) {
    const Unit unit(args, u);
    const TapRange& tap = width.taps[unit.tap[2]];
    T* pixel = to;
    const auto pack = [&](const T* from) {
      pack_row(from, args.strides.channel, unit.channel_count, pixel);
      pixel += kRowStride;
    };
    for (const PixelRun* run = args.runs; run < args.runs + args.run_count; ++run) {
      const T* const row = source_row(args, unit, *run);
      const std::int64_t begin = run->position[2];
      const std::int64_t end = begin + run->count;
      const std::int64_t first = row ? at_most(at_least(tap.first, begin), end) : end;
      const std::int64_t last = row ? at_least(at_most(tap.last, end), first) : end;
      const auto pack_padding = [&](std::int64_t from, std::int64_t upto) {
        for (std::int64_t o = from; o < upto; ++o) {
          const std::int64_t index =
              padded_index(o * width.stride + tap.shift, width.in, args.padding_mode);
          pack(row == nullptr || index < 0 ? nullptr : row + index * args.strides.axis[2]);
        }
      };
      pack_padding(begin, first);
      if (first < last) {
        const T* from = row + (first * width.stride + tap.shift) * args.strides.axis[2];
        const bool squares = args.strides.channel != 1 && (pixel_step == 1 || pixel_step == 2);
        if (squares) {
          TransposeArgs<T> square{};
          square.from = from;
          square.row_stride = args.strides.channel;
          square.rows = square.padded_rows = unit.channel_count;
          square.count = square.run = last - first;
          square.pitch = kRowStride;
          square.to = pixel;
          pixel_step == 1 ? transpose_rows<1>(square) : transpose_rows<2>(square);
          pixel += (last - first) * kRowStride;
        } else {
          for (std::int64_t o = first; o < last; ++o, from += pixel_step) pack(from);
        }
      }
      pack_padding(last, end);
    }
    to += unit.channel_count;
  }
}

}  // namespace pyconv::PYCONV_ISA
