// The only door to threads. parallel.cpp is the only file that knows OpenMP.
#pragma once

#include <cstdint>

#include "core/split.hpp"

namespace pyconv {

// Largest team that OpenMP would use for the calling thread (OMP_NUM_THREADS, omp_set_num_threads).
int openmp_max_threads();

// Calls work(context, thread) once for every thread in [0, threads). Runs serially, thread after
// thread, in a forked child: libgomp's pool does not survive fork and would hang. The first
// exception that a thread throws is thrown again on the calling thread.
void run_team(int threads, void (*work)(const void* context, int thread), const void* context);

// Calls body(task, thread) for every task in [0, tasks). Which thread runs a task depends on the
// numbers alone: every thread gets one contiguous range.
template <class Body>
void parallel_for(std::int64_t tasks, int threads, const Body& body) {
  struct Context {
    const Body& body;
    Split ranges;
  };
  const Context context{body, Split::by_count(tasks, threads)};
  run_team(
      threads,
      [](const void* opaque, int thread) {
        const auto& [each, ranges] = *static_cast<const Context*>(opaque);
        for (std::int64_t task = ranges.begin(thread); task < ranges.end(thread); ++task) {
          each(task, thread);
        }
      },
      &context);
}

}  // namespace pyconv
