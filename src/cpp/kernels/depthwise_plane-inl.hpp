// Depthwise convolution of whole planes, read where they are. See DepthwisePlaneArgs for the
// contract.
#pragma once

#include "kernels/depthwise_pixels-inl.hpp"

namespace pyconv::PYCONV_ISA {

// The most rows of a tile of so many vectors: accumulators, all weights and what one input row
// needs fit the registers. Two vectors keep twice as many chains going, which is worth 1.4 times; 7
// and 14 divide the heights of most networks.
constexpr int plane_rows(int size, int stride, int vectors) {
  const int fitting = (PYCONV_VECTOR_REGISTERS - size * size - (stride == 2 ? 4 : 1)) / vectors -
                      (stride == 2 && vectors == 2 ? 1 : 0);
  const int most = 14 / vectors;
  return fitting < most ? fitting : most;
}

// How the taps of a row lie under a vector of outputs.
enum class PlaneTaps {
  unit,   // at stride 1: side by side
  apart,  // at stride 1, dilated
  even,   // at stride 2, of three: even, odd, and even one lane on
  odd,    // at stride 2 from an odd padding on: odd one lane back, even, and odd
};

constexpr int stride_of(PlaneTaps taps) {
  return taps == PlaneTaps::even || taps == PlaneTaps::odd ? 2 : 1;
}

// Loads per row under a vector of outputs. At stride 2 those of two taps are two vectors, and what
// each further tap adds at the right is a single element. In an order of its own no lane has its
// neighbour next to it: the third of three taps takes vectors of its own there.
template <class V>
constexpr int plane_loads(int size, PlaneTaps taps) {
  return stride_of(taps) == 1 || size > 3 ? size : V::mixes_pairs ? 4 : 2;
}

constexpr int kMostPlaneLoads = 7;

template <PlaneTaps kTaps, class T>
[[gnu::always_inline]] static inline std::int64_t tap_step(const DepthwisePlaneArgs<T>& args) {
  return kTaps == PlaneTaps::apart ? args.tap_step : 1;
}

// Where those of more than three taps at stride 2 lie, from the first tap on.
template <class V>
constexpr int long_load_at(int i) {
  return i < 2 ? i * V::lanes : 2 * V::lanes + i - 2;
}

// Whether a load may reach over the side of the plane if its vector is the first of a row (v = 0)
// or ends with the row (v = 1).
constexpr bool plane_load_at_side(int size, PlaneTaps taps, int v, int i) {
  if (stride_of(taps) == 2) return (size > 3 ? i > 0 : i % 2) == v;
  return v == 0 ? i < size / 2 : 2 * i >= size;
}

// A phase of a channel: where it begins, in elements from each of the planes and of their weights
// on, and its rows. Its sums go to `end`.
template <class T>
struct ChannelPlane : DepthwisePlaneArgs<T> {
  std::int64_t x;
  std::int64_t weights;
  std::int64_t in_rows;
  std::int64_t pad_row;
  std::int64_t rows;
};

// Which loads and stores of a tile have masks: those of a vector at one side of the plane have few.
enum class PlaneEdge {
  none,
  sides,  // of two vectors, the loads left of the first one's middle and right of the second one's
  any,
};

// One vector of a tile: its column, and at an edge of the plane the lanes that may be read, per
// load, and stored.
template <class V>
struct PlaneVector {
  typename V::Mask load[kMostPlaneLoads];
  typename V::Mask store;
  std::int64_t column;
  std::int64_t beside;  // 1 if the single element that stride 2 needs lies inside, else 0
};

// The `i`-th load of a row under the `v`-th vector of a tile.
template <class V, int kSize, PlaneTaps kTaps, PlaneEdge kEdge, class T>
[[gnu::always_inline]] static inline V plane_load(const T* from, const PlaneVector<V>& vector,
                                                  int v, int i) {
  const bool masked = kEdge == PlaneEdge::any ||
                      (kEdge == PlaneEdge::sides && plane_load_at_side(kSize, kTaps, v, i));
  return masked ? V::load_or_zero(vector.load[i], from) : V::load(from);
}

// What three taps at stride 2 meet, `from` on.
template <class V, PlaneTaps kTaps, PlaneEdge kEdge, class T>
[[gnu::always_inline]] static inline void plane_pixels(const T* from, const PlaneVector<V>& vector,
                                                       int v, V (&pixel)[3]) {
  constexpr int kFirst = kTaps == PlaneTaps::odd ? 1 : 0;
  V low = plane_load<V, 3, kTaps, kEdge>(from + kFirst, vector, v, 0);
  V high = plane_load<V, 3, kTaps, kEdge>(from + kFirst + V::lanes, vector, v, 1);
  asm("" : "+v"(low.v), "+v"(high.v));  // or GCC would load both twice
  if constexpr (V::mixes_pairs) {
    constexpr int kThird = kTaps == PlaneTaps::odd ? 0 : 2;
    pixel[kFirst] = V::mixed_even(low, high);
    pixel[kFirst + 1] = V::mixed_odd(low, high);
    pixel[kThird] =
        V::mixed_even(plane_load<V, 3, kTaps, kEdge>(from + kThird, vector, v, 2),
                      plane_load<V, 3, kTaps, kEdge>(from + kThird + V::lanes, vector, v, 3));
  } else {
    pixel[kFirst] = V::even(low, high);
    pixel[kFirst + 1] = V::odd(low, high);
    const bool inside = kEdge == PlaneEdge::none || vector.beside == 1;
    if constexpr (kTaps == PlaneTaps::odd) {
      pixel[0] = V::previous_lane(pixel[2], inside ? V::broadcast(from[0]) : V::zero());
    } else {
      const V next = inside ? V::broadcast(from[2 * V::lanes]) : V::zero();
      pixel[2] = V::next_lane(pixel[0], next);
    }
  }
}

// Sends a tile's sums to rows from `row` on, each step for all sums at once: together the bias and
// both bounds would take three registers.
template <PlaneTaps kTaps, PlaneEdge kEdge, class V, int kRows, int kVectors, class T>
[[gnu::always_inline]] static inline void end_plane_tile(const DepthwiseEnd<T>& end,
                                                         std::int64_t row,
                                                         const PlaneVector<V> (&vectors)[kVectors],
                                                         V (&sum)[kRows][kVectors]) {
  const auto for_each_sum = [&](const auto& visit) {
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) visit(sum[r][v], r, vectors[v]);
    }
  };
  const V bias = V::broadcast(end.bias);
  for_each_sum([&](V& each, int, const PlaneVector<V>&) {
    if constexpr (stride_of(kTaps) == 2 && V::mixes_pairs) each = V::in_order(each);
    each = each + bias;
  });
  if (end.residual) {
    const T* const residual = end.residual + row * end.residual_row;
    for_each_sum([&](V& each, int r, const PlaneVector<V>& vector) {
      const T* const from = residual + r * end.residual_row + vector.column;
      each = each + (kEdge == PlaneEdge::any ? V::load_or_zero(vector.store, from) : V::load(from));
    });
  }
  const V low = V::broadcast(end.low);
  for_each_sum([&](V& each, int, const PlaneVector<V>&) { each = V::max(low, each); });
  const V high = V::broadcast(end.high);
  T* const out = end.out + row * end.out_row;
  for_each_sum([&](V& each, int r, const PlaneVector<V>& vector) {
    T* const to = out + r * end.out_row + vector.column;
    each = V::min(high, each);
    if constexpr (kEdge == PlaneEdge::any) {
      each.store(vector.store, to);
    } else {
      each.store(to);
    }
  });
}

