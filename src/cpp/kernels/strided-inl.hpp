#pragma once

#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

static inline std::int64_t at_least(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
static inline std::int64_t at_most(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// Lanes [begin, end) read p[4 * lane], others keep `rest`: a fraction of a gather's time.
template <class T>
static inline Vec<T> load_every_fourth(Vec<T> rest, int begin, int end, const T* p) {
  using V = Vec<T>;
  constexpr int lanes = V::lanes;
  const V low = V::load_even(V::zero(), 2 * begin, 2 * end - 1 < lanes ? 2 * end - 1 : lanes, p);
  const V high = V::load_even(V::zero(), 2 * begin < lanes ? 0 : 2 * begin - lanes,
                              2 * end - 1 - lanes, p + 2 * lanes);
  return V::select(V::mask_range(begin, end), V::even(low, high), rest);
}

template <class T>
static inline bool crowds_sets(std::int64_t stride) {
  return stride * std::int64_t(sizeof(T)) % kCrowdingBytes == 0;
}

// Columns of the first of the squares that turn rows into columns or back: where rows crowd sets,
// as many as reach the next line, so that each later vector lies in one. Up to 1.4 times as fast.
template <class T>
static inline std::int64_t first_columns(const T* row, std::int64_t row_stride,
                                         std::int64_t columns) {
  constexpr std::int64_t lanes = Vec<T>::lanes;
  if (columns <= 2 * lanes || !crowds_sets<T>(row_stride)) return lanes;
  const auto at = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(row) / sizeof(T));
  return lanes - at % lanes;
}

// Every second element of some rows, which follow each other in `to`, and asks for what is `ahead`
// of them. Short rows cost little more than their elements.
template <class T>
static inline void halve_rows(std::int64_t rows, std::int64_t count, const T* from,
                              std::int64_t row_stride, std::int64_t ahead, T* to) {
  using V = Vec<T>;
  // The last element that a pair of vectors reads is one past the last that is wanted.
  const std::int64_t whole = (count - 1) / V::lanes * V::lanes;
  const int left = static_cast<int>(count - whole);
  const auto tail = V::mask_range(0, left);
  const auto halve = [&](std::int64_t j) {
    for (std::int64_t i = 0; i < 2 * V::lanes; i += 64 / sizeof(T)) {
      __builtin_prefetch(from + 2 * j + i + ahead);
    }
    V::even(V::load(from + 2 * j), V::load(from + 2 * j + V::lanes)).store(to + j);
  };
  // Before another row, that element can be read, and the last vector is a whole one, too.
  const std::int64_t halved = row_stride > 0 && count >= V::lanes ? rows - 1 : 0;
  for (std::int64_t r = 0; r < rows; ++r, from += row_stride, to += count) {
    for (std::int64_t j = 0; j < whole; j += V::lanes) halve(j);
    if (r < halved) {
      halve(count - V::lanes);
      continue;
    }
    V::load_even(V::zero(), 0, left, from + 2 * whole).store(tail, to + whole);
  }
}

// to[i] = from[i * step]
template <class T>
void copy_strided(std::int64_t count, const T* from, std::int64_t step, T* to) {
  using V = Vec<T>;
  std::int64_t i = 0;
  if (step == 1) {
    for (; i + V::lanes <= count; i += V::lanes) V::load(from + i).store(to + i);
    const auto tail = V::mask_range(0, static_cast<int>(count - i));
    V::load_or_zero(tail, from + i).store(tail, to + i);
    return;
  }
  if (step == 2) return halve_rows(1, count, from, 0, 0, to);
  if (step == 4) {
    for (; i + V::lanes < count; i += V::lanes) {
      const T* const at = from + 4 * i;
      const V low = V::even(V::load(at), V::load(at + V::lanes));
      const V high = V::even(V::load(at + 2 * V::lanes), V::load(at + 3 * V::lanes));
      V::even(low, high).store(to + i);
    }
    const int left = static_cast<int>(count - i);
    load_every_fourth(V::zero(), 0, left, from + 4 * i).store(V::mask_range(0, left), to + i);
    return;
  }
  if (step < (1 << 26) && step > -(1 << 26)) {  // a gather's index has 32 bits
    const auto all = V::mask_range(0, V::lanes);
    for (; i + V::lanes <= count; i += V::lanes) {
      V::gather(V::zero(), all, from + i * step, static_cast<std::int32_t>(step)).store(to + i);
    }
  }
  for (; i < count; ++i) to[i] = from[i * step];
}

}  // namespace pyconv::PYCONV_ISA
