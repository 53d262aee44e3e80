// The Python names of the core's enumerations. An unknown name is a ValueError.
#pragma once

#include <string>

#include "core/types.hpp"

namespace pyconv {

DataType dtype_from_name(const std::string& name);
PaddingMode padding_mode_from_name(const std::string& name);
ActivationKind activation_from_name(const std::string& name);

}  // namespace pyconv
