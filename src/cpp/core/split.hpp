// Cuts [0, total) into parts that differ by at most one.
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

  // Parts no larger than `limit`, the larger ones first.
  static Split by_limit(std::int64_t total, std::int64_t limit) {
    return {total, ceil_div(total, limit), false};
  }
  // The larger parts are spread among the others: threads that take ranges of parts get as much.
  // They follow smaller ones, since the last tiles or panels of what is cut are the smaller ones.
  static Split by_count(std::int64_t total, std::int64_t count) { return {total, count, true}; }
  // Parts no larger than `limit`, of which, where they are many, there is an even number: two
  // threads have as much to do.
  static Split by_limit_even(std::int64_t total, std::int64_t limit) {
    constexpr std::int64_t kMany = 7;
    const std::int64_t count = ceil_div(total, limit);
    return by_count(total, count < kMany ? count : round_up(count, 2));
  }

  std::int64_t count() const { return count_; }
  std::int64_t begin(std::int64_t part) const {
    const std::int64_t larger =
        spread_ && extra_ > 0 ? part * extra_ / count_ : std::min(part, extra_);
    return part * base_ + larger;
  }
  std::int64_t end(std::int64_t part) const { return begin(part + 1); }
  std::int64_t size(std::int64_t part) const { return end(part) - begin(part); }
  // Parts from `part` on that are as large, of a split by limit.
  std::int64_t alike(std::int64_t part) const { return (part < extra_ ? extra_ : count_) - part; }
  std::int64_t largest() const { return base_ + (extra_ > 0 ? 1 : 0); }

 private:
  Split(std::int64_t total, std::int64_t count, bool spread) : count_(count), spread_(spread) {
    if (count == 0) return;
    base_ = total / count;
    extra_ = total % count;
  }

  std::int64_t count_ = 0;
  std::int64_t base_ = 0;
  std::int64_t extra_ = 0;
  bool spread_ = false;
};

}  // namespace pyconv
