// The one way to launch kernels. With JAA_EXT_HOST_CUDA they run on the CPU (python_tests/cuda_on_host).
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "parts.h"

namespace jaa_ext {

constexpr int64_t MAX_BLOCKS = 1 << 20;       // kernels loop over the rest
constexpr int PLAIN_SHARED_BYTES = 48 << 10;  // shared memory of a block beyond this must be asked for

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string("jaa_ext: ") + what + ": " + cudaGetErrorString(error));
}

// An attribute of the current device.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device), "the current CUDA device is not known");
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "the CUDA device does not tell its properties");
  return value;
}
inline int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }
inline int compute_capability() {  // 80 for 8.0
  return 10 * device_attribute(cudaDevAttrComputeCapabilityMajor) +
         device_attribute(cudaDevAttrComputeCapabilityMinor);
}

// Launches with shared memory whose size is chosen at run time (JAA_EXT_SHARED_MEMORY in warp.cuh).
template <typename... Parameters, typename... Arguments>
void launch_shared(void (*kernel)(Parameters...), int64_t blocks, int threads, int shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
  if (blocks == 0) return;
  const int64_t grid = std::min(blocks, MAX_BLOCKS);
#ifndef JAA_EXT_HOST_CUDA
  if (shared_bytes > PLAIN_SHARED_BYTES) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
               "a CUDA kernel was refused its shared memory");
  }
  kernel<<<static_cast<unsigned>(grid), threads, shared_bytes, stream>>>(arguments...);
#else
  cuda_on_host::launch(grid, threads, shared_bytes, stream, [&] { kernel(arguments...); });
#endif
  check_cuda(cudaGetLastError(), "a CUDA kernel could not be launched");
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream, Arguments... arguments) {
  launch_shared(kernel, blocks, threads, 0, stream, arguments...);
}

// Launches one thread for each element.
template <typename... Parameters, typename... Arguments>
void launch_elements(void (*kernel)(Parameters...), int64_t elements, cudaStream_t stream, Arguments... arguments) {
  constexpr int THREADS = 256;
  launch(kernel, ceil_div(elements, THREADS), THREADS, stream, arguments...);
}

}  // namespace jaa_ext
