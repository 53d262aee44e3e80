// Grouped convolution where the lanes are output channels of several groups. See GroupedArgs for
// the contract.
#pragma once

#include <limits>

#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

// On 32 registers, tiles of 7 to 14 columns make up all widths from 7 on, and 7 chains nearly cover
// the latency of a fused multiply-add (2 ports x 4 cycles).
constexpr int kGroupedColumns = PYCONV_VECTOR_REGISTERS >= 32 ? kMostGroupedColumns : 8;
constexpr int kFewestGroupedColumns = kGroupedColumns / 2;

// The lanes of a vector of pixels as channel kChannel of their groups of kChannels meets them.
// Permutations within four lanes run beside multiply-adds for free, others take their place (Zen 5:
// 2.0 against 1.4 multiply-adds per cycle next to one of each).
template <int kChannel, int kChannels, class T>
static inline Vec<T> spread(Vec<T> pixel) {
  using V = Vec<T>;
  if constexpr (kChannels == 3) {
    static constexpr std::int32_t kThirds[3][16] = {
        {0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9, 12, 12, 12, 15},
        {1, 1, 1, 4, 4, 4, 7, 7, 7, 10, 10, 10, 13, 13, 13, 15},
        {2, 2, 2, 5, 5, 5, 8, 8, 8, 11, 11, 11, 14, 14, 14, 15}};
    return V::permute(pixel, V::load_index(kThirds[kChannel]));
  } else if constexpr (kChannels == 2) {
    return V::template permute_fours<kChannel == 0 ? 0xa0 : 0xf5>(pixel);
  } else if constexpr (kChannels > 1) {
    return V::template permute_fours<kChannel % 4 * 0x55>(pixel);
  } else {
    return pixel;
  }
}

// Of groups of eight, first their lower or their upper fours, twice.
template <int kChannels, class T>
static inline Vec<T> spread_fours(Vec<T> pixel, int upper) {
  using V = Vec<T>;
  if constexpr (kChannels == 8) {
    static constexpr std::int32_t kFours[2][16] = {
        {0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11},
        {4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15}};
    return V::permute(pixel, V::load_index(kFours[upper]));
  } else {
    return pixel;
  }
}

// Adds channel kChannel, and those after it, of column k of the input to all sums that read it.
template <int kChannel, int kChannels, int kSize, int kStep, int kColumns, class T, class Weight>
[[gnu::always_inline]] static inline void add_column(int k, const T* from, Vec<T> fours,
                                                     const Weight& weight,
                                                     Vec<T> (&sum)[kColumns]) {
  using V = Vec<T>;
  if constexpr (kChannel < kChannels) {
    if constexpr (kChannels < V::lanes && kChannel % 4 == 0) {
      fours = spread_fours<kChannels>(V::load(from), kChannel / 4);
    }
    V x = kChannels < V::lanes ? spread<kChannel, kChannels>(fours) : V::broadcast(from[kChannel]);
    asm("" : "+v"(x.v));  // or GCC would load it again for every use
#pragma GCC unroll 14
    for (int p = 0; p < kColumns; ++p) {
      const int w = k - p * kStep;
      if (w < 0 || w >= kSize) continue;
      sum[p] = V::fma(x, weight(w * kChannels + kChannel), sum[p]);
    }
    add_column<kChannel + 1, kChannels, kSize, kStep>(k, from, fours, weight, sum);
  }
}

// Taps that are side by side in a row of the kernel: each vector of pixels is loaded once, spread
// over the lanes once per channel, and meets all the taps that read it.
template <class T, int kChannels, int kSize, int kStep, int kColumns>
[[gnu::always_inline]] static inline void grouped_taps(const GroupedArgs<T>& args,
                                                       const T* const* pixel, const T* weights,
                                                       Vec<T> (&sum)[kColumns]) {
  using V = Vec<T>;
  constexpr int kWeights = kSize * kChannels;
  constexpr int kIndexes = kChannels == 3 ? 3 : 0;  // of permutations
  constexpr bool kWeightsStay = kColumns + kWeights + kIndexes + 3 <= PYCONV_VECTOR_REGISTERS;
  V held[kWeightsStay ? kWeights : 1];
  if constexpr (kWeightsStay) {
#pragma GCC unroll 16
    for (int j = 0; j < kWeights; ++j) {
      held[j] = V::load(weights + j * V::lanes);
      asm("" : "+v"(held[j].v));
    }
  }
#pragma GCC unroll 32
  for (int k = 0; k < (kColumns - 1) * kStep + kSize; ++k) {
    // More weights than registers: read them where they are used, as memory operands.
    if constexpr (!kWeightsStay) asm volatile("" : "+r"(weights));
    const auto weight = [&](int j) {
      return kWeightsStay ? held[kWeightsStay ? j : 0] : V::load(weights + j * V::lanes);
    };
    const T* const from = *pixel + args.channel;
    __builtin_prefetch(from + V::lanes);  // of the image: the next vector of channels reads it
    add_column<0, kChannels, kSize, kStep>(k, from, V::zero(), weight, sum);
    pixel += args.tap_step;
  }
}