// `kRows` output rows of a channel's plane from `row` on, at some vectors of columns.
template <class V, int kSize, PlaneTaps kTaps, int kRows, int kVectors, PlaneEdge kEdge, class T>
[[gnu::always_inline]] static inline void plane_tile(const ChannelPlane<T>& plane, std::int64_t row,
                                                     const PlaneVector<V> (&vectors)[kVectors]) {
  constexpr int kStride = stride_of(kTaps);
  V sum[kRows][kVectors];
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = V::zero();
  }
  for (std::int64_t d = 0; d < plane.plane_count; ++d) {
    std::int64_t top = row * kStride - plane.pad_row;
    const T* const x = plane.planes[d].x + plane.x;
    const T* weights = plane.planes[d].weights + plane.weights;
    // Or GCC would keep what follows from them for the next plane, which there seldom is.
    asm("" : "+r"(top), "+r"(weights));
    V weight[kSize * kSize];
#pragma GCC unroll 25
    for (int i = 0; i < kSize * kSize; ++i) {
      weight[i] = V::broadcast(weights[i]);
      asm("" : "+v"(weight[i].v));
    }
    const T* from[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      from[v] = x + top * plane.x_row + vectors[v].column * kStride - plane.pad_column;
    }
#pragma GCC unroll 64
    for (int i = 0; i < (kRows - 1) * kStride + kSize; ++i) {
      // Only the rows under the first and the last outputs may lie outside.
      const bool outer = i < kSize || i >= (kRows - 1) * kStride;
      if (!outer ||
          static_cast<std::uint64_t>(top + i) < static_cast<std::uint64_t>(plane.in_rows)) {
        V strided[kVectors][3];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          if constexpr (kStride == 2) {
            plane_pixels<V, kTaps, kEdge>(from[v], vectors[v], v, strided[v]);
          }
          if (plane.ahead != 0) {
            __builtin_prefetch(from[v] + plane.ahead, 0, 2);
            if (kStride == 2) __builtin_prefetch(from[v] + plane.ahead + V::lanes, 0, 2);
          }
        }
#pragma GCC unroll 8
        for (int w = 0; w < kSize; ++w) {
#pragma GCC unroll 2
          for (int v = 0; v < kVectors; ++v) {
            V pixel;
            if constexpr (kStride == 2) {
              pixel = strided[v][w];
            } else {
              pixel = plane_load<V, kSize, kTaps, kEdge>(from[v] + w * tap_step<kTaps>(plane),
                                                         vectors[v], v, w);
            }
            asm("" : "+v"(pixel.v));  // or GCC would load it again for every use
#pragma GCC unroll 14
            for (int r = 0; r < kRows; ++r) {
              const int h = i - r * kStride;
              if (h >= 0 && h < kSize) {
                sum[r][v] = V::fma(weight[h * kSize + w], pixel, sum[r][v]);
              }
            }
          }
        }
      }
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) from[v] += plane.x_row;
    }
  }
  end_plane_tile<kTaps, kEdge>(plane.end, row, vectors, sum);
}

// Where registers are few, a tile has so few rows that its first and last input rows, which meet
// fewer sums, take a good part of the time. There strips of up to four vectors of columns go down
// the plane instead, and an input row meets the sums of all output rows that it ends, passes or
// begins. 3x3 planes are 1.3 to 3 times as fast so.
constexpr bool plane_rolls(int size, PlaneTaps taps) {
  return PYCONV_VECTOR_REGISTERS == 16 && size == 3 && taps != PlaneTaps::apart;
}

// Of larger kernels at stride 1, tiles that leave registers for all weights have few rows as well.
constexpr bool plane_rolls_tall(int size, PlaneTaps taps) {
  return PYCONV_VECTOR_REGISTERS == 32 && size > 3 && stride_of(taps) == 1;
}

// The most vectors of a strip.
constexpr int strip_vectors(int size) { return size == 7 ? 3 : 4; }

// What a strip of a channel's plane reads for every use: the kernel, row-major, the lanes that
// loads at its sides may read, or else those of all its vectors, and the end of its sums; and the
// plane's rows.
template <class V, class T, int kSize = 3>
struct PlaneStrip {
  V kernel[kSize * kSize];
  typename V::Mask load[kMostPlaneLoads];
  PlaneVector<V> vectors[kSize > 3 ? strip_vectors(kSize) : 1];
  std::int64_t in_rows;
  std::int64_t pad_row;
  std::int64_t rows;
  T bias;
  T low;
  T high;
};

