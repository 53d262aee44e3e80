// The tasks that a call is cut into: one for every combination of a part of each of its dimensions.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace pyconv {

struct Dimension {
  const char* parts;  // what they are, in the plural
  std::int64_t count;
};

template <std::size_t kDimensions>
class Partition {
 public:
  explicit Partition(const Dimension (&dimensions)[kDimensions]) {
    for (std::size_t i = 0; i < kDimensions; ++i) {
      dimensions_[i] = dimensions[i];
      tasks_ *= dimensions[i].count;
    }
  }

  std::int64_t tasks() const { return tasks_; }

  // Which part of each dimension a task is; the last dimension changes from task to task.
  std::array<std::int64_t, kDimensions> at(std::int64_t task) const {
    std::array<std::int64_t, kDimensions> parts;
    for (std::size_t i = kDimensions; i-- > 0; task /= dimensions_[i].count) {
      parts[i] = task % dimensions_[i].count;
    }
    return parts;
  }

  // Such as "56 tasks: 2 groups x 28 blocks of rows".
  std::string text() const {
    std::string factors;
    for (const Dimension& dimension : dimensions_) {
      if (dimension.count == 1) continue;
      factors += (factors.empty() ? ": " : " x ") + std::to_string(dimension.count) + " " +
                 dimension.parts;
    }
    return std::to_string(tasks_) + (tasks_ == 1 ? " task" : " tasks") + factors;
  }

 private:
  std::array<Dimension, kDimensions> dimensions_;
  std::int64_t tasks_ = 1;
};

}  // namespace pyconv
