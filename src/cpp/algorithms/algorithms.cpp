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

std::unique_ptr<Plan> make_plan(ConvProblem problem, const std::string& algorithm) {
  for (const Algorithm& candidate : algorithms()) {
    const bool named = algorithm == candidate.name;
    const bool eligible = algorithm == "auto" || (algorithm == "auto_direct" && candidate.direct);
    if (!named && !eligible) continue;
    const std::string refusal = candidate.refuses(problem);
    if (named && !refusal.empty()) {
      throw std::invalid_argument("algorithm: " + algorithm +
                                  " cannot serve this problem: " + refusal);
    }
    if (named || (refusal.empty() && candidate.pays(problem))) {
      // Only the definition divides no axis into blocks, and has no table per tap: outputs may have
      // axes of length 0, and weights without elements kernels of any size.
      return (has_sums(problem) ? candidate.plan : plan_reference)(std::move(problem));
    }
  }
  throw std::invalid_argument("algorithm: unknown name " + algorithm);
}

}  // namespace pyconv