// Goes down a strip from `x` on, where the first tap of the first output row is, and sends its
// outputs to `out` on; the last vector is `last_vector` outputs to the right of the first. At
// stride 1 each tap is added to all vectors before the next: each sum waits for itself while others
// are added to, or the core would have to look far ahead. A function of its own, or sums would
// yield their registers.
template <class V, PlaneTaps kTaps, int kVectors, class T>
[[gnu::noinline]] static void roll_strip(const DepthwisePlaneArgs<T>& args,
                                         const PlaneStrip<V, T>& strip_in, const T* x,
                                         std::int64_t last_vector, T* out) {
  constexpr int kStride = stride_of(kTaps);
  const PlaneStrip<V, T>* strip = &strip_in;
  const std::int64_t x_row = args.x_row;
  const std::int64_t out_row = args.end.out_row;
  const std::int64_t rows = strip_in.rows;
  const std::int64_t ahead = args.ahead;
  const auto in_rows = static_cast<std::uint64_t>(strip_in.in_rows);
  // The first output row is two turns ahead, or one at stride 2.
  std::int64_t row = kStride == 1 ? -2 : -1;
  std::int64_t in_row = row * kStride + 2 - strip_in.pad_row;
  x += (row * kStride + 2) * x_row;
  // The i-th load of a vector in the row at `from`.
  const auto load = [&](const T* from, int v, int i) __attribute__((always_inline)) {
    const T* const at = from + (v < kVectors - 1 ? v * V::lanes : last_vector) * kStride;
    const bool masked = (v == 0 && plane_load_at_side(3, kTaps, 0, i)) ||
                        (v == kVectors - 1 && plane_load_at_side(3, kTaps, 1, i));
    return masked ? V::load_or_zero(strip->load[i], at) : V::load(at);
  };
  using Sums = V[kVectors];
  const auto end_row = [&](Sums& sums) __attribute__((always_inline)) {
    const V bias = V::broadcast(strip->bias);
    const V low = V::broadcast(strip->low);
    const V high = V::broadcast(strip->high);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kStride == 2) sums[v] = V::in_order(sums[v]);
      const V sum = V::min(high, V::max(low, sums[v] + bias));
      sum.store(out + (v < kVectors - 1 ? v * V::lanes : last_vector));
    }
    out += out_row;
  };
  // Takes one input row, or two at stride 2, where output row `a` ends, `b` passes at stride 1, and
  // `c` begins. Whether it was the last.
  const auto turn = [&](Sums& a, Sums& b, Sums& c) __attribute__((always_inline)) {
    asm("" : "+r"(strip));
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) c[v] = V::zero();
    if constexpr (kStride == 1) {
      if (static_cast<std::uint64_t>(in_row) < in_rows) {
#pragma GCC unroll 3
        for (int w = 0; w < 3; ++w) {
          const V ends = strip->kernel[6 + w];
          const V passes = strip->kernel[3 + w];
          const V begins = strip->kernel[w];
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            const V pixel = load(x + w, v, w);
            a[v] = V::fma_in_place(ends, pixel, a[v]);
            b[v] = V::fma_in_place(passes, pixel, b[v]);
            c[v] = V::fma_in_place(begins, pixel, c[v]);
          }
        }
      }
    } else {
      // Calls add(v, w, pixel) for what three taps meet. Loads 0 and 1 hold two of them, the others
      // the third, which is the first of odd ones.
      constexpr int kPair = kTaps == PlaneTaps::odd ? 1 : 0;
      constexpr int kSingle = kTaps == PlaneTaps::odd ? 0 : 2;
      const auto each_pixel = [&](const T* from, const auto& add) __attribute__((always_inline)) {
        const auto add_single = [&](int v) __attribute__((always_inline)) {
          const V low = load(from + kSingle, v, 2);
          add(v, kSingle, V::mixed_even(low, load(from + kSingle + V::lanes, v, 3)));
        };
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          if constexpr (kSingle < kPair) add_single(v);
          const V low = load(from + kPair, v, 0);
          const V high = load(from + kPair + V::lanes, v, 1);
          add(v, kPair, V::mixed_even(low, high));
          add(v, kPair + 1, V::mixed_odd(low, high));
          if constexpr (kSingle > kPair) add_single(v);
        }
      };
      if (static_cast<std::uint64_t>(in_row - 1) < in_rows) {
        each_pixel(x - x_row, [&](int v, int w, V pixel) __attribute__((always_inline)) {
          a[v] = V::fma_in_place(strip->kernel[3 + w], pixel, a[v]);
        });
      }
      if (static_cast<std::uint64_t>(in_row) < in_rows) {
        each_pixel(x, [&](int v, int w, V pixel) __attribute__((always_inline)) {
          a[v] = V::fma_in_place(strip->kernel[6 + w], pixel, a[v]);
          c[v] = V::fma_in_place(strip->kernel[w], pixel, c[v]);
        });
      }
    }
    __builtin_prefetch(x + ahead, 0, 2);
    x += kStride * x_row;
    in_row += kStride;
    if (row >= 0) end_row(a);
    return ++row == rows;
  };
  Sums one;
  Sums two;
  Sums three;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) one[v] = two[v] = V::zero();
  // Sums stay in their registers, and take each other's parts.
  while (true) {
    if (turn(one, two, three)) return;
    if constexpr (kStride == 1) {
      if (turn(two, three, one)) return;
      if (turn(three, one, two)) return;
    } else {
      if (turn(three, two, one)) return;
    }
  }
}

