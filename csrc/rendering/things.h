// What a head may wear or have before it, as meshes in the camera's frame.
#pragma once

#include <vector>

#include "head.h"
#include "scene.h"

namespace jaa_ext::rendering {

// Hair or a scarf that hangs around the head. Coordinates: radians around the head times 90, height, and how far from
// the curtain's edge, all in millimetres. `inset` makes an inner layer.
Mesh curtain(const PosedHead& head, const Scene& scene, float inset);

// Rims, bridge and temples; and the two lenses.
Mesh glasses(const Head& head, const PosedHead& posed, const Scene& scene);
Mesh lenses(const Head& head, const PosedHead& posed, const Scene& scene);

// A cap over the scalp, and its brim, if any.
Mesh hat(const Head& head, const PosedHead& posed, const Scene& scene);

Mesh rod(const PosedHead& posed, const Rod& rod);

}  // namespace jaa_ext::rendering
