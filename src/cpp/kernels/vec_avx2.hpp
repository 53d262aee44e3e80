// Vec over AVX2 and FMA. The operations and their meaning are listed in vec_scalar.hpp. Ranges of
// lanes that reach outside the vector are clipped by mask_range here.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pyconv::PYCONV_ISA {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  using Mask = __m256i;  // all bits of a lane set or clear
  using Half = Vec;
  static constexpr int lanes = 8;
  __m256 v;

  static Vec zero() { return {_mm256_setzero_ps()}; }
  static Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load(Vec rest, Mask mask, const float* p) {
    return select(mask, {_mm256_maskload_ps(p, mask)}, rest);
  }
  static Vec load_or_zero(Mask mask, const float* p) { return {_mm256_maskload_ps(p, mask)}; }
  static Vec next_lane(Vec a, Vec b) {
    const __m256i low = _mm256_castps_si256(a.v);
    const __m256i halves = _mm256_castps_si256(_mm256_permute2f128_ps(a.v, b.v, 0x21));
    return {_mm256_castsi256_ps(_mm256_alignr_epi8(halves, low, 4))};
  }
  static Vec even(Vec low, Vec high) { return in_order(mixed_even(low, high)); }
  static Vec odd(Vec low, Vec high) { return in_order(mixed_odd(low, high)); }
  static constexpr bool mixes_pairs = true;
  static Vec mixed_even(Vec low, Vec high) { return {_mm256_shuffle_ps(low.v, high.v, 0x88)}; }
  static Vec mixed_odd(Vec low, Vec high) { return {_mm256_shuffle_ps(low.v, high.v, 0xdd)}; }
  static Vec in_order(Vec mixed) {
    return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed.v), 0xd8))};
  }
  using Index = __m256i;
  static Index load_index(const std::int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Vec permute(Vec a, Index index) { return {_mm256_permutevar8x32_ps(a.v, index)}; }
  template <int kLanes>
  static Vec permute_fours(Vec a) {
    return {_mm256_permute_ps(a.v, kLanes)};
  }
  static Vec gather(Vec rest, Mask mask, const float* p, std::int32_t step) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i index = _mm256_mullo_epi32(lane, _mm256_set1_epi32(step));
    return {_mm256_mask_i32gather_ps(rest.v, p, index, _mm256_castsi256_ps(mask), 4)};
  }
  static Vec load_even(Vec rest, int begin, int end, const float* p) {
    if (begin >= end) return rest;
    const __m256 low = _mm256_maskload_ps(p, mask_range(2 * begin, 2 * end - 1));
    const __m256 high = _mm256_maskload_ps(p + 8, mask_range(2 * begin - 8, 2 * end - 9));
    const __m256 halves = _mm256_shuffle_ps(low, high, 0x88);  // 0 2 8 10, 4 6 12 14
    const __m256d even = _mm256_permute4x64_pd(_mm256_castps_pd(halves), 0xd8);
    return select(mask_range(begin, end), {_mm256_castpd_ps(even)}, rest);
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  // In pieces: where AVX2 is the best there is, a masked store may take a dozen cycles (Zen 2 and
  // 3), three times as many as these.
  void store(Mask mask, float* p) const {
    auto bits = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(mask)));
    if (bits == 0) return;
    Vec rest = *this;
    if ((bits & 1) == 0) {
      const int begin = __builtin_ctz(bits);
      const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      rest = permute(rest, _mm256_add_epi32(lane, _mm256_set1_epi32(begin)));
      bits >>= begin;
      p += begin;
    }
    if ((bits & 0x80) != 0) return rest.store(p);
    __m128 four = _mm256_castps256_ps128(rest.v);
    if ((bits & 0x8) != 0) {
      _mm_storeu_ps(p, four);
      four = _mm256_extractf128_ps(rest.v, 1);
      bits >>= 4;
      p += 4;
    }
    if ((bits & 0x2) != 0) {
      _mm_storel_pi(reinterpret_cast<__m64*>(p), four);
      four = _mm_movehl_ps(four, four);
      bits >>= 2;
      p += 2;
    }
    if ((bits & 0x1) != 0) _mm_store_ss(p, four);
  }

  static Mask mask_range(int begin, int end) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(begin), lane),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane));
  }

  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec fma_in_place(Vec a, Vec b, Vec c) {
    asm("vfmadd231ps %2, %1, %0" : "+x"(c.v) : "x"(a.v), "x"(b.v));
    return c;
  }
  static constexpr bool has_low = false;
  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
  static Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
  static Vec copysign(Vec magnitude, Vec sign) {
    return {_mm256_or_ps(abs(magnitude).v, _mm256_and_ps(sign.v, _mm256_set1_ps(-0.0f)))};
  }
  static Vec round(Vec a) {
    return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Vec exp2_integer(Vec n) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(biased, 23))};
  }
  static Mask less(Vec a, Vec b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ));
  }
  static Vec select(Mask mask, Vec yes, Vec no) {
    return {_mm256_blendv_ps(no.v, yes.v, _mm256_castsi256_ps(mask))};
  }

  static void transpose(Vec (&m)[lanes]) {
    __m256 t[lanes];
#pragma GCC unroll 2
    for (int i = 0; i < lanes; i += 4) {  // 4 x 4 within each half of four rows
      const __m256 a = _mm256_unpacklo_ps(m[i].v, m[i + 1].v);
      const __m256 b = _mm256_unpackhi_ps(m[i].v, m[i + 1].v);
      const __m256 c = _mm256_unpacklo_ps(m[i + 2].v, m[i + 3].v);
      const __m256 d = _mm256_unpackhi_ps(m[i + 2].v, m[i + 3].v);
      t[i] = _mm256_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0));
      t[i + 1] = _mm256_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2));
      t[i + 2] = _mm256_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0));
      t[i + 3] = _mm256_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      m[i].v = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
      m[i + 4].v = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
  }
};

