#include "core/workspace.hpp"

#include <cstdlib>
#include <limits>
#include <new>

namespace pyconv {

void* allocate_aligned(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) throw std::bad_alloc();
  void* memory = std::aligned_alloc(kAlignment, align_up(bytes > 0 ? bytes : 1));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void free_aligned(void* memory) noexcept { std::free(memory); }

}  // namespace pyconv
