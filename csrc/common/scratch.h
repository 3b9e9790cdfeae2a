// Memory for one call of a CPU kernel.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace jaa_ext {

// Uninitialised values that begin on a cache line.
template <typename C>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<C*>(::operator new(std::max<int64_t>(count, 1) * sizeof(C), std::align_val_t{64}))) {}
  C* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(C* data) const { ::operator delete(data, std::align_val_t{64}); }
  };
  std::unique_ptr<C, Free> data_;
};

}  // namespace jaa_ext
