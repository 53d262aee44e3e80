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

// The elements that all of kStep phases have inside the plane.
template <int kStep>
static inline std::int64_t common_first(const PadPhase* phase) {
  std::int64_t first = phase[0].first;
  for (int i = 1; i < kStep; ++i) first = at_least(first, phase[i].first);
  return first;
}
template <int kStep>
static inline std::int64_t common_last(const PadPhase* phase) {
  std::int64_t last = phase[0].last;
  for (int i = 1; i < kStep; ++i) last = at_most(last, phase[i].last);
  return last;
}

// Whether the phases of a row are neighbouring columns, as all those of a stride are, and
// pad_neighbours() takes them: where all have a vector inside the plane.
template <int kStep, class T>
static inline bool are_neighbours(const PadPlaneArgs<T>& args) {
  if (args.column_step != kStep || args.column_stride != 1) return false;
  if (args.phase_count < kStep) return false;
  const PadPhase* const phase = args.phases;
  for (int i = 1; i < kStep; ++i) {
    if (phase[i].row != phase->row || phase[i].column != phase->column + i) return false;
  }
  return common_last<kStep>(phase) - common_first<kStep>(phase) >= Vec<T>::lanes;
}

// from[kStep * lane + i] to lane of part[i].
template <class V, class T>
static inline void deal(const T* from, V (&part)[2]) {
  const V low = V::load(from);
  const V high = V::load(from + V::lanes);
  part[0] = V::even(low, high);
  part[1] = V::odd(low, high);
}
template <class V, class T>
static inline void deal(const T* from, V (&part)[4]) {
  V low[2];
  V high[2];
  deal(from, low);
  deal(from + 2 * V::lanes, high);
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    part[i] = V::even(low[i], high[i]);
    part[i + 2] = V::odd(low[i], high[i]);
  }
}

// Such phases of a row, in one pass over it.
template <int kStep, class T>
static inline void pad_neighbours(const PadPlaneArgs<T>& args, const PadPhase* phase, const T* row,
                                  T* to) {
  using V = Vec<T>;
  const std::int64_t first = common_first<kStep>(phase);
  const std::int64_t last = common_last<kStep>(phase);
  for (std::int64_t j = first; j < last; j += V::lanes) {
    if (j + V::lanes > last) j = last - V::lanes;  // the last vector copies some elements again
    V part[kStep];
    deal(row + phase->column + kStep * j, part);
#pragma GCC unroll 4
    for (int i = 0; i < kStep; ++i) part[i].store(to + phase[i].offset + j);
  }
  for (int i = 0; i < kStep; ++i) {
    pad_elements(args, phase[i], row, 0, first, to + phase[i].offset);
    pad_elements(args, phase[i], row, last, args.count, to + phase[i].offset);
  }
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
  const std::int64_t together = are_neighbours<2>(args) ? 2 : are_neighbours<4>(args) ? 4 : 1;
  for (std::int64_t r = 0; r < args.rows; ++r) {
    T* const to = args.to + r * args.count;
    for (std::int64_t i = 0; i < args.phase_count; i += together) {
      const PadPhase* const phase = args.phases + i;
      const std::int64_t index = padded_index(args.row_start + phase->row + r * args.row_step,
                                              args.row_in, args.padding_mode);
      if (args.plane == nullptr || index < 0) {
        for (std::int64_t n = 0; n < together; ++n) {
          for (std::int64_t j = 0; j < args.count; ++j) to[phase[n].offset + j] = T(0);
        }
        continue;
      }
      const T* const from = args.plane + index * args.row_stride;
      if (together == 2) {
        pad_neighbours<2>(args, phase, from, to);
      } else if (together == 4) {
        pad_neighbours<4>(args, phase, from, to);
      } else {
        pad_row(args, *phase, from, to + phase->offset);
      }
    }
  }
}

}  // namespace pyconv::PYCONV_ISA
