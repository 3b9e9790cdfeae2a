// What lies behind the head, and what a camera makes of the light.
#pragma once

#include <cstdint>
#include <vector>

#include "scene.h"

namespace jaa_ext::rendering {

// A picture of linear light.
struct Picture {
  int width, height;
  std::vector<Vec3> pixels;
  Picture(int width, int height) : width(width), height(height), pixels(static_cast<size_t>(width) * height) {}
};

// size x size pixels.
Picture background(const Scene& scene);

// (size, size, 3) of grey levels: exposure, tone, blur, noise and JPEG.
std::vector<uint8_t> photograph(const Scene& scene, Picture light, float exposure);

}  // namespace jaa_ext::rendering
