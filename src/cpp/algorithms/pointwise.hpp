// The half of "pointwise" that stands in a file of its own.
#pragma once

#include "algorithms/algorithm.hpp"

namespace pyconv {

// Where lanes are output channels.
std::unique_ptr<Plan> plan_pointwise_channels(ConvProblem problem);

}  // namespace pyconv
