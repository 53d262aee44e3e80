// Vec over AVX2 and FMA. The operations and their meaning are listed in vec_scalar.hpp.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pyconv::PYCONV_ISA {

template <class T>
struct Vec;

template <>
struct Vec<float> {
  using Mask = __m256i;  // all bits of a lane set or clear
  static constexpr int lanes = 8;
  __m256 v;

  static Vec zero() { return {_mm256_setzero_ps()}; }
  static Vec broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load(Vec rest, Mask mask, const float* p) {
    return select(mask, {_mm256_maskload_ps(p, mask)}, rest);
  }
  static Vec load_or_zero(Mask mask, const float* p) { return {_mm256_maskload_ps(p, mask)}; }
  static Vec even(Vec low, Vec high) {
    const __m256 both = _mm256_shuffle_ps(low.v, high.v, 0x88);
    return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(both), 0xd8))};
  }
  static Vec odd(Vec low, Vec high) {
    const __m256 both = _mm256_shuffle_ps(low.v, high.v, 0xdd);
    return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(both), 0xd8))};
  }
  static Vec gather(Vec rest, Mask mask, const float* p, std::int32_t step) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i index = _mm256_mullo_epi32(lane, _mm256_set1_epi32(step));
    return {_mm256_mask_i32gather_ps(rest.v, p, index, _mm256_castsi256_ps(mask), 4)};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store(Mask mask, float* p) const { _mm256_maskstore_ps(p, mask, v); }

  static Mask mask_range(int begin, int end) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(begin), lane),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane));
  }

  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
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
};

template <>
struct Vec<double> {
  using Mask = __m256i;
  static constexpr int lanes = 4;
  __m256d v;

  static Vec zero() { return {_mm256_setzero_pd()}; }
  static Vec broadcast(double x) { return {_mm256_set1_pd(x)}; }
  static Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static Vec load(Vec rest, Mask mask, const double* p) {
    return select(mask, {_mm256_maskload_pd(p, mask)}, rest);
  }
  static Vec load_or_zero(Mask mask, const double* p) { return {_mm256_maskload_pd(p, mask)}; }
  static Vec even(Vec low, Vec high) {
    return {_mm256_permute4x64_pd(_mm256_unpacklo_pd(low.v, high.v), 0xd8)};
  }
  static Vec odd(Vec low, Vec high) {
    return {_mm256_permute4x64_pd(_mm256_unpackhi_pd(low.v, high.v), 0xd8)};
  }
  static Vec gather(Vec rest, Mask mask, const double* p, std::int32_t step) {
    const __m128i lane = _mm_setr_epi32(0, 1, 2, 3);
    const __m128i index = _mm_mullo_epi32(lane, _mm_set1_epi32(step));
    return {_mm256_mask_i32gather_pd(rest.v, p, index, _mm256_castsi256_pd(mask), 8)};
  }
  void store(double* p) const { _mm256_storeu_pd(p, v); }
  void store(Mask mask, double* p) const { _mm256_maskstore_pd(p, mask, v); }

  static Mask mask_range(int begin, int end) {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return _mm256_andnot_si256(_mm256_cmpgt_epi64(_mm256_set1_epi64x(begin), lane),
                               _mm256_cmpgt_epi64(_mm256_set1_epi64x(end), lane));
  }

  static Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
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
};

}  // namespace pyconv::PYCONV_ISA
