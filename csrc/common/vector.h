// Neighbouring values that are read and written together.
#pragma once

namespace jaa_ext {

constexpr int VECTOR_BYTES = 16;  // the most that a CUDA thread reads at once

template <typename T, int V>
struct alignas(V * sizeof(T)) Vector {
  T lanes[V];
};

}  // namespace jaa_ext