// The same for larger kernels at stride 2 where registers are many: with the sums of two to four
// output rows in registers, a tile's rows would keep fewer going. With kEdge, of one vector
// that has masks for all loads and stores.
template <class V, int kSize, int kVectors, bool kEdge, class T>
[[gnu::noinline]] static void roll_long_strip(const DepthwisePlaneArgs<T>& args,
                                              const PlaneStrip<V, T, kSize>& strip_in, const T* x,
                                              std::int64_t last_vector, T* out, const T* residual) {
  constexpr PlaneTaps kTaps = PlaneTaps::even;
  constexpr int kStride = 2;
  constexpr int kOpen = (kSize + 1) / 2;  // output rows that an input row meets
  static_assert(kSize > 3 && (!kEdge || kVectors == 1));
  const PlaneStrip<V, T, kSize>* strip = &strip_in;
  const std::int64_t x_row = args.x_row;
  const std::int64_t rows = strip_in.rows;
  const std::int64_t ahead = args.ahead;
  const auto in_rows = static_cast<std::uint64_t>(strip_in.in_rows);
  std::int64_t row = 1 - kOpen;  // the first is so many turns ahead
  std::int64_t in_row = -strip_in.pad_row;
  using Sums = V[kVectors];
  typename V::Mask masks[kSize];
#pragma GCC unroll 8
  for (int i = 0; i < kSize; ++i) masks[i] = kEdge ? strip->vectors[0].load[i] : strip->load[i];
  // Calls add(w, pixels) for what each tap of the row at `from` meets, and asks for the row
  // `ahead`.
  const auto each_tap = [&](const T* from, const auto& add) __attribute__((always_inline)) {
    const T* last = from + last_vector * kStride;
    const T* next = from + ahead;
    asm("" : "+r"(from), "+r"(last), "+r"(next));  // or GCC would keep more addresses
#pragma GCC unroll 8
    for (int i = 0; i < kStride * kVectors; ++i) __builtin_prefetch(next + i * V::lanes, 0, 2);
    const auto load = [&](int v, int i) __attribute__((always_inline)) {
      const T* const at =
          (v < kVectors - 1 ? from + v * V::lanes * kStride : last) + long_load_at<V>(i);
      const bool masked = kEdge || (v == 0 && plane_load_at_side(kSize, kTaps, 0, i)) ||
                          (v == kVectors - 1 && plane_load_at_side(kSize, kTaps, 1, i));
      if (i > 1) return masked ? V::first_or_zero(masks[i], at) : V::first(at);
      return masked ? V::load_or_zero(masks[i], at) : V::load(at);
    };
    Sums even;
    Sums odd;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      V low = load(v, 0);
      V high = load(v, 1);
      asm("" : "+v"(low.v), "+v"(high.v));  // or GCC would load both twice
      even[v] = V::even(low, high);
      odd[v] = V::odd(low, high);
    }
    add(0, even);
    add(1, odd);
#pragma GCC unroll 8
    for (int w = 2; w < kSize; ++w) {
      Sums& pixels = w % 2 == 0 ? even : odd;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) pixels[v] = V::next_lane(pixels[v], load(v, w));
      add(w, pixels);
    }
  };
  const auto end_row = [&](Sums& sums) __attribute__((always_inline)) {
    const V bias = V::broadcast(strip->bias);
    const V low = V::broadcast(strip->low);
    const V high = V::broadcast(strip->high);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t place = v < kVectors - 1 ? v * V::lanes : last_vector;
      V each = sums[v] + bias;
      if (residual) {
        const T* const from = residual + place;
        each = each + (kEdge ? V::load_or_zero(strip->vectors[v].store, from) : V::load(from));
      }
      each = V::min(high, V::max(low, each));
      if constexpr (kEdge) {
        each.store(strip->vectors[v].store, out + place);
      } else {
        each.store(out + place);
      }
    }
    out += args.end.out_row;
    if (residual) residual += args.end.residual_row;
  };
  Sums sum[kOpen];  // that of the output row which ends next comes first
#pragma GCC unroll 8
  for (int r = 0; r < kOpen; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[r][v] = V::zero();
  }
  // Takes kStride input rows. Whether it was the last turn.
  const auto turn = [&]() __attribute__((always_inline)) {
    asm("" : "+r"(strip));
#pragma GCC unroll 2
    for (int i = 0; i < kStride; ++i) {
      if (static_cast<std::uint64_t>(in_row) < in_rows) {
        each_tap(x, [&](int w, const Sums& pixels) __attribute__((always_inline)) {
#pragma GCC unroll 8
          for (int r = 0; r < kOpen; ++r) {
            const int h = (kOpen - 1 - r) * kStride + i;
            if (h >= kSize) continue;
            const V weight = strip->kernel[h * kSize + w];
#pragma GCC unroll 4
            for (int v = 0; v < kVectors; ++v) {
              sum[r][v] = V::fma_in_place(weight, pixels[v], sum[r][v]);
            }
          }
        });
      }
      x += x_row;
      ++in_row;
      if (i == (kSize - 1) % kStride) {
        if (row >= 0) end_row(sum[0]);
        if (++row == rows) return true;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kOpen; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = r + 1 < kOpen ? sum[r + 1][v] : V::zero();
      }
    }
    return false;
  };
  // GCC unrolls a loop that has all of this in it. A core takes instructions so long from 10 KB of
  // code at half the rate.
  while (!turn()) {
  }
}

// The same for kernels of more than three taps at stride 1. With kEdge, all vectors have masks.
// Rows end as those of the strips above do: in one function for both, GCC 12 keeps sums on the
// stack.
template <class V, int kSize, PlaneTaps kTaps, int kVectors, bool kEdge, class T>
[[gnu::noinline]] static void roll_tall_strip(const DepthwisePlaneArgs<T>& args,
                                              const PlaneStrip<V, T, kSize>& strip_in, const T* x,
                                              std::int64_t last_vector, T* out, const T* residual) {
  static_assert(kSize == 4 || kSize == 5 || kSize == 7);
  const PlaneStrip<V, T, kSize>* strip = &strip_in;
  const std::int64_t step = tap_step<kTaps>(args);
  const std::int64_t x_row = args.x_row;
  const std::int64_t rows = strip_in.rows;
  const std::int64_t ahead = args.ahead;
  const auto in_rows = static_cast<std::uint64_t>(strip_in.in_rows);
  std::int64_t row = 1 - kSize;  // the first is so many turns ahead
  std::int64_t in_row = -strip_in.pad_row;
  const auto place = [&](int v) { return v < kVectors - 1 ? v * V::lanes : last_vector; };
  using Sums = V[kVectors];
  const auto load = [&](int v, int w) __attribute__((always_inline)) {
    const T* const at = x + place(v) + w * step;
    if constexpr (kEdge) return V::load_or_zero(strip->vectors[v].load[w], at);
    const bool masked = (v == 0 && plane_load_at_side(kSize, kTaps, 0, w)) ||
                        (v == kVectors - 1 && plane_load_at_side(kSize, kTaps, 1, w));
    return masked ? V::load_or_zero(strip->load[w], at) : V::load(at);
  };
  const auto end_row = [&](Sums& sums) __attribute__((always_inline)) {
    const V bias = V::broadcast(strip->bias);
    const V low = V::broadcast(strip->low);
    const V high = V::broadcast(strip->high);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      V each = sums[v] + bias;
      if (residual) {
        const T* const from = residual + place(v);
        each = each + (kEdge ? V::load_or_zero(strip->vectors[v].store, from) : V::load(from));
      }
      each = V::min(high, V::max(low, each));
      if constexpr (kEdge) {
        each.store(strip->vectors[v].store, out + place(v));
      } else {
        each.store(out + place(v));
      }
    }
    out += args.end.out_row;
    if (residual) residual += args.end.residual_row;
  };
  Sums sum[kSize];  // that of the output row which ends next comes first
