// Convolution where the lanes are output channels: pixels are broadcast from a copy of the input in
// blocks of channels, in which each tap is a constant offset, or from where they stand.
#pragma once

#include "core/padding.hpp"
#include "kernels/gemm-inl.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/strided-inl.hpp"

namespace pyconv::PYCONV_ISA {

// On 16 registers, 3 x 4 tiles keep more chains going than 3 x 2.
template <class T>
constexpr int kChannelsVectors = PYCONV_VECTOR_REGISTERS < 32 && Vec<T>::lanes > 1 ? 4 : 3;

// The most rows of so many vectors: their accumulators and either the vectors of a row of weights
// and one broadcast, or a broadcast for each row and one vector, fit the registers. 9 x 3, 14 x 2
// and 14 x 1 on 32 of them, 3 x 4, 4 x 3, 6 x 2 and 14 x 1 on 16.
constexpr int channels_rows(int vectors) {
  const int with_weights = (PYCONV_VECTOR_REGISTERS - 1 - vectors) / vectors;
  const int with_broadcasts = (PYCONV_VECTOR_REGISTERS - 1) / (vectors + 1);
  const int fitting = with_weights > with_broadcasts ? with_weights : with_broadcasts;
  return fitting < kMaxTileRows ? fitting : kMaxTileRows;
}

// Adds `count` channels under one tap to rows [kBegin, kEnd) of the sums.
template <int kBegin, int kEnd, bool kLow, class T, int kRows, int kVectors>
[[gnu::always_inline]] static inline void add_channels(std::int64_t count, const T* a, const T* b,
                                                       Vec<T> (&sum)[kRows][kVectors]) {
  if constexpr (kBegin < kEnd) {
    repeat<kTakesFours<T>>(count, [&]() __attribute__((always_inline)) {
      add_step<kBegin, kEnd, kLow>([a](int i) { return a[i * kChannelBlock]; }, b, sum);
      ++a;
      b += kVectors * Vec<T>::lanes;
    });
  }
}

template <class T, int kRows, int kVectors, bool kLow>
void channels_tile(const ChannelsTileArgs<T>& args) {
  using V = Vec<T>;
  constexpr std::int64_t kWidth = kVectors * V::lanes;
  V sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      sum[i][j] = args.accumulate ? V::load(args.c + i * args.c_stride + j * V::lanes) : V::zero();
    }
  }
  if (args.end) prefetch_outputs<kRows, kVectors>(args.end->out, args.end->out_stride);
  const T* a_block = args.a;
  const T* b_block = args.b;
  const T* ahead = args.ahead;
  const TapUnit* const units_end = args.units + args.unit_count;
  for (std::int64_t left = args.channels; left > 0; left -= kChannelBlock) {
    const std::int64_t count = left < kChannelBlock ? left : kChannelBlock;
    for (const TapUnit* unit = args.units; unit != units_end; ++unit) {
      const T* a = a_block + unit->offset;
      const T* b = b_block + unit->tap * count * kWidth;
      for (std::int64_t line = 0; line < args.lines_ahead; ++line, ahead += 64 / sizeof(T)) {
        __builtin_prefetch(ahead, 0, 2);
      }
      const std::int32_t edge = unit->edge & args.edges;
      if (edge == kFirstPixel) {
        add_channels<1, kRows, kLow>(count, a, b, sum);
      } else if (edge == kLastPixel) {
        add_channels<0, kRows - 1, kLow>(count, a, b, sum);
      } else {
        add_channels<0, kRows, kLow>(count, a, b, sum);
      }
    }
    a_block += args.a_block;
    b_block += args.taps * count * kWidth;
  }
  if (args.end) return end_tile(sum, *args.end);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[i][j].store(args.c + i * args.c_stride + j * V::lanes);
  }
}

