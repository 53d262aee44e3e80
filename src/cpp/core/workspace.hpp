// Aligned memory that is allocated before any parallel region and freed by its owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace pyconv {

inline constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector

inline std::size_t align_up(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Throws std::bad_alloc. Never returns null, also for zero bytes.
void* allocate_aligned(std::size_t bytes);
void free_aligned(void* memory) noexcept;

struct AlignedDelete {
  void operator()(void* memory) const noexcept { free_aligned(memory); }
};
using AlignedBuffer = std::unique_ptr<void, AlignedDelete>;

inline AlignedBuffer make_aligned(std::size_t bytes) {
  return AlignedBuffer(allocate_aligned(bytes));
}

// The scratch memory of one call, or its packed weights: one may be made while another lives. The
// calling thread keeps both for its next call, unless they are large: fresh memory would cost a
// page fault every 4 KiB.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  std::byte* get() const { return static_cast<std::byte*>(memory_.get()); }

  // What a workspace of so many bytes occupies.
  static std::size_t occupied(std::size_t bytes);

 private:
  AlignedBuffer memory_;
  std::size_t bytes_;
};

// Hands out aligned pieces of one buffer, in order. With a null base it only measures.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<std::byte*>(base)) {}

  template <class T>
  T* take(std::int64_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += align_up(static_cast<std::size_t>(count) * sizeof(T));
    return piece;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

}  // namespace pyconv
