// Things cut into parts.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace jaa_ext {

JAA_EXT_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The thing at which a part begins, where `size` things are cut into `parts` near-equal parts, and the part that a
// thing lies in. Int must hold size * parts.
template <typename Int>
JAA_EXT_INLINE Int part_begin(Int part, Int size, Int parts) {
  return part * size / parts;
}
template <typename Int>
JAA_EXT_INLINE Int part_of(Int thing, Int size, Int parts) {
  return ((thing + 1) * parts - 1) / size;
}

}  // namespace jaa_ext
