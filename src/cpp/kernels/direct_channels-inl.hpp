// Direct convolution where the lanes are output channels: pixels are broadcast from a copy of the
// input in blocks of channels, in which each tap is a constant offset.
#pragma once

#include "core/padding.hpp"
#include "kernels/gemm-inl.hpp"
#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

// The most rows of so many vectors: their accumulators, one row of weights and a broadcast fit the
// registers. 9 x 3, 14 x 2 and 14 x 1 on 32 of them, 4 x 3, 6 x 2 and 14 x 1 on 16.
constexpr int channels_rows(int vectors) {
  const int fitting = (PYCONV_VECTOR_REGISTERS - 1 - vectors) / vectors;
  return fitting < kMaxTileRows ? fitting : kMaxTileRows;
}

// Adds `count` channels under one tap to rows [kBegin, kEnd) of the sums.
template <int kPitch, int kBegin, int kEnd, class T, int kRows, int kVectors>
[[gnu::always_inline]] static inline void add_channels(std::int64_t count, const T* a, const T* b,
                                                       Vec<T> (&sum)[kRows][kVectors]) {
  using V = Vec<T>;
  if constexpr (kBegin < kEnd) {
#pragma GCC unroll 1
    for (std::int64_t k = 0; k < count; ++k) {
      V row[kVectors];
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) row[j] = V::load(b + j * V::lanes);
#pragma GCC unroll 16
      for (int i = kBegin; i < kEnd; ++i) {
        const V scale = V::broadcast(a[i * kPitch]);
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) sum[i][j] = V::fma(scale, row[j], sum[i][j]);
      }
      ++a;
      b += kVectors * V::lanes;
    }
  }
}

