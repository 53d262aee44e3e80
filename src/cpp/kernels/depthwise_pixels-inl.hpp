// Depthwise convolution where the lanes are pixels of an output row. See DepthwiseArgs for the
// contract.
#pragma once

#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

// Bias, residual and clamp on a vector of finished sums, and the store. `mask` is null where all
// lanes are stored.
template <class T>
static inline void finish_depthwise(Vec<T> sum, const DepthwiseEnd<T>& end, std::int64_t row,
                                    std::int64_t column, const typename Vec<T>::Mask* mask) {
  using V = Vec<T>;
  sum = sum + V::broadcast(end.bias);
  if (end.residual) {
    const T* residual = end.residual + row * end.residual_row + column;
    sum = sum + (mask ? V::load(V::zero(), *mask, residual) : V::load(residual));
  }
  sum = V::min(V::broadcast(end.high), V::max(V::broadcast(end.low), sum));
  T* out = end.out + row * end.out_row + column;
  if (mask) {
    sum.store(*mask, out);
  } else {
    sum.store(out);
  }
}

// The lanes of the vector at column `at` that may be read.
template <class T>
static inline typename Vec<T>::Mask readable_lanes(const DepthwiseArgs<T>& args, std::int64_t at) {
  constexpr std::int64_t lanes = Vec<T>::lanes;
  const auto clamp = [](std::int64_t lane) {
    return static_cast<int>(lane < 0 ? 0 : lane > lanes ? lanes : lane);
  };
  const int begin = clamp(args.first - at);
  const int end = clamp(args.last - at);
  return Vec<T>::mask_range(begin, end < begin ? begin : end);
}

// The vectors of one input row under the taps of a kernel row, `column` on.
template <class T, int kSize, int kStride, bool kMasked>
struct DepthwisePixels;

template <class T, int kSize, bool kMasked>
struct DepthwisePixels<T, kSize, 1, kMasked> {
  using V = Vec<T>;
  std::int64_t at[kSize];
  typename V::Mask mask[kSize];

  DepthwisePixels(const DepthwiseArgs<T>& args, std::int64_t column) {
#pragma GCC unroll 8
    for (int w = 0; w < kSize; ++w) {
      at[w] = column + args.shifts[w];
      if constexpr (kMasked) mask[w] = readable_lanes(args, at[w]);
    }
  }
  V load(const T* row, int w, V (&)[2]) const {
    return kMasked ? V::load_or_zero(mask[w], row + at[w]) : V::load(row + at[w]);
  }
};

// At stride 2 two neighbouring taps are the even and the odd elements of two vectors.
template <class T, int kSize, bool kMasked>
struct DepthwisePixels<T, kSize, 2, kMasked> {
  using V = Vec<T>;
  static constexpr int kPairs = (kSize + 1) / 2;
  std::int64_t at;
  typename V::Mask mask[4][2];  // kPairs of them: GCC 12 warns of more, which it does not read

  DepthwisePixels(const DepthwiseArgs<T>& args, std::int64_t column)
      : at(2 * column + args.shifts[0]) {
    if constexpr (kMasked) {
#pragma GCC unroll 8
      for (int i = 0; i < 2 * kPairs; ++i) {
        mask[i / 2][i % 2] = readable_lanes(args, at + i / 2 * 2 + i % 2 * V::lanes);
      }
    }
  }
  // Taps in ascending order: `pair` holds what an even one loads for the odd one behind it.
  V load(const T* row, int w, V (&pair)[2]) const {
    if (w % 2 != 0) return V::odd(pair[0], pair[1]);
    const T* from = row + at + w;
    pair[0] = kMasked ? V::load_or_zero(mask[w / 2][0], from) : V::load(from);
    from += V::lanes;
    pair[1] = kMasked ? V::load_or_zero(mask[w / 2][1], from) : V::load(from);
    return V::even(pair[0], pair[1]);
  }
};

// A tile of accumulators under a kernel whose size is known: every vector of pixels is loaded once
// and meets the weights of all output rows whose windows hold it.
template <class T, int kRows, int kSize, int kStride, bool kMasked>
static inline void depthwise_sums(const DepthwiseArgs<T>& args, std::int64_t column,
                                  Vec<T> (&sum)[kRows][1]) {
  using V = Vec<T>;
  const DepthwisePixels<T, kSize, kStride, kMasked> pixels(args, column);
  const T* weights = args.weights;
  const T* const* rows = args.rows;
  for (std::int64_t d = 0; d < args.kernel[0]; ++d) {
#pragma GCC unroll 32
    for (int i = 0; i < (kRows - 1) * kStride + kSize; ++i) {
      // More weights than registers: read them where they are used, as memory operands.
      if constexpr (kSize * kSize + kRows + 1 > PYCONV_VECTOR_REGISTERS) {
        asm volatile("" : "+r"(weights));
      }
      V pair[2];
#pragma GCC unroll 8
      for (int w = 0; w < kSize; ++w) {
        V v = pixels.load(rows[i], w, pair);
        // Or GCC would load it again for every use: most loads straddle two cache lines.
        asm("" : "+v"(v.v));
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const int h = i - r * kStride;
          if (h < 0 || h >= kSize) continue;
          sum[r][0] = V::fma(V::broadcast(weights[h * kSize + w]), v, sum[r][0]);
        }
      }
    }
    rows += args.row_pitch;
    weights += kSize * kSize;
  }
}

