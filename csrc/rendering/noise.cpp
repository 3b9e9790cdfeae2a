#include "noise.h"

namespace jaa_ext::rendering {

NoiseTile::NoiseTile(uint32_t seed, int first, int last, float persistence, int stretch) : values_(side * side) {
  float height = 1;
  for (int waves = first; waves <= last; waves *= 2, height *= persistence) {
    const int across = waves, down = waves / stretch < 1 ? 1 : waves / stretch;
    const auto at = [&](int column, int row) {
      return random_of(seed + 977u * waves, (row % down) * 4096u + column % across) * 2 - 1;
    };
    for (int y = 0; y < side; y++) {
      for (int x = 0; x < side; x++) {
        const float u = static_cast<float>(x) * across / side, v = static_cast<float>(y) * down / side;
        const int column = static_cast<int>(u), row = static_cast<int>(v);
        const float fx = smoothstep(0, 1, u - column), fy = smoothstep(0, 1, v - row);
        values_[y * side + x] += height * mix(mix(at(column, row), at(column + 1, row), fx),
                                              mix(at(column, row + 1), at(column + 1, row + 1), fx), fy);
      }
    }
  }
  double sum = 0, squares = 0;
  for (const float value : values_) sum += value, squares += static_cast<double>(value) * value;
  const double mean = sum / values_.size();
  const auto scale = static_cast<float>(1 / std::sqrt(squares / values_.size() - mean * mean));
  for (float& value : values_) value = (value - static_cast<float>(mean)) * scale;
}

const Noise& Noise::shared() {
  static const Noise noise;
  return noise;
}

}  // namespace jaa_ext::rendering
