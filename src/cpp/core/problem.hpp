// What a convolution is: shapes, padding, groups and epilogue. Every number arrives validated (see
// src/pyconv/_validation.py): all extents, and all products that this file forms, fit in 63 bits.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/types.hpp"

namespace pyconv {

// One spatial axis. Problems of lower rank have leading axes of length 1, kernel 1.
struct Range {
  std::int64_t begin;
  std::int64_t end;

  std::int64_t size() const { return end - begin; }
};

struct Axis {
  std::int64_t in = 1;
  std::int64_t out = 1;
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t dilation = 1;
  std::int64_t pad_before = 0;

  // From the first to the last input under so many outputs that follow each other, with padding.
  std::int64_t span(std::int64_t outs) const {
    return (outs - 1) * stride + (kernel - 1) * dilation + 1;
  }
  // The inputs under outputs [begin, end), of which there is at least one, without padding.
  Range inputs_under(std::int64_t begin, std::int64_t end) const {
    const std::int64_t first = begin * stride - pad_before;
    const auto inside = [this](std::int64_t i) { return std::clamp<std::int64_t>(i, 0, in); };
    return {inside(first), inside(first + span(end - begin))};
  }
};

inline std::int64_t element_bytes(DataType dtype) { return dtype == DataType::float64 ? 8 : 4; }

// Channels [in_begin, in_begin + in_channels) produce [out_begin, out_begin + out_channels).
struct Group {
  std::int64_t in_begin;
  std::int64_t in_channels;
  std::int64_t out_begin;
  std::int64_t out_channels;
};

struct ConvProblem {
  DataType dtype = DataType::float32;
  bool channels_last = false;
  int spatial_rank = 2;  // axes that the arrays have; `axes` always holds three
  std::int64_t batch = 1;
  std::int64_t in_channels = 1;
  std::int64_t out_channels = 1;
  std::array<Axis, kSpatialAxes> axes;  // depth, height, width; see prefer_height
  // The axes of the arrays, of which the leading ones may be absent, in the order of `axes`, which
  // is that of strides, too.
  std::array<int, kSpatialAxes> array_axes = {0, 1, 2};
  PaddingMode padding_mode = PaddingMode::zeros;
  std::vector<Group> groups;
  Activation activation;

  // Exchanges depth and height where that leaves taps in the height alone, on which more algorithms
  // work than on the depth. The accumulation order stays.
  void prefer_height() {
    if (axes[0].kernel == 1 || axes[1].kernel > 1) return;
    std::swap(axes[0], axes[1]);
    std::swap(array_axes[0], array_axes[1]);
  }

  std::int64_t taps() const { return axes[0].kernel * axes[1].kernel * axes[2].kernel; }
  std::int64_t out_pixels() const { return axes[0].out * axes[1].out * axes[2].out; }
  // The number of an output in row-major order.
  std::int64_t out_pixel(std::int64_t depth, std::int64_t row, std::int64_t column) const {
    return (depth * axes[1].out + row) * axes[2].out + column;
  }
  bool has_outputs() const { return batch > 0 && out_pixels() > 0 && out_channels > 0; }

  // Multiply-accumulates, padding counted as if it were data.
  std::int64_t macs() const {
    std::int64_t weights = 0;
    for (const Group& group : groups) weights += group.in_channels * group.out_channels;
    return batch * out_pixels() * taps() * weights;
  }
};

}  // namespace pyconv
