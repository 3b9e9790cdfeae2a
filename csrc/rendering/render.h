// Draws a scene: the only way in.
#pragma once

#include <vector>

#include "head.h"
#include "scene.h"

namespace jaa_ext::rendering {

// (size, size, 3) of grey levels, RGB.
std::vector<uint8_t> render(const Head& head, const PosedHead& posed, const Scene& scene);

}  // namespace jaa_ext::rendering
