#include "algorithms/pixel_spans.hpp"

#include <algorithm>

#include "core/padding.hpp"

namespace pyconv {

void SpanSource::list(const PixelRun* runs, std::int64_t run_count, std::int64_t tap_index,
                      PixelSpan* spans, std::int32_t* ends) const {
  const TapRange& tap = width.taps[tap_index];
  const bool wide = has_wide_step();
  const std::int64_t between = wide ? 1 : step();
  std::int32_t count = 0;
  std::int64_t lane = 0;  // of the vector under way
  for (std::int64_t r = 0; r < run_count; ++r) {
    const PixelRun& run = runs[r];
    std::int64_t output = run.position[2];
    const std::int64_t run_end = output + run.count;
    while (output < run_end) {
      const std::int64_t end = std::min(run_end, output + lanes - lane);
      const auto add = [&](std::int64_t first, std::int64_t last, std::int64_t column) {
        const std::int64_t begin_lane = lane + first - output;
        spans[count++] = {column * pixel_stride - begin_lane * between,
                          static_cast<std::int32_t>(r), static_cast<std::int16_t>(begin_lane),
                          static_cast<std::int16_t>(lane + last - output)};
      };
      const auto add_one_by_one = [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t o = first; o < last; ++o) {
          const std::int64_t column =
              padded_index(o * width.stride + tap.shift, width.in, padding_mode);
          if (column >= 0) add(o, o + 1, column);
        }
      };
      const std::int64_t first = wide ? end : std::clamp(tap.first, output, end);
      const std::int64_t last = std::clamp(tap.last, first, end);
      add_one_by_one(output, first);
      if (first < last) add(first, last, first * width.stride + tap.shift);
      add_one_by_one(last, end);
      lane += end - output;
      output = end;
      if (lane == lanes) {
        *ends++ = count;
        lane = 0;
      }
    }
  }
  if (lane > 0) *ends = count;
}

}  // namespace pyconv
