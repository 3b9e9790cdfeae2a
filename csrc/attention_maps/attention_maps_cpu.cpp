#include <algorithm>

#include "../common/dispatch.h"
#include "attention_maps.h"

namespace jaa_ext {
namespace {

template <typename T>
void draw(const AttentionMaps& op, const AttentionRules& rules, int64_t n, int64_t au) {
  using C = typename Compute<T>::type;
  const int64_t side = op.map_size;
  T* map = static_cast<T*>(op.maps) + (n * op.aus + au) * side * side;
  std::fill_n(map, side * side, T{});
  const Roi<C> first = roi_of<T>(op, n, rules.points[2 * au], rules.dy[au]);
  const Roi<C> second = roi_of<T>(op, n, rules.points[2 * au + 1], rules.dy[au]);
  if (!first.is_finite() || !second.is_finite()) return;
  for (const Roi<C>& roi : {first, second}) {
    for (int row = roi.y0; row <= roi.y1; ++row) {
      for (int column = roi.x0; column <= roi.x1; ++column) {
        T& value = map[row * side + column];
        value = narrow<T>(std::max(widen(value), roi.weight(row, column)));
      }
    }
  }
}

}  // namespace

void attention_maps_cpu(const AttentionMaps& op, AttentionRules rules, const Parallel& parallel) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    parallel(op.batch * op.aus, [&](int64_t begin, int64_t end) {
      for (int64_t map = begin; map < end; ++map) draw<T>(op, rules, map / op.aus, map % op.aus);
    });
  });
}

}  // namespace jaa_ext
