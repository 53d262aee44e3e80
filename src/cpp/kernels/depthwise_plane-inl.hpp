// Depthwise convolution of whole planes, read where they are. See DepthwisePlaneArgs for the
// contract.
#pragma once

#include "kernels/depthwise_pixels-inl.hpp"

namespace pyconv::PYCONV_ISA {

// The most rows of a tile of so many vectors: accumulators, all weights and what one input row
// needs fit the registers. Two vectors keep twice as many chains going, which is worth 1.4 times; 7
// and 14 divide the heights of most networks.
constexpr int plane_rows(int size, int stride, int vectors) {
  const int fitting =
      (PYCONV_VECTOR_REGISTERS - size * size - (stride == 2 ? 4 : 1)) / vectors - (stride == 2);
  const int most = 14 / vectors;
  return fitting < most ? fitting : most;
}

// One vector of a tile: its column, and at an edge of the plane the lanes that may be read, per
// load, and stored.
template <class T>
struct PlaneVector {
  typename Vec<T>::Mask load[5];
  typename Vec<T>::Mask store;
  std::int64_t column;
  std::int64_t next;  // 1 if the element after two vectors lies inside, else 0
};

// What the taps of one kernel row meet under a vector of outputs, `from` on.
template <class T, int kSize, int kStride, bool kEdge>
static inline void plane_pixels(const T* from, const PlaneVector<T>& vector,
                                Vec<T> (&pixel)[kSize]) {
  using V = Vec<T>;
  const auto load = [&](int i, const T* p) {
    return kEdge ? V::load_or_zero(vector.load[i], p) : V::load(p);
  };
  if constexpr (kStride == 1) {
#pragma GCC unroll 8
    for (int w = 0; w < kSize; ++w) pixel[w] = load(w, from + w);
  } else {
    static_assert(kSize == 3, "the taps are even, odd, and even one lane on");
    const V low = load(0, from);
    const V high = load(1, from + V::lanes);
    pixel[0] = V::even(low, high);
    pixel[1] = V::odd(low, high);
    const bool inside = !kEdge || vector.next == 1;
    const V next = inside ? V::broadcast(from[2 * V::lanes]) : V::zero();
    pixel[2] = V::next_lane(pixel[0], next);
  }
}

// `kRows` output rows of a channel's plane from `row` on, at some vectors of columns. `end` is that
// of the channel.
template <class T, int kSize, int kStride, int kRows, int kVectors, bool kEdge>
[[gnu::always_inline]] static inline void plane_tile(const DepthwisePlaneArgs<T>& args,
                                                     std::int64_t channel,
                                                     const DepthwiseEnd<T>& end, std::int64_t row,
                                                     const PlaneVector<T> (&vectors)[kVectors]) {
  using V = Vec<T>;
  V sum[kRows][kVectors];
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = V::zero();
  }
  const std::int64_t top = row * kStride - args.pad_row;
  for (std::int64_t d = 0; d < args.plane_count; ++d) {
    const T* const x = args.planes[d].x + channel * args.x_channel;
    const T* const weights = args.planes[d].weights + channel * args.weights_channel;
    V weight[kSize * kSize];
#pragma GCC unroll 25
    for (int i = 0; i < kSize * kSize; ++i) {
      weight[i] = V::broadcast(weights[i]);
      asm("" : "+v"(weight[i].v));
    }
    const T* from[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      from[v] = x + top * args.x_row + vectors[v].column * kStride - args.pad_column;
    }
#pragma GCC unroll 64
    for (int i = 0; i < (kRows - 1) * kStride + kSize; ++i) {
      // Only the rows under the first and the last outputs may lie outside.
      const bool outer = i < kSize || i >= (kRows - 1) * kStride;
      if (!outer ||
          static_cast<std::uint64_t>(top + i) < static_cast<std::uint64_t>(args.in_rows)) {
        V pixel[kVectors][kSize];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          plane_pixels<T, kSize, kStride, kEdge>(from[v], vectors[v], pixel[v]);
          if (args.ahead != 0) __builtin_prefetch(from[v] + args.ahead);
        }
#pragma GCC unroll 8
        for (int w = 0; w < kSize; ++w) {
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) {
            asm("" : "+v"(pixel[v][w].v));  // or GCC would load it again for every use
#pragma GCC unroll 14
            for (int r = 0; r < kRows; ++r) {
              const int h = i - r * kStride;
              if (h >= 0 && h < kSize) {
                sum[r][v] = V::fma(weight[h * kSize + w], pixel[v][w], sum[r][v]);
              }
            }
          }
        }
      }
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) from[v] += args.x_row;
    }
  }
  const V bias = V::broadcast(end.bias);
  const V low = V::broadcast(end.low);
  const V high = V::broadcast(end.high);
  T* out = end.out + (row - args.row) * end.out_row;
  const T* residual = end.residual;
  if (residual) residual += (row - args.row) * end.residual_row;
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      V result = sum[r][v] + bias;
      const std::int64_t column = vectors[v].column - args.column;
      if (residual) {
        const T* from = residual + column;
        result = result + (kEdge ? V::load_or_zero(vectors[v].store, from) : V::load(from));
      }
      result = V::min(high, V::max(low, result));
      if constexpr (kEdge) {
        result.store(vectors[v].store, out + column);
      } else {
        result.store(out + column);
      }
    }
    out += end.out_row;
    if (residual) residual += end.residual_row;
  }
}

