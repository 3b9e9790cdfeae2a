// A view of a tensor (N, C, H, W) with any strides, which are counted in elements.
#pragma once

#include <cstdint>

namespace jaa_ext {

struct ImageStrides {
  int64_t n, c, y, x;
};

struct ImageView {
  void* data;
  ImageStrides stride;
};

}  // namespace jaa_ext