// Rows of a tile in threes, which x86 addresses from one register: a, a + a_row and a + 2 * a_row.
template <class T, int kRows, int kVectors, bool kLow>
void window_tile(const WindowTileArgs<T>& args) {
  using V = Vec<T>;
  constexpr std::int64_t kLine = 64 / sizeof(T);
  constexpr int kBases = (kRows + 2) / 3;
  const std::int64_t a_row = args.a_row;
  V sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[i][j] = V::zero();
  }
  if (args.end) prefetch_outputs<kRows, kVectors>(args.end->out, args.end->out_stride);
  const T* ahead = args.ahead;
  const WindowRow* const rows_end = args.rows + args.row_count;
  for (const WindowRow* row = args.rows; row != rows_end; ++row) {
    const T* base[kBases];
#pragma GCC unroll 16
    for (int i = 0; i < kBases; ++i) base[i] = args.a + row->offset + 3 * i * a_row;
    const T* b = args.b + row->k * (kVectors * V::lanes);
    for (std::int64_t begin = 0; begin < args.length; begin += kLine) {
      for (std::int64_t line = 0; line < args.lines_ahead; ++line, ahead += kLine) {
        __builtin_prefetch(ahead, 0, 2);
      }
      const std::int64_t left = args.length - begin;
      repeat<kTakesFours<T>>(left < kLine ? left : kLine, [&]() __attribute__((always_inline)) {
        add_step<0, kRows, kLow>([&](int i) { return base[i / 3][i % 3 * a_row]; }, b, sum);
#pragma GCC unroll 16
        for (const T*& from : base) ++from;
        b += kVectors * V::lanes;
      });
    }
  }
  if (args.end) return end_tile(sum, *args.end);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) sum[i][j].store(args.c + i * args.c_stride + j * V::lanes);
  }
}

template <class T, int kVectors = kChannelsVectors<T>, int kRows = channels_rows(kVectors)>
constexpr void fill_channels_tiles(KernelTable<T>& table) {
  constexpr bool low = Vec<T>::has_low;
  table.channels_tile[0][kRows - 1][kVectors - 1] = channels_tile<T, kRows, kVectors, false>;
  table.channels_tile[1][kRows - 1][kVectors - 1] = channels_tile<T, kRows, kVectors, low>;
  table.window_tile[0][kRows - 1][kVectors - 1] = window_tile<T, kRows, kVectors, false>;
  table.window_tile[1][kRows - 1][kVectors - 1] = window_tile<T, kRows, kVectors, low>;
  table.channels_rows[kVectors - 1] = channels_rows(kVectors);
  if constexpr (kRows > 1) {
    fill_channels_tiles<T, kVectors, kRows - 1>(table);
  } else if constexpr (kVectors > 1) {
    fill_channels_tiles<T, kVectors - 1>(table);
  }
}

// Columns [first, last) of a row whose lanes are contiguous, or kStep apart, in squares that
// registers transpose. A few channels after the other: no prefetcher follows all of their planes.
template <class T, int kStep>
static inline void pixel_squares(const PixelRowArgs<T>& args, const T* from) {
  using V = Vec<T>;
  constexpr std::int64_t lanes = V::lanes;
  const std::int64_t pixels = args.last - args.first;
  for (std::int64_t c = 0; c < args.channels; c += lanes) {
    const T* const planes = from + c * args.channel_stride;
    T* const block = args.to + c / kChannelBlock * args.block_pitch + c % kChannelBlock;
    const std::int64_t left = args.channels - c;
    const int channels = static_cast<int>(left < lanes ? left : lanes);
    const auto channel_mask = V::mask_range(0, channels);
    const std::int64_t first =
        kStep == 1 ? first_columns(planes, args.channel_stride, pixels) : lanes;
    for (std::int64_t begin = 0; begin < pixels; begin += begin == 0 ? first : lanes) {
      // The last square is a whole one as well, if there are pixels before it.
      if (pixels - begin < lanes && pixels > lanes) begin = pixels - lanes;
      const int count = static_cast<int>(pixels < lanes ? pixels : lanes);
      const bool whole = channels == lanes && count == lanes;
      const auto pixel_mask = V::mask_range(0, count);
      const T* const square = planes + begin * kStep;
      V m[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) {
        const T* const row = square + i * args.channel_stride;
        if (!whole && i >= channels) {
          m[i] = V::zero();
        } else if constexpr (kStep == 2) {
          m[i] = V::load_even(V::zero(), 0, count, row);
        } else {
          m[i] = whole ? V::load(row) : V::load_or_zero(pixel_mask, row);
        }
      }
      V::transpose(m);
      std::int64_t phase = (args.first + begin) % args.phases;
      T* to = block + (args.first + begin) / args.phases * args.pitch;
      if (whole && args.phases <= 2) {
        // Every second pixel is equally far from the one before.
        T* const even = to + phase * args.phase_pitch;
        T* const odd = args.phases == 2 && phase == 0 ? to + args.phase_pitch : to + args.pitch;
        const std::int64_t step = 2 / args.phases * args.pitch;
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) m[i].store((i % 2 == 0 ? even : odd) + i / 2 * step);
        continue;
      }
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) {
        if (i >= count) break;
        if (channels == lanes) {
          m[i].store(to + phase * args.phase_pitch);
        } else {
          m[i].store(channel_mask, to + phase * args.phase_pitch);
        }
        if (++phase == args.phases) {
          phase = 0;
          to += args.pitch;
        }
      }
    }
  }
}

