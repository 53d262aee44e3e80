// Where the lanes of a block of pixels read their input row, tap by tap: found once per block, used
// for every channel and every row tap.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.hpp"

namespace pyconv {

struct SpanSource {
  AxisTaps width;
  PaddingMode padding_mode;
  std::int64_t pixel_stride;  // elements between input columns
  std::int64_t lanes;

  // Elements between lanes; 1 where every lane is a span of its own, because a gather's 32-bit
  // index would not hold the step.
  std::int32_t lane_step() const { return has_wide_step() ? 1 : static_cast<std::int32_t>(step()); }

  // Lists the spans of `run_count` runs under one tap, vector by vector; ends[v] is where those of
  // vector v end. There are at most as many spans as pixels.
  void list(const PixelRun* runs, std::int64_t run_count, std::int64_t tap, PixelSpan* spans,
            std::int32_t* ends) const;

 private:
  std::int64_t step() const { return width.stride * pixel_stride; }
  bool has_wide_step() const {
    const std::int64_t limit = (std::int64_t(1) << 31) / 64;
    return step() > limit || step() < -limit;
  }
};

}  // namespace pyconv
