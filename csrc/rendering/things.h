// What a head may wear or have in front of it, as meshes in the camera's frame.
#pragma once

#include <vector>

#include "head.h"
#include "scene.h"

namespace jaa_ext::rendering {

// Hair or a scarf that hangs around the head. The coordinates are radians around the head times 90, the height, and
// the distance from the curtain's edge, in millimetres. `inset` makes an inner layer.
Mesh curtain(const PosedHead& head, const Scene& scene, float inset);

// Rims, bridge and temples of glasses, and their two lenses.
Mesh glasses(const Head& head, const PosedHead& posed, const Scene& scene);
Mesh lenses(const Head& head, const PosedHead& posed, const Scene& scene);

// A cap over the scalp, with its brim if it has one.
Mesh hat(const Head& head, const PosedHead& posed, const Scene& scene);

Mesh rod(const PosedHead& posed, const Rod& rod);

}  // namespace jaa_ext::rendering
