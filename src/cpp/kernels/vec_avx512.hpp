// Vec over AVX-512 (F, BW, DQ, VL). The operations and their meaning are listed in vec_scalar.hpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pyconv::PYCONV_ISA {

template <class T>
struct Vec;

// Half a Vec<float>, for rows that are no longer: half the time where two units of 256 bits make up
// one of 512 (Zen 4), elsewhere the same.
struct HalfVec {
  using Mask = __mmask8;
  static constexpr int lanes = 8;
  __m256 v;

  static HalfVec zero() { return {_mm256_setzero_ps()}; }
  static HalfVec broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static HalfVec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static HalfVec load_or_zero(Mask mask, const float* p) {
    return {_mm256_maskz_loadu_ps(mask, p)};
  }
  static HalfVec next_lane(HalfVec a, HalfVec b) {
    return {_mm256_castsi256_ps(
        _mm256_alignr_epi32(_mm256_castps_si256(b.v), _mm256_castps_si256(a.v), 1))};
  }
  static HalfVec previous_lane(HalfVec a, HalfVec b) {
    return {_mm256_castsi256_ps(
        _mm256_alignr_epi32(_mm256_castps_si256(a.v), _mm256_castps_si256(b.v), 7))};
  }
  static HalfVec even(HalfVec low, HalfVec high) {
    const __m256i index = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    return {_mm256_permutex2var_ps(low.v, index, high.v)};
  }
  static constexpr bool mixes_pairs = false;
  static HalfVec odd(HalfVec low, HalfVec high) {
    const __m256i index = _mm256_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15);
    return {_mm256_permutex2var_ps(low.v, index, high.v)};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store(Mask mask, float* p) const { _mm256_mask_storeu_ps(p, mask, v); }
  static Mask mask_range(int begin, int end) {
    return static_cast<Mask>((1u << end) - (1u << begin));
  }
  static HalfVec fma(HalfVec a, HalfVec b, HalfVec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  friend HalfVec operator+(HalfVec a, HalfVec b) { return {_mm256_add_ps(a.v, b.v)}; }
  static HalfVec min(HalfVec a, HalfVec b) { return {_mm256_min_ps(a.v, b.v)}; }
  static HalfVec max(HalfVec a, HalfVec b) { return {_mm256_max_ps(a.v, b.v)}; }
};

template <>
struct Vec<float> {
  using Mask = __mmask16;
  using Half = HalfVec;
  static constexpr int lanes = 16;
  __m512 v;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(Vec rest, Mask mask, const float* p) {
    return {_mm512_mask_loadu_ps(rest.v, mask, p)};
  }
  static Vec load_or_zero(Mask mask, const float* p) { return {_mm512_maskz_loadu_ps(mask, p)}; }
  static Vec first(const float* p) { return {_mm512_zextps128_ps512(_mm_load_ss(p))}; }
  static Vec first_or_zero(Mask mask, const float* p) {
    return {_mm512_zextps128_ps512(_mm_maskz_load_ss(static_cast<__mmask8>(mask), p))};
  }
  static Vec next_lane(Vec a, Vec b) {
    return {_mm512_castsi512_ps(
        _mm512_alignr_epi32(_mm512_castps_si512(b.v), _mm512_castps_si512(a.v), 1))};
  }
  static Vec previous_lane(Vec a, Vec b) {
    return {_mm512_castsi512_ps(
        _mm512_alignr_epi32(_mm512_castps_si512(a.v), _mm512_castps_si512(b.v), 15))};
  }
  static Vec even(Vec low, Vec high) {
    const __m512i index =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return {_mm512_permutex2var_ps(low.v, index, high.v)};
  }
  static constexpr bool mixes_pairs = false;
  static Vec odd(Vec low, Vec high) {
    const __m512i index =
        _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return {_mm512_permutex2var_ps(low.v, index, high.v)};
  }
  using Index = __m512i;
  static Index load_index(const std::int32_t* p) { return _mm512_loadu_si512(p); }
  static Vec permute(Vec a, Index index) { return {_mm512_permutexvar_ps(index, a.v)}; }
  template <int kLanes>
  static Vec permute_fours(Vec a) {
    return {_mm512_permute_ps(a.v, kLanes)};
  }
  static Vec gather(Vec rest, Mask mask, const float* p, std::int32_t step) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_mullo_epi32(lane, _mm512_set1_epi32(step));
    return {_mm512_mask_i32gather_ps(rest.v, mask, index, p, 4)};
  }
  static Vec load_even(Vec rest, int begin, int end, const float* p) {
    if (begin >= end) return rest;
    const std::uint32_t wanted = (1u << (2 * end - 1)) - (1u << (2 * begin));
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<Mask>(wanted), p);
    const __m512 high = _mm512_maskz_loadu_ps(static_cast<Mask>(wanted >> 16), p + 16);
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return select(mask_range(begin, end), {_mm512_permutex2var_ps(low, even, high)}, rest);
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(Mask mask, float* p) const { _mm512_mask_storeu_ps(p, mask, v); }
  void stream(float* p) const { _mm512_stream_ps(p, v); }
  static Vec joined(Half low, Half high) {
    const __m512d whole = _mm512_castps_pd(_mm512_castps256_ps512(low.v));
    return {_mm512_castpd_ps(_mm512_insertf64x4(whole, _mm256_castps_pd(high.v), 1))};
  }