// One output row of a tile under a kernel whose width is known.
template <class T, int kChannels, int kSize, int kStep, int kColumns>
static inline void grouped_row(const GroupedArgs<T>& args, const TapRow* unit, const TapRow* end,
                               Vec<T> (&sum)[kColumns]) {
  for (; unit != end; ++unit) {
    grouped_taps<T, kChannels, kSize, kStep>(
        args, args.pixels + unit->offset,
        args.weights + unit->tap * (kSize * kChannels * Vec<T>::lanes), sum);
  }
}

// grouped_taps() for a number of taps up to kTaps, of one channel.
template <int kTaps, int kStep, int kColumns, class T>
[[gnu::always_inline]] static inline void wide_taps(std::int64_t taps, const GroupedArgs<T>& args,
                                                    const T* const* pixel, const T* weights,
                                                    Vec<T> (&sum)[kColumns]) {
  if constexpr (kTaps > 0) {
    if (taps == kTaps) return grouped_taps<T, 1, kTaps, kStep>(args, pixel, weights, sum);
    wide_taps<kTaps - 1, kStep>(taps, args, pixel, weights, sum);
  }
}

// One row of a wide kernel of one channel, in parts of nearly as many taps.
template <class T, int kStep, int kColumns>
static inline void wide_row(const GroupedArgs<T>& args, const T* const* pixel, const T* weights,
                            Vec<T> (&sum)[kColumns]) {
  constexpr int kTaps = PYCONV_VECTOR_REGISTERS >= 32 ? 7 : 4;  // whose weights stay in registers
  std::int64_t left = args.size;
  for (std::int64_t parts = (left + kTaps - 1) / kTaps; parts > 0; --parts) {
    const std::int64_t taps = (left + parts - 1) / parts;
    wide_taps<kTaps, kStep>(taps, args, pixel, weights, sum);
    pixel += taps * args.tap_step;
    weights += taps * Vec<T>::lanes;
    left -= taps;
  }
}

// Finished sums of row r, each step for all at once (see end_tile).
template <class T, int kColumns>
static inline void end_grouped(const GroupedArgs<T>& args, std::int64_t r,
                               Vec<T> (&sum)[kColumns]) {
  using V = Vec<T>;
  const ChannelsEnd<T>& end = args.end;
  const auto mask = V::mask_range(0, static_cast<int>(args.lanes));
  if (end.bias) {
    const V bias = V::load_or_zero(mask, end.bias);
#pragma GCC unroll 14
    for (int p = 0; p < kColumns; ++p) sum[p] = sum[p] + bias;
  }
  if (end.residual) {
    const T* const residual = end.residual + r * end.residual_row;
#pragma GCC unroll 14
    for (int p = 0; p < kColumns; ++p) {
      sum[p] = sum[p] + V::load_or_zero(mask, residual + p * end.residual_column);
    }
  }
  T* const out = end.out + r * end.out_row;
  const std::int64_t step = end.out_column;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  if (end.low != -infinity || end.high != infinity) {
    const V low = V::broadcast(end.low);
    const V high = V::broadcast(end.high);
#pragma GCC unroll 14
    for (int p = 0; p < kColumns; ++p) sum[p] = V::min(high, V::max(low, sum[p]));
  }
  if (args.lanes == V::lanes) {
#pragma GCC unroll 14
    for (int p = 0; p < kColumns; ++p) sum[p].store(out + p * step);
  } else {
#pragma GCC unroll 14
    for (int p = 0; p < kColumns; ++p) sum[p].store(mask, out + p * step);
  }
}

template <class T, int kChannels, int kSize, int kStep, int kColumns>
void grouped_tile(const GroupedArgs<T>& args) {
  using V = Vec<T>;
  const TapRow* unit = args.units + args.first_unit;
  for (std::int64_t r = 0; r < args.rows; ++r) {
    V sum[kColumns];
#pragma GCC unroll 14
    for (int p = 0; p < kColumns; ++p) sum[p] = V::zero();
    const TapRow* const end = args.units + args.unit_ends[r];
    grouped_row<T, kChannels, kSize, kStep, kColumns>(args, unit, end, sum);
    unit = end;
    end_grouped(args, r, sum);
  }
}

