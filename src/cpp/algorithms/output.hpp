// On the way to the output: strides of pixels, activations that kernels apply in registers, and the
// epilogue for everything else.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include "algorithms/algorithm.hpp"
#include "kernels/kernel_table.hpp"

namespace pyconv {

// An activation that is min(high, max(low, x)), which kernels apply to sums in registers.
struct Clamp {
  double low;
  double high;
};

inline std::optional<Clamp> clamp_of(const Activation& activation) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  switch (activation.kind) {
    case ActivationKind::none:
      return Clamp{-infinity, infinity};
    case ActivationKind::relu:
      return Clamp{0, infinity};
    case ActivationKind::clip:
      return Clamp{activation.low, activation.high};
    default:
      return std::nullopt;
  }
}

// The stride from each output pixel to the next in row-major order, if there is one.
inline std::optional<std::int64_t> pixel_stride(const ConvProblem& problem,
                                                const Strides& strides) {
  std::optional<std::int64_t> stride;
  std::int64_t pixels = 1;
  for (int axis = kSpatialAxes - 1; axis >= 0; --axis) {
    const std::int64_t length = problem.axes[static_cast<std::size_t>(axis)].out;
    if (length == 1) continue;  // its stride means nothing
    if (!stride) {
      stride = strides.axis[axis];
    } else if (strides.axis[axis] != *stride * pixels) {
      return std::nullopt;
    }
    pixels *= length;
  }
  return stride.value_or(1);
}

// Whether kernels whose lanes are channels can write the output themselves.
inline bool channels_end_in_output(const ConvProblem& problem, const ConvArrays& arrays) {
  return clamp_of(problem.activation) && arrays.out_strides.channel == 1 &&
         (!arrays.residual || arrays.residual_strides.channel == 1);
}

// The same for pixels as lanes.
inline bool pixels_end_in_output(const ConvProblem& problem, const ConvArrays& arrays) {
  return clamp_of(problem.activation) && pixel_stride(problem, arrays.out_strides) == 1 &&
         (!arrays.residual || pixel_stride(problem, arrays.residual_strides) == 1);
}

// Sums as they are.
template <class T>
ChannelsEnd<T> scratch_end(T* to, std::int64_t row, std::int64_t column) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  return {nullptr, -infinity, infinity, nullptr, 0, 0, to, row, column};
}

// The output from one pixel and channel on; without bounds if the activation is no clamp.
template <class T>
ChannelsEnd<T> output_end(const ConvProblem& problem, const ConvArrays& arrays, std::int64_t image,
                          std::int64_t channel, std::int64_t depth, std::int64_t row,
                          std::int64_t column) {
  const auto offset = [&](const Strides& strides) {
    return image * strides.batch + channel * strides.channel + depth * strides.axis[0] +
           row * strides.axis[1] + column * strides.axis[2];
  };
  const Strides& out = arrays.out_strides;
  ChannelsEnd<T> end =
      scratch_end(static_cast<T*>(arrays.out) + offset(out), out.axis[1], out.axis[2]);
  if (const auto clamp = clamp_of(problem.activation)) {
    end.low = static_cast<T>(clamp->low);
    end.high = static_cast<T>(clamp->high);
  }
  if (arrays.bias) end.bias = static_cast<const T*>(arrays.bias) + channel;
  if (arrays.residual) {
    const Strides& residual = arrays.residual_strides;
    end.residual = static_cast<const T*>(arrays.residual) + offset(residual);
    end.residual_row = residual.axis[1];
    end.residual_column = residual.axis[2];
  }
  return end;
}

// The end of tiles of `channels` output channels from `channel` on, as lanes, before any pixel's
// place is known: strides are those from one pixel to the next.
template <class T>
TileEnd<T> panel_end(const ConvProblem& problem, const ConvArrays& arrays,
                     const KernelTable<T>& table, std::int64_t channel, std::int64_t channels,
                     std::int64_t out_stride, std::int64_t residual_stride) {
  const Clamp clamp = *clamp_of(problem.activation);
  TileEnd<T> end{};
  if (arrays.bias) end.bias = static_cast<const T*>(arrays.bias) + channel;
  end.bias_per_column = true;
  end.residual_stride = residual_stride;
  end.out_stride = out_stride;
  end.tail = (channels - 1) % table.lanes + 1;
  end.low = static_cast<T>(clamp.low);
  end.high = static_cast<T>(clamp.high);
  return end;
}

