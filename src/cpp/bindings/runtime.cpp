// Instruction sets, threads, and what this build is.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "algorithms/algorithm.hpp"
#include "bindings/gil.hpp"
#include "bindings/names.hpp"
#include "bindings/register.hpp"
#include "core/parallel.hpp"
#include "core/probe.hpp"
#include "kernels/kernel_table.hpp"

namespace py = pybind11;

namespace pyconv {
namespace {

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (int i = 0; i < kIsaCount; ++i) {
    if (kIsas[i].supported()) names.emplace_back(kIsas[i].name);
  }
  return names;
}

void select_isa_by_name(const std::string& name) {
  for (int i = 0; i < kIsaCount; ++i) {
    if (name == kIsas[i].name && kIsas[i].supported()) return select_isa(kIsas[i]);
  }
  throw py::value_error("unknown or unsupported instruction set " + name);
}

std::vector<std::string> algorithm_names() {
  std::vector<std::string> names;
  for (const Algorithm& algorithm : algorithms()) names.emplace_back(algorithm.name);
  return names;
}

constexpr const char* kCompiler =
#if defined(__clang__)
    "Clang " __clang_version__;
#elif defined(__GNUC__)
    "GCC " __VERSION__;
#else
    "unknown";
#endif

}  // namespace

void register_runtime(py::module_& module) {
  module.attr("compiler") = kCompiler;
  module.def("isas", &supported_isas);
  module.def("current_isa", [] { return current_isa().name; });
  module.def("select_isa", &select_isa_by_name, py::arg("name"));
  module.def("algorithms", &algorithm_names);
  module.def("openmp_max_threads", &openmp_max_threads);
  module.def("openmp_processors", &openmp_processors);
  module.def(
      "fma_peak",
      [](const std::string& dtype, double seconds) {
        const DataType type = dtype_from_name(dtype);
        double peak = 0;
        without_gil([&] { peak = fma_peak(type, seconds); });
        return peak;
      },
      py::arg("dtype") = "float32", py::arg("seconds") = 0.02);
}

}  // namespace pyconv
