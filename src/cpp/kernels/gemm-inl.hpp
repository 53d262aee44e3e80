// The micro-kernel: a tile of accumulators that stays in registers. See GemmTileArgs for its
// contract.
#pragma once

#include <limits>

#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

// Tile sizes per instruction set, float and double alike. Accumulators, the vectors of one row of b
// and one broadcast must fit the register file: 8 x 3 + 3 + 1 = 28 of 32 (AVX-512), 6 x 2 + 2 + 1 =
// 15 of 16 (AVX2, where 4 x 3 read half as much again of b). 24 and 12 chains cover 2 ports x 4 (5)
// cycles of FMA latency.
template <class T>
struct Tile {
  static constexpr int rows = PYCONV_TILE_ROWS;
  static constexpr int vectors = PYCONV_TILE_VECTORS;
};

// The fma of vector j of a tile: kLow says that nobody wants the upper half of the last one, kFolds
// that a or b is in memory and nothing else reads it.
template <bool kLow, bool kFolds, int kVectors, class T>
[[gnu::always_inline]] static inline Vec<T> tile_fma(int j, Vec<T> a, Vec<T> b, Vec<T> c) {
  using V = Vec<T>;
  if constexpr (kLow) {
    if (j == kVectors - 1) return kFolds ? V::fma_low(a, b, c) : V::fma_low_in_place(a, b, c);
  }
  return kFolds ? V::fma(a, b, c) : V::fma_in_place(a, b, c);
}

// What the vectors of a row of a tile are multiplied by.
template <bool kLow, int kVectors, class T>
[[gnu::always_inline]] static inline Vec<T> tile_broadcast(T x) {
  if constexpr (kLow && kVectors == 1) {
    return Vec<T>::broadcast_low(x);
  } else {
    return Vec<T>::broadcast(x);
  }
}

// Adds one k to rows [kBegin, kEnd) of the sums: a(i) times the row of b.
template <int kBegin, int kEnd, bool kLow, class T, int kRows, int kVectors, class Scale>
[[gnu::always_inline]] static inline void add_step(const Scale& a, const T* b,
                                                   Vec<T> (&sum)[kRows][kVectors]) {
  using V = Vec<T>;
  // With 32 registers come broadcasts by the multiply-add itself.
  constexpr bool kFolds = kEnd - kBegin == 1 || (kVectors == 1 && PYCONV_VECTOR_REGISTERS >= 32);
  if constexpr (kEnd - kBegin < kVectors) {
    V scale[kRows];
#pragma GCC unroll 16
    for (int i = kBegin; i < kEnd; ++i) scale[i] = tile_broadcast<kLow, kVectors>(a(i));
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) {
      const V row = V::load(b + j * V::lanes);
#pragma GCC unroll 16
      for (int i = kBegin; i < kEnd; ++i) {
        sum[i][j] = tile_fma<kLow, kFolds, kVectors>(j, scale[i], row, sum[i][j]);
      }
    }
  } else {
    V row[kVectors];
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) row[j] = V::load(b + j * V::lanes);
#pragma GCC unroll 16
    for (int i = kBegin; i < kEnd; ++i) {
      const V scale = tile_broadcast<kLow, kVectors>(a(i));
#pragma GCC unroll 16
      for (int j = 0; j < kVectors; ++j) {
        sum[i][j] = tile_fma<kLow, kFolds, kVectors>(j, scale, row[j], sum[i][j]);
      }
    }
  }
}

// Whether loops over k take four steps to a turn: of scalars a step is long enough by itself.
template <class T>
constexpr bool kTakesFours = Vec<T>::lanes > 1;

// Calls step() so many times, kFours: four to a turn of the loop, each of which calls turn() first.
// Of a core whose other thread is busy half of the front end is left, and instructions that only
// count take from the multiply-adds. As four calls: one call in a loop that is unrolled sends sums
// to the stack.
template <bool kFours, class Step, class Turn>
[[gnu::always_inline]] static inline void repeat(std::int64_t count, const Step& step,
                                                 const Turn& turn) {
  if constexpr (kFours) {
#pragma GCC unroll 1
    for (; (count & 3) != 0; --count) step();  // GCC loses the pragma over a division
  }
#pragma GCC unroll 1
  for (; count > 0; count -= kFours ? 4 : 1) {
    if constexpr (kFours) turn();
    step();
    if constexpr (kFours) {
      step();
      step();
      step();
    }
  }
}

template <bool kFours, class Step>
[[gnu::always_inline]] static inline void repeat(std::int64_t count, const Step& step) {
  repeat<kFours>(count, step, []() __attribute__((always_inline)) {});
}

// Asks for where a tile will be stored, before its sums are computed: outputs are seldom in a
// cache, and stores that wait for them hold up what follows.
template <int kRows, int kVectors, class T>
static inline void prefetch_outputs(const T* out, std::int64_t out_row) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i, out += out_row) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) {
      constexpr int line = 64 / sizeof(T);
      if (j * Vec<T>::lanes % line == 0) __builtin_prefetch(out + j * Vec<T>::lanes, 1);
    }
  }
}

template <class T, int kRows, int kVectors>
static inline void add_row_bias(Vec<T> (&sum)[kRows][kVectors], const T* bias) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    const Vec<T> each = Vec<T>::broadcast(bias[i]);
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) sum[i][j] = sum[i][j] + each;
  }
}

