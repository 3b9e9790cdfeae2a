// One block draws one map: every thread works out the two centres, then the threads write the map's pixels once.
#include <algorithm>

#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "../common/vector.h"
#include "attention_maps.h"

namespace jaa_ext {
namespace {

constexpr int MOST_AUS = 64;  // of one launch, whose rules are kernel parameters

struct RuleTable {
  int first[MOST_AUS], second[MOST_AUS];
  double dy[MOST_AUS];
};

// A thread writes V pixels at once.
template <typename T, int V>
__global__ void attention_maps_kernel(AttentionMapsParams params, RuleTable rules, int first_au, int aus) {
  using C = typename Compute<T>::type;
  const int64_t side = params.map_size;
  for (int64_t index = blockIdx.x; index < params.batch * aus; index += gridDim.x) {
    const int64_t n = index / aus;
    const int au = static_cast<int>(index % aus);
    const Roi<C> first = roi_of<T>(params, n, rules.first[au], rules.dy[au]);
    const Roi<C> second = roi_of<T>(params, n, rules.second[au], rules.dy[au]);
    const bool finite = first.is_finite() && second.is_finite();
    T* map = static_cast<T*>(params.maps) + (n * params.aus + first_au + au) * side * side;
    for (int64_t pixel = threadIdx.x * V; pixel < side * side; pixel += blockDim.x * V) {
      int row = static_cast<int>(pixel / side), column = static_cast<int>(pixel % side);
      Vector<T, V> pixels;
      for (int v = 0; v < V; ++v) {
        C value = 0;
        const auto draw = [&](const Roi<C>& roi) {
          if (!finite || !roi.contains(row, column)) return;
          const C weight = roi.weight(row, column);
          value = weight > value ? weight : value;
        };
        draw(first);
        draw(second);
        pixels.lanes[v] = narrow<T>(value);
        if (++column == side) {
          column = 0;
          ++row;
        }
      }
      *reinterpret_cast<Vector<T, V>*>(map + pixel) = pixels;
    }
  }
}

}  // namespace

void attention_maps_cuda(const AttentionMapsParams& params, AttentionRules rules, CudaStream stream) {
  for (int64_t begin = 0; begin < params.aus; begin += MOST_AUS) {
    const int aus = static_cast<int>(std::min<int64_t>(params.aus - begin, MOST_AUS));
    RuleTable table{};
    for (int au = 0; au < aus; ++au) {
      table.first[au] = static_cast<int>(rules.points[2 * (begin + au)]);
      table.second[au] = static_cast<int>(rules.points[2 * (begin + au) + 1]);
      table.dy[au] = rules.dy[begin + au];
    }
    dispatch(params.scalar_type, [&](auto zero) {
      using T = decltype(zero);
      constexpr int V = VECTOR_BYTES / sizeof(T);
      const bool fits =
          params.map_size * params.map_size % V == 0 && reinterpret_cast<uintptr_t>(params.maps) % VECTOR_BYTES == 0;
      const auto kernel = fits ? &attention_maps_kernel<T, V> : &attention_maps_kernel<T, 1>;
      launch(kernel, params.batch * aus, 256, stream, params, table, static_cast<int>(begin), aus);
    });
  }
}

}  // namespace jaa_ext