template <>
struct Vec<double> {
  using Mask = __m256i;
  using Half = Vec;
  static constexpr int lanes = 4;
  __m256d v;

  static Vec zero() { return {_mm256_setzero_pd()}; }
  static Vec broadcast(double x) { return {_mm256_set1_pd(x)}; }
  static Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static Vec load(Vec rest, Mask mask, const double* p) {
    return select(mask, {_mm256_maskload_pd(p, mask)}, rest);
  }
  static Vec load_or_zero(Mask mask, const double* p) { return {_mm256_maskload_pd(p, mask)}; }
  static Vec next_lane(Vec a, Vec b) {
    return {_mm256_shuffle_pd(a.v, _mm256_permute2f128_pd(a.v, b.v, 0x21), 0x5)};
  }
  static Vec even(Vec low, Vec high) { return in_order(mixed_even(low, high)); }
  static Vec odd(Vec low, Vec high) { return in_order(mixed_odd(low, high)); }
  static constexpr bool mixes_pairs = true;
  static Vec mixed_even(Vec low, Vec high) { return {_mm256_unpacklo_pd(low.v, high.v)}; }
  static Vec mixed_odd(Vec low, Vec high) { return {_mm256_unpackhi_pd(low.v, high.v)}; }
  static Vec in_order(Vec mixed) { return {_mm256_permute4x64_pd(mixed.v, 0xd8)}; }
  using Index =
      __m256i;  // of the halves of a lane: there is no permutation of doubles by a register
  static Index load_index(const std::int32_t* p) {
    const __m256i lane =
        _mm256_cvtepi32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i low = _mm256_slli_epi64(lane, 1);
    const __m256i high = _mm256_add_epi64(low, _mm256_set1_epi64x(1));
    return _mm256_or_si256(low, _mm256_slli_epi64(high, 32));
  }
  static Vec permute(Vec a, Index index) {
    return {_mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(a.v), index))};
  }
  template <int kLanes>
  static Vec permute_fours(Vec a) {
    return {_mm256_permute4x64_pd(a.v, kLanes)};
  }
  static Vec gather(Vec rest, Mask mask, const double* p, std::int32_t step) {
    const __m128i lane = _mm_setr_epi32(0, 1, 2, 3);
    const __m128i index = _mm_mullo_epi32(lane, _mm_set1_epi32(step));
    return {_mm256_mask_i32gather_pd(rest.v, p, index, _mm256_castsi256_pd(mask), 8)};
  }
  static Vec load_even(Vec rest, int begin, int end, const double* p) {
    if (begin >= end) return rest;
    const __m256d low = _mm256_maskload_pd(p, mask_range(2 * begin, 2 * end - 1));
    const __m256d high = _mm256_maskload_pd(p + 4, mask_range(2 * begin - 4, 2 * end - 5));
    const __m256d even = _mm256_permute4x64_pd(_mm256_unpacklo_pd(low, high), 0xd8);
    return select(mask_range(begin, end), {even}, rest);
  }
  void store(double* p) const { _mm256_storeu_pd(p, v); }
  void store(Mask mask, double* p) const {
    auto bits = static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(mask)));
    if (bits == 0) return;
    Vec rest = *this;
    if ((bits & 1) == 0) {
      const int begin = __builtin_ctz(bits);
      const __m256i half = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      rest = permute(rest, _mm256_add_epi32(half, _mm256_set1_epi32(2 * begin)));
      bits >>= begin;
      p += begin;
    }
    if ((bits & 0x8) != 0) return rest.store(p);
    __m128d two = _mm256_castpd256_pd128(rest.v);
    if ((bits & 0x2) != 0) {
      _mm_storeu_pd(p, two);
      two = _mm256_extractf128_pd(rest.v, 1);
      bits >>= 2;
      p += 2;
    }
    if ((bits & 0x1) != 0) _mm_store_sd(p, two);
  }

  static Mask mask_range(int begin, int end) {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return _mm256_andnot_si256(_mm256_cmpgt_epi64(_mm256_set1_epi64x(begin), lane),
                               _mm256_cmpgt_epi64(_mm256_set1_epi64x(end), lane));
  }

  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
  static Vec fma_in_place(Vec a, Vec b, Vec c) {
    asm("vfmadd231pd %2, %1, %0" : "+x"(c.v) : "x"(a.v), "x"(b.v));
    return c;
  }
  static constexpr bool has_low = false;
  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_pd(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_pd(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_pd(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm256_div_pd(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm256_min_pd(a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm256_max_pd(a.v, b.v)}; }
  static Vec abs(Vec a) { return {_mm256_andnot_pd(_mm256_set1_pd(-0.0), a.v)}; }
  static Vec copysign(Vec magnitude, Vec sign) {
    return {_mm256_or_pd(abs(magnitude).v, _mm256_and_pd(sign.v, _mm256_set1_pd(-0.0)))};
  }
  static Vec round(Vec a) {
    return {_mm256_round_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Vec exp2_integer(Vec n) {
    const __m256i biased =
        _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n.v)), _mm256_set1_epi64x(1023));
    return {_mm256_castsi256_pd(_mm256_slli_epi64(biased, 52))};
  }
  static Mask less(Vec a, Vec b) {
    return _mm256_castpd_si256(_mm256_cmp_pd(a.v, b.v, _CMP_LT_OQ));
  }
  static Vec select(Mask mask, Vec yes, Vec no) {
    return {_mm256_blendv_pd(no.v, yes.v, _mm256_castsi256_pd(mask))};
  }

  static void transpose(Vec (&m)[lanes]) {
    const __m256d a = _mm256_unpacklo_pd(m[0].v, m[1].v);
    const __m256d b = _mm256_unpackhi_pd(m[0].v, m[1].v);
    const __m256d c = _mm256_unpacklo_pd(m[2].v, m[3].v);
    const __m256d d = _mm256_unpackhi_pd(m[2].v, m[3].v);
    m[0].v = _mm256_permute2f128_pd(a, c, 0x20);
    m[1].v = _mm256_permute2f128_pd(b, d, 0x20);
    m[2].v = _mm256_permute2f128_pd(a, c, 0x31);
    m[3].v = _mm256_permute2f128_pd(b, d, 0x31);
  }
};

}  // namespace pyconv::PYCONV_ISA