template <class T, int kRows, int kVectors>
static inline void clamp_sums(Vec<T> (&sum)[kRows][kVectors], T least, T most) {
  using V = Vec<T>;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  if (least == -infinity && most == infinity) return;
  const V low = V::broadcast(least);
  const V high = V::broadcast(most);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) sum[i][j] = V::min(high, V::max(low, sum[i][j]));
  }
}

// Keeps constants out of vector registers from one tile to the next, where sums would yield to
// them.
static inline void clear_registers() {
  asm volatile("" ::
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                     "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

// The end of sums that stand `column` to the right of where `end` begins, its tail unless `whole`.
// Each step for all sums at once, or the compiler would read `end` anew after every store.
template <class T, int kRows, int kVectors>
static inline void end_tile(Vec<T> (&sum)[kRows][kVectors], const TileEnd<T>& end,
                            std::int64_t column = 0, bool whole = false) {
  using V = Vec<T>;
  const auto tail = V::mask_range(0, static_cast<int>(end.tail));
  if (end.tail == V::lanes) whole = true;
  const auto load = [&](const T* p, int j) {
    return j == kVectors - 1 && !whole ? V::load_or_zero(tail, p + j * V::lanes)
                                       : V::load(p + j * V::lanes);
  };
  if (end.bias && end.bias_per_column) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) {
      const V bias = load(end.bias + column, j);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) sum[i][j] = sum[i][j] + bias;
    }
  } else if (end.bias) {
    add_row_bias(sum, end.bias);
  }
  if (end.residual) {
    const T* const residual = end.residual + column;
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kVectors; ++j) {
        sum[i][j] = sum[i][j] + load(residual + i * end.residual_stride, j);
      }
    }
  }
  clamp_sums(sum, end.low, end.high);
  T* const out = end.out + column;
  const std::int64_t out_stride = end.out_stride;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) {
      T* const to = out + i * out_stride + j * V::lanes;
      if (j == kVectors - 1 && !whole) {
        sum[i][j].store(tail, to);
      } else {
        sum[i][j].store(to);
      }
    }
  }
}

template <class T, int kRows, int kVectors, bool kInterleaved>
void gemm_tile(const GemmTileArgs<T>& args) {
  using V = Vec<T>;
  constexpr std::int64_t kWidth = kVectors * V::lanes;
  const TileEnd<T>* const end = args.end;
  const std::int64_t c_stride = args.c_stride;
  for (std::int64_t tile = 0; tile < args.tiles; ++tile) {
    clear_registers();
    const std::int64_t column = tile * kWidth;
    const T* b = args.b + column * args.b_pitch;
    T* const c = args.c + column;
    V sum[kRows][kVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        sum[i][j] = args.accumulate ? V::load(c + i * c_stride + j * V::lanes) : V::zero();
      }
    }
    if (end) prefetch_outputs<kRows, kVectors>(end->out + column, end->out_stride);
    constexpr std::int64_t a_row = kInterleaved ? 1 : kRowStride;
    constexpr std::int64_t a_step = kInterleaved ? kRows : 1;
    const T* a = args.a;
    const T* ahead = args.ahead ? args.ahead + column : a;
    const std::int64_t ahead_step = args.ahead ? args.ahead_step : 0;
    const auto step = [&]() __attribute__((always_inline)) {
      add_step<0, kRows, false>([a](int i) { return a[i * a_row]; }, b, sum);
      a += a_step;
      b += kWidth;
    };
    const auto turn = [&]() __attribute__((always_inline)) {
      if constexpr (kInterleaved) {
        __builtin_prefetch(ahead, 0, 2);
        ahead += ahead_step;
      }
    };
    static_assert(kAheadTurn == 4);
    repeat<kTakesFours<T>>(args.depth, step, turn);
    if (end) {
      end_tile(sum, *end, column, tile + 1 < args.tiles);
      continue;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[i][j].store(c + i * c_stride + j * V::lanes);
    }
  }
}

template <class T, bool kInterleaved, int kRows = Tile<T>::rows, int kVectors = Tile<T>::vectors>
constexpr void fill_tiles(GemmTile<T> (&tiles)[kMaxTileRows][kMaxTileVectors]) {
  tiles[kRows - 1][kVectors - 1] = gemm_tile<T, kRows, kVectors, kInterleaved>;
  if constexpr (kVectors > 1) {
    fill_tiles<T, kInterleaved, kRows, kVectors - 1>(tiles);
  } else if constexpr (kRows > 1) {
    fill_tiles<T, kInterleaved, kRows - 1>(tiles);
  }
}

template <class T>
void fma_probe(std::int64_t steps, T* sink) {
  using V = Vec<T>;
  V sum[kProbeChains];
  V one = V::broadcast(T(1));
  V zero = V::zero();
  // Hidden from the compiler, which would merge equal chains and fold multiplications by 1.
  asm volatile("" : "+x"(one.v), "+x"(zero.v));
#pragma GCC unroll 16
  for (V& s : sum) {
    s = V::zero();
    asm volatile("" : "+x"(s.v));
  }
  for (std::int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (V& s : sum) s = V::fma(one, zero, s);
  }
#pragma GCC unroll 16
  for (int i = 1; i < kProbeChains; ++i) sum[0] = sum[0] + sum[i];
  sum[0].store(V::mask_range(0, 1), sink);
}

}  // namespace pyconv::PYCONV_ISA
