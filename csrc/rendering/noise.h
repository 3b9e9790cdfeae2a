// Tiles of noise, made once, that textures are looked up in.
#pragma once

#include <vector>

#include "vec.h"

namespace jaa_ext::rendering {

// A square of values of mean 0 and variance 1 that repeats.
class NoiseTile {
 public:
  static constexpr int side = 256;

  // Sums octaves of smooth noise, each of half the wavelength and `persistence` times the height of the one before;
  // `first` and `last` count the waves per side of the first and the last one. A stretch above 1 makes waves longer
  // along y, as strands of hair are.
  NoiseTile(uint32_t seed, int first, int last, float persistence, int stretch = 1);

  // Between the values, at x, y in values; any float.
  float operator()(float x, float y) const {
    const int left = floor_of(x), top = floor_of(y);
    const float fx = x - left, fy = y - top;
    const int x0 = left & (side - 1), x1 = (x0 + 1) & (side - 1);
    const int y0 = top & (side - 1), y1 = (y0 + 1) & (side - 1);
    const float a = mix(values_[y0 * side + x0], values_[y0 * side + x1], fx);
    const float b = mix(values_[y1 * side + x0], values_[y1 * side + x1], fx);
    return mix(a, b, fy);
  }

 private:
  std::vector<float> values_;
};

// The tiles that everything shares.
struct Noise {
  NoiseTile clouds{1, 4, 64, 0.55f};
  NoiseTile pores{2, 96, 128, 0.8f};
  NoiseTile strands{3, 32, 128, 0.9f, 16};
  static const Noise& shared();
};

}  // namespace jaa_ext::rendering
