// The one way kernels are launched. With JAA_EXT_HOST_CUDA they run on the CPU: python_tests/cuda_on_host.
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
  const int64_t grid = std::min(blocks, MAX_BLOCKS);
#ifndef JAA_EXT_HOST_CUDA
  kernel<<<static_cast<unsigned>(grid), threads, 0, stream>>>(arguments...);
#else
  cuda_on_host::launch(grid, threads, stream, [&] { kernel(arguments...); });
#endif
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
