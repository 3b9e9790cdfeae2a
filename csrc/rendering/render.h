// The renderer's one function.
#pragma once

#include <vector>

#include "head.h"
#include "scene.h"

namespace jaa_ext::rendering {

// Draws a scene: (size, size, 3) grey levels, RGB.
std::vector<uint8_t> render(const Head& head, const PosedHead& posed, const Scene& scene);

}  // namespace jaa_ext::rendering
