#include "core/probe.hpp"

#include <algorithm>
#include <chrono>

#include "kernels/kernel_table.hpp"

namespace pyconv {
namespace {

template <class T>
double measure(double seconds) {
  using Clock = std::chrono::steady_clock;
  const KernelTable<T>& table = kernels<T>();
  constexpr std::int64_t kSteps = 1 << 14;
  const double flops = 2.0 * static_cast<double>(kSteps * kProbeChains * table.lanes);
  T sink = 0;
  table.fma_probe(kSteps, &sink);  // the first vectors of a sleeping core run at half width
  double best = 0;
  const auto start = Clock::now();
  auto before = start;
  do {
    table.fma_probe(kSteps, &sink);
    const auto now = Clock::now();
    best = std::max(best, flops / std::chrono::duration<double, std::nano>(now - before).count());
    before = now;
  } while (std::chrono::duration<double>(before - start).count() < seconds);
  return best;
}

}  // namespace

double fma_peak(DataType dtype, double seconds) {
  return dtype == DataType::float64 ? measure<double>(seconds) : measure<float>(seconds);
}

}  // namespace pyconv
