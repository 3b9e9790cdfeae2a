// How launchers of CUDA kernels, which know no torch, get memory for partial results.
#pragma once

#include <cstdint>
#include <functional>

namespace jaa_ext {

// Returns so many bytes of the device's memory, for the kernels of one launcher, which calls it at most once.
using Allocate = std::function<void*(int64_t bytes)>;

}  // namespace jaa_ext
