// What the parts of "pointwise" share, and those that stand in files of their own.
#pragma once

#include <algorithm>
#include <cstdint>

#include "algorithms/algorithm.hpp"
#include "kernels/kernel_table.hpp"

namespace pyconv {

// Where lanes are output channels.
std::unique_ptr<Plan> plan_pointwise_channels(ConvProblem problem);

// Where lanes are pixels, which are copied first.
std::unique_ptr<Plan> plan_pointwise_panels(ConvProblem problem);

// The input pixels under outputs [begin, end) of a channel, whose first pixel is `plane`, next to
// each other.
template <class T>
void copy_pixels(const ConvProblem& problem, const KernelTable<T>& table, const Strides& strides,
                 const T* plane, std::int64_t begin, std::int64_t end, T* to) {
  const auto& [depth, height, width] = problem.axes;
  PadPhase phase{};
  PadPlaneArgs<T> rows{};
  rows.phases = &phase;
  rows.phase_count = 1;
  rows.row_in = height.in;
  rows.row_stride = strides.axis[1];
  rows.row_step = height.stride;
  rows.column_in = width.in;
  rows.column_stride = strides.axis[2];
  rows.column_step = width.out > 1 ? width.stride : 1;
  rows.ahead = kRowsAhead * strides.channel;
  rows.to = to;
  for (std::int64_t pixel = begin; pixel < end;) {
    const std::int64_t row = pixel / width.out % height.out;
    const std::int64_t column = pixel % width.out;
    rows.plane = plane + pixel / width.out / height.out * depth.stride * strides.axis[0];
    rows.row_start = row * height.stride;
    phase.column = column * width.stride;
    rows.count = phase.last = std::min(width.out - column, end - pixel);
    rows.rows = std::clamp<std::int64_t>((end - pixel) / width.out, 1, height.out - row);
    if (column > 0) rows.rows = 1;
    table.pad_plane(rows);
    rows.to += rows.rows * rows.count;
    pixel += rows.rows * rows.count;
  }
}

}  // namespace pyconv
