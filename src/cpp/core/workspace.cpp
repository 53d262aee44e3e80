#include "core/workspace.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>

namespace pyconv {
namespace {

constexpr std::size_t kHugePage = std::size_t(2) << 20;

}  // namespace

void* allocate_aligned(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw std::bad_alloc();
  // Fresh memory costs a page fault every 4 KiB, and packed weights a page walk.
  const bool huge = bytes >= 2 * kHugePage;
  const std::size_t alignment = huge ? kHugePage : kAlignment;
  const std::size_t whole =
      (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, whole);  // which wants a multiple of the alignment
  if (memory == nullptr) throw std::bad_alloc();
  if (huge) madvise(memory, whole, MADV_HUGEPAGE);  // only a hint
  return memory;
}

void free_aligned(void* memory) noexcept { std::free(memory); }

}  // namespace pyconv
