// The parts of "pointwise" that stand in files of their own.
#pragma once

#include "algorithms/algorithm.hpp"

namespace pyconv {

// Where lanes are output channels.
std::unique_ptr<Plan> plan_pointwise_channels(ConvProblem problem);

// Where lanes are pixels, which are copied first.
std::unique_ptr<Plan> plan_pointwise_panels(ConvProblem problem);

}  // namespace pyconv