#pragma GCC unroll 8
  for (int h = 0; h < kSize; ++h) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[h][v] = V::zero();
  }
  // Takes an input row. Whether it was the last turn.
  const auto turn = [&]() __attribute__((always_inline)) {
    asm("" : "+r"(strip));
    if (static_cast<std::uint64_t>(in_row) < in_rows) {
#pragma GCC unroll 8
      for (int w = 0; w < kSize; ++w) {
        Sums pixels;
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          pixels[v] = load(v, w);
          asm("" : "+v"(pixels[v].v));  // or GCC would load it again for every use
        }
#pragma GCC unroll 8
        for (int h = 0; h < kSize; ++h) {
          const V weight = strip->kernel[(kSize - 1 - h) * kSize + w];
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            sum[h][v] = V::fma_in_place(weight, pixels[v], sum[h][v]);
          }
        }
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) __builtin_prefetch(x + ahead + v * V::lanes, 0, 2);
    x += x_row;
    ++in_row;
    if (row >= 0) end_row(sum[0]);
#pragma GCC unroll 8
    for (int h = 0; h < kSize; ++h) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sum[h][v] = h + 1 < kSize ? sum[h + 1][v] : V::zero();
      }
    }
    return ++row == rows;
  };
  // Not a loop that GCC unrolls, as above.
  while (!turn()) {
  }
}

// Tiles of kRows rows: one at an edge, or `count` neighbouring ones from the first on.
template <class V, class T, int kSize, PlaneTaps kTaps, int kRows, int kVectors>
static void plane_tiles(const ChannelPlane<T>& plane, std::int64_t row,
                        const PlaneVector<V>* vectors, std::int64_t count, PlaneEdge edge) {
  PlaneVector<V> at[kVectors];
  for (int v = 0; v < kVectors; ++v) at[v] = vectors[v];
  if (edge == PlaneEdge::any) {
    plane_tile<V, kSize, kTaps, kRows, kVectors, PlaneEdge::any>(plane, row, at);
    return;
  }
  if constexpr (kVectors == 2) {
    if (edge == PlaneEdge::sides) {
      plane_tile<V, kSize, kTaps, kRows, 2, PlaneEdge::sides>(plane, row, at);
      return;
    }
  }
  for (std::int64_t i = 0; i < count; ++i) {
    plane_tile<V, kSize, kTaps, kRows, kVectors, PlaneEdge::none>(plane, row, at);
    for (int v = 0; v < kVectors; ++v) at[v].column += kVectors * V::lanes;
  }
}

template <class V, class T>
using PlaneTiles = void (*)(const ChannelPlane<T>&, std::int64_t, const PlaneVector<V>*,
                            std::int64_t, PlaneEdge);

template <class V, class T, int kSize, PlaneTaps kTaps, int kVectors,
          int kRows = plane_rows(kSize, stride_of(kTaps), kVectors)>
static constexpr void fill_plane_tiles(PlaneTiles<V, T>* tiles) {
  tiles[kRows - 1] = plane_tiles<V, T, kSize, kTaps, kRows, kVectors>;
  if constexpr (kRows > 1) fill_plane_tiles<V, T, kSize, kTaps, kVectors, kRows - 1>(tiles);
}

// Tiles of all heights, of one width.
template <class V, class T, int kSize, PlaneTaps kTaps, int kVectors>
struct PlaneTileTable {
  static constexpr int kMost = plane_rows(kSize, stride_of(kTaps), kVectors);
  PlaneTiles<V, T> tiles[kMost];
  constexpr PlaneTileTable() : tiles{} { fill_plane_tiles<V, T, kSize, kTaps, kVectors>(tiles); }

  // Rows cut into as few tiles as can be, the first `more` of them one row higher than the others.
  struct Cut {
    std::int64_t count;
    std::int64_t rows;
    std::int64_t more;
  };
  static Cut cut(std::int64_t rows, std::int64_t most = kMost) {
    if (rows == 0) return Cut{};
    const std::int64_t count = (rows + most - 1) / most;
    return {count, rows / count, rows % count};
  }

  // From `row` on.
  void run(const ChannelPlane<T>& plane, std::int64_t row, const Cut& cut,
           const PlaneVector<V>* vectors, std::int64_t count, PlaneEdge edge) const {
    for (std::int64_t part = 0; part < cut.count; ++part) {
      const std::int64_t rows = cut.rows + (part < cut.more ? 1 : 0);
      tiles[rows - 1](plane, row, vectors, count, edge);
      row += rows;
    }
  }
};

// The first element of the `i`-th load of the vector at a column.
template <class V, int kSize, PlaneTaps kTaps, class T>
static inline std::int64_t plane_load_at(const DepthwisePlaneArgs<T>& args, std::int64_t column,
                                         int i) {
  const std::int64_t first = column * stride_of(kTaps) - args.pad_column;
  if (stride_of(kTaps) == 1) return first + i * tap_step<kTaps>(args);
  if (kSize > 3) return first + long_load_at<V>(i);
  const int tap = kTaps == PlaneTaps::even ? i / 2 * 2 : i < 2 ? 1 : 0;
  return first + tap + i % 2 * V::lanes;
}

// The vector at a column, with what masks it needs.
template <class V, int kSize, PlaneTaps kTaps, class T>
static inline PlaneVector<V> plane_vector(const DepthwisePlaneArgs<T>& args, std::int64_t column) {
  const auto range = [](std::int64_t from, std::int64_t upto) {
    const auto clip = [](std::int64_t lane) {
      return static_cast<int>(lane < 0 ? 0 : lane > V::lanes ? V::lanes : lane);
    };
    const int begin = clip(from);
    const int end = clip(upto);
    return V::mask_range(begin, end < begin ? begin : end);
  };
  PlaneVector<V> vector;
  vector.column = column;
  constexpr int kLoads = plane_loads<V>(kSize, kTaps);
#pragma GCC unroll 8
  for (int i = 0; i < kLoads; ++i) {
    const std::int64_t at = plane_load_at<V, kSize, kTaps>(args, column, i);
    vector.load[i] = range(-at, args.in_columns - at);
  }
  vector.store = range(0, args.column + args.columns - column);
  const std::int64_t beside =
      column * 2 - args.pad_column + (kTaps == PlaneTaps::odd ? 0 : 2 * V::lanes);
  vector.beside = beside >= 0 && beside < args.in_columns ? 1 : 0;
  return vector;
}

// As many elements as an L1 cache has room for.
template <class T>
constexpr std::int64_t kLargePlane = (32 << 10) / sizeof(T);

