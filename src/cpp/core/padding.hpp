#pragma once

#include <cstdint>

#include "core/types.hpp"

namespace pyconv {

// Index of the input element that stands at `position` of an axis that padding extends on both
// sides, or a negative number where zero padding stands. Padding never reaches further than one
// period (circular: length; reflect: length - 1); after it on the right, which no tap needs but
// copies in phases of a stride may ask for, there is no element either. `static`: kernels include
// this file, see types.hpp.
static inline std::int64_t padded_index(std::int64_t position, std::int64_t length,
                                        PaddingMode mode) {
  if (position >= 0 && position < length) return position;
  switch (mode) {
    case PaddingMode::reflect:
      return position < 0 ? -position : 2 * (length - 1) - position;
    case PaddingMode::replicate:
      return position < 0 ? 0 : length - 1;
    case PaddingMode::circular:
      if (position < 0) return position + length;
      return position < 2 * length ? position - length : -1;
    case PaddingMode::zeros:
      break;
  }
  return -1;
}

}  // namespace pyconv
