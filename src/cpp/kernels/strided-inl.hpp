#pragma once

#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

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
  if (step == 2) {
    // The last element that a pair of vectors reads is one past the last that is wanted.
    for (; i + V::lanes < count; i += V::lanes) {
      V::even(V::load(from + 2 * i), V::load(from + 2 * i + V::lanes)).store(to + i);
    }
    const int left = static_cast<int>(count - i);
    V::load_even(V::zero(), 0, left, from + 2 * i).store(V::mask_range(0, left), to + i);
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
