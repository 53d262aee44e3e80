// Direct convolution over padded rows: every tap of every channel is a constant offset.
#pragma once

#include "core/padding.hpp"
#include "kernels/gemm-inl.hpp"
#include "kernels/kernel_table.hpp"
#include "kernels/strided-inl.hpp"

namespace pyconv::PYCONV_ISA {

// The widest tile of so many rows: its accumulators, one vector of b each and a broadcast fit the
// registers. More than 12 vectors would not hide more latency.
constexpr int direct_vectors(int rows) {
  const int fitting = (PYCONV_VECTOR_REGISTERS - 1) / (rows + 1);
  return fitting < kMaxDirectVectors ? fitting : kMaxDirectVectors;
}

// Each step for all sums at once, or the compiler would read `end` anew after every store.
template <class T, int kRows, int kVectors>
static inline void end_rows(Vec<T> (&sum)[kRows][kVectors], const RowsEnd<T>& end,
                            std::int64_t first, const std::int32_t* ends) {
  using V = Vec<T>;
  if (end.bias) add_row_bias(sum, end.bias);
  if (end.residual) {
    const PixelSpan* span = end.spans + first;
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) {
      for (const PixelSpan* const last = end.spans + ends[j]; span != last; ++span) {
        const auto lanes = V::mask_range(span->begin, span->end);
        const T* residual = end.residual + span->run * end.residual_row + span->offset;
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i, residual += end.residual_channel) {
          sum[i][j] = V::select(lanes, sum[i][j] + V::load_or_zero(lanes, residual), sum[i][j]);
        }
      }
    }
  }
  clamp_sums(sum, end.low, end.high);
  const std::int64_t out_channel = end.out_channel;
  const PixelSpan* span = end.spans + first;
#pragma GCC unroll 16
  for (int j = 0; j < kVectors; ++j) {
    for (const PixelSpan* const last = end.spans + ends[j]; span != last; ++span) {
      T* out = end.out + span->run * end.out_row + span->offset;
      if (span->end - span->begin == V::lanes) {
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i, out += out_channel) sum[i][j].store(out);
      } else {
        const auto lanes = V::mask_range(span->begin, span->end);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i, out += out_channel) sum[i][j].store(lanes, out);
      }
    }
  }
}

// kAhead: to ask for a line per k takes a tenth of the time of a tile of 6 x 2.
template <bool kAhead, class T, int kRows, int kVectors>
[[gnu::always_inline]] static inline void add_rows(const DirectTileArgs<T>& args,
                                                   std::int64_t first,
                                                   Vec<T> (&sum)[kRows][kVectors]) {
  const std::int64_t ahead_step = args.ahead_step;
  const std::int32_t* offset = args.offsets;
  const T* a = args.a;
  const T* b = args.b + first;
  asm("" : "+r"(b));  // or GCC would add `first` at every k
  const T* ahead = kAhead ? args.ahead + first : nullptr;
  // Tiles that need all registers, or but for one where they are wide, keep them under one step per
  // turn only.
  constexpr int kRegisters = kRows * kVectors + (kRows < kVectors ? kRows : kVectors) + 1;
  constexpr bool kFours =
      kTakesFours<T> && kRegisters + (kVectors > 4 ? 1 : 0) < PYCONV_VECTOR_REGISTERS;
  repeat<kFours>(args.depth, [&]() __attribute__((always_inline)) {
    add_step<0, kRows, false>([a](int i) { return a[i]; }, b + *offset++, sum);
    a += kRows;
    if constexpr (kAhead) {
      __builtin_prefetch(ahead);
      ahead += ahead_step;
    }
  });
}

template <class T, int kRows, int kVectors>
void direct_tile(const DirectTileArgs<T>& args) {
  using V = Vec<T>;
  const TileEnd<T>* const end = args.end;
  const RowsEnd<T>* const rows_end = args.rows_end;
  const std::int64_t c_stride = args.c_stride;
  for (std::int64_t tile = 0; tile < args.tiles; ++tile) {
    clear_registers();
    const std::int64_t first = tile * kVectors * V::lanes;
    std::int64_t first_span = 0;
    T* const c = args.c + first;
    V sum[kRows][kVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kVectors; ++j) {
        sum[i][j] = args.accumulate ? V::load(c + i * c_stride + j * V::lanes) : V::zero();
      }
    }
    if (end) {
      prefetch_outputs<kRows, kVectors>(end->out + first, end->out_stride);
    } else if (rows_end) {
      first_span = tile > 0 ? rows_end->ends[tile * kVectors - 1] : rows_end->first;
      const PixelSpan& span = rows_end->spans[first_span];
      prefetch_outputs<kRows, kVectors>(rows_end->out + span.run * rows_end->out_row + span.offset,
                                        rows_end->out_channel);
    }
    if (args.ahead_step != 0) {
      add_rows<true>(args, first, sum);
    } else {
      add_rows<false>(args, first, sum);
    }
    if (end) {
      end_tile(sum, *end, first, tile + 1 < args.tiles);
      continue;
    }
    if (rows_end) {
      end_rows(sum, *rows_end, first_span, rows_end->ends + tile * kVectors);
      continue;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kVectors; ++j) sum[i][j].store(c + i * c_stride + j * V::lanes);
    }
  }
}

