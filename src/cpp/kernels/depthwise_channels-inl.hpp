// Depthwise convolution where the lanes are channels. See DepthwiseChannelsArgs for the contract.
#pragma once

#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

// A row of weights stays in registers while it meets the rows of input pixels of all output rows:
// (kSize + 2 * 10) loads per 56 multiply-adds of a 7x7 kernel. Sharing input rows among output rows
// instead takes a weight from memory for each multiply-add, which is 1.3 times slower.
template <class T, int kRows, int kSize, int kStep, bool kMasked>
static inline void channel_sums(const DepthwiseChannelsArgs<T>& args, std::int64_t offset,
                                const T* weights, typename Vec<T>::Mask mask,
                                Vec<T> (&sum)[kRows][kDepthwiseColumns]) {
  using V = Vec<T>;
  // On 16 registers a weight is the memory operand of its multiply-adds.
  constexpr int kRegisters = sizeof(V) == 64 ? 32 : 16;
  constexpr bool kWeightsStay = kRows * kDepthwiseColumns + kSize + 4 <= kRegisters;
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
          const T* from = row[k] + offset;
          V v = kMasked ? V::load_or_zero(mask, from) : V::load(from);
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
template <class T, int kRows, bool kMasked>
static inline void channel_any_sums(const DepthwiseChannelsArgs<T>& args, std::int64_t offset,
                                    const T* weights, typename Vec<T>::Mask mask,
                                    Vec<T> (&sum)[kRows][kDepthwiseColumns]) {
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
            const T* from = row[p * args.column_step] + offset;
            const V v = kMasked ? V::load_or_zero(mask, from) : V::load(from);
            sum[r][p] = V::fma(weight, v, sum[r][p]);
          }
        }
      }
    }
    pixels += height * width;
  }
}

template <class T, int kRows, int kSize, int kStep, bool kMasked>
static inline void channel_tile(const DepthwiseChannelsArgs<T>& args, std::int64_t tile,
                                std::int64_t channel, const T* weights) {
  using V = Vec<T>;
  const auto mask =
      V::mask_range(0, kMasked ? static_cast<int>(args.channels - channel) : V::lanes);
  V sum[kRows][kDepthwiseColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < kDepthwiseColumns; ++p) sum[r][p] = V::zero();
  }
  const std::int64_t offset = tile * args.tile_step + channel;
  if constexpr (kSize == 0) {
    channel_any_sums<T, kRows, kMasked>(args, offset, weights, mask, sum);
  } else {
    channel_sums<T, kRows, kSize, kStep, kMasked>(args, offset, weights, mask, sum);
  }
  const auto load = [&](const T* from) {
    return kMasked ? V::load_or_zero(mask, from) : V::load(from);
  };
  const V bias = args.bias ? load(args.bias + channel) : V::broadcast(-T(0));
  const V low = V::broadcast(args.low);
  const V high = V::broadcast(args.high);
  const std::int64_t column = tile * kDepthwiseColumns;
  const T* residual = args.residual;
  if (residual) residual += column * args.residual_column + channel;
  T* out = args.out + column * args.out_column + channel;
  const std::int64_t rows = args.rows;
  const std::int64_t columns = args.columns;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    if (r >= rows) break;
#pragma GCC unroll 8
    for (int p = 0; p < kDepthwiseColumns; ++p) {
      if (p >= columns) break;
      V v = sum[r][p] + bias;
      if (residual) v = v + load(residual + r * args.residual_row + p * args.residual_column);
      v = V::min(high, V::max(low, v));
      T* to = out + r * args.out_row + p * args.out_column;
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
  for (std::int64_t tile = 0; tile < args.tiles; ++tile) {
    const T* weights = args.weights;
    std::int64_t channel = 0;
    for (; channel + lanes <= args.channels; channel += lanes, weights += pitch) {
      channel_tile<T, kRows, kSize, kStep, false>(args, tile, channel, weights);
    }
    if (channel < args.channels) {
      channel_tile<T, kRows, kSize, kStep, true>(args, tile, channel, weights);
    }
  }
}

template <class T, int kRows = kMaxDepthwiseChannelRows, int kIndex = 0>
constexpr void fill_depthwise_channels(KernelTable<T>& table) {
  constexpr DepthwiseShape kShape = kDepthwiseShapes[kIndex];
  table.depthwise_channels[kIndex][kRows - 1] =
      depthwise_channels<T, kRows, kShape.size, kShape.step>;
  if constexpr (kIndex + 1 < kDepthwiseShapeCount) {
    fill_depthwise_channels<T, kRows, kIndex + 1>(table);
  } else if constexpr (kRows > 1) {
    fill_depthwise_channels<T, kRows - 1>(table);
  }
}

}  // namespace pyconv::PYCONV_ISA