// Calls visit(plane) for each phase of each channel, with so many channels at a time that an L1
// cache keeps their planes for the next phase.
template <class T, class Visit>
static inline void for_each_plane(const DepthwisePlaneArgs<T>& args, const Visit& visit) {
  const std::int64_t plane_elements = args.phases[0].rows * args.phase_count * args.columns;
  const std::int64_t near = kLargePlane<T> / 2 / plane_elements;
  const std::int64_t together = args.phase_count == 1 ? args.channels : near > 1 ? near : 1;
  ChannelPlane<T> plane{args, 0, 0, 0, 0, 0};
  for (std::int64_t first = 0; first < args.channels; first += together) {
    for (std::int64_t n = 0; n < args.phase_count; ++n) {
      const DepthwisePhase& phase = args.phases[n];
      plane.x = phase.x + first * args.x_channel;
      plane.weights = first * args.weights_channel;
      plane.in_rows = phase.in_rows;
      plane.pad_row = phase.pad_row;
      plane.rows = phase.rows;
      plane.end.out = args.end.out + phase.out + first * args.out_channel - args.column;
      if (args.end.residual) {
        plane.end.residual =
            args.end.residual + phase.residual + first * args.residual_channel - args.column;
      }
      const std::int64_t left = args.channels - first;
      const std::int64_t last = first + (left < together ? left : together);
      for (std::int64_t channel = first; channel < last; ++channel) {
        if (args.biases) plane.end.bias = args.biases[channel];
        visit(plane);
        plane.x += args.x_channel;
        plane.weights += args.weights_channel;
        plane.end.out += args.out_channel;
        if (plane.end.residual) plane.end.residual += args.residual_channel;
      }
    }
  }
}

// Planes of one vector of columns.
template <class V, int kSize, PlaneTaps kTaps, class T>
static void narrow_plane_of(const DepthwisePlaneArgs<T>& args) {
  static constexpr PlaneTileTable<V, T, kSize, kTaps, 1> kTiles;
  const PlaneVector<V> vector = plane_vector<V, kSize, kTaps>(args, args.column);
  const std::int64_t most_rows = args.phases[0].rows;
  // Small planes are one tile each.
  if (args.phase_count == 1 && most_rows <= kTiles.kMost) {
    const auto tile = kTiles.tiles[most_rows - 1];
    return for_each_plane(
        args, [&](const ChannelPlane<T>& plane) { tile(plane, 0, &vector, 1, PlaneEdge::any); });
  }
  const typename decltype(kTiles)::Cut cuts[2] = {kTiles.cut(most_rows), kTiles.cut(most_rows - 1)};
  for_each_plane(args, [&](const ChannelPlane<T>& plane) {
    kTiles.run(plane, 0, cuts[plane.rows < most_rows], &vector, 1, PlaneEdge::any);
  });
}

// Calls roll(strip, size, x, last_vector, out, residual) for all strips of planes of `vectors` of
// columns, with what roll_strip(), roll_long_strip() and roll_tall_strip() take. With the first and
// the last vector in `sides`, of which the last one ends with the row, strips have at least two
// vectors, and loads at their outer sides take masks. Else all vectors take masks for all, and at
// stride 2 each is a strip.
template <class V, int kSize, PlaneTaps kTaps, class T, class Roll>
static inline void for_each_strip(const DepthwisePlaneArgs<T>& args, std::int64_t vectors,
                                  const PlaneVector<V>* sides, const Roll& roll) {
  constexpr int kLoads = plane_loads<V>(kSize, kTaps);
  constexpr int kMost = strip_vectors(kSize);
  const std::int64_t most = sides || plane_rolls_tall(kSize, kTaps) ? kMost : 1;
  const std::int64_t count = (vectors + most - 1) / most;
  PlaneStrip<V, T, kSize> strip;
  strip.vectors[0].column = -1;
  for_each_plane(args, [&](const ChannelPlane<T>& plane) {
    const T* const weights = args.planes[0].weights + plane.weights;
#pragma GCC unroll 49
    for (int i = 0; i < kSize * kSize; ++i) strip.kernel[i] = V::broadcast(weights[i]);
    const DepthwiseEnd<T>& end = plane.end;
    strip.in_rows = plane.in_rows;
    strip.pad_row = plane.pad_row;
    strip.rows = plane.rows;
    strip.bias = end.bias;
    strip.low = end.low;
    strip.high = end.high;
    const T* const x = args.planes[0].x + plane.x - plane.pad_row * args.x_row;
    std::int64_t column = args.column;
    for (std::int64_t n = 0; n < count; ++n) {
      const std::int64_t size = vectors / count + (n < vectors % count ? 1 : 0);
      std::int64_t last_vector = (size - 1) * V::lanes;
      if (sides) {
        const bool ends = n == count - 1;
        for (int i = 0; i < kLoads; ++i) {
          const bool at_left = n == 0 && plane_load_at_side(kSize, kTaps, 0, i);
          const bool at_right = ends && plane_load_at_side(kSize, kTaps, 1, i);
          strip.load[i] = at_left    ? sides[0].load[i]
                          : at_right ? sides[1].load[i]
                                     : V::mask_range(0, V::lanes);
        }
        if (ends) last_vector = sides[1].column - column;
      } else if (strip.vectors[0].column != column) {
        for (std::int64_t v = 0; v < size; ++v) {
          strip.vectors[v] = plane_vector<V, kSize, kTaps>(args, column + v * V::lanes);
        }
      }
      roll(strip, size, x + column * stride_of(kTaps) - args.pad_column, last_vector,
           end.out + column, end.residual ? end.residual + column : nullptr);
      column += size * V::lanes;
    }
  });
}

// Whether all lanes of the vector at a column have outputs, and inputs under all taps.
template <class V, int kSize, PlaneTaps kTaps, class T>
static bool is_inside(const DepthwisePlaneArgs<T>& args, std::int64_t column) {
  constexpr int kStride = stride_of(kTaps);
  const std::int64_t left = column * kStride - args.pad_column;
  std::int64_t reach = (V::lanes - 1) * kStride + (kSize - 1) * tap_step<kTaps>(args) + 1;
  if (V::mixes_pairs && kTaps == PlaneTaps::even) ++reach;  // its last load
  return left >= 0 && left + reach <= args.in_columns &&
         column + V::lanes <= args.column + args.columns;
}

