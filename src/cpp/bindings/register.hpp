#pragma once

#include <pybind11/pybind11.h>

namespace pyconv {

void register_arguments(pybind11::module_& module);
void register_runtime(pybind11::module_& module);
void register_plan(pybind11::module_& module);

}  // namespace pyconv
