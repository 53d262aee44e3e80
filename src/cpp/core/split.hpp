// Cuts [0, total) into parts that differ by at most one, none larger than `limit`.
#pragma once

#include <algorithm>
#include <cstdint>

namespace pyconv {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return ceil_div(n, multiple) * multiple;
}

class Split {
 public:
  Split() = default;

  static Split by_limit(std::int64_t total, std::int64_t limit) {
    return by_count(total, ceil_div(total, limit));
  }
  static Split by_count(std::int64_t total, std::int64_t count) {
    Split split;
    split.count_ = count;
    if (count > 0) {
      split.base_ = total / count;
      split.extra_ = total % count;
    }
    return split;
  }

  std::int64_t count() const { return count_; }
  std::int64_t begin(std::int64_t part) const { return part * base_ + std::min(part, extra_); }
  std::int64_t end(std::int64_t part) const { return begin(part + 1); }
  std::int64_t size(std::int64_t part) const { return base_ + (part < extra_ ? 1 : 0); }
  // Parts from `part` on that are as large.
  std::int64_t alike(std::int64_t part) const { return (part < extra_ ? extra_ : count_) - part; }
  std::int64_t largest() const { return base_ + (extra_ > 0 ? 1 : 0); }

 private:
  std::int64_t count_ = 0;
  std::int64_t base_ = 0;
  std::int64_t extra_ = 0;
};

}  // namespace pyconv
