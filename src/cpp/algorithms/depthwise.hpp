// What the two ways of computing depthwise layers share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "algorithms/algorithm.hpp"
#include "algorithms/common.hpp"
#include "core/split.hpp"
#include "kernels/kernel_table.hpp"

namespace pyconv {

// Output columns of a block where lanes are pixels. Long single rows are cut less often: 4 KiB of
// each channel at a time are no stream that the hardware would read ahead of, and took up to five
// times as long. Where rows are copied, as many as the stride has phases share an L1 cache.
inline std::int64_t depthwise_block_columns(const ConvProblem& problem) {
  const auto& [depth, height, width] = problem.axes;
  const bool one_row = depth.kernel == 1 && height.kernel == 1 && height.out == 1;
  return one_row ? 8192 / std::min<std::int64_t>({width.kernel, width.stride, 8}) : 1024;
}

// Outputs of one axis that share inputs. Output o under tap t reads o * stride + t * dilation, so
// outputs `spacing` apart read from one sequence of inputs `dilation` apart, each `step` further on
// in it than the one before.
struct TileAxis {
  std::int64_t spacing = 1;
  std::int64_t step = 1;

  TileAxis() = default;
  explicit TileAxis(const Axis& axis) {
    const std::int64_t dilation = axis.kernel > 1 ? axis.dilation : 1;
    const std::int64_t common = std::gcd(axis.stride, dilation);
    spacing = dilation / common;
    step = axis.stride / common;
  }
};

// Of kDepthwiseShapes, the one that knows a kernel, or the first, which serves any.
inline int depthwise_shape(const ConvProblem& problem, std::int64_t row_step,
                           std::int64_t column_step) {
  const std::int64_t size = problem.axes[2].kernel;
  if (problem.axes[1].kernel != size || row_step != column_step) return 0;
  for (int i = 1; i < kDepthwiseShapeCount; ++i) {
    if (kDepthwiseShapes[i].size == size && kDepthwiseShapes[i].step == row_step) return i;
  }
  return 0;
}

// Whether every output reads a single plane of its channel.
inline bool is_one_plane(const ConvProblem& problem) {
  const Axis& depth = problem.axes[0];
  return depth.kernel == 1 && met_share(depth, problem.padding_mode) == 1;
}

template <class T>
DepthwiseEnd<T> no_epilogue() {
  DepthwiseEnd<T> end{};
  end.bias = -T(0);
  end.low = -std::numeric_limits<T>::infinity();
  end.high = std::numeric_limits<T>::infinity();
  return end;
}

// Few multiply-accumulates move many bytes: a thread is worth kMacsPerThread of the former or 2^18
// of the latter.
int depthwise_threads(const ConvProblem& problem, int limit);

// Lanes are pixels of a row: serves every depthwise problem and all arrays.
std::unique_ptr<RowsPlan> plan_depthwise_pixels(ConvProblem problem);
// Lanes are channels: of every group one output at least; the channels of the input and of the
// output must be next to each other.
std::unique_ptr<RowsPlan> plan_depthwise_channels(ConvProblem problem);

}  // namespace pyconv
