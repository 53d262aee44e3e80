// Depthwise convolution where the lanes are channels. See DepthwiseChannelsArgs for the contract.
#pragma once

#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

// A row of weights stays in registers while it meets the rows of input pixels of all output rows:
// (kSize + 2 * 10) loads per 56 multiply-adds of a 7x7 kernel. Sharing input rows among output rows
// instead takes a weight from memory for each multiply-add, which is 1.3 times slower.
template <class T, int kRows, int kSize, int kStep, class Load>
static inline void channel_sums(const DepthwiseChannelsArgs<T>& args, const T* weights,
                                const Load& load, Vec<T> (&sum)[kRows][kDepthwiseColumns]) {
  using V = Vec<T>;
  // On 16 registers a weight is the memory operand of its multiply-adds.
  constexpr bool kWeightsStay = kRows * kDepthwiseColumns + kSize + 4 <= PYCONV_VECTOR_REGISTERS;
  constexpr int kHeight = (kRows - 1) * kStep + kSize;
  constexpr int kWidth = (kDepthwiseColumns - 1) * kStep + kSize;
  const T* const* pixels = args.pixels;
  for (std::int64_t d = 0; d < args.kernel[0]; ++d) {
#pragma GCC unroll 8
    for (int h = 0; h < kSize; ++h) {
      V weight[kSize];
#pragma GCC unroll 8
      for (int w = 0; w < kSize; ++w) {
        weight[w] = V::load(weights + (h * kSize + w) * V::lanes);
        if constexpr (kWeightsStay) asm("" : "+v"(weight[w].v));
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const T* const* row = pixels + (r * kStep + h) * kWidth;
#pragma GCC unroll 16
        for (int k = 0; k < kWidth; ++k) {
          V v = load(row[k]);
          // Or GCC would load it again for every use.
          asm("" : "+v"(v.v));
#pragma GCC unroll 8
          for (int p = 0; p < kDepthwiseColumns; ++p) {
            const int w = k - p * kStep;
            if (w >= 0 && w < kSize) sum[r][p] = V::fma(v, weight[w], sum[r][p]);
          }
        }
      }
    }
    pixels += kHeight * kWidth;
    weights += kSize * kSize * V::lanes;
  }
}

// The same for a kernel of any size.
template <class T, int kRows, class Load>
static inline void channel_any_sums(const DepthwiseChannelsArgs<T>& args, const T* weights,
                                    const Load& load, Vec<T> (&sum)[kRows][kDepthwiseColumns]) {
  using V = Vec<T>;
  const std::int64_t width = (kDepthwiseColumns - 1) * args.column_step + args.kernel[2];
  const std::int64_t height = (kRows - 1) * args.row_step + args.kernel[1];
  const T* const* pixels = args.pixels;
  for (std::int64_t d = 0; d < args.kernel[0]; ++d) {
    for (std::int64_t h = 0; h < args.kernel[1]; ++h) {
      for (std::int64_t w = 0; w < args.kernel[2]; ++w) {
        const V weight = V::load(weights);
        weights += V::lanes;
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const T* const* row = pixels + (r * args.row_step + h) * width + w;
#pragma GCC unroll 8
          for (int p = 0; p < kDepthwiseColumns; ++p) {
            sum[r][p] = V::fma(weight, load(row[p * args.column_step]), sum[r][p]);
          }
        }
      }
    }
    pixels += height * width;
  }
}

enum class ChannelLanes : std::uint8_t { whole, masked, spread };