template <class T, int kRows = Tile<T>::rows, int kVectors = direct_vectors(kRows)>
constexpr void fill_direct(DirectTile<T> (&tiles)[kMaxTileRows][kMaxDirectVectors],
                           std::int64_t (&widest)[kMaxTileRows]) {
  tiles[kRows - 1][kVectors - 1] = direct_tile<T, kRows, kVectors>;
  widest[kRows - 1] = direct_vectors(kRows);
  if constexpr (kVectors > 1) {
    fill_direct<T, kRows, kVectors - 1>(tiles, widest);
  } else if constexpr (kRows > 1) {
    fill_direct<T, kRows - 1>(tiles, widest);
  }
}

// Elements [begin, end) of a phase of a row, padding or not.
template <class T>
static inline void pad_elements(const PadPlaneArgs<T>& args, const PadPhase& phase, const T* row,
                                std::int64_t begin, std::int64_t end, T* to) {
  for (std::int64_t j = begin; j < end; ++j) {
    const std::int64_t column =
        padded_index(phase.column + j * args.column_step, args.column_in, args.padding_mode);
    to[j] = column < 0 ? T(0) : row[column * args.column_stride];
  }
}

template <class T>
static inline void pad_row(const PadPlaneArgs<T>& args, const PadPhase& phase, const T* row,
                           T* to) {
  pad_elements(args, phase, row, 0, phase.first, to);
  if (phase.first < phase.last) {
    copy_strided(phase.last - phase.first,
                 row + (phase.column + phase.first * args.column_step) * args.column_stride,
                 args.column_step * args.column_stride, to + phase.first);
  }
  pad_elements(args, phase, row, phase.last, args.count, to);
}

// The elements that a phase and the one after it both have inside the plane.
static inline std::int64_t common_first(const PadPhase* phase) {
  return at_least(phase[0].first, phase[1].first);
}
static inline std::int64_t common_last(const PadPhase* phase) {
  return at_most(phase[0].last, phase[1].last);
}

// Whether a phase and the one after it are neighbouring columns of the same rows, as two phases of
// stride 2 are, and pad_two_rows() takes them: where both have a vector inside the plane.
template <class T>
static inline bool are_neighbours(const PadPlaneArgs<T>& args, const PadPhase* phase) {
  return args.column_step == 2 && args.column_stride == 1 && phase[0].row == phase[1].row &&
         phase[0].column + 1 == phase[1].column &&
         common_last(phase) - common_first(phase) >= Vec<T>::lanes;
}

// Two such phases of a row, in one pass over it.
template <class T>
static inline void pad_two_rows(const PadPlaneArgs<T>& args, const PadPhase* phase, const T* row,
                                T* to, T* to_next) {
  using V = Vec<T>;
  const std::int64_t last = common_last(phase);
  std::int64_t j = common_first(phase);
  pad_elements(args, phase[0], row, 0, j, to);
  pad_elements(args, phase[1], row, 0, j, to_next);
  for (; j < last; j += V::lanes) {
    if (j + V::lanes > last) j = last - V::lanes;  // the last vector copies some elements again
    const T* const from = row + phase[0].column + 2 * j;
    const V low = V::load(from);
    const V high = V::load(from + V::lanes);
    V::even(low, high).store(to + j);
    V::odd(low, high).store(to_next + j);
  }
  pad_elements(args, phase[0], row, j, args.count, to);
  pad_elements(args, phase[1], row, j, args.count, to_next);
}

template <class T>
void pad_plane(const PadPlaneArgs<T>& args) {
  const PadPhase& only = args.phases[0];
  const std::int64_t row = args.row_start + only.row;
  if (args.phase_count == 1 && args.plane != nullptr &&
      args.column_step * args.column_stride == 2 && only.first == 0 && only.last == args.count &&
      args.count > 0 && row >= 0 && row + (args.rows - 1) * args.row_step < args.row_in) {
    return halve_rows(args.rows, args.count,
                      args.plane + row * args.row_stride + only.column * args.column_stride,
                      args.row_step * args.row_stride, args.ahead, args.to + only.offset);
  }
  for (std::int64_t r = 0; r < args.rows; ++r) {
    for (std::int64_t i = 0; i < args.phase_count; ++i) {
      const PadPhase& phase = args.phases[i];
      T* const to = args.to + phase.offset + r * args.count;
      const std::int64_t index = padded_index(args.row_start + phase.row + r * args.row_step,
                                              args.row_in, args.padding_mode);
      if (args.plane != nullptr && index >= 0) {
        const T* const from = args.plane + index * args.row_stride;
        if (i + 1 < args.phase_count && are_neighbours(args, &phase)) {
          ++i;
          pad_two_rows(args, &phase, from, to, args.to + args.phases[i].offset + r * args.count);
        } else {
          pad_row(args, phase, from, to);
        }
      } else {
        for (std::int64_t j = 0; j < args.count; ++j) to[j] = T(0);
      }
    }
  }
}

}  // namespace pyconv::PYCONV_ISA
