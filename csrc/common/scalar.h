// The element types that kernels load and store. Kernels compute in double for f64, and else in float.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define JAA_EXT_INLINE __host__ __device__ inline
#else
#define JAA_EXT_INLINE inline
#endif

namespace jaa_ext {

enum class ScalarType { f64, f32, f16, bf16 };

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

// The type that kernels compute in.
template <typename T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};

namespace detail {

template <typename To, typename From>
JAA_EXT_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs types of one size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

}  // namespace detail

JAA_EXT_INLINE double widen(double x) { return x; }
JAA_EXT_INLINE float widen(float x) { return x; }
JAA_EXT_INLINE float widen(BFloat16 x) { return detail::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

template <typename T, typename C>
JAA_EXT_INLINE T narrow(C x);

template <>
JAA_EXT_INLINE double narrow<double, double>(double x) {
  return x;
}
template <>
JAA_EXT_INLINE float narrow<float, float>(float x) {
  return x;
}
template <>
JAA_EXT_INLINE BFloat16 narrow<BFloat16, float>(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  BFloat16 result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
  return result;
#else
  const uint32_t bits = detail::bit_cast<uint32_t>(x);
  if (x != x) return {static_cast<uint16_t>((bits >> 16) | 0x40)};             // a NaN stays one
  return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};  // to nearest, ties to even
#endif
}

#if defined(__CUDA_ARCH__)

JAA_EXT_INLINE float widen(Half x) { return __half2float(__ushort_as_half(x.bits)); }
template <>
JAA_EXT_INLINE Half narrow<Half, float>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}

#elif defined(__FLT16_MANT_DIG__) && !defined(__CUDACC__) && !defined(JAA_EXT_SOFTWARE_HALF)

JAA_EXT_INLINE float widen(Half x) { return static_cast<float>(detail::bit_cast<_Float16>(x.bits)); }
template <>
JAA_EXT_INLINE Half narrow<Half, float>(float x) {
  return {detail::bit_cast<uint16_t>(static_cast<_Float16>(x))};
}

#else  // compilers without _Float16

JAA_EXT_INLINE float widen(Half x) {
  const uint32_t magnitude = x.bits & 0x7fff, sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  if (magnitude >= 0x7c00) return detail::bit_cast<float>(sign | 0x7f800000 | (magnitude << 13));
  // A product with 2^112 corrects the exponent, also that of denormal numbers.
  const float value = detail::bit_cast<float>(magnitude << 13) * detail::bit_cast<float>(uint32_t{0x77800000});
  return detail::bit_cast<float>(sign | detail::bit_cast<uint32_t>(value));
}
template <>
JAA_EXT_INLINE Half narrow<Half, float>(float x) {
  uint32_t bits = detail::bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  bits &= 0x7fffffff;
  uint32_t half;
  if (bits > 0x7f800000) {
    half = 0x7e00;
  } else if (bits >= 0x477ff000) {  // rounds to infinity
    half = 0x7c00;
  } else if (bits < 0x38800000) {  // becomes denormal: adding 0.5 leaves the rounded mantissa in the low bits
    half = detail::bit_cast<uint32_t>(detail::bit_cast<float>(bits) + 0.5f) - 0x3f000000;
  } else {
    half = (bits - 0x38000000 + 0xfff + ((bits >> 13) & 1)) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

#endif

}  // namespace jaa_ext
