// Sums over the lanes of a warp.
#pragma once

#include <cuda_runtime.h>

namespace jaa_ext {

constexpr int WARP = 32;

// In every lane; all 32 call it together.
template <typename V>
__device__ inline V warp_sum(V value) {
  for (int distance = WARP / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

}  // namespace jaa_ext
