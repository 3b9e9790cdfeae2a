// Tiles of noise, made once, from which textures are read.
#pragma once

#include <vector>

#include "vec.h"

namespace jaa_ext::rendering {

// A square of values with mean 0 and variance 1, which repeats in both directions.
class NoiseTile {
 public:
  static constexpr int side = 256;

  // Sums octaves of smooth noise. Each has half the wavelength of the one before and `persistence` times its height;
  // `first` and `last` are the waves along a side in the first and the last octave. A stretch above 1 makes waves
  // longer along y, as strands of hair are.
  NoiseTile(uint32_t seed, int first, int last, float persistence, int stretch = 1);

  // Interpolates at (x, y), in values from the first one; any float.
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

// The tiles that all textures share.
struct Noise {
  NoiseTile clouds{1, 4, 64, 0.55f};
  NoiseTile pores{2, 96, 128, 0.8f};
  NoiseTile strands{3, 32, 128, 0.9f, 16};
  static const Noise& shared();
};

}  // namespace jaa_ext::rendering
