// Sums and matrix instructions of a warp, shared memory whose size is chosen at launch, and asynchronous copies. Each
// is a function that is also defined for the CPU (python_tests/cuda_on_host/instructions.h).
//
// Matrix instructions need a compute capability (matrices_from). Kernels that call them must be launched on such GPUs
// only; elsewhere they trap. All 32 lanes call them together. Below, g = lane / 4 and q = lane % 4.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "scalar.h"

#ifdef JAA_EXT_HOST_CUDA

#include <instructions.h>

#define JAA_EXT_SHARED_MEMORY(name) unsigned char* const name = cuda_on_host::shared_memory()

#else

#define JAA_EXT_SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define JAA_EXT_AMPERE(...) asm(__VA_ARGS__)
#else
#define JAA_EXT_AMPERE(...) __trap()
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
#define JAA_EXT_TURING(...) asm volatile(__VA_ARGS__)
#else
#define JAA_EXT_TURING(...) __trap()
#endif

namespace jaa_ext {

__device__ inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Copies 16 aligned bytes into shared memory. This thread sees them after copy_wait, the others after a barrier then.
__device__ inline void copy_async(void* shared, const void* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}

// Waits for all copies that this thread has begun.
__device__ inline void copy_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Loads four matrices of 8x8 16-bit values, or of 8x4 32-bit values, from shared memory. Lane 8i + r gives the
// address of row r (16 aligned bytes) of matrix i. Each lane gets word q of row g of every matrix.
__device__ inline void load_matrices(uint32_t (&matrices)[4], const void* row) {
  JAA_EXT_TURING("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(matrices[0]),
                 "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3]) : "r"(shared_address(row)) : "memory");
}

// The same for 16-bit values, with each matrix transposed: a lane gets value g of rows 2q and 2q + 1.
__device__ inline void load_matrices_transposed(uint32_t (&matrices)[4], const void* row) {
  JAA_EXT_TURING("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(matrices[0]),
                 "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3]) : "r"(shared_address(row)) : "memory");
}

// sums (16 x 8) += a (16 x k) * b (k x 8). T is BFloat16 or Half, with k = 16, or float for TensorFloat-32, with k
// = 8. The elements (row, column) that a lane holds:
//
//   sums             (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1)
//   BFloat16, Half   a (g, 2q), (g + 8, 2q), (g, 2q + 8), (g + 8, 2q + 8) and b (2q, g), (2q + 8, g), each with
//                    the next element along k in the upper half of the register
//   TensorFloat-32   a (g, q), (g + 8, q), (g, q + 4), (g + 8, q + 4) and b (q, g), (q + 4, g)
template <typename T>
__device__ inline void multiply_add(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

#define JAA_EXT_PRODUCT "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
#define JAA_EXT_OPERANDS                       \
  "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), \
      "+f"(sums[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])

template <>
__device__ inline void multiply_add<BFloat16>(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  JAA_EXT_AMPERE("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 " JAA_EXT_PRODUCT : JAA_EXT_OPERANDS);
}

template <>
__device__ inline void multiply_add<float>(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  JAA_EXT_AMPERE("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 " JAA_EXT_PRODUCT : JAA_EXT_OPERANDS);
}

template <>
__device__ inline void multiply_add<Half>(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  JAA_EXT_AMPERE("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 " JAA_EXT_PRODUCT : JAA_EXT_OPERANDS);
#else
  for (int k = 0; k < 2; ++k) {  // Turing's instruction is for half as many k
    JAA_EXT_TURING(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};" : "+f"(
            sums[0]),
        "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
  }
#endif
}

#undef JAA_EXT_PRODUCT
#undef JAA_EXT_OPERANDS
#undef JAA_EXT_AMPERE
#undef JAA_EXT_TURING

}  // namespace jaa_ext

#endif  // JAA_EXT_HOST_CUDA

namespace jaa_ext {

constexpr int WARP = 32;

// The sum over the lanes, in every lane; all 32 call it together.
template <typename V>
__device__ inline V warp_sum(V value) {
  for (int distance = WARP / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

// The least compute capability, as launch.cuh gives it, with matrix instructions for a type (TensorFloat-32 for f32).
inline int matrices_from(ScalarType scalar_type) {
  return scalar_type == ScalarType::f16 ? 75 : scalar_type == ScalarType::f64 ? INT32_MAX : 80;
}

// Rounds to nearest, ties away from zero, as the GPU's instruction for it does.
JAA_EXT_INLINE float round_to_tf32(float x) {
  const uint32_t bits = detail::bit_cast<uint32_t>(x);
  if ((bits & 0x7f800000) == 0x7f800000) return x;  // infinite or not a number
  return detail::bit_cast<float>((bits + 0x1000) & 0xffffe000);
}

}  // namespace jaa_ext
