// Takes the place of CUDA's header where kernels run on the CPU, as `host.cpp` runs them.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#ifdef __SANITIZE_ADDRESS__
#define __shared__ static  // it does not guard thread_local arrays
#else
#define __shared__ static thread_local  // for host.cpp to find it
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
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor
};
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);

namespace cuda_on_host {

constexpr int WARP = 32;

// Runs the kernel for every thread; throws std::runtime_error if one of them goes wrong.
void launch(int64_t blocks, int threads, int shared_bytes, cudaStream_t stream, const std::function<void()>& kernel);

// The block's shared memory of the size given to launch.
unsigned char* shared_memory();

// Ends the launch with a message.
[[noreturn]] void fail(int line, const std::string& what);

void barrier(int line);

// Exchanges words among the lanes of a warp, and returns a slot for each lane. All lanes in the mask must come to
// this line; the slots of the others are undefined. The slots are valid until the thread waits again. Without words
// it is a barrier of the warp.
constexpr size_t SLOT_WORDS = 8;
const void* gather(unsigned mask, const uint64_t* mine, size_t words, int line);

template <typename V>
struct Lanes {
  const void* slots;

  const V& operator[](int lane) const {
    return *reinterpret_cast<const V*>(static_cast<const uint64_t*>(slots) + lane * SLOT_WORDS);
  }
};

template <typename V>
Lanes<V> gather(unsigned mask, const V& mine, int line) {
  constexpr size_t WORDS = (sizeof(V) + 7) / 8;
  static_assert(WORDS <= SLOT_WORDS, "a slot is too small");
  uint64_t words[WORDS] = {};
  std::memcpy(words, &mine, sizeof(V));
  return {gather(mask, words, WORDS, line)};
}

inline int lane() { return static_cast<int>(threadIdx.x) % WARP; }

template <typename V>
V shuffle(unsigned mask, V value, int source, int line) {
  static_assert(sizeof(V) == 4 || sizeof(V) == 8, "CUDA shuffles values of 4 or 8 bytes");
  const Lanes<V> values = gather(mask, value, line);
  if (source < 0 || source >= WARP || (mask >> source & 1) == 0) fail(line, "a shuffle reads outside its mask");
  return values[source];
}

}  // namespace cuda_on_host

inline void __syncthreads(int line = __builtin_LINE()) { cuda_on_host::barrier(line); }

inline void __syncwarp(unsigned mask = 0xffffffff, int line = __builtin_LINE()) {
  cuda_on_host::gather(mask, nullptr, 0, line);
}

[[noreturn]] inline void __trap(int line = __builtin_LINE()) { cuda_on_host::fail(line, "a trap"); }

template <typename V>
V __shfl_sync(unsigned mask, V value, int source, int line = __builtin_LINE()) {
  return cuda_on_host::shuffle(mask, value, source & (cuda_on_host::WARP - 1), line);
}

template <typename V>
V __shfl_xor_sync(unsigned mask, V value, int distance, int line = __builtin_LINE()) {
  return cuda_on_host::shuffle(mask, value, cuda_on_host::lane() ^ distance, line);
}

template <typename V>
V __shfl_down_sync(unsigned mask, V value, int distance, int line = __builtin_LINE()) {
  const int source = cuda_on_host::lane() + distance;
  return cuda_on_host::shuffle(mask, value, source < cuda_on_host::WARP ? source : cuda_on_host::lane(), line);
}
