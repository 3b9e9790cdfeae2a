// The instruction set that CPU kernels use, chosen once at run time.
#pragma once

namespace jaa_ext {

enum class CpuLevel { baseline, avx2, avx512 };

// The processor's best level, or the one that the environment variable JAA_EXT_CPU names. Throws
// std::runtime_error if that is unknown or above the processor's.
CpuLevel cpu_level();

const char* name(CpuLevel level);

}  // namespace jaa_ext
