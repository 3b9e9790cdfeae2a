// The one way kernels are launched, so that another header can stand in for it where there is no GPU.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace jaa_ext {

constexpr int64_t MAX_BLOCKS = 1 << 20;  // kernels loop over what is left

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream, Arguments... arguments) {
  if (blocks == 0) return;
  kernel<<<static_cast<unsigned>(std::min(blocks, MAX_BLOCKS)), threads, 0, stream>>>(arguments...);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("jaa_ext: a CUDA kernel could not be launched: ") +
                             cudaGetErrorString(error));
  }
}

// One thread an element.
template <typename... Parameters, typename... Arguments>
void launch_elements(void (*kernel)(Parameters...), int64_t elements, cudaStream_t stream, Arguments... arguments) {
  constexpr int THREADS = 256;
  launch(kernel, (elements + THREADS - 1) / THREADS, THREADS, stream, arguments...);
}

}  // namespace jaa_ext
