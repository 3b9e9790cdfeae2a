// A tensor (N, C, H, W) of any strides, in elements.
#pragma once

#include <cstdint>

namespace jaa_ext {

struct ImageStrides {
  int64_t n, c, y, x;
};

struct Image {
  void* data;
  ImageStrides stride;
};

}  // namespace jaa_ext
