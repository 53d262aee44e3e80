// Vec over AVX-512 (F, BW, DQ, VL). The operations and their meaning are listed in vec_scalar.hpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pyconv::PYCONV_ISA {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  using Mask = __mmask16;
  static constexpr int lanes = 16;
  __m512 v;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(Vec rest, Mask mask, const float* p) {
    return {_mm512_mask_loadu_ps(rest.v, mask, p)};
  }
  static Vec load_or_zero(Mask mask, const float* p) { return {_mm512_maskz_loadu_ps(mask, p)}; }
  static Vec even(Vec low, Vec high) {
    const __m512i index =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return {_mm512_permutex2var_ps(low.v, index, high.v)};
  }
  static Vec odd(Vec low, Vec high) {
    const __m512i index =
        _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return {_mm512_permutex2var_ps(low.v, index, high.v)};
  }
  static Vec gather(Vec rest, Mask mask, const float* p, std::int32_t step) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_mullo_epi32(lane, _mm512_set1_epi32(step));
    return {_mm512_mask_i32gather_ps(rest.v, mask, index, p, 4)};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(Mask mask, float* p) const { _mm512_mask_storeu_ps(p, mask, v); }

  static Mask mask_range(int begin, int end) {
    return static_cast<Mask>((1u << end) - (1u << begin));
  }

  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
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
};

template <>
struct Vec<double> {
  using Mask = __mmask8;
  static constexpr int lanes = 8;
  __m512d v;

  static Vec zero() { return {_mm512_setzero_pd()}; }
  static Vec broadcast(double x) { return {_mm512_set1_pd(x)}; }
  static Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static Vec load(Vec rest, Mask mask, const double* p) {
    return {_mm512_mask_loadu_pd(rest.v, mask, p)};
  }
  static Vec load_or_zero(Mask mask, const double* p) { return {_mm512_maskz_loadu_pd(mask, p)}; }
  static Vec even(Vec low, Vec high) {
    const __m512i index = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
    return {_mm512_permutex2var_pd(low.v, index, high.v)};
  }
  static Vec odd(Vec low, Vec high) {
    const __m512i index = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
    return {_mm512_permutex2var_pd(low.v, index, high.v)};
  }
  static Vec gather(Vec rest, Mask mask, const double* p, std::int32_t step) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i index = _mm256_mullo_epi32(lane, _mm256_set1_epi32(step));
    return {_mm512_mask_i32gather_pd(rest.v, mask, index, p, 8)};
  }
  void store(double* p) const { _mm512_storeu_pd(p, v); }
  void store(Mask mask, double* p) const { _mm512_mask_storeu_pd(p, mask, v); }

  static Mask mask_range(int begin, int end) {
    return static_cast<Mask>((1u << end) - (1u << begin));
  }

  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
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
};

}  // namespace pyconv::PYCONV_ISA
