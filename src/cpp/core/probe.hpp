#pragma once

#include "core/types.hpp"

namespace pyconv {

// Multiply-adds from registers alone on the calling thread, in GFLOP/s (a fused multiply-add counts
// two): the bound against which kernels are read. Runs for about `seconds`.
double fma_peak(DataType dtype, double seconds);

}  // namespace pyconv