// What the ends of all tiles whose lanes are pixels share.
template <class T>
TileEnd<T> pixels_end(const ConvProblem& problem, const ConvArrays& arrays) {
  const Clamp clamp = *clamp_of(problem.activation);
  TileEnd<T> end{};
  end.residual_stride = arrays.residual_strides.channel;
  end.out_stride = arrays.out_strides.channel;
  end.low = static_cast<T>(clamp.low);
  end.high = static_cast<T>(clamp.high);
  return end;
}

// The strides of the input of a 1x1 kernel from each output pixel to the next.
inline Strides output_steps(const ConvProblem& problem, Strides strides) {
  for (std::size_t axis = 0; axis < kSpatialAxes; ++axis) {
    const Axis& along = problem.axes[axis];
    if (along.out > 1) strides.axis[axis] *= along.stride;
  }
  return strides;
}

// Finished sums of pixels [begin, end), in row-major order, of `channels` output channels from
// `channel`: rows of pixels if lanes are channels, else rows of channels.
template <class T>
struct SumsBlock {
  const T* sums;
  std::int64_t stride;
  bool lanes_are_channels;
  std::int64_t image;
  std::int64_t channel;
  std::int64_t channels;
  std::int64_t begin;
  std::int64_t end;
};

// Sends sums through the epilogue to the output, run by run, or at once where the output's pixels
// have one stride.
template <class T>
void send_sums(const ConvProblem& problem, const KernelTable<T>& table, const ConvArrays& arrays,
               const SumsBlock<T>& block) {
  const std::int64_t height = problem.axes[1].out;
  const std::int64_t width = problem.axes[2].out;
  const auto out_stride = pixel_stride(problem, arrays.out_strides);
  const auto residual_stride = pixel_stride(problem, arrays.residual_strides);
  const bool flat = out_stride && (!arrays.residual || residual_stride);
  const std::int64_t out_step = flat ? *out_stride : arrays.out_strides.axis[2];
  const std::int64_t residual_step =
      flat && residual_stride ? *residual_stride : arrays.residual_strides.axis[2];
  EpilogueArgs<T> args{};
  args.acc_row = block.stride;
  args.bias = arrays.bias ? static_cast<const T*>(arrays.bias) + block.channel : nullptr;
  args.activation = problem.activation;
  if (block.lanes_are_channels) {
    args.columns = block.channels;
    args.bias_column = 1;
    args.out_row = out_step;
    args.out_column = arrays.out_strides.channel;
    args.residual_row = residual_step;
    args.residual_column = arrays.residual_strides.channel;
  } else {
    args.rows = block.channels;
    args.bias_row = 1;
    args.out_row = arrays.out_strides.channel;
    args.out_column = out_step;
    args.residual_row = arrays.residual_strides.channel;
    args.residual_column = residual_step;
  }
  std::int64_t pixel = block.begin;
  while (pixel < block.end) {
    const std::int64_t row = pixel / width;
    const std::int64_t left = block.end - pixel;
    const std::int64_t count = flat ? left : std::min(width - pixel % width, left);
    const auto offset = [&](const Strides& strides) {
      return block.image * strides.batch + block.channel * strides.channel +
             row / height * strides.axis[0] + row % height * strides.axis[1] +
             pixel % width * strides.axis[2];
    };
    const std::int64_t done = pixel - block.begin;
    args.out = static_cast<T*>(arrays.out) + offset(arrays.out_strides);
    if (arrays.residual) {
      args.residual = static_cast<const T*>(arrays.residual) + offset(arrays.residual_strides);
    }
    if (block.lanes_are_channels) {
      args.rows = count;
      args.acc = block.sums + done * block.stride;
    } else {
      args.columns = count;
      args.acc = block.sums + done;
    }
    table.epilogue(args);
    pixel += count;
  }
}

// Sends the sums of `rows` output rows, `spacing` apart and `pitch` from one to the next in the
// sums, of which `block` is the first: at once where they follow each other.
template <class T>
void send_rows(const ConvProblem& problem, const KernelTable<T>& table, const ConvArrays& arrays,
               SumsBlock<T> block, std::int64_t rows, std::int64_t pitch, std::int64_t spacing) {
  const std::int64_t width = problem.axes[2].out;
  const std::int64_t columns = block.end - block.begin;
  const std::int64_t row_sums = columns * (block.lanes_are_channels ? block.stride : 1);
  if (columns == width && spacing == 1 && pitch == row_sums) {
    block.end = block.begin + rows * width;
    rows = 1;
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    send_sums(problem, table, arrays, block);
    block.sums += pitch;
    block.begin += spacing * width;
    block.end += spacing * width;
  }
}

}  // namespace pyconv
