// How CPU kernels run loops on torch's thread pool without knowing torch.
#pragma once

#include <cstdint>
#include <functional>

namespace jaa_ext {

using Range = std::function<void(int64_t begin, int64_t end)>;

// Splits 0..count into ranges and runs `range` on each, several at once.
using Parallel = std::function<void(int64_t count, const Range& range)>;

}  // namespace jaa_ext