template <class T, int kRows, int kSize, int kStep, ChannelLanes kLanes>
static inline void channel_tile(const DepthwiseChannelsArgs<T>& args, std::int64_t tile,
                                std::int64_t channel, const T* weights) {
  using V = Vec<T>;
  constexpr bool kMasked = kLanes != ChannelLanes::whole;
  constexpr bool kSpread = kLanes == ChannelLanes::spread;
  const auto first_lanes = [](std::int64_t count) {
    return V::mask_range(0, count < V::lanes ? static_cast<int>(count) : V::lanes);
  };
  const auto mask = first_lanes(kMasked ? args.channels - channel : V::lanes);
  V sum[kRows][kDepthwiseColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < kDepthwiseColumns; ++p) sum[r][p] = V::zero();
  }
  const std::int64_t in_channel = kSpread ? args.in_begins[channel / V::lanes] : channel;
  const std::int64_t offset = tile * args.tile_step + in_channel;
  const auto readable = kSpread ? first_lanes(args.in_channels - in_channel) : mask;
  typename V::Index index = {};
  if constexpr (kSpread) index = V::load_index(args.spread + channel);
  const auto pixels = [&](const T* pixel) {
    const T* const from = pixel + offset;
    const V v = kMasked ? V::load_or_zero(readable, from) : V::load(from);
    return kSpread ? V::permute(v, index) : v;
  };
  if constexpr (kSize == 0) {
    channel_any_sums<T, kRows>(args, weights, pixels, sum);
  } else {
    channel_sums<T, kRows, kSize, kStep>(args, weights, pixels, sum);
  }
  const auto load = [&](const T* from) {
    return kMasked ? V::load_or_zero(mask, from) : V::load(from);
  };
  const ChannelsEnd<T>& end = args.end;
  const V bias = end.bias ? load(end.bias + channel) : V::broadcast(-T(0));
  const V low = V::broadcast(end.low);
  const V high = V::broadcast(end.high);
  const std::int64_t column = tile * kDepthwiseColumns;
  const T* residual = end.residual;
  if (residual) residual += column * end.residual_column + channel;
  T* out = end.out + column * end.out_column + channel;
  const std::int64_t rows = args.rows;
  const std::int64_t columns = args.columns;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    if (r >= rows) break;
#pragma GCC unroll 8
    for (int p = 0; p < kDepthwiseColumns; ++p) {
      if (p >= columns) break;
      V v = sum[r][p] + bias;
      if (residual) v = v + load(residual + r * end.residual_row + p * end.residual_column);
      v = V::min(high, V::max(low, v));
      T* to = out + r * end.out_row + p * end.out_column;
      if constexpr (kMasked) {
        v.store(mask, to);
      } else {
        v.store(to);
      }
    }
  }
}

template <class T, int kRows, int kSize, int kStep>
void depthwise_channels(const DepthwiseChannelsArgs<T>& args) {
  constexpr std::int64_t lanes = Vec<T>::lanes;
  const std::int64_t pitch = args.kernel[0] * args.kernel[1] * args.kernel[2] * lanes;
  const std::int64_t whole = args.spread ? 0 : args.channels / lanes * lanes;
  for (std::int64_t tile = 0; tile < args.tiles; ++tile) {
    const T* weights = args.weights;
    std::int64_t channel = 0;
    for (; channel < whole; channel += lanes, weights += pitch) {
      channel_tile<T, kRows, kSize, kStep, ChannelLanes::whole>(args, tile, channel, weights);
    }
    if (args.spread) {
      for (; channel < args.channels; channel += lanes, weights += pitch) {
        channel_tile<T, kRows, kSize, kStep, ChannelLanes::spread>(args, tile, channel, weights);
      }
    } else if (channel < args.channels) {
      channel_tile<T, kRows, kSize, kStep, ChannelLanes::masked>(args, tile, channel, weights);
    }
  }
}

template <class T, int kRows = kMaxDepthwiseChannelRows, int kIndex = 0>
constexpr void fill_depthwise_channels(KernelTable<T>& table) {
  // One lane at a time, knowing the shape is not worth a megabyte of code.
  constexpr DepthwiseShape kShape = kDepthwiseShapes[Vec<T>::lanes > 1 ? kIndex : 0];
  table.depthwise_channels[kIndex][kRows - 1] =
      depthwise_channels<T, kRows, kShape.size, kShape.step>;
  if constexpr (kIndex + 1 < kDepthwiseShapeCount) {
    fill_depthwise_channels<T, kRows, kIndex + 1>(table);
  } else if constexpr (kRows > 1) {
    fill_depthwise_channels<T, kRows - 1>(table);
  }
}

}  // namespace pyconv::PYCONV_ISA
