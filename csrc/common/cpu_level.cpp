#include "cpu_level.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace jaa_ext {
namespace {

CpuLevel best_of_processor() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return CpuLevel::avx512;
  if (avx2) return CpuLevel::avx2;
#endif
  return CpuLevel::baseline;
}

CpuLevel chosen() {
  const CpuLevel best = best_of_processor();
  const char* wanted = std::getenv("JAA_EXT_CPU");
  if (wanted == nullptr || *wanted == '\0') return best;
  for (CpuLevel level : {CpuLevel::baseline, CpuLevel::avx2, CpuLevel::avx512}) {
    if (std::string(wanted) != name(level)) continue;
    if (level <= best) return level;
    throw std::runtime_error(std::string("JAA_EXT_CPU=") + wanted + ": this processor has at most " + name(best));
  }
  throw std::runtime_error(std::string("JAA_EXT_CPU must be baseline, avx2 or avx512, got ") + wanted);
}

}  // namespace

CpuLevel cpu_level() {
  static const CpuLevel level = chosen();
  return level;
}

const char* name(CpuLevel level) {
  switch (level) {
    case CpuLevel::avx512:
      return "avx512";
    case CpuLevel::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace jaa_ext