// Columns [first, last) of a row whose channels are contiguous.
template <class T>
static inline void pixel_lines(const PixelRowArgs<T>& args, const T* from, std::int64_t step) {
  using V = Vec<T>;
  const std::int64_t whole = args.channels / V::lanes * V::lanes;
  const auto tail = V::mask_range(0, static_cast<int>(args.channels - whole));
  constexpr std::int64_t block = kChannelBlock;
  std::int64_t phase = args.first % args.phases;
  T* to = args.to + args.first / args.phases * args.pitch;
  if (args.phases == 1 && args.channels == V::lanes) {
    for (std::int64_t j = args.first; j < args.last; ++j, from += step, to += args.pitch) {
      V::load(from).store(to);
    }
    return;
  }
  for (std::int64_t j = args.first; j < args.last; ++j, from += step) {
    T* const pixel = to + phase * args.phase_pitch;
    for (std::int64_t c = 0; c < whole; c += V::lanes) {
      V::load(from + c).store(pixel + c / block * args.block_pitch + c % block);
    }
    if (whole < args.channels) {
      V::load_or_zero(tail, from + whole)
          .store(tail, pixel + whole / block * args.block_pitch + whole % block);
    }
    if (++phase == args.phases) {
      phase = 0;
      to += args.pitch;
    }
  }
}

template <class T>
void pixel_row(const PixelRowArgs<T>& args) {
  const auto copy = [&](std::int64_t j, const T* from) {
    T* to = args.to + j % args.phases * args.phase_pitch + j / args.phases * args.pitch;
    for (std::int64_t c = 0; c < args.channels; c += kChannelBlock, to += args.block_pitch) {
      const std::int64_t left = args.channels - c;
      const std::int64_t channels = left < kChannelBlock ? left : kChannelBlock;
      if (from == nullptr && channels == kChannelBlock) {
        for (std::int64_t i = 0; i < kChannelBlock; ++i) to[i] = T(0);  // in vectors
        continue;
      }
      for (std::int64_t i = 0; i < channels; ++i) {
        to[i] = from ? from[(c + i) * args.channel_stride] : T(0);
      }
    }
  };
  const auto pad = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      const std::int64_t column =
          padded_index(args.start + j * args.step, args.column_in, args.padding_mode);
      copy(j, column < 0 ? nullptr : args.from + column * args.column_stride);
    }
  };
  pad(0, args.first);
  if (args.first < args.last) {
    const T* from = args.from + (args.start + args.first * args.step) * args.column_stride;
    const std::int64_t step = args.step * args.column_stride;
    const bool dense = args.phases == 1 && args.channels <= kChannelBlock &&
                       args.channels == args.pitch && args.channels == step;
    if (args.channel_stride == 1 && dense) {
      copy_strided((args.last - args.first) * step, from, 1, args.to + args.first * args.pitch);
    } else if (args.channel_stride == 1) {
      pixel_lines(args, from, step);
    } else if (step == 1) {
      pixel_squares<T, 1>(args, from);
    } else if (step == 2) {
      pixel_squares<T, 2>(args, from);
    } else {
      for (std::int64_t j = args.first; j < args.last; ++j, from += step) copy(j, from);
    }
  }
  pad(args.last, args.count);
}

template <class T>
constexpr void fill_channels(KernelTable<T>& table) {
  fill_channels_tiles<T>(table);
  table.channels_vectors = kChannelsVectors<T>;
  table.pixel_row = pixel_row<T>;
}

}  // namespace pyconv::PYCONV_ISA
