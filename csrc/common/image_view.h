// A view of a tensor (N, C, H, W) with any strides, which are counted in elements.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace jaa_ext {

struct ImageStrides {
  int64_t n, c, y, x;
};

struct ImageView {
  void* data;
  ImageStrides stride;

  // The address of an element.
  template <typename T>
  JAA_EXT_INLINE T* at(int64_t n, int64_t c, int64_t y, int64_t x) const {
    return static_cast<T*>(data) + n * stride.n + c * stride.c + y * stride.y + x * stride.x;
  }
};

}  // namespace jaa_ext
