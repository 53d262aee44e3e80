// The only door to threads. parallel.cpp is the only file that knows OpenMP.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>

#include "core/split.hpp"

namespace pyconv {

// Largest team that OpenMP would use for the calling thread (OMP_NUM_THREADS, omp_set_num_threads).
int openmp_max_threads();

// Processors that the calling thread may run on, or could before OpenMP bound it to one of them
// (OMP_PROC_BIND).
int openmp_processors();

// Ends a call of `run_team` before its work is done.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// For as long as it lives, teams of the thread that made it can be interrupted. About four times a
// second that thread asks `wanted`, in the floating-point state in which it made this. From yes on
// nobody starts another task, and when the tasks under way have ended, run_team throws Interrupted.
// The output is then written in part, in whole tasks; nothing else is left behind.
class Interruptible {
 public:
  explicit Interruptible(bool (*wanted)());
  ~Interruptible();
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  friend class Worker;
  friend void run_team(int, void (*)(const void*, int, const class Worker&), const void*);

  bool asks() const { return asked_ != begun_; }
  void ask_if_due();

  bool (*const wanted_)();
  Interruptible* const outer_;
  const unsigned float_state_;
  const std::uint64_t begun_;  // ticks of the processor's clock
  std::uint64_t asked_;
  std::atomic<bool> stopped_{false};
};

// One thread of a team.
class Worker {
 public:
  Worker(Interruptible* call, bool caller) : call_(call), caller_(caller) {}

  // Whether to leave the remaining tasks undone. Costs a comparison, and the caller a look at the
  // clock.
  bool stops() const {
    if (call_ == nullptr) return false;
    if (caller_) call_->ask_if_due();
    return call_->stopped_.load(std::memory_order_relaxed);
  }

 private:
  Interruptible* const call_;
  const bool caller_;
};

// Calls work(context, thread, worker) once for every thread in [0, threads), on fewer threads than
// that where processors are busy with other calls. Runs serially, thread after thread, in a forked
// child: libgomp's pool does not survive fork and would hang. The first exception that a thread
// throws is thrown again on the calling thread.
void run_team(int threads, void (*work)(const void* context, int thread, const Worker& worker),
              const void* context);

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
      [](const void* opaque, int thread, const Worker& worker) {
        const auto& [each, ranges] = *static_cast<const Context*>(opaque);
        const std::int64_t end = ranges.end(thread);
        for (std::int64_t task = ranges.begin(thread); task < end && !worker.stops(); ++task) {
          each(task, thread);
        }
      },
      &context);
}

}  // namespace pyconv
