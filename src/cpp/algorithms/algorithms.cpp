#include <stdexcept>

#include "algorithms/algorithm.hpp"

namespace pyconv {
namespace {

std::string serves_everything(const ConvProblem&) { return {}; }

}  // namespace

const std::vector<Algorithm>& algorithms() {
  static const std::vector<Algorithm> list = {
      {"im2col_gemm", serves_everything, plan_im2col_gemm},
      {"reference", serves_everything, plan_reference},
  };
  return list;
}

std::unique_ptr<Plan> make_plan(ConvProblem problem, const std::string& algorithm) {
  for (const Algorithm& candidate : algorithms()) {
    if (algorithm != "auto" && algorithm != candidate.name) continue;
    const std::string refusal = candidate.refuses(problem);
    if (refusal.empty()) return candidate.plan(std::move(problem));
    if (algorithm != "auto") {
      throw std::invalid_argument("algorithm: " + algorithm +
                                  " cannot serve this problem: " + refusal);
    }
  }
  throw std::invalid_argument("algorithm: unknown name " + algorithm);
}

}  // namespace pyconv
