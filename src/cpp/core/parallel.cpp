#include "core/parallel.hpp"

#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <exception>

#include "core/float_state.hpp"

namespace pyconv {
namespace {

std::atomic<bool> forked_child{false};

[[maybe_unused]] const int atfork_registered =
    pthread_atfork(nullptr, nullptr, [] { forked_child.store(true); });

}  // namespace

int openmp_max_threads() { return omp_get_max_threads(); }

void run_team(int threads, void (*work)(const void*, int), const void* context) {
  if (threads <= 1 || forked_child.load(std::memory_order_relaxed)) {
    const FloatState float_state;
    for (int thread = 0; thread < threads; ++thread) work(context, thread);
    return;
  }
  std::exception_ptr failure;
  // libgomp ends the process when it cannot start a thread, so nobody gets many more than there are
  // processors. The team may be smaller still (OMP_THREAD_LIMIT, nested regions): every member
  // takes each team-size-th share.
  const int members = std::min(threads, 4 * omp_get_num_procs());
#pragma omp parallel num_threads(members)
  {
    const FloatState float_state;
    const int team = omp_get_num_threads();
    try {
      for (int thread = omp_get_thread_num(); thread < threads; thread += team) {
        work(context, thread);
      }
    } catch (...) {
#pragma omp critical(pyconv_failure)
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace pyconv