// Whether of so many vectors only the first and the last one, which ends with the row, are edges,
// and they at their outer sides only.
template <class V, int kSize, PlaneTaps kTaps, class T>
static bool edges_are_sides(const DepthwisePlaneArgs<T>& args, std::int64_t vectors) {
  constexpr int kLoads = plane_loads<V>(kSize, kTaps);
  const auto inside = [&](std::int64_t vector) {
    return is_inside<V, kSize, kTaps>(args, args.column + vector * V::lanes);
  };
  const auto is_whole = [&](std::int64_t column, int i) {
    const std::int64_t at = plane_load_at<V, kSize, kTaps>(args, column, i);
    const bool single = stride_of(kTaps) == 2 && kSize > 3 && i > 1;
    return at >= 0 && at + (single ? 1 : V::lanes) <= args.in_columns;
  };
  const std::int64_t right = args.column + args.columns - V::lanes;
  bool sides = vectors == 2 || (vectors > 2 && inside(1) && inside(vectors - 2));
  for (int i = 0; i < kLoads; ++i) {
    sides = sides && (plane_load_at_side(kSize, kTaps, 0, i) || is_whole(args.column, i)) &&
            (plane_load_at_side(kSize, kTaps, 1, i) || is_whole(right, i));
  }
  return sides;
}

// A single plane in strips, of kernels of more than three taps where registers are many.
template <class V, int kSize, PlaneTaps kTaps, class T>
static void strips_of(const DepthwisePlaneArgs<T>& args) {
  const std::int64_t vectors = (args.columns + V::lanes - 1) / V::lanes;
  const auto vector_at = [&](std::int64_t column) {
    return plane_vector<V, kSize, kTaps>(args, column);
  };
  const PlaneVector<V> sides[2] = {vector_at(args.column),
                                   vector_at(args.column + args.columns - V::lanes)};
  // Dilated kernels with masks for sides alone would leave pixels on the stack.
  constexpr bool kSides = kTaps != PlaneTaps::apart;
  const bool at_sides = kSides && edges_are_sides<V, kSize, kTaps>(args, vectors);
  const auto roll = [&](const auto& strip, std::int64_t size, auto... where) {
    using Run = void (*)(const DepthwisePlaneArgs<T>&, const PlaneStrip<V, T, kSize>&, const T*,
                         std::int64_t, T*, const T*);
    Run run;
    if constexpr (stride_of(kTaps) == 2) {
      run = size == 1   ? roll_long_strip<V, kSize, 1, true, T>
            : size == 2 ? roll_long_strip<V, kSize, 2, false, T>
            : size == 3 ? roll_long_strip<V, kSize, 3, false, T>
                        : roll_long_strip<V, kSize, 4, false, T>;
    } else {
      constexpr int kMost = strip_vectors(kSize);
      run = size == 1   ? roll_tall_strip<V, kSize, kTaps, 1, true, T>
            : size == 2 ? roll_tall_strip<V, kSize, kTaps, 2, true, T>
            : size == 3 ? roll_tall_strip<V, kSize, kTaps, 3, true, T>
                        : roll_tall_strip<V, kSize, kTaps, kMost, true, T>;
      if constexpr (kSides) {
        if (at_sides) {
          run = size == 2   ? roll_tall_strip<V, kSize, kTaps, 2, false, T>
                : size == 3 ? roll_tall_strip<V, kSize, kTaps, 3, false, T>
                            : roll_tall_strip<V, kSize, kTaps, kMost, false, T>;
        }
      }
    }
    run(args, strip, where...);
  };
  for_each_strip<V, kSize, kTaps>(args, vectors, at_sides ? sides : nullptr, roll);
}