  static Mask mask_range(int begin, int end) {
    return static_cast<Mask>((1u << end) - (1u << begin));
  }

  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec fma_in_place(Vec a, Vec b, Vec c) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
    return c;
  }
  // Half the time where two units of 256 bits make up one of 512 (Zen 4), elsewhere the same.
  static constexpr bool has_low = true;
  static Vec broadcast_low(float x) { return {_mm512_castps256_ps512(_mm256_set1_ps(x))}; }
  static Vec fma_low(Vec a, Vec b, Vec c) {
    return {_mm512_castps256_ps512(_mm256_fmadd_ps(
        _mm512_castps512_ps256(a.v), _mm512_castps512_ps256(b.v), _mm512_castps512_ps256(c.v)))};
  }
  static Vec fma_low_in_place(Vec a, Vec b, Vec c) {
    asm("vfmadd231ps %t2, %t1, %t0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
    return c;
  }
  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
  static Vec copysign(Vec magnitude, Vec sign) {
    return {_mm512_or_ps(abs(magnitude).v, _mm512_and_ps(sign.v, _mm512_set1_ps(-0.0f)))};
  }
  static Vec round(Vec a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Vec exp2_integer(Vec n) {
    const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
  }
  static Mask less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
  static Vec select(Mask mask, Vec yes, Vec no) {
    return {_mm512_mask_blend_ps(mask, no.v, yes.v)};
  }

  static void transpose(Vec (&m)[lanes]) {
    __m512 t[lanes];
#pragma GCC unroll 4
    for (int i = 0; i < lanes; i += 4) {  // 4 x 4 within each quarter of four rows
      const __m512 a = _mm512_unpacklo_ps(m[i].v, m[i + 1].v);
      const __m512 b = _mm512_unpackhi_ps(m[i].v, m[i + 1].v);
      const __m512 c = _mm512_unpacklo_ps(m[i + 2].v, m[i + 3].v);
      const __m512 d = _mm512_unpackhi_ps(m[i + 2].v, m[i + 3].v);
      t[i] = _mm512_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0));
      t[i + 1] = _mm512_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2));
      t[i + 2] = _mm512_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0));
      t[i + 3] = _mm512_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {  // then the quarters themselves
      const __m512 a = _mm512_shuffle_f32x4(t[i], t[i + 4], _MM_SHUFFLE(2, 0, 2, 0));
      const __m512 b = _mm512_shuffle_f32x4(t[i], t[i + 4], _MM_SHUFFLE(3, 1, 3, 1));
      const __m512 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], _MM_SHUFFLE(2, 0, 2, 0));
      const __m512 d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], _MM_SHUFFLE(3, 1, 3, 1));
      m[i].v = _mm512_shuffle_f32x4(a, c, _MM_SHUFFLE(2, 0, 2, 0));
      m[i + 4].v = _mm512_shuffle_f32x4(b, d, _MM_SHUFFLE(2, 0, 2, 0));
      m[i + 8].v = _mm512_shuffle_f32x4(a, c, _MM_SHUFFLE(3, 1, 3, 1));
      m[i + 12].v = _mm512_shuffle_f32x4(b, d, _MM_SHUFFLE(3, 1, 3, 1));
    }
  }
};

template <>
struct Vec<double> {
  using Mask = __mmask8;
  using Half = Vec;
  static constexpr int lanes = 8;
  __m512d v;

