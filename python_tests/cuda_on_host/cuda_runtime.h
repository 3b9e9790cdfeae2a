// Stands in for CUDA's header where kernels run on the CPU, by the rules of `host.cpp`.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static  // it does not guard thread_local arrays
#else
#define __shared__ static thread_local  // a block is one thread here: nothing stays from the block before
#endif

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor
};
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

namespace cuda_on_host {

// Runs the kernel for every thread; throws std::runtime_error if they would not meet.
void launch(int64_t blocks, int threads, int shared_bytes, cudaStream_t stream, const std::function<void()>& kernel);

// The block's shared memory of the size given to launch.
unsigned char* shared_memory();

// The bits that lane ^ distance of the same warp gave.
uint64_t exchange(unsigned mask, uint64_t bits, int distance, int line);
void barrier(int line);

}  // namespace cuda_on_host

inline void __syncthreads(int line = __builtin_LINE()) { cuda_on_host::barrier(line); }

template <typename V>
V __shfl_xor_sync(unsigned mask, V value, int distance, int line = __builtin_LINE()) {
  static_assert(sizeof(V) == 4 || sizeof(V) == 8, "CUDA shuffles values of 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(value));
  bits = cuda_on_host::exchange(mask, bits, distance, line);
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