template <class V, int kSize, PlaneTaps kTaps, class T>
static void wide_plane_of(const DepthwisePlaneArgs<T>& args) {
  if constexpr (plane_rolls_tall(kSize, kTaps)) {
    // Tiles of 4x4 kernels have seven rows, as good as strips of two vectors.
    const bool few = kSize == 4 && args.columns <= 2 * V::lanes;
    if (args.plane_count == 1 && !few) return strips_of<V, kSize, kTaps>(args);
  }
  constexpr int kStride = stride_of(kTaps);
  constexpr bool kRolls = plane_rolls(kSize, kTaps);
  static constexpr PlaneTileTable<V, T, kSize, kTaps, 1> kSingle;
  static constexpr PlaneTileTable<V, T, kSize, kTaps, kRolls ? 1 : 2> kTiles;
  const std::int64_t columns_end = args.column + args.columns;
  const auto edge = [&](std::int64_t column) {
    return plane_vector<V, kSize, kTaps>(args, column);
  };
  const auto inside = [&](std::int64_t column) { return is_inside<V, kSize, kTaps>(args, column); };

  const std::int64_t vectors = (args.columns + V::lanes - 1) / V::lanes;
  const auto column_of = [&](std::int64_t vector) { return args.column + vector * V::lanes; };

  // Where only the first and the last vector are edges, their stores need no masks, and most loads
  // neither: the last one ends with the row, and writes some columns again.
  const std::int64_t right = columns_end - V::lanes;
  const bool sides = edges_are_sides<V, kSize, kTaps>(args, vectors);
  const PlaneVector<V> side[2] = {edge(args.column), edge(right)};
  if constexpr (kRolls) {
    // Residuals, which would take more registers, and wide padding are rare.
    if (sides && args.plane_count == 1 && !args.end.residual) {
      const auto roll = [&](const auto& strip, std::int64_t size, const T* x,
                            std::int64_t last_vector, T* out, const T*) {
        const auto run = size == 2   ? roll_strip<V, kTaps, 2, T>
                         : size == 3 ? roll_strip<V, kTaps, 3, T>
                                     : roll_strip<V, kTaps, 4, T>;
        run(args, strip, x, last_vector, out);
      };
      return for_each_strip<V, 3, kTaps>(args, vectors, side, roll);
    }
  }

  // Vectors [first, last) have outputs and inputs in all lanes.
  std::int64_t first = 1;
  std::int64_t last = vectors - 1;
  if (!sides) {
    first = 0;
    while (first < vectors && !inside(column_of(first))) ++first;
    last = first;
    while (last < vectors && inside(column_of(last))) ++last;
  }

  const std::int64_t pairs = (last - first) / 2;
  PlaneVector<V> inner[2];
  for (int v = 0; v < 2; ++v) inner[v].column = column_of(first + v);
  const std::int64_t resume = first + 2 * pairs;
  PlaneVector<V> single;
  single.column = column_of(resume);

  // The others, which most channels have in common.
  const std::int64_t others = sides ? 0 : vectors - 2 * pairs;
  const auto other = [&](std::int64_t n) {
    return edge(column_of(n < first ? n : n - first + resume));
  };
  constexpr std::int64_t kMostKept = 8;
  PlaneVector<V> kept[kMostKept];
  for (std::int64_t n = 0; n < others && n < kMostKept; ++n) kept[n] = other(n);

  // At stride 2, an L1 cache keeps parts of a large plane until the tiles at their sides have read
  // them again. At stride 1 that would gain nothing, and reading from memory would lose a tenth.
  struct Cuts {
    typename decltype(kTiles)::Cut parts;
    // Of a part, and of one that is a row higher.
    typename decltype(kSingle)::Cut singles[2];
    typename decltype(kTiles)::Cut tiles[2];
  };
  const auto cuts_of = [&](std::int64_t rows) {
    const bool large = kStride == 2 && rows * kStride * args.in_columns > kLargePlane<T>;
    Cuts cuts;
    cuts.parts = kTiles.cut(rows, large ? 2 * kTiles.kMost : rows);
    for (int more = 0; more < 2; ++more) {
      cuts.singles[more] = kSingle.cut(cuts.parts.rows + more);
      cuts.tiles[more] = kTiles.cut(cuts.parts.rows + more);
    }
    return cuts;
  };
  const std::int64_t most_rows = args.phases[0].rows;
  const Cuts cuts_of_phases[2] = {cuts_of(most_rows), cuts_of(most_rows - 1)};
  const auto run_part = [&](const ChannelPlane<T>& plane, const Cuts& cuts, std::int64_t row,
                            bool more) {
    const auto& singles = cuts.singles[more];
    const auto run_single = [&](const PlaneVector<V>& vector, PlaneEdge where) {
      kSingle.run(plane, row, singles, &vector, 1, where);
    };
    const auto run_pairs = [&](const PlaneVector<V>* two, std::int64_t count, PlaneEdge where) {
      if constexpr (!kRolls) {
        kTiles.run(plane, row, cuts.tiles[more], two, count, where);
      } else if (where == PlaneEdge::none) {
        kSingle.run(plane, row, singles, two, 2 * count, where);
      } else {
        run_single(two[0], PlaneEdge::any);
        run_single(two[1], PlaneEdge::any);
      }
    };
    if (pairs > 0) run_pairs(inner, pairs, PlaneEdge::none);
    if (sides) {
      if (resume < last) run_single(single, PlaneEdge::none);
      run_pairs(side, 1, PlaneEdge::sides);
    }
    for (std::int64_t n = 0; n < others; n += 2) {
      PlaneVector<V> computed[2];
      if (n + 1 >= kMostKept) {
        computed[0] = other(n);
        computed[1] = other(n + 1);
      }
      const PlaneVector<V>* const two = n + 1 < kMostKept ? kept + n : computed;
      if (n + 1 == others) {
        run_single(two[0], PlaneEdge::any);
      } else {
        run_pairs(two, 1, PlaneEdge::any);
      }
    }
  };
  for_each_plane(args, [&](const ChannelPlane<T>& plane) {
    const Cuts& cuts = cuts_of_phases[plane.rows < most_rows];
    std::int64_t row = 0;
    for (std::int64_t part = 0; part < cuts.parts.count; ++part) {
      const bool more = part < cuts.parts.more;
      run_part(plane, cuts, row, more);
      row += cuts.parts.rows + (more ? 1 : 0);
    }
  });
}

template <int kSize, PlaneTaps kTaps, class T>
static void plane_of(const DepthwisePlaneArgs<T>& args) {
  using Half = typename Vec<T>::Half;
  if (args.columns <= Half::lanes) {
    narrow_plane_of<Half, kSize, kTaps>(args);
  } else if (args.columns <= Vec<T>::lanes) {
    narrow_plane_of<Vec<T>, kSize, kTaps>(args);
  } else {
    wide_plane_of<Vec<T>, kSize, kTaps>(args);
  }
}

template <class T, int kSize, int kStride>
void depthwise_plane(const DepthwisePlaneArgs<T>& args) {
  if constexpr (kStride == 1) {
    plane_of<kSize, PlaneTaps::unit>(args);
  } else if (args.pad_column % 2 == 0) {
    plane_of<kSize, PlaneTaps::even>(args);
  } else {
    plane_of<kSize, PlaneTaps::odd>(args);  // its loads are more often aligned
  }
}

template <class T>
constexpr void fill_depthwise_planes(KernelTable<T>& table) {
  const auto set = [&](DepthwisePlaneShape shape, auto kernel,
                       bool rolls = PYCONV_VECTOR_REGISTERS == 16) {
    table.depthwise_plane[static_cast<int>(shape)] = kernel;
    table.planes_roll[static_cast<int>(shape)] = rolls;
  };
  set(DepthwisePlaneShape::k3, depthwise_plane<T, 3, 1>);
  set(DepthwisePlaneShape::k3d, plane_of<3, PlaneTaps::apart, T>);
  if constexpr (plane_rows(5, 1, 2) > 0) {
    set(DepthwisePlaneShape::k4, depthwise_plane<T, 4, 1>, true);
    set(DepthwisePlaneShape::k5, depthwise_plane<T, 5, 1>, true);
    set(DepthwisePlaneShape::k5d, plane_of<5, PlaneTaps::apart, T>, true);
  }
  if constexpr (plane_rows(3, 2, 2) > 0 || (Vec<T>::mixes_pairs && plane_rows(3, 2, 1) > 0)) {
    set(DepthwisePlaneShape::k3s2, depthwise_plane<T, 3, 2>);
  }
  if constexpr (PYCONV_VECTOR_REGISTERS == 32) {
    set(DepthwisePlaneShape::k7, strips_of<Vec<T>, 7, PlaneTaps::unit, T>, true);
    set(DepthwisePlaneShape::k4s2, strips_of<Vec<T>, 4, PlaneTaps::even, T>, true);
    set(DepthwisePlaneShape::k5s2, strips_of<Vec<T>, 5, PlaneTaps::even, T>, true);
    set(DepthwisePlaneShape::k7s2, strips_of<Vec<T>, 7, PlaneTaps::even, T>, true);
  }
}

}  // namespace pyconv::PYCONV_ISA
