#include "core/workspace.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>
#include <utility>

namespace pyconv {
namespace {

constexpr std::size_t kHugePage = std::size_t(2) << 20;

// Where huge pages begin to pay: half of one is wasted at most. A hardware prefetcher stops at the
// end of a page, and the physical addresses of small pages collide in the L2 cache: weights of 2 MB
// and the workspace of a 3x3 layer in small pages cost it 5 %, each.
constexpr std::size_t kFewestHugeBytes = kHugePage / 2;

// The largest that a thread keeps between calls: the Winograd weights of 512 channels that become
// 1024 are 72 MiB, and new memory would take longer than the transform that fills it.
constexpr std::size_t kMostKeptBytes = 38 * kHugePage;

struct Kept {
  AlignedBuffer memory;
  std::size_t bytes = 0;
};

// A thread's last workspaces, by how many others lived when each was made.
constexpr int kMostKept = 2;
thread_local Kept kept[kMostKept];
thread_local int living = 0;

std::size_t rounded(std::size_t bytes) {
  const std::size_t alignment = bytes >= kFewestHugeBytes ? kHugePage : kAlignment;
  return (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
}

}  // namespace

void* allocate_aligned(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw std::bad_alloc();
  const bool huge = bytes >= kFewestHugeBytes;
  const std::size_t whole = rounded(bytes);  // aligned_alloc wants a multiple of the alignment
  void* memory = std::aligned_alloc(huge ? kHugePage : kAlignment, whole);
  if (memory == nullptr) throw std::bad_alloc();
  if (huge) madvise(memory, whole, MADV_HUGEPAGE);  // only a hint
  return memory;
}

void free_aligned(void* memory) noexcept { std::free(memory); }

std::size_t Workspace::occupied(std::size_t bytes) {
  // Also a small one gets whole huge pages: the thread keeps it, so there is one.
  return rounded(std::max(bytes, kFewestHugeBytes));
}

Workspace::Workspace(std::size_t bytes) : bytes_(occupied(bytes)) {
  Kept last;
  if (living < kMostKept) std::swap(last, kept[living]);
  if (last.bytes >= bytes_) {
    bytes_ = last.bytes;
    memory_ = std::move(last.memory);
  } else {
    last.memory.reset();
    memory_ = make_aligned(bytes_);
  }
  ++living;
}

Workspace::~Workspace() {
  --living;
  if (living >= kMostKept || bytes_ > kMostKeptBytes) return;
  kept[living] = {std::move(memory_), bytes_};
}

}  // namespace pyconv
