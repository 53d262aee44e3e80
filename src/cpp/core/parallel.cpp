#include "core/parallel.hpp"

#include <omp.h>
#include <pthread.h>
#include <x86intrin.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "core/float_state.hpp"

namespace pyconv {
namespace {

std::atomic<bool> forked_child{false};

[[maybe_unused]] const int atfork_registered =
    pthread_atfork(nullptr, nullptr, [] { forked_child.store(true); });

thread_local Interruptible* interruptible = nullptr;

// 0.1 to 0.3 seconds: Ctrl-C feels prompt, and shorter calls never wait for Python's lock.
constexpr std::uint64_t kTicksBetweenQuestions = std::uint64_t(1) << 29;

// Threads that compute now, over all calls of the process.
std::atomic<int> busy{0};

// How many threads a call may use: all that it wants while no other call computes, else as many
// processors as are idle. A pool of Python threads would otherwise start a team in each.
class Members {
 public:
  explicit Members(int wanted) {
    const int processors = omp_get_num_procs();
    const int others = busy.load(std::memory_order_relaxed);
    // libgomp ends the process when it cannot start a thread, so nobody gets many more than there
    // are processors.
    const int most = others > 0 ? processors - others : 4 * processors;
    const bool serial = forked_child.load(std::memory_order_relaxed);
    count_ = serial ? 1 : std::max(1, std::min(wanted, most));
    busy.fetch_add(count_, std::memory_order_relaxed);
  }
  ~Members() { busy.fetch_sub(count_, std::memory_order_relaxed); }
  Members(const Members&) = delete;
  Members& operator=(const Members&) = delete;

  int count() const { return count_; }

 private:
  int count_;
};

}  // namespace

int openmp_max_threads() { return omp_get_max_threads(); }

Interruptible::Interruptible(bool (*wanted)())
    : wanted_(wanted),
      outer_(interruptible),
      float_state_(FloatState::current()),
      begun_(__rdtsc()),
      asked_(begun_) {
  interruptible = this;
}

Interruptible::~Interruptible() { interruptible = outer_; }

void Interruptible::ask_if_due() {
  const std::uint64_t now = __rdtsc();
  if (now - asked_ < kTicksBetweenQuestions) return;
  asked_ = now;
  const FloatState callers(float_state_);
  if (wanted_()) stopped_.store(true, std::memory_order_relaxed);
}

void run_team(int threads, void (*work)(const void*, int, const Worker&), const void* context) {
  Interruptible* const call = interruptible;
  const Members members(threads);
  if (members.count() == 1) {
    const FloatState float_state;
    const Worker worker(call, true);
    for (int thread = 0; thread < threads; ++thread) work(context, thread, worker);
  } else {
    std::exception_ptr failure;
    std::atomic<int> finished{0};
#pragma omp parallel num_threads(members.count())
    {
      // The team may be smaller still (OMP_THREAD_LIMIT, nested regions): every member takes each
      // team-size-th share.
      const FloatState float_state;
      const int team = omp_get_num_threads();
      const int member = omp_get_thread_num();
      try {
        const Worker worker(call, member == 0);
        for (int thread = member; thread < threads; thread += team) {
          work(context, thread, worker);
        }
        ++finished;
        // In a call that lasts, the others may have long to go, on processors that are shared.
        while (member == 0 && call != nullptr && call->asks() && finished < team) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
          call->ask_if_due();
        }
      } catch (...) {
        ++finished;
#pragma omp critical(pyconv_failure)
        if (!failure) failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
  }
  if (call != nullptr && call->stopped_.load(std::memory_order_relaxed)) throw Interrupted();
}

}  // namespace pyconv
