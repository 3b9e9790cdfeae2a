// The background of a picture, and the camera that turns light into pixels.
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

// Draws what lies behind the head, scene.size x scene.size pixels.
Picture background(const Scene& scene);

// Takes a photograph of the light, with exposure, tone, blur, noise and JPEG: grey levels (size, size, 3).
std::vector<uint8_t> photograph(const Scene& scene, Picture light, float exposure);

}  // namespace jaa_ext::rendering
