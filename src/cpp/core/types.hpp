// Plain types shared by the core and by the kernels of every instruction set. No inline functions
// of external linkage and no standard containers: a linker that merges copies of a shared inline
// function may keep the one that was compiled for AVX-512.
#pragma once

#include <cstdint>

namespace pyconv {

inline constexpr int kSpatialAxes = 3;

// The order in which every output accumulates its window, for every direct algorithm and every
// vector width: blocks of kChannelBlock input channels outermost, then the taps in row-major order,
// then the channels of the block; one chain of fused multiply-adds that starts at +0.
//
//   for block in channels / 16:  for tap in kernel:  for channel in block:
//       sum = fma(weight[out][channel][tap], x[channel][tap], sum)
//
// Denormal numbers count as zeros (float_state.hpp).
//
// Terms of zero padding are +0 and may be left out: with finite weights they change no sum, but for
// the sign of one that has underflowed to zero.
//
// A block is one cache line of channels-last float32, so that packing copies whole lines, and is
// short enough that a kernel may stop after any block without losing its place in the chain.
inline constexpr std::int64_t kChannelBlock = 16;

// Elements so far apart, or a multiple of it, stand in one or two sets of the L1 cache, where more
// than a few of them throw each other out.
inline constexpr std::int64_t kCrowdingBytes = 2048;

enum class DataType : std::uint8_t { float32, float64 };

enum class PaddingMode : std::uint8_t { zeros, reflect, replicate, circular };

enum class ActivationKind : std::uint8_t {
  none,
  relu,
  clip,  // relu6 is clip(0, 6)
  leaky_relu,
  sigmoid,
  tanh,
  silu,
  hardswish,
  hardsigmoid,
  gelu,
};

struct Activation {
  ActivationKind kind = ActivationKind::none;
  double low = 0;   // clip: lower bound; leaky_relu: slope
  double high = 0;  // clip: upper bound
};

// Strides of a (batch, channel, depth, height, width) array, in elements; axes as ConvProblem has
// them.
struct Strides {
  std::int64_t batch = 0;
  std::int64_t channel = 0;
  std::int64_t axis[kSpatialAxes] = {0, 0, 0};
};

}  // namespace pyconv