// The same for any shape.
template <class T, GroupedSpread kSpread, int kColumns>
void grouped_any_tile(const GroupedArgs<T>& args) {
  using V = Vec<T>;
  const TapRow* unit = args.units + args.first_unit;
  for (std::int64_t r = 0; r < args.rows; ++r) {
    V sum[kColumns];
#pragma GCC unroll 14
    for (int p = 0; p < kColumns; ++p) sum[p] = V::zero();
    for (const TapRow* const end = args.units + args.unit_ends[r]; unit != end; ++unit) {
      const T* const* row = args.pixels + unit->offset;
      const T* weights = args.weights + unit->tap * args.size * args.channels * V::lanes;
      if constexpr (kSpread == GroupedSpread::same && kColumns >= kFewestGroupedColumns) {
        if (args.column_step == args.tap_step) {
          wide_row<T, 1>(args, row, weights, sum);
          continue;
        }
        if (args.column_step == 2 * args.tap_step) {
          wide_row<T, 2>(args, row, weights, sum);
          continue;
        }
      }
      const std::int64_t channels = kSpread == GroupedSpread::same ? 1 : args.channels;
      for (std::int64_t w = 0; w < args.size; ++w, row += args.tap_step) {
        for (std::int64_t i = 0; i < channels; ++i, weights += V::lanes) {
          const V weight = V::load(weights);
          typename V::Index index = {};
          if constexpr (kSpread == GroupedSpread::permuted) {
            index = V::load_index(args.spread + i * V::lanes);
          }
          const std::int64_t channel = args.channel + (kSpread == GroupedSpread::broadcast ? i : 0);
          const T* const* pixel = row;
#pragma GCC unroll 14
          for (int p = 0; p < kColumns; ++p, pixel += args.column_step) {
            const T* const from = *pixel + channel;
            V x = kSpread == GroupedSpread::broadcast ? V::broadcast(*from) : V::load(from);
            if constexpr (kSpread == GroupedSpread::permuted) x = V::permute(x, index);
            sum[p] = V::fma(x, weight, sum[p]);
          }
        }
      }
    }
    end_grouped(args, r, sum);
  }
}

// The pixels of a copy stand one after another: multiply-adds read them where they are, one load
// each, where weights in memory or pixels that a table lists would take more.
template <class T, int kStep, int kColumns>
void grouped_copy_tile(const GroupedArgs<T>& args) {
  using V = Vec<T>;
  const TapRow* unit = args.units + args.first_unit;
  const std::int64_t step = (kStep > 0 ? kStep : args.column_step) * V::lanes;
  const std::int64_t tap_step = args.tap_step * V::lanes;
  for (std::int64_t r = 0; r < args.rows; ++r) {
    V sum[kColumns];
#pragma GCC unroll 14
    for (int p = 0; p < kColumns; ++p) sum[p] = V::zero();
    for (const TapRow* const end = args.units + args.unit_ends[r]; unit != end; ++unit) {
      const T* from = args.copy + unit->offset;
      const T* weights = args.weights + unit->tap * args.size * V::lanes;
      for (const T* const last = weights + args.size * V::lanes; weights != last;
           weights += V::lanes, from += tap_step) {
        const V weight = V::load(weights);
        const T* pixel = from;
#pragma GCC unroll 14
        for (int p = 0; p < kColumns; ++p, pixel += step) {
          sum[p] = V::fma(weight, V::load(pixel), sum[p]);
        }
      }
    }
    end_grouped(args, r, sum);
  }
}

template <class T, int kIndex, int kColumns>
constexpr void fill_grouped_shape(KernelTable<T>& table) {
  constexpr GroupedShape kShape = kGroupedShapes[kIndex];
  // With few registers, depthwise layers have tiles of copies; among other groups, tiles for any
  // shape do.
  if constexpr (kShape.channels > 1 || PYCONV_VECTOR_REGISTERS >= 32) {
    table.grouped[kIndex][kColumns - 1] =
        grouped_tile<T, kShape.channels, kShape.size, kShape.step, kColumns>;
  }
  if constexpr (kColumns > kFewestGroupedColumns) {
    fill_grouped_shape<T, kIndex, kColumns - 1>(table);
  } else if constexpr (kIndex + 1 < kGroupedShapeCount) {
    fill_grouped_shape<T, kIndex + 1, kGroupedColumns>(table);
  }
}

template <class T, int kColumns = kGroupedColumns>
constexpr void fill_grouped_any(KernelTable<T>& table) {
  const auto set = [&table](GroupedSpread spread, GroupedTile<T> tile) {
    table.grouped_any[static_cast<int>(spread)][kColumns - 1] = tile;
  };
  set(GroupedSpread::same, grouped_any_tile<T, GroupedSpread::same, kColumns>);
  set(GroupedSpread::permuted, grouped_any_tile<T, GroupedSpread::permuted, kColumns>);
  set(GroupedSpread::broadcast, grouped_any_tile<T, GroupedSpread::broadcast, kColumns>);
  if constexpr (kColumns > 1) fill_grouped_any<T, kColumns - 1>(table);
}

template <class T, int kStep = kGroupedCopyStep, int kColumns = kMostGroupedColumns>
constexpr void fill_grouped_copy(KernelTable<T>& table) {
  table.grouped_copy[kStep][kColumns - 1] = grouped_copy_tile<T, kStep, kColumns>;
  if constexpr (kColumns > 1) {
    fill_grouped_copy<T, kStep, kColumns - 1>(table);
  } else if constexpr (kStep > 0) {
    fill_grouped_copy<T, kStep - 1>(table);
  }
}

template <class T>
constexpr void fill_grouped(KernelTable<T>& table) {
  table.grouped_columns = kGroupedColumns;
  fill_grouped_shape<T, 0, kGroupedColumns>(table);
  fill_grouped_any<T>(table);
  fill_grouped_copy<T>(table);
}

}  // namespace pyconv::PYCONV_ISA
