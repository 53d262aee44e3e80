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

// Whether the phases of a row are neighbouring columns, as all those of a stride are.
template <int kStep, class T>
static inline bool are_neighbours(const PadPlaneArgs<T>& args) {
  if (args.column_step != kStep || args.column_stride != 1) return false;
  if (args.phase_count < kStep) return false;
  const PadPhase* const phase = args.phases;
  for (int i = 1; i < kStep; ++i) {
    if (phase[i].row != phase->row || phase[i].column != phase->column + i) return false;
  }
  return true;
}

// part[i] takes element kStep * lane + i of kStep vectors in a row.
template <class V>
static inline void deal(const V (&row)[1], V (&part)[1]) {
  part[0] = row[0];
}
template <class V>
static inline void deal(const V (&row)[2], V (&part)[2]) {
  part[0] = V::even(row[0], row[1]);
  part[1] = V::odd(row[0], row[1]);
}
template <class V>
static inline void deal(const V (&row)[4], V (&part)[4]) {
  const V even[2] = {V::even(row[0], row[1]), V::even(row[2], row[3])};
  const V odd[2] = {V::odd(row[0], row[1]), V::odd(row[2], row[3])};
  part[0] = V::even(even[0], even[1]);
  part[1] = V::even(odd[0], odd[1]);
  part[2] = V::odd(even[0], even[1]);
  part[3] = V::odd(odd[0], odd[1]);
}

// Where row r of a phase is read, or null if it is one of zeros.
template <class T>
static inline const T* padded_row(const PadPlaneArgs<T>& args, const PadPhase& phase,
                                  std::int64_t r) {
  const std::int64_t index =
      padded_index(args.row_start + phase.row + r * args.row_step, args.row_in, args.padding_mode);
  return args.plane == nullptr || index < 0 ? nullptr : args.plane + index * args.row_stride;
}

// Phases that are neighbouring columns, in one pass over their rows. What lies outside of the plane
// is read as zeros.
template <int kStep, class T>
static inline void pad_neighbours(const PadPlaneArgs<T>& args, const PadPhase* phase) {
  using V = Vec<T>;
  constexpr int kMostRows = 4;
  const std::int64_t count = args.count;
  const int together = count <= kFewPaddedColumns ? kMostRows : 1;
  const auto tail = V::mask_range(0, static_cast<int>(at_most(count, V::lanes)));
  const auto clipped = [](std::int64_t n) {
    return static_cast<int>(at_least(0, at_most(n, V::lanes)));
  };
  for (std::int64_t begin = 0; begin < args.rows; begin += together) {
    const T* rows[kMostRows];
    const int row_count = static_cast<int>(at_most(args.rows - begin, together));
    for (int r = 0; r < row_count; ++r) rows[r] = padded_row(args, *phase, begin + r);
    for (std::int64_t j = 0; j < count; j += V::lanes) {
      // The last vector copies some elements again.
      if (j + V::lanes > count && count > V::lanes) j = count - V::lanes;
      const std::int64_t column = phase->column + kStep * j;
      const bool whole = column >= 0 && column + kStep * V::lanes <= args.column_in;
      typename V::Mask inside[kStep] = {};
#pragma GCC unroll 4
      for (int i = 0; !whole && i < kStep; ++i) {
        const std::int64_t at = column + i * V::lanes;
        inside[i] = V::mask_range(clipped(-at), clipped(args.column_in - at));
      }
      T* to = args.to + begin * count + j;
      for (int r = 0; r < row_count; ++r, to += count) {
        V vectors[kStep];
#pragma GCC unroll 4
        for (int i = 0; i < kStep; ++i) {
          const std::int64_t at = column + i * V::lanes;
          vectors[i] = rows[r] == nullptr ? V::zero()
                       : whole            ? V::load(rows[r] + at)
                                          : V::load_or_zero(inside[i], rows[r] + at);
        }
        V part[kStep];
        deal(vectors, part);
#pragma GCC unroll 4
        for (int i = 0; i < kStep; ++i) {
          if (count >= V::lanes) {
            part[i].store(to + phase[i].offset);
          } else {
            part[i].store(tail, to + phase[i].offset);
          }
        }
      }
    }
    if (args.padding_mode == PaddingMode::zeros) continue;
    for (int r = 0; r < row_count; ++r) {
      for (int i = 0; rows[r] != nullptr && i < kStep; ++i) {
        T* const to = args.to + (begin + r) * count + phase[i].offset;
        pad_elements(args, phase[i], rows[r], 0, phase[i].first, to);
        pad_elements(args, phase[i], rows[r], phase[i].last, count, to);
      }
    }
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
  const PadPhase* const end = args.phases + args.phase_count;
  const PadPhase* phase = args.phases;
  if (are_neighbours<1>(args) && args.count <= kFewPaddedColumns) {
    for (; phase != end; ++phase) pad_neighbours<1>(args, phase);
  } else if (are_neighbours<2>(args)) {
    for (; phase != end; phase += 2) pad_neighbours<2>(args, phase);
  } else if (are_neighbours<4>(args)) {
    for (; phase != end; phase += 4) pad_neighbours<4>(args, phase);
  }
  for (; phase != end; ++phase) {
    for (std::int64_t r = 0; r < args.rows; ++r) {
      T* const to = args.to + r * args.count + phase->offset;
      if (const T* const from = padded_row(args, *phase, r)) {
        pad_row(args, *phase, from, to);
      } else {
        for (std::int64_t j = 0; j < args.count; ++j) to[j] = T(0);
      }
    }
  }
}

}  // namespace pyconv::PYCONV_ISA