  static Vec zero() { return {_mm512_setzero_pd()}; }
  static Vec broadcast(double x) { return {_mm512_set1_pd(x)}; }
  static Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static Vec load(Vec rest, Mask mask, const double* p) {
    return {_mm512_mask_loadu_pd(rest.v, mask, p)};
  }
  static Vec load_or_zero(Mask mask, const double* p) { return {_mm512_maskz_loadu_pd(mask, p)}; }
  static Vec first(const double* p) { return {_mm512_zextpd128_pd512(_mm_load_sd(p))}; }
  static Vec first_or_zero(Mask mask, const double* p) {
    return {_mm512_zextpd128_pd512(_mm_maskz_load_sd(mask, p))};
  }
  static Vec next_lane(Vec a, Vec b) {
    return {_mm512_castsi512_pd(
        _mm512_alignr_epi64(_mm512_castpd_si512(b.v), _mm512_castpd_si512(a.v), 1))};
  }
  static Vec previous_lane(Vec a, Vec b) {
    return {_mm512_castsi512_pd(
        _mm512_alignr_epi64(_mm512_castpd_si512(a.v), _mm512_castpd_si512(b.v), 7))};
  }
  static Vec even(Vec low, Vec high) {
    const __m512i index = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    return {_mm512_permutex2var_pd(low.v, index, high.v)};
  }
  static constexpr bool mixes_pairs = false;
  static Vec odd(Vec low, Vec high) {
    const __m512i index = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    return {_mm512_permutex2var_pd(low.v, index, high.v)};
  }
  using Index = __m512i;
  static Index load_index(const std::int32_t* p) {
    return _mm512_cvtepi32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Vec permute(Vec a, Index index) { return {_mm512_permutexvar_pd(index, a.v)}; }
  template <int kLanes>
  static Vec permute_fours(Vec a) {
    return {_mm512_permutex_pd(a.v, kLanes)};
  }
  static Vec gather(Vec rest, Mask mask, const double* p, std::int32_t step) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i index = _mm256_mullo_epi32(lane, _mm256_set1_epi32(step));
    return {_mm512_mask_i32gather_pd(rest.v, mask, index, p, 8)};
  }
  static Vec load_even(Vec rest, int begin, int end, const double* p) {
    if (begin >= end) return rest;
    const std::uint32_t wanted = (1u << (2 * end - 1)) - (1u << (2 * begin));
    const __m512d low = _mm512_maskz_loadu_pd(static_cast<Mask>(wanted), p);
    const __m512d high = _mm512_maskz_loadu_pd(static_cast<Mask>(wanted >> 8), p + 8);
    const __m512i even = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    return select(mask_range(begin, end), {_mm512_permutex2var_pd(low, even, high)}, rest);
  }
  void store(double* p) const { _mm512_storeu_pd(p, v); }
  void store(Mask mask, double* p) const { _mm512_mask_storeu_pd(p, mask, v); }
  void stream(double* p) const { _mm512_stream_pd(p, v); }

  static Mask mask_range(int begin, int end) {
    return static_cast<Mask>((1u << end) - (1u << begin));
  }

  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
  static Vec fma_in_place(Vec a, Vec b, Vec c) {
    asm("vfmadd231pd %2, %1, %0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
    return c;
  }
  // Half the time where two units of 256 bits make up one of 512 (Zen 4), elsewhere the same.
  static constexpr bool has_low = true;
  static Vec broadcast_low(double x) { return {_mm512_castpd256_pd512(_mm256_set1_pd(x))}; }
  static Vec fma_low(Vec a, Vec b, Vec c) {
    return {_mm512_castpd256_pd512(_mm256_fmadd_pd(
        _mm512_castpd512_pd256(a.v), _mm512_castpd512_pd256(b.v), _mm512_castpd512_pd256(c.v)))};
  }
  static Vec fma_low_in_place(Vec a, Vec b, Vec c) {
    asm("vfmadd231pd %t2, %t1, %t0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
    return c;
  }
  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_pd(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_pd(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_pd(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_pd(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm512_min_pd(a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm512_max_pd(a.v, b.v)}; }
  static Vec abs(Vec a) { return {_mm512_abs_pd(a.v)}; }
  static Vec copysign(Vec magnitude, Vec sign) {
    return {_mm512_or_pd(abs(magnitude).v, _mm512_and_pd(sign.v, _mm512_set1_pd(-0.0)))};
  }
  static Vec round(Vec a) {
    return {_mm512_roundscale_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Vec exp2_integer(Vec n) {
    const __m512i biased = _mm512_add_epi64(_mm512_cvtpd_epi64(n.v), _mm512_set1_epi64(1023));
    return {_mm512_castsi512_pd(_mm512_slli_epi64(biased, 52))};
  }
  static Mask less(Vec a, Vec b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ); }
  static Vec select(Mask mask, Vec yes, Vec no) {
    return {_mm512_mask_blend_pd(mask, no.v, yes.v)};
  }

  static void transpose(Vec (&m)[lanes]) {
    __m512d t[lanes];
#pragma GCC unroll 4
    for (int i = 0; i < lanes; i += 2) {
      t[i] = _mm512_unpacklo_pd(m[i].v, m[i + 1].v);
      t[i + 1] = _mm512_unpackhi_pd(m[i].v, m[i + 1].v);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const __m512d a = _mm512_shuffle_f64x2(t[i], t[i + 2], _MM_SHUFFLE(2, 0, 2, 0));
      const __m512d b = _mm512_shuffle_f64x2(t[i], t[i + 2], _MM_SHUFFLE(3, 1, 3, 1));
      const __m512d c = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], _MM_SHUFFLE(2, 0, 2, 0));
      const __m512d d = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], _MM_SHUFFLE(3, 1, 3, 1));
      m[i].v = _mm512_shuffle_f64x2(a, c, _MM_SHUFFLE(2, 0, 2, 0));
      m[i + 2].v = _mm512_shuffle_f64x2(b, d, _MM_SHUFFLE(2, 0, 2, 0));
      m[i + 4].v = _mm512_shuffle_f64x2(a, c, _MM_SHUFFLE(3, 1, 3, 1));
      m[i + 6].v = _mm512_shuffle_f64x2(b, d, _MM_SHUFFLE(3, 1, 3, 1));
    }
  }
};

}  // namespace pyconv::PYCONV_ISA
