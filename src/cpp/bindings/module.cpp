#include "bindings/register.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "The compiled part of pyconv. Arguments arrive validated by pyconv._validation.";
  pyconv::register_arguments(module);
  pyconv::register_runtime(module);
  pyconv::register_plan(module);
}
