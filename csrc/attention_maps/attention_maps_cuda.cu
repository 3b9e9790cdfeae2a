// One block a map: every thread works out the two centres, then the block writes its map once.
#include <algorithm>

#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "../common/vector.h"
#include "attention_maps.h"

namespace jaa_ext {
namespace {

constexpr int MOST_AUS = 64;  // of one launch: the rules travel in the kernel's parameters

struct RuleTable {
  int first[MOST_AUS], second[MOST_AUS];
  double dy[MOST_AUS];
};

// A thread writes V pixels at once.
template <typename T, int V>
__global__ void attention_maps_kernel(AttentionMaps op, RuleTable rules, int first_au, int aus) {
  using C = typename Compute<T>::type;
  const int64_t side = op.map_size;
  for (int64_t index = blockIdx.x; index < op.batch * aus; index += gridDim.x) {
    const int64_t n = index / aus;
    const int au = static_cast<int>(index % aus);
    const Roi<C> first = roi_of<T>(op, n, rules.first[au], rules.dy[au]);
    const Roi<C> second = roi_of<T>(op, n, rules.second[au], rules.dy[au]);
    const bool finite = first.is_finite() && second.is_finite();
    T* map = static_cast<T*>(op.maps) + (n * op.aus + first_au + au) * side * side;
    for (int64_t place = threadIdx.x * V; place < side * side; place += blockDim.x * V) {
      int row = static_cast<int>(place / side), column = static_cast<int>(place % side);
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
      *reinterpret_cast<Vector<T, V>*>(map + place) = pixels;
    }
  }
}

}  // namespace

void attention_maps_cuda(const AttentionMaps& op, AttentionRules rules, CudaStream stream) {
  for (int64_t begin = 0; begin < op.aus; begin += MOST_AUS) {
    const int aus = static_cast<int>(std::min<int64_t>(op.aus - begin, MOST_AUS));
    RuleTable table{};
    for (int au = 0; au < aus; ++au) {
      table.first[au] = static_cast<int>(rules.points[2 * (begin + au)]);
      table.second[au] = static_cast<int>(rules.points[2 * (begin + au) + 1]);
      table.dy[au] = rules.dy[begin + au];
    }
    dispatch(op.scalar, [&](auto zero) {
      using T = decltype(zero);
      constexpr int V = VECTOR_BYTES / sizeof(T);
      const bool fits =
          op.map_size * op.map_size % V == 0 && reinterpret_cast<uintptr_t>(op.maps) % VECTOR_BYTES == 0;
      const auto kernel = fits ? &attention_maps_kernel<T, V> : &attention_maps_kernel<T, 1>;
      launch(kernel, op.batch * aus, 256, stream, op, table, static_cast<int>(begin), aus);
    });
  }
}

}  // namespace jaa_ext
