// Sums and matrix instructions of a warp, shared memory of a size chosen at launch, and asynchronous copies, each
// behind a function that also has a definition on the CPU (python_tests/cuda_on_host/instructions.h).
//
// The matrix instructions want a compute capability (matrices_from); kernels that call them are launched on such GPUs
// alone, and trap elsewhere. All 32 lanes call them together. g = lane / 4 and q = lane % 4 below.
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

// Copies 16 aligned bytes into shared memory; they are there for this thread after copy_wait, for others after a
// barrier behind it.
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

// Four 8x8 matrices of 16-bit values, or 8x4 of 32-bit ones: lane 8i + r gives the address of row r (16 aligned
// bytes) of matrix i in shared memory; each lane gets the 32 bits q of row g of all four.
__device__ inline void load_matrices(uint32_t (&matrices)[4], const void* row) {
  JAA_EXT_TURING("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(matrices[0]),
                 "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3]) : "r"(shared_address(row)) : "memory");
}

// The same for 16-bit values, each matrix transposed: a lane gets the values g of rows 2q and 2q + 1.
__device__ inline void load_matrices_transposed(uint32_t (&matrices)[4], const void* row) {
  JAA_EXT_TURING("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(matrices[0]),
                 "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3]) : "r"(shared_address(row)) : "memory");
}

// sums (16 x 8) += a (16 x k) * b (k x 8), k = 16 of 16 bits or 8 TensorFloat-32. Of the sums a lane holds
// (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1). Of 16-bit values a register holds two of neighbouring k, the
// lower in its lower half: a (g, 2q), (g + 8, 2q), (g, 2q + 8), (g + 8, 2q + 8); b (2q, g), (2q + 8, g). Of
// TensorFloat-32 one: a (g, q), (g + 8, q), (g, q + 4), (g + 8, q + 4); b (q, g), (q + 4, g). T says which: BFloat16,
// Half or float.
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

// The compute capability, as launch.cuh gives it, from which there are matrix instructions for a type; for f32 those
// of TensorFloat-32.
inline int matrices_from(Scalar scalar) {
  return scalar == Scalar::f16 ? 75 : scalar == Scalar::f64 ? INT32_MAX : 80;
}

// To nearest, ties away from zero: as the instruction for it rounds.
JAA_EXT_INLINE float round_to_tf32(float x) {
  const uint32_t bits = detail::bit_cast<uint32_t>(x);
  if ((bits & 0x7f800000) == 0x7f800000) return x;  // infinite or not a number
  return detail::bit_cast<float>((bits + 0x1000) & 0xffffe000);
}

}  // namespace jaa_ext
