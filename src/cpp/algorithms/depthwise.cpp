#include "algorithms/depthwise.hpp"

#include <algorithm>

namespace pyconv {
namespace {

// Scratch per thread must stay well below the second-level cache's size.
constexpr std::int64_t kLargestRows = 1 << 17;  // elements under one row of taps

}  // namespace

int depthwise_threads(const ConvProblem& problem, int limit) {
  const std::int64_t inputs =
      problem.in_channels * problem.axes[0].in * problem.axes[1].in * problem.axes[2].in;
  const std::int64_t outputs = problem.out_channels * problem.out_pixels();
  const std::int64_t element = problem.dtype == DataType::float64 ? 8 : 4;
  const std::int64_t bytes = problem.batch * (inputs + outputs) * element;
  const std::int64_t worth = 1 + std::max(problem.macs() >> 20, bytes >> 19);
  return static_cast<int>(std::min<std::int64_t>(limit, worth));
}

std::string refuses_depthwise(const ConvProblem& problem) {
  for (const Group& group : problem.groups) {
    if (group.in_channels != 1) return "groups must have one input channel each";
  }
  const auto& axes = problem.axes;
  const std::int64_t rows = axes[0].kernel * ((axes[1].kernel - 1) * axes[1].dilation + 1);
  const std::int64_t columns = std::min<std::int64_t>(axes[2].out, 1024) * axes[2].stride +
                               (axes[2].kernel - 1) * axes[2].dilation;
  if (rows > kLargestRows || columns > kLargestRows || rows * columns > kLargestRows) {
    return "the rows under one window must fit the cache";
  }
  return {};
}

std::unique_ptr<Plan> plan_depthwise(ConvProblem problem) {
  return plan_depthwise_pixels(std::move(problem));
}

}  // namespace pyconv
