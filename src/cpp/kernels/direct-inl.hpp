// Direct convolution over padded rows: every tap of every channel is a constant offset.
#pragma once

#include "core/padding.hpp"
#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

// The widest tile of so many rows: its accumulators, one vector of b each and a broadcast fit the
// registers. More than 12 vectors would not hide more latency.
constexpr int direct_vectors(int rows) {
  const int fitting = (PYCONV_VECTOR_REGISTERS - 1) / (rows + 1);
  return fitting < kMaxDirectVectors ? fitting : kMaxDirectVectors;
}

template <class T, int kRows, int kVectors>
static inline void end_rows(const Vec<T> (&sum)[kRows][kVectors], const RowsEnd<T>& end) {
  using V = Vec<T>;
  const V low = V::broadcast(end.low);
  const V high = V::broadcast(end.high);
  const PixelSpan* span = end.spans + end.first;
#pragma GCC unroll 16
  for (int j = 0; j < kVectors; ++j) {
    for (const PixelSpan* const last = end.spans + end.ends[j]; span != last; ++span) {
      const auto lanes = V::mask_range(span->begin, span->end);
      T* const out = end.out + span->run * end.out_row + span->offset;
      const T* const residual =
          end.residual ? end.residual + span->run * end.residual_row + span->offset : nullptr;
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        V v = sum[i][j];
        if (end.bias) v = v + V::broadcast(end.bias[i]);
        if (residual) v = v + V::load(V::zero(), lanes, residual + i * end.residual_channel);
        V::min(high, V::max(low, v)).store(lanes, out + i * end.out_channel);
      }
    }
  }
}

template <class T, int kRows, int kVectors>
void direct_tile(std::int64_t depth, const T* a, const T* b, const std::int32_t* offsets, T* c,
                 std::int64_t c_stride, bool accumulate, const RowsEnd<T>* end) {
  using V = Vec<T>;
  V sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) {
      sum[i][j] = accumulate ? V::load(c + i * c_stride + j * V::lanes) : V::zero();
    }
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    const T* const from = b + offsets[k];
    V row[kVectors];
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) row[j] = V::load(from + j * V::lanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const V scale = V::broadcast(a[i]);
#pragma GCC unroll 16
      for (int j = 0; j < kVectors; ++j) sum[i][j] = V::fma(scale, row[j], sum[i][j]);
    }
    a += kRows;
  }
  if (end) return end_rows(sum, *end);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) sum[i][j].store(c + i * c_stride + j * V::lanes);
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

template <class T>
void pad_row(const PadRowArgs<T>& args) {
  using V = Vec<T>;
  if (args.row == nullptr) {
    for (std::int64_t j = 0; j < args.count; ++j) args.to[j] = T(0);
    return;
  }
  const auto pad = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      const std::int64_t index =
          padded_index(args.start + j * args.step, args.in, args.padding_mode);
      args.to[j] = index < 0 ? T(0) : args.row[index * args.stride];
    }
  };
  pad(0, args.first);
  const std::int64_t step = args.step * args.stride;
  const T* from = args.row + (args.start + args.first * args.step) * args.stride;
  std::int64_t j = args.first;
  if (step == 1) {
    for (; j + V::lanes <= args.last; j += V::lanes, from += V::lanes) {
      V::load(from).store(args.to + j);
    }
    const auto tail = V::mask_range(0, static_cast<int>(args.last - j));
    V::load(V::zero(), tail, from).store(tail, args.to + j);
  } else if (step == 2) {
    for (; j < args.last; j += V::lanes, from += 2 * V::lanes) {
      const std::int64_t left = args.last - j;
      const int count = left < V::lanes ? static_cast<int>(left) : V::lanes;
      V::load_even(V::zero(), 0, count, from).store(V::mask_range(0, count), args.to + j);
    }
  } else {
    for (; j < args.last; ++j, from += step) args.to[j] = *from;
  }
  pad(args.last, args.count);
}

}  // namespace pyconv::PYCONV_ISA