// Tiles of kRows rows: those at an edge, or `count` neighbouring ones from the first on.
template <class T, int kSize, int kStride, int kRows, int kVectors>
static void plane_tiles(const DepthwisePlaneArgs<T>& args, std::int64_t channel,
                        const DepthwiseEnd<T>& end, std::int64_t row, const PlaneVector<T>* vectors,
                        std::int64_t count, bool edge) {
  PlaneVector<T> at[kVectors];
  for (int v = 0; v < kVectors; ++v) at[v] = vectors[v];
  if (edge) {
    return plane_tile<T, kSize, kStride, kRows, kVectors, true>(args, channel, end, row, at);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    plane_tile<T, kSize, kStride, kRows, kVectors, false>(args, channel, end, row, at);
    for (int v = 0; v < kVectors; ++v) at[v].column += kVectors * Vec<T>::lanes;
  }
}

template <class T>
using PlaneTiles = void (*)(const DepthwisePlaneArgs<T>&, std::int64_t, const DepthwiseEnd<T>&,
                            std::int64_t, const PlaneVector<T>*, std::int64_t, bool);

template <class T, int kSize, int kStride, int kVectors,
          int kRows = plane_rows(kSize, kStride, kVectors)>
static constexpr void fill_plane_tiles(PlaneTiles<T>* tiles) {
  tiles[kRows - 1] = plane_tiles<T, kSize, kStride, kRows, kVectors>;
  if constexpr (kRows > 1) fill_plane_tiles<T, kSize, kStride, kVectors, kRows - 1>(tiles);
}

// Tiles of all heights, of one width.
template <class T, int kSize, int kStride, int kVectors>
struct PlaneTileTable {
  static constexpr int kMost = plane_rows(kSize, kStride, kVectors);
  PlaneTiles<T> tiles[kMost];
  constexpr PlaneTileTable() : tiles{} { fill_plane_tiles<T, kSize, kStride, kVectors>(tiles); }

  void run(const DepthwisePlaneArgs<T>& args, std::int64_t channel, const DepthwiseEnd<T>& end,
           const PlaneVector<T>* vectors, std::int64_t count, bool edge) const {
    const std::int64_t parts = (args.rows + kMost - 1) / kMost;
    std::int64_t row = args.row;
    for (std::int64_t part = 0; part < parts; ++part) {
      const std::int64_t rows = args.rows / parts + (part < args.rows % parts ? 1 : 0);
      tiles[rows - 1](args, channel, end, row, vectors, count, edge);
      row += rows;
    }
  }
};

