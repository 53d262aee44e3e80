// The definition, as a loop over windows: serves every problem, and is what the others must equal
// bit for bit.
#include <algorithm>
#include <cmath>

#include "algorithms/common.hpp"
#include "core/padding.hpp"
#include "core/parallel.hpp"
#include "core/partition.hpp"

namespace pyconv {
namespace {

template <class T>
class ReferencePlan final : public Plan {
 public:
  using Plan::Plan;

  std::string name() const override { return "reference"; }
  std::string packing() const override { return "reference"; }

  std::size_t packed_bytes() const override {
    std::int64_t weights = 0;
    for (const Group& group : problem().groups) weights += weights_of(group);
    return static_cast<std::size_t>(weights) * sizeof(T);
  }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    T* to = static_cast<T*>(packed);
    for (std::size_t g = 0; g < weights.size(); ++g) {
      const Group& group = problem().groups[g];
      const WeightView& view = weights[g];
      for (std::int64_t out = 0; out < group.out_channels; ++out) {
        const T* from = static_cast<const T*>(view.data) + out * view.out_stride;
        for_each_weight(problem(), view, group.in_channels,
                        [&](std::int64_t, std::int64_t offset) { *to++ = from[offset]; });
      }
    }
  }

  std::size_t workspace_bytes(int) const override { return 0; }
  std::string tile() const override { return "1 output"; }
  std::string partition(int) const override { return partition_of().text(); }
  std::string reason() const override { return "loop over windows, serves every problem"; }

  void run(const ConvArrays& arrays, int threads) const override {
    const ConvProblem& p = problem();
    std::vector<std::int64_t> weights_begin{0};  // per group
    for (const Group& group : p.groups) {
      weights_begin.push_back(weights_begin.back() + weights_of(group));
    }
    const auto partition = partition_of();
    parallel_for(partition.tasks(), threads, [&](std::int64_t task, int) {
      const auto [image, channel, d, h] = partition.at(task);
      const auto after = std::upper_bound(
          p.groups.begin(), p.groups.end(), channel,
          [](std::int64_t out, const Group& group) { return out < group.out_begin; });
      const Group& group = *(after - 1);
      const std::int64_t out = channel - group.out_begin;
      const T* const weights =
          static_cast<const T*>(arrays.packed_weights) +
          weights_begin[static_cast<std::size_t>(after - p.groups.begin()) - 1];
      run_row(arrays, group, weights + out * group.in_channels * p.taps(), image, out, d, h);
    });
  }

 private:
  static constexpr std::int64_t kRun = 256;

  Partition<4> partition_of() const {
    const ConvProblem& p = problem();
    return Partition({{"images", p.batch},
                      {"output channels", p.out_channels},
                      {"planes", p.axes[0].out},
                      {"rows", p.axes[1].out}});
  }

  std::int64_t weights_of(const Group& group) const {
    return group.in_channels * group.out_channels * problem().taps();
  }

  // One output row of one channel, in runs that fit the stack.
  void run_row(const ConvArrays& arrays, const Group& group, const T* weights, std::int64_t image,
               std::int64_t out, std::int64_t d, std::int64_t h) const {
    const ConvProblem& p = problem();
    const std::int64_t channel = group.out_begin + out;
    const T* x = static_cast<const T*>(arrays.x) + image * arrays.x_strides.batch +
                 group.in_begin * arrays.x_strides.channel;
    const auto offset = [&](const Strides& strides, std::int64_t w) {
      return image * strides.batch + channel * strides.channel + d * strides.axis[0] +
             h * strides.axis[1] + w * strides.axis[2];
    };
    T sums[kRun];
    for (std::int64_t begin = 0; begin < p.axes[2].out; begin += kRun) {
      const std::int64_t count = std::min(kRun, p.axes[2].out - begin);
      for (std::int64_t i = 0; i < count; ++i) {
        sums[i] = window_sum(x, arrays.x_strides, weights, group.in_channels, {d, h, begin + i});
      }
      EpilogueArgs<T> args{};
      args.rows = 1;
      args.columns = count;
      args.acc = sums;
      args.bias = arrays.bias ? static_cast<const T*>(arrays.bias) + channel : nullptr;
      if (arrays.residual) {
        args.residual =
            static_cast<const T*>(arrays.residual) + offset(arrays.residual_strides, begin);
        args.residual_column = arrays.residual_strides.axis[2];
      }
      args.out = static_cast<T*>(arrays.out) + offset(arrays.out_strides, begin);
      args.out_column = arrays.out_strides.axis[2];
      args.activation = p.activation;
      kernels<T>().epilogue(args);
    }
  }

  T window_sum(const T* x, const Strides& strides, const T* weights, std::int64_t channels,
               const std::array<std::int64_t, kSpatialAxes>& at) const {
    const ConvProblem& p = problem();
    const auto source = [&](int axis, std::int64_t tap) {
      const auto a = static_cast<std::size_t>(axis);
      return input_index(p.axes[a], at[a], tap, p.padding_mode);
    };
    T sum = 0;
    for (std::int64_t block = 0; block < channels; block += kChannelBlock) {
      const std::int64_t block_end = std::min(block + kChannelBlock, channels);
      for (std::int64_t td = 0; td < p.axes[0].kernel; ++td) {
        const std::int64_t d = source(0, td);
        for (std::int64_t th = 0; th < p.axes[1].kernel; ++th) {
          const std::int64_t h = source(1, th);
          for (std::int64_t tw = 0; tw < p.axes[2].kernel; ++tw) {
            const std::int64_t w = source(2, tw);
            const bool inside = d >= 0 && h >= 0 && w >= 0;
            const T* window =
                x + (inside ? d * strides.axis[0] + h * strides.axis[1] + w * strides.axis[2] : 0);
            for (std::int64_t channel = block; channel < block_end; ++channel) {
              const T value = inside ? window[channel * strides.channel] : T(0);
              sum = std::fma(*weights++, value, sum);
            }
          }
        }
      }
    }
    return sum;
  }
};

}  // namespace

std::unique_ptr<Plan> plan_reference(ConvProblem problem) {
  return plan_of_dtype<ReferencePlan>(std::move(problem));
}

}  // namespace pyconv
