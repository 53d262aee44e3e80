#include "core/parallel.hpp"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <x86intrin.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

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

// How many of `wanted` threads the system starts. libgomp ends the process where it cannot start
// one (no memory for the stack, a limit of processes), so we try first. What we start leaves its
// stack to the next ones, which are libgomp's.
int startable(int wanted) {
  std::vector<std::thread> started;
  std::mutex all_started;
  try {
    const std::lock_guard<std::mutex> hold(all_started);
    started.reserve(static_cast<std::size_t>(wanted));
    while (static_cast<int>(started.size()) < wanted) {
      started.emplace_back([&] { const std::lock_guard<std::mutex> wait(all_started); });
    }
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): that many, then
  }
  for (std::thread& thread : started) thread.join();
  return static_cast<int>(started.size());
}

// Size of the calling thread's last team, whose threads libgomp keeps.
thread_local int team_size = 1;

// How many threads a call may use: all that it wants while no other call computes, else as many
// processors as are idle. A pool of Python threads would otherwise start a team in each.
class Members {
 public:
  explicit Members(int wanted) {
    if (wanted > 1 && !forked_child.load(std::memory_order_relaxed)) {
      const int processors = omp_get_num_procs();  // a system call
      const int others = busy.load(std::memory_order_relaxed);
      // libgomp ends the process when it cannot start a thread, so nobody gets many more than there
      // are processors.
      const int most = others > 0 ? processors - others : 4 * processors;
      count_ = std::max(1, std::min(wanted, most));
      if (count_ > team_size) count_ = team_size + startable(count_ - team_size);
      if (count_ > 1) team_size = count_;
    }
    busy.fetch_add(count_, std::memory_order_relaxed);
  }
  ~Members() { busy.fetch_sub(count_, std::memory_order_relaxed); }
  Members(const Members&) = delete;
  Members& operator=(const Members&) = delete;

  int count() const { return count_; }

 private:
  int count_ = 1;
};

// How long threads that spin between calls take to begin, and more.
constexpr std::uint64_t kTicksToStart = std::uint64_t(1) << 12;

// Gives way to threads that slept: the system may have woken them on the caller's processor, where
// they would wait for the end of its time slice, milliseconds. Once they run, they find a seat of
// their own.
void let_others_start(const std::atomic<int>& started, int others) {
  const std::uint64_t begun = __rdtsc();
  while (started.load(std::memory_order_relaxed) < others) {
    if (__rdtsc() - begun > kTicksToStart) {
      std::this_thread::yield();
      return;
    }
    _mm_pause();
  }
}

// Which processors the members of a team run on. The system may wake a thread on the processor of
// another and leave it there for milliseconds, in which both together are as fast as one.
class Seats {
 public:
  // Takes the calling thread's processor, or moves it to one that nobody has taken, if there is
  // one.
  void take() {
    const int here = sched_getcpu();
    if (here < 0 || here >= CPU_SETSIZE || claim(here)) return;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    cpu_set_t idle = allowed;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if ((taken_[cpu / 64].load(std::memory_order_relaxed) >> cpu % 64 & 1) != 0) {
        CPU_CLR(static_cast<std::size_t>(cpu), &idle);
      }
    }
    if (CPU_COUNT(&idle) == 0 || sched_setaffinity(0, sizeof idle, &idle) != 0) return;
    const int there = sched_getcpu();
    if (there >= 0 && there < CPU_SETSIZE) claim(there);
    sched_setaffinity(0, sizeof allowed, &allowed);  // it stays, but may go
  }

 private:
  bool claim(int cpu) {
    const std::uint64_t bit = std::uint64_t(1) << cpu % 64;
    return (taken_[cpu / 64].fetch_or(bit, std::memory_order_relaxed) & bit) == 0;
  }

  std::atomic<std::uint64_t> taken_[CPU_SETSIZE / 64] = {};
};

}  // namespace

int openmp_max_threads() { return omp_get_max_threads(); }

int openmp_processors() { return omp_get_num_procs(); }

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
    std::atomic<int> started{0};
    std::atomic<int> finished{0};
    Seats seats;
    seats.take();
#pragma omp parallel num_threads(members.count())
    {
      // The team may be smaller still (OMP_THREAD_LIMIT, nested regions): every member takes each
      // team-size-th share.
      const FloatState float_state;
      const int team = omp_get_num_threads();
      const int member = omp_get_thread_num();
      if (member == 0) {
        let_others_start(started, team - 1);
      } else {
        ++started;
        seats.take();
      }
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
