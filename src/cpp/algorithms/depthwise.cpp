// Depthwise convolution: groups of one input channel each. Lanes are pixels or channels, whichever
// are next to each other in the arrays at hand; the bits are the same.
#include "algorithms/depthwise.hpp"

#include <algorithm>

#include "core/workspace.hpp"

namespace pyconv {
namespace {

// Elements of the rows under one output row that may have to be copied: 1 MiB of float64.
constexpr double kMostCopied = 1 << 17;

// With several outputs per channel, a plan lists the input channel of each: at most so many.
constexpr std::int64_t kMostSpread = 1 << 20;

bool serves_channels(const ConvProblem& problem) {
  if (problem.out_channels != problem.in_channels && problem.out_channels > kMostSpread) {
    return false;
  }
  return std::all_of(problem.groups.begin(), problem.groups.end(),
                     [](const Group& group) { return group.out_channels > 0; });
}

// Weights are packed for both plans, one after the other: they are few.
class DepthwisePlan final : public RowsPlan {
 public:
  DepthwisePlan(ConvProblem problem_in, std::int64_t lanes)
      : RowsPlan(std::move(problem_in)), pixels_(plan_depthwise_pixels(problem())) {
    // Half-empty vectors cost as much as strided access does.
    if (serves_channels(problem()) && 2 * problem().out_channels >= lanes) {
      channels_ = plan_depthwise_channels(problem());
    }
  }

  std::string name() const override { return "depthwise"; }
  std::string packing() const override {
    return pixels_->packing() + (channels_ ? "+" + channels_->packing() : "");
  }

  std::size_t packed_bytes() const override {
    return channels_begin() + (channels_ ? channels_->packed_bytes() : 0);
  }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    pixels_->pack(weights, packed);
    if (channels_) channels_->pack(weights, static_cast<std::byte*>(packed) + channels_begin());
  }

  int useful_threads(int limit) const override { return pixels_->useful_threads(limit); }

  std::size_t workspace_bytes(int threads) const override {
    return std::max(pixels_->workspace_bytes(threads),
                    channels_ ? channels_->workspace_bytes(threads) : 0);
  }

  std::string tile() const override { return usual().tile(); }
  std::string partition(int threads) const override { return usual().partition(threads); }
  std::string reason() const override { return usual().reason(); }

  void run(const ConvArrays& arrays, int threads) const override {
    if (!lanes_are_channels(arrays)) return pixels_->run(arrays, threads);
    channels_->run(for_channels(arrays), threads);
  }

  std::size_t rows_workspace_bytes() const override {
    return std::max(pixels_->rows_workspace_bytes(),
                    channels_ ? channels_->rows_workspace_bytes() : 0);
  }

  void run_rows(const ConvArrays& arrays, std::int64_t begin, std::int64_t end,
                void* workspace) const override {
    if (!lanes_are_channels(arrays)) return pixels_->run_rows(arrays, begin, end, workspace);
    channels_->run_rows(for_channels(arrays), begin, end, workspace);
  }

 private:
  bool lanes_are_channels(const ConvArrays& arrays) const {
    return channels_ && arrays.x_strides.channel == 1 && arrays.out_strides.channel == 1;
  }

  ConvArrays for_channels(ConvArrays arrays) const {
    arrays.packed_weights = static_cast<const std::byte*>(arrays.packed_weights) + channels_begin();
    return arrays;
  }

  std::size_t channels_begin() const { return align_up(pixels_->packed_bytes()); }

  // For arrays that are contiguous in the problem's format.
  const Plan& usual() const { return problem().channels_last && channels_ ? *channels_ : *pixels_; }

  std::unique_ptr<RowsPlan> pixels_;
  std::unique_ptr<RowsPlan> channels_;
};

}  // namespace

int depthwise_threads(const ConvProblem& problem, int limit) {
  const std::int64_t inputs =
      problem.in_channels * problem.axes[0].in * problem.axes[1].in * problem.axes[2].in;
  const std::int64_t outputs = problem.out_channels * problem.out_pixels();
  const std::int64_t element = element_bytes(problem.dtype);
  const std::int64_t bytes = problem.batch * (inputs + outputs) * element;
  const std::int64_t worth = 1 + std::max(problem.macs() / kMacsPerThread, bytes >> 18);
  return static_cast<int>(std::min<std::int64_t>(limit, worth));
}

std::string depthwise_refuses(const ConvProblem& problem) {
  for (const Group& group : problem.groups) {
    if (group.in_channels != 1) return "groups must have one input channel each";
  }
  const auto& [depth, height, width] = problem.axes;
  const std::int64_t reach = (width.kernel - 1) * width.dilation / width.stride;
  // In floating point: the product may exceed 63 bits.
  const double rows = static_cast<double>(depth.kernel) *
                      (static_cast<double>((height.kernel - 1) * height.dilation) + 1);
  const double columns =
      static_cast<double>(std::min(width.kernel, width.stride)) *
      (static_cast<double>(std::min(width.out, depthwise_block_columns(problem))) +
       static_cast<double>(reach));
  if (rows * columns > kMostCopied) return "the rows under one window must fit the cache";
  return {};
}

bool depthwise_pays(const ConvProblem& problem) {
  // Where lanes are pixels it reads the input once per output channel: with many of them, or few
  // under large kernels, algorithms that share it are up to twice as fast.
  const bool single = problem.groups.size() == 1;
  const std::int64_t few = !single ? 4 : problem.taps() <= 25 ? 2 : 1;
  const std::int64_t most = problem.channels_last && !single ? 32 : few;
  return most_out_channels(problem) <= most;
}

std::unique_ptr<Plan> plan_depthwise(ConvProblem problem) {
  const std::int64_t lanes =
      problem.dtype == DataType::float64 ? kernels<double>().lanes : kernels<float>().lanes;
  return std::make_unique<DepthwisePlan>(std::move(problem), lanes);
}

}  // namespace pyconv
