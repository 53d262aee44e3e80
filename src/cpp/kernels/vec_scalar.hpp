// Vec of one lane for any x86-64, and the meaning of the operations that every vec_*.hpp provides:
//
//   load(p), store(p)                    any alignment
//   load(rest, mask, p), store(mask, p)  only lanes in the mask touch memory; others keep `rest`;
//                                        stored lanes are a range
//   stream(p)                            where a vector is a cache line: to memory, past the caches
//   joined(low, high)                    there, of two Half
//   load_even(rest, begin, end, p)       lanes [begin, end) read p[2 * lane], others keep `rest`
//   load_or_zero(mask, p)                load(zero(), mask, p)
//   even(low, high), odd(low, high)      every second lane of both, the lanes of low first
//   mixed_even(low, high), mixed_odd     where mixes_pairs: the same in an order of lanes that
//                                        costs less
//   in_order(a)                          undoes that order
//   permute(a, load_index(p))            lane i is lane p[i] of a, modulo the lanes
//   permute_fours<n>(a)                  lane i is lane n >> 2 * (i % 4) & 3 of its own four
//   next_lane(a, b)                      lanes 1 and on of a, then lane 0 of b
//   previous_lane(a, b)                  the last lane of b, then those of a but the last; only
//                                        where there are 32 registers
//   first(p), first_or_zero(mask, p)     p[0] in lane 0, 0 in the others; only where there are 32
//                                        registers
//   gather(rest, mask, p, step)          lane i reads p[i * step]
//   mask_range(begin, end)               lanes [begin, end), 0 <= begin <= end <= lanes
//   fma(a, b, c)                         a * b + c, rounded once
//   fma_in_place(a, b, c)                the same of registers, in that of c: without a choice the
//                                        compiler keeps the sums of a tile where they are
//   broadcast_low, fma_low, fma_low_in_place
//                                        where has_low: of the lower half of the lanes, and perhaps
//                                        of others, at less cost
//   min(a, b), max(a, b)                 b if either is NaN, or if both are zeros
//   copysign(magnitude, sign)
//   round(a)                             to the nearest integer, ties to even
//   exp2_integer(n)                      2^n for integral n within the exponent range of T
//   less(a, b), select(mask, yes, no)    less is false for NaN
//   transpose(m)                         lane j of m[i] and lane i of m[j] change places
//   Half                                 where it has fewer lanes, those of these operations that
//                                        depthwise_plane-inl.hpp and epilogue-inl.hpp need
#pragma once

#include <cstdint>

namespace pyconv::PYCONV_ISA {

// A sum in double, rounded to odd by what it left out, so that the rounding to float sees the exact
// sum.
[[gnu::cold, gnu::noinline]] static float rounded_once(double sum, double error) {
  std::int64_t bits;
  __builtin_memcpy(&bits, &sum, sizeof bits);
  const bool finite = (bits & 0x7ff0000000000000) != 0x7ff0000000000000;
  if (finite && (bits & 1) == 0) {
    // One unit towards the error: the bit pattern of a double grows with its magnitude.
    bits += (error > 0.0) == (sum > 0.0) ? 1 : -1;
    __builtin_memcpy(&sum, &bits, sizeof sum);
  }
  return static_cast<float>(sum);
}

// Rounded once, without the FMA instruction (Boldo, Melquiond 2008, Emulation of FMA and correctly
// rounded sums). The product of two floats is exact in double, and so are most sums of such a
// product and a float. Ten times faster than the C library's fmaf on a CPU without FMA.
static inline float fused_multiply_add(float a, float b, float c) {
  const double product = static_cast<double>(a) * static_cast<double>(b);
  const double addend = static_cast<double>(c);
  const double sum = product + addend;
  const double addend_part = sum - product;
  const double error = (product - (sum - addend_part)) + (addend - addend_part);
  return error == 0.0 ? static_cast<float>(sum) : rounded_once(sum, error);
}

static inline double fused_multiply_add(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}

template <class T>
struct Vec {
  using Mask = bool;
  using Half = Vec;
  static constexpr int lanes = 1;
  T v;

  static Vec zero() { return {T(0)}; }
  static Vec broadcast(T x) { return {x}; }
  static Vec load(const T* p) { return {*p}; }
  static Vec load(Vec rest, Mask mask, const T* p) { return mask ? Vec{*p} : rest; }
  static Vec load_or_zero(Mask mask, const T* p) { return load(zero(), mask, p); }
  static Vec next_lane(Vec, Vec b) { return b; }
  static Vec even(Vec low, Vec) { return low; }
  static Vec odd(Vec, Vec high) { return high; }
  static constexpr bool mixes_pairs = false;
  struct Index {};
  static Index load_index(const std::int32_t*) { return {}; }
  static Vec permute(Vec a, Index) { return a; }
  template <int>
  static Vec permute_fours(Vec a) {
    return a;
  }
  static Vec gather(Vec rest, Mask mask, const T* p, std::int32_t) { return load(rest, mask, p); }
  static Vec load_even(Vec rest, int begin, int end, const T* p) {
    return load(rest, mask_range(begin, end), p);
  }
  void store(T* p) const { *p = v; }
  void store(Mask mask, T* p) const {
    if (mask) *p = v;
  }

  static Mask mask_range(int begin, int end) { return begin == 0 && end == 1; }

  static Vec fma(Vec a, Vec b, Vec c) { return {fused_multiply_add(a.v, b.v, c.v)}; }
  static Vec fma_in_place(Vec a, Vec b, Vec c) { return fma(a, b, c); }
  static constexpr bool has_low = false;
  friend Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  friend Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  friend Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
  static Vec min(Vec a, Vec b) { return a.v < b.v ? a : b; }
  static Vec max(Vec a, Vec b) { return a.v > b.v ? a : b; }
  static Vec abs(Vec a) { return {static_cast<T>(__builtin_fabs(a.v))}; }
  static Vec copysign(Vec magnitude, Vec sign) {
    return {static_cast<T>(__builtin_copysign(magnitude.v, sign.v))};
  }
  static Vec round(Vec a) { return {static_cast<T>(__builtin_nearbyint(a.v))}; }
  static Vec exp2_integer(Vec n) {
    return {static_cast<T>(n.v == n.v ? __builtin_ldexp(1.0, static_cast<int>(n.v)) : n.v)};
  }
  static Mask less(Vec a, Vec b) { return a.v < b.v; }
  static Vec select(Mask mask, Vec yes, Vec no) { return mask ? yes : no; }

  static void transpose(Vec (&)[lanes]) {}
};

}  // namespace pyconv::PYCONV_ISA
