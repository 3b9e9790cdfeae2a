#include "cpu_level.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#ifdef JAA_EXT_CPU_LEVELS
#include <cpuid.h>
#endif

namespace jaa_ext {
namespace {

#ifdef JAA_EXT_CPU_LEVELS
// GCC 12's __builtin_cpu_supports does not know F16C.
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

// A level counts only if all its instruction sets are there: hypervisors can hide some of them.
CpuLevel best_of_processor() {
#ifdef JAA_EXT_CPU_LEVELS
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c()) return CpuLevel::baseline;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return CpuLevel::avx2;
  }
  return __builtin_cpu_supports("avx512bf16") ? CpuLevel::avx512_bf16 : CpuLevel::avx512;
#else
  return CpuLevel::baseline;
#endif
}

CpuLevel chosen() {
  const CpuLevel best = best_of_processor();
  const char* wanted = std::getenv("JAA_EXT_CPU");
  if (wanted == nullptr || *wanted == '\0') return best;
  for (CpuLevel level : {CpuLevel::baseline, CpuLevel::avx2, CpuLevel::avx512, CpuLevel::avx512_bf16}) {
    if (std::string(wanted) != name(level)) continue;
    if (level <= best) return level;
    throw std::runtime_error(std::string("JAA_EXT_CPU=") + wanted + ": this processor has at most " + name(best));
  }
  throw std::runtime_error(std::string("JAA_EXT_CPU must be baseline, avx2, avx512 or avx512_bf16, got ") + wanted);
}

}  // namespace

CpuLevel cpu_level() {
  static const CpuLevel level = chosen();
  return level;
}

const char* name(CpuLevel level) {
  switch (level) {
    case CpuLevel::avx512_bf16:
      return "avx512_bf16";
    case CpuLevel::avx512:
      return "avx512";
    case CpuLevel::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace jaa_ext
