// The instruction set that CPU kernels use, chosen once at run time; see for_each_cpu_level.h.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define JAA_EXT_CPU_LEVELS
#endif

namespace jaa_ext {

enum class CpuLevel { baseline, avx2, avx512, avx512_bf16 };

// The processor's best level, or the level that the environment variable JAA_EXT_CPU names. Throws std::runtime_error
// if that level is unknown or above the processor's.
CpuLevel cpu_level();

const char* name(CpuLevel level);

}  // namespace jaa_ext

// JAA_EXT_AT_CPU_LEVEL(kernels<T>()) returns what kernels<T>() of the processor's namespace returns.
#ifdef JAA_EXT_CPU_LEVELS
#define JAA_EXT_AT_CPU_LEVEL(...)          \
  switch (::jaa_ext::cpu_level()) {        \
    case ::jaa_ext::CpuLevel::avx512_bf16: \
      return avx512_bf16::__VA_ARGS__;     \
    case ::jaa_ext::CpuLevel::avx512:      \
      return avx512::__VA_ARGS__;          \
    case ::jaa_ext::CpuLevel::avx2:        \
      return avx2::__VA_ARGS__;            \
    default:                               \
      return baseline::__VA_ARGS__;        \
  }
#else
#define JAA_EXT_AT_CPU_LEVEL(...) return baseline::__VA_ARGS__
#endif
