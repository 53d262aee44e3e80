#include "kernels/kernel_table.hpp"

#include <atomic>

namespace pyconv {

#define PYCONV_ISA_ROW(name, supported)      \
  namespace name {                           \
  extern const KernelTable<float> kFloat32;  \
  extern const KernelTable<double> kFloat64; \
  }
#include "kernels/isas.inc"
#undef PYCONV_ISA_ROW

const Isa kIsas[] = {
#define PYCONV_ISA_ROW(name, supported) \
  {#name, []() -> bool { return supported; }, &name::kFloat32, &name::kFloat64},
#include "kernels/isas.inc"
#undef PYCONV_ISA_ROW
};
const int kIsaCount = sizeof(kIsas) / sizeof(kIsas[0]);

namespace {

const Isa* best_isa() {
  const Isa* isa = kIsas;
  while (!isa->supported()) ++isa;
  return isa;
}

std::atomic<const Isa*>& selected() {
  static std::atomic<const Isa*> isa{best_isa()};
  return isa;
}

}  // namespace

const Isa& current_isa() { return *selected().load(std::memory_order_relaxed); }

void select_isa(const Isa& isa) { selected().store(&isa, std::memory_order_relaxed); }

template <>
const KernelTable<float>& kernels<float>() {
  return *current_isa().float32;
}

template <>
const KernelTable<double>& kernels<double>() {
  return *current_isa().float64;
}

}  // namespace pyconv