template <class T, int kSize, int kStride>
void depthwise_plane(const DepthwisePlaneArgs<T>& args) {
  using V = Vec<T>;
  static constexpr PlaneTileTable<T, kSize, kStride, 1> kSingle;
  static constexpr PlaneTileTable<T, kSize, kStride, 2> kPairs;
  const std::int64_t columns_end = args.column + args.columns;
  const auto edge = [&](std::int64_t column) {
    PlaneVector<T> vector;
    const std::int64_t left = column * kStride - args.pad_column;
    const auto range = [](std::int64_t from, std::int64_t upto) {
      const auto clip = [](std::int64_t lane) {
        return static_cast<int>(lane < 0 ? 0 : lane > V::lanes ? V::lanes : lane);
      };
      const int begin = clip(from);
      const int end = clip(upto);
      return V::mask_range(begin, end < begin ? begin : end);
    };
    vector.column = column;
#pragma GCC unroll 8
    for (int i = 0; i < (kStride == 1 ? kSize : 2); ++i) {
      const std::int64_t at = left + i * (kStride == 1 ? 1 : V::lanes);
      vector.load[i] = range(-at, args.in_columns - at);
    }
    vector.store = range(0, columns_end - column);
    const std::int64_t next = left + 2 * V::lanes;
    vector.next = next >= 0 && next < args.in_columns ? 1 : 0;
    return vector;
  };
  // Vectors [first, last) have outputs and inputs in all lanes: the others are edges.
  const std::int64_t vectors = (args.columns + V::lanes - 1) / V::lanes;
  const auto inside = [&](std::int64_t vector) {
    const std::int64_t left = (args.column + vector * V::lanes) * kStride - args.pad_column;
    return left >= 0 && left + (V::lanes - 1) * kStride + kSize <= args.in_columns &&
           (vector + 1) * V::lanes <= args.columns;
  };
  std::int64_t first = 0;
  while (first < vectors && !inside(first)) ++first;
  std::int64_t last = first;
  while (last < vectors && inside(last)) ++last;

  const std::int64_t pairs = (last - first) / 2;
  PlaneVector<T> inner[2];
  inner[0].column = args.column + first * V::lanes;
  inner[1].column = inner[0].column + V::lanes;

  // The others, which most channels have in common.
  const std::int64_t resume = first + 2 * pairs;
  const std::int64_t others = vectors - 2 * pairs;
  const auto other = [&](std::int64_t n) {
    return edge(args.column + (n < first ? n : n - first + resume) * V::lanes);
  };
  constexpr std::int64_t kMostKept = 8;
  PlaneVector<T> kept[kMostKept];
  for (std::int64_t n = 0; n < others && n < kMostKept; ++n) kept[n] = other(n);
  const auto at = [&](std::int64_t n) { return n < kMostKept ? kept[n] : other(n); };

  DepthwiseEnd<T> end = args.end;
  for (std::int64_t channel = 0; channel < args.channels; ++channel) {
    if (args.biases) end.bias = args.biases[channel];
    if (pairs > 0) kPairs.run(args, channel, end, inner, pairs, false);
    for (std::int64_t n = 0; n < others; n += 2) {
      const PlaneVector<T> one[1] = {at(n)};
      if (n + 1 == others) {
        kSingle.run(args, channel, end, one, 1, true);
      } else {
        const PlaneVector<T> two[2] = {one[0], at(n + 1)};
        kPairs.run(args, channel, end, two, 1, true);
      }
    }
    end.out += args.out_channel;
    if (end.residual) end.residual += args.residual_channel;
  }
}

template <class T>
constexpr void fill_depthwise_planes(KernelTable<T>& table) {
  table.depthwise_plane[static_cast<int>(DepthwisePlaneShape::k3)] = depthwise_plane<T, 3, 1>;
  if constexpr (plane_rows(5, 1, 2) > 0) {
    table.depthwise_plane[static_cast<int>(DepthwisePlaneShape::k5)] = depthwise_plane<T, 5, 1>;
  }
  if constexpr (plane_rows(3, 2, 2) > 0) {
    table.depthwise_plane[static_cast<int>(DepthwisePlaneShape::k3s2)] = depthwise_plane<T, 3, 2>;
  }
}

}  // namespace pyconv::PYCONV_ISA