template <class T, int kPitch, int kRows, int kVectors>
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
        add_channels<kPitch, 1, kRows>(count, a, b, sum);
      } else if (edge == kLastPixel) {
        add_channels<kPitch, 0, kRows - 1>(count, a, b, sum);
      } else if (kPitch == kChannelBlock && count == kChannelBlock) {
        add_channels<kPitch, 0, kRows>(kChannelBlock, a, b, sum);  // a constant is 2 % faster
      } else {
        add_channels<kPitch, 0, kRows>(count, a, b, sum);
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

template <class T, int kPitch, int kVectors = kMaxTileVectors, int kRows = channels_rows(kVectors)>
constexpr void fill_channels_tiles(ChannelsTile<T> (&tiles)[kMaxTileRows][kMaxTileVectors],
                                   std::int64_t (&most_rows)[kMaxTileVectors]) {
  tiles[kRows - 1][kVectors - 1] = channels_tile<T, kPitch, kRows, kVectors>;
  most_rows[kVectors - 1] = channels_rows(kVectors);
  if constexpr (kRows > 1) {
    fill_channels_tiles<T, kPitch, kVectors, kRows - 1>(tiles, most_rows);
  } else if constexpr (kVectors > 1) {
    fill_channels_tiles<T, kPitch, kVectors - 1>(tiles, most_rows);
  }
}

// Columns [begin, end) of a row whose lanes are contiguous, or kStep apart, in squares that
// registers transpose.
template <class T, int kPitch, int kStep>
static inline void block_squares(const BlockRowArgs<T>& args, const T* from, std::int64_t begin,
                                 std::int64_t end) {
  using V = Vec<T>;
  constexpr int kBlock = kPitch < V::lanes ? kPitch : V::lanes;
  std::int64_t phase = begin % args.phases;
  T* to = args.to + begin / args.phases * kPitch;
  for (std::int64_t j = begin; j < end; j += V::lanes) {
    const int rows = static_cast<int>(end - j < V::lanes ? end - j : V::lanes);
    const auto row_mask = V::mask_range(0, rows);
    const T* const square = from + (j - begin) * kStep;
    std::int64_t next_phase = phase;
    T* next_to = to;
    for (std::int64_t c = 0; c < args.channels; c += kBlock) {
      const std::int64_t left = args.channels - c;
      const int columns = static_cast<int>(left < kBlock ? left : kBlock);
      V m[V::lanes];
#pragma GCC unroll 16
      for (int i = 0; i < V::lanes; ++i) {
        if (i >= columns) {
          m[i] = V::zero();
        } else if constexpr (kStep == 2) {
          m[i] = V::load_even(V::zero(), 0, rows, square + (c + i) * args.channel_stride);
        } else {
          const T* const row = square + (c + i) * args.channel_stride;
          m[i] = rows == V::lanes ? V::load(row) : V::load(V::zero(), row_mask, row);
        }
      }
      V::transpose(m);
      const auto block_mask = V::mask_range(0, kBlock);
      next_phase = phase;
      next_to = to;
#pragma GCC unroll 16
      for (int i = 0; i < V::lanes; ++i) {
        if (i >= rows) break;
        T* const pixel = next_to + next_phase * args.phase_pitch + c;
        if constexpr (kBlock == V::lanes) {
          m[i].store(pixel);
        } else {
          m[i].store(block_mask, pixel);
        }
        if (++next_phase == args.phases) {
          next_phase = 0;
          next_to += kPitch;
        }
      }
    }
    phase = next_phase;
    to = next_to;
  }
}

template <class T, int kPitch>
void block_row(const BlockRowArgs<T>& args) {
  using V = Vec<T>;
  const auto at = [&](std::int64_t j) {
    return args.to + j % args.phases * args.phase_pitch + j / args.phases * kPitch;
  };
  const auto pad = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      const std::int64_t column =
          padded_index(args.start + j * args.step, args.column_in, args.padding_mode);
      T* const to = at(j);
      for (std::int64_t c = 0; c < args.channels; ++c) {
        to[c] =
            column < 0 ? T(0) : args.from[column * args.column_stride + c * args.channel_stride];
      }
    }
  };
  pad(0, args.first);
  if (args.first < args.last) {
    const T* from = args.from + (args.start + args.first * args.step) * args.column_stride;
    const std::int64_t step = args.step * args.column_stride;
    if (args.channel_stride == 1) {
      const std::int64_t whole = args.channels / V::lanes * V::lanes;
      const auto tail = V::mask_range(0, static_cast<int>(args.channels - whole));
      for (std::int64_t phase = 0; phase < args.phases; ++phase) {
        const std::int64_t skip = (phase - args.first % args.phases + args.phases) % args.phases;
        T* to = at(args.first + skip);
        const T* pixel = from + skip * step;
        for (std::int64_t j = args.first + skip; j < args.last; j += args.phases) {
          for (std::int64_t c = 0; c < whole; c += V::lanes) V::load(pixel + c).store(to + c);
          if (whole < args.channels) V::load_or_zero(tail, pixel + whole).store(tail, to + whole);
          pixel += args.phases * step;
          to += kPitch;
        }
      }
    } else if (step == 1) {
      block_squares<T, kPitch, 1>(args, from, args.first, args.last);
    } else if (step == 2) {
      block_squares<T, kPitch, 2>(args, from, args.first, args.last);
    } else {
      for (std::int64_t j = args.first; j < args.last; ++j, from += step) {
        T* const to = at(j);
        for (std::int64_t c = 0; c < args.channels; ++c) to[c] = from[c * args.channel_stride];
      }
    }
  }
  pad(args.last, args.count);
}

template <class T>
constexpr void fill_channels(KernelTable<T>& table) {
  fill_channels_tiles<T, kChannelBlock>(table.channels_tile[0], table.channels_rows);
  fill_channels_tiles<T, kNarrowPitch>(table.channels_tile[1], table.channels_rows);
  table.block_row[0] = block_row<T, kChannelBlock>;
  table.block_row[1] = block_row<T, kNarrowPitch>;
}

}  // namespace pyconv::PYCONV_ISA
