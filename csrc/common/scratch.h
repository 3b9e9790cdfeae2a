// Memory for one call of a CPU kernel.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>

namespace jaa_ext {

// A thread's scratch memory, which is kept from call to call: the system clears the pages of new memory, and that
// takes as long as a small convolution. It is used as a stack, and grows to the most that was wanted at a time.
class ScratchStack {
 public:
  ScratchStack() = default;
  ScratchStack(const ScratchStack&) = delete;
  ScratchStack& operator=(const ScratchStack&) = delete;
  ~ScratchStack() { release(data_); }

  static ScratchStack& of_this_thread() {
    thread_local ScratchStack stack;
    return stack;
  }

  void* push(size_t bytes) {
    void* const data = used_ + bytes <= size_ ? data_ + used_ : static_cast<std::byte*>(allocate(bytes));
    used_ += bytes;
    most_ = std::max(most_, used_);
    return data;
  }

  void pop(void* data, size_t bytes) {
    if (used_ > size_) release(data);
    used_ -= bytes;
    if (used_ > 0 || size_ >= most_ || size_ >= LIMIT) return;
    release(data_);
    size_ = 0;
    data_ = static_cast<std::byte*>(allocate(std::min(most_, LIMIT)));
    size_ = std::min(most_, LIMIT);
  }

 private:
#ifdef __SANITIZE_ADDRESS__
  static constexpr size_t LIMIT = 0;  // so that every overrun shows
#else
  static constexpr size_t LIMIT = size_t{16} << 20;
#endif
  static constexpr std::align_val_t CACHE_LINE{64};

  static void* allocate(size_t bytes) { return ::operator new(bytes, CACHE_LINE); }
  static void release(void* data) { ::operator delete(data, CACHE_LINE); }

  std::byte* data_ = nullptr;
  size_t size_ = 0, used_ = 0, most_ = 0;
};

// Uninitialised values that begin on a cache line. The last object that a thread made must be the first to go.
template <typename C>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : bytes_((std::max<int64_t>(count, 1) * sizeof(C) + 63) / 64 * 64),
        data_(static_cast<C*>(ScratchStack::of_this_thread().push(bytes_))) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { ScratchStack::of_this_thread().pop(data_, bytes_); }

  C* get() const { return data_; }

 private:
  const size_t bytes_;
  C* const data_;
};

}  // namespace jaa_ext