// The same for a kernel of any size: each weight is broadcast once for the whole tile.
template <class T, int kRows, int kVectors, bool kMasked>
static inline void depthwise_any_sums(const DepthwiseArgs<T>& args, std::int64_t column,
                                      Vec<T> (&sum)[kRows][kVectors]) {
  using V = Vec<T>;
  const T* weights = args.weights;
  const T* const* rows = args.rows;
  for (std::int64_t d = 0; d < args.kernel[0]; ++d) {
    for (std::int64_t h = 0; h < args.kernel[1]; ++h) {
      const T* row[kRows];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) row[r] = rows[r * args.row_step + h];
      for (std::int64_t w = 0; w < args.kernel[2]; ++w) {
        const std::int64_t shift = column + args.shifts[w];
        const V weight = V::broadcast(*weights++);
#pragma GCC unroll 8
        for (int c = 0; c < kVectors; ++c) {
          const std::int64_t at = shift + c * V::lanes;
          typename V::Mask mask;
          if constexpr (kMasked) mask = readable_lanes(args, at);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            V v;
            if constexpr (kMasked) {
              v = V::load_or_zero(mask, row[r] + at);
            } else {
              v = V::load(row[r] + at);
            }
            sum[r][c] = V::fma(weight, v, sum[r][c]);
          }
        }
      }
    }
    rows += args.row_pitch;
  }
}

template <class T, int kRows, int kVectors, int kSize, int kStride, bool kMasked>
static inline void depthwise_tile(const DepthwiseArgs<T>& args, std::int64_t column) {
  using V = Vec<T>;
  V sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < kVectors; ++c) sum[r][c] = V::zero();
  }
  if constexpr (kSize == 0) {
    depthwise_any_sums<T, kRows, kVectors, kMasked>(args, column, sum);
  } else {
    depthwise_sums<T, kRows, kSize, kStride, kMasked>(args, column, sum);
  }
  const DepthwiseEnd<T> end = args.end;
#pragma GCC unroll 8
  for (int c = 0; c < kVectors; ++c) {
    const std::int64_t at = column + c * V::lanes;
    if constexpr (kMasked) {
      const std::int64_t left = args.columns - at;
      const auto mask = V::mask_range(0, left < V::lanes ? static_cast<int>(left) : V::lanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        if (r < end.rows) finish_depthwise<T>(sum[r][c], end, r, at, &mask);
      }
    } else {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        if (r < end.rows) finish_depthwise<T>(sum[r][c], end, r, at, nullptr);
      }
    }
  }
}

// Vectors per tile: eight chains cover the latency of a fused multiply-add (2 ports x 4 cycles). A
// kernel of known size makes up for fewer chains by fewer loads; two vectors per row slowed 7x7.
constexpr int depthwise_vectors(int rows, int size) { return size > 0 || rows > 4 ? 1 : 8 / rows; }

template <class T, int kRows, int kSize, int kStride>
void depthwise_pixels(const DepthwiseArgs<T>& args) {
  constexpr std::int64_t lanes = Vec<T>::lanes;
  constexpr int kVectors = depthwise_vectors(kRows, kSize);
  std::int64_t least = args.shifts[0];
  std::int64_t most = args.shifts[0];
  for (std::int64_t w = 1; w < args.kernel[2]; ++w) {
    if (args.shifts[w] < least) least = args.shifts[w];
    if (args.shifts[w] > most) most = args.shifts[w];
  }
  const auto whole = [&](std::int64_t begin, std::int64_t end) {
    return begin * kStride >= args.first - least && end * kStride <= args.last - most &&
           end <= args.columns;
  };
  std::int64_t column = 0;
  while (column < args.columns) {
    if (kVectors > 1 && whole(column, column + kVectors * lanes)) {
      depthwise_tile<T, kRows, kVectors, kSize, kStride, false>(args, column);
      column += kVectors * lanes;
      continue;
    }
    if (whole(column, column + lanes)) {
      depthwise_tile<T, kRows, 1, kSize, kStride, false>(args, column);
    } else {
      depthwise_tile<T, kRows, 1, kSize, kStride, true>(args, column);
    }
    column += lanes;
  }
}

template <class T, int kHeight = 0, int kIndex = 0>
constexpr void fill_depthwise_pixels(KernelTable<T>& table) {
  constexpr int kRows = kDepthwiseRows[kHeight];
  constexpr DepthwiseShape kShape = kDepthwiseShapes[kIndex];
  // One or two rows are what remains of an image, and one lane is no hurry: not worth code of their
  // own where any will do.
  constexpr bool kKnown = (kRows > 2 && Vec<T>::lanes > 1) || kShape.step == 2;
  constexpr int kSize = kKnown ? kShape.size : 0;
  table.depthwise_pixels[kIndex][kHeight] = depthwise_pixels<T, kRows, kSize, kShape.step>;
  if constexpr (kIndex + 1 < kDepthwiseShapeCount) {
    fill_depthwise_pixels<T, kHeight, kIndex + 1>(table);
  } else if constexpr (kHeight + 1 < kDepthwiseRowCounts) {
    fill_depthwise_pixels<T, kHeight + 1>(table);
  }
}

}  // namespace pyconv::PYCONV_ISA
