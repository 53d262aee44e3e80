#include <stdexcept>

#include "algorithms/common.hpp"

namespace pyconv {
namespace {

std::string serves_everything(const ConvProblem&) { return {}; }

bool always(const ConvProblem&) { return true; }

bool has_sums(const ConvProblem& problem) {
  return problem.out_pixels() > 0 && most_in_channels(problem) > 0 &&
         most_out_channels(problem) > 0;
}

}  // namespace

const std::vector<Algorithm>& algorithms() {
  static const std::vector<Algorithm> list = {
      {"winograd", false, winograd_refuses, winograd_pays, plan_winograd},
      {"grouped", true, grouped_refuses, grouped_pays, plan_grouped},
      {"depthwise", true, depthwise_refuses, depthwise_pays, plan_depthwise},
      {"pointwise", true, pointwise_refuses, pointwise_pays, plan_pointwise},
      {"direct", true, direct_refuses, direct_pays, plan_direct},
      {"direct_channels", true, direct_channels_refuses, direct_channels_pays,
       plan_direct_channels},
      {"im2col_gemm", true, serves_everything, always, plan_im2col_gemm},
      {"reference", true, serves_everything, always, plan_reference},
  };
  return list;
}

int Plan::useful_threads(int limit) const {
  const std::int64_t worth = 1 + problem_.macs() / kMacsPerThread;
  return static_cast<int>(std::min<std::int64_t>(limit, worth));
}

std::unique_ptr<Plan> make_plan(ConvProblem problem, const std::string& algorithm) {
  const bool any = algorithm == "auto";
  const bool any_direct = algorithm == "auto_direct";
  // Only the definition divides no axis into blocks, and has no table per tap: outputs may have
  // axes of length 0, and weights without elements kernels of any size.
  const bool sums = has_sums(problem);
  if ((any || any_direct) && !sums) return plan_reference(std::move(problem));
  for (const Algorithm& candidate : algorithms()) {
    const bool named = algorithm == candidate.name;
    if (!named && !any && !(any_direct && candidate.direct)) continue;
    const std::string refusal = candidate.refuses(problem);
    if (named && !refusal.empty()) {
      throw std::invalid_argument("algorithm: " + algorithm +
                                  " cannot serve this problem: " + refusal);
    }
    if (named || (refusal.empty() && candidate.pays(problem))) {
      return (sums ? candidate.plan : plan_reference)(std::move(problem));
    }
  }
  throw std::invalid_argument("algorithm: unknown name " + algorithm);
}

}  // namespace pyconv
