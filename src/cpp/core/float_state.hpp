// The floating-point state in which every number of a result is computed.
#pragma once

#include <xmmintrin.h>

namespace pyconv {

// For the life of this object the thread rounds to nearest, traps nothing, and takes denormal
// numbers (below 1.2e-38 in float32, 2.2e-308 in float64) for zeros of their sign, as operands and
// as results: one costs some 150 cycles, so that a window of them takes a hundred times longer.
// Then the caller's state holds again, down to the exception flags. Some ten nanoseconds.
//
// On a CPU without FMA denormals stay, because the C library's emulation in float64 is wrong
// without them: by 1e-9 for factors below 1e-291. Results that meet none have the same bits there.
class FloatState {
 public:
  FloatState() : FloatState(of_results()) {}
  explicit FloatState(unsigned state) : callers_(current()) { _mm_setcsr(state); }
  ~FloatState() { _mm_setcsr(callers_); }
  FloatState(const FloatState&) = delete;
  FloatState& operator=(const FloatState&) = delete;

  static unsigned current() { return _mm_getcsr(); }

 private:
  static unsigned of_results() {
    constexpr unsigned kNearestWithoutTraps = 0x1f80;
    constexpr unsigned kDenormalsAreZero = 0x8040;  // results (FTZ) and operands (DAZ)
    static const bool has_fma = __builtin_cpu_supports("fma");
    return has_fma ? kNearestWithoutTraps | kDenormalsAreZero : kNearestWithoutTraps;
  }

  const unsigned callers_;
};

}  // namespace pyconv
