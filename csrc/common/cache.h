// The size of the processor's cache, by which CPU kernels choose the sizes of their blocks.
#pragma once

#include <cstdint>

#ifdef __linux__
#include <unistd.h>
#endif

namespace jaa_ext {

// Bytes of a core's second-level cache; half a megabyte where the system does not tell.
inline int64_t second_level_cache() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const int64_t told = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (told > 0) return told;
#endif
  return int64_t{512} << 10;
}

}  // namespace jaa_ext
