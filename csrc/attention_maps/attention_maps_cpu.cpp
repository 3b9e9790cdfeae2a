#include <algorithm>

#include "../common/dispatch.h"
#include "attention_maps.h"

namespace jaa_ext {
namespace {

// Draws one row of a region of interest. GCC makes vectors of the loop only because `roi` is a copy, which no write
// to `values` can change, and because `i` begins at 0.
template <typename T, typename C>
void draw_row(const Roi<C> roi, int row, T* values) {
  const int columns = roi.x1 + 1 - roi.x0;
  for (int i = 0; i < columns; ++i) {
    const C value = widen(values[i]), weight = roi.weight(row, roi.x0 + i);
    values[i] = narrow<T>(weight > value ? weight : value);
  }
}

template <typename T>
void draw(const AttentionMapsParams& params, const AttentionRules& rules, int64_t n, int64_t au) {
  using C = typename Compute<T>::type;
  const int64_t side = params.map_size;
  T* map = static_cast<T*>(params.maps) + (n * params.aus + au) * side * side;
  std::fill_n(map, side * side, T{});
  const Roi<C> first = roi_of<T>(params, n, rules.points[2 * au], rules.dy[au]);
  const Roi<C> second = roi_of<T>(params, n, rules.points[2 * au + 1], rules.dy[au]);
  if (!first.is_finite() || !second.is_finite()) return;
  for (const Roi<C>& roi : {first, second}) {
    for (int row = roi.y0; row <= roi.y1; ++row) draw_row(roi, row, map + row * side + roi.x0);
  }
}

}  // namespace

void attention_maps_cpu(const AttentionMapsParams& params, AttentionRules rules, const Parallel& parallel) {
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    parallel(params.batch * params.aus, [&](int64_t begin, int64_t end) {
      for (int64_t map = begin; map < end; ++map) draw<T>(params, rules, map / params.aus, map % params.aus);
    });
  });
}

}  // namespace jaa_ext
