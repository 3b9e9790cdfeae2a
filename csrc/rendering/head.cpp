#include "head.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace jaa_ext::rendering {

namespace {

constexpr int sky_directions = 64;

// Returns how much of the sky each vertex sees. Draws the head from afar, from many directions in turn: what is drawn
// gets light from there.
std::vector<float> sky_seen(const std::vector<Vec3>& vertices, const std::vector<Triangle>& triangles) {
  constexpr int side = 160;
  constexpr float scale = side / 420.0f;  // samples per millimetre
  std::vector<Vec3> normals;
  compute_normals(vertices, triangles, normals);
  std::vector<float> seen(vertices.size()), all(vertices.size(), 1e-6f);
  std::vector<Vec3> screen(vertices.size());
  for (int k = 0; k < sky_directions; k++) {
    // A Fibonacci sphere.
    const float y = 1 - 2 * (k + 0.5f) / sky_directions, r = std::sqrt(1 - y * y), angle = 2.3999632f * k;
    const Vec3 light{r * cos_of(angle), y, r * sin_of(angle)};
    const Vec3 across = normalized(cross(light, std::fabs(light.y) < 0.9f ? Vec3{0, 1, 0} : Vec3{1, 0, 0}));
    const Vec3 down = cross(light, across);
    const auto seen_from = [&](Vec3 p) {
      p.y += 40;
      p.z += 70;  // towards the middle of the head
      return Vec3{dot(p, across) * scale + side / 2.0f, dot(p, down) * scale + side / 2.0f, -dot(p, light)};
    };
    for (size_t i = 0; i < vertices.size(); i++) screen[i] = seen_from(vertices[i]);
    Samples map(side, side);
    map.triangle.clear();
    draw(screen, triangles, 0, Faces::both, map);
    for (size_t i = 0; i < vertices.size(); i++) {
      const float cosine = dot(normals[i], light);
      if (cosine <= 0) continue;
      all[i] += cosine;
      const Vec3 p = seen_from(vertices[i] + normals[i] * 3.0f);
      const int column = static_cast<int>(p.x + 0.5f), row = static_cast<int>(p.y + 0.5f);
      const bool inside = column >= 0 && row >= 0 && column < side && row < side;
      if (!inside || map.depth[row * side + column] > p.z - 1.5f) seen[i] += cosine;
    }
  }
  for (size_t i = 0; i < seen.size(); i++) seen[i] /= all[i];
  return seen;
}

template <class T>
const T& found(const std::map<std::string, T>& all, const std::string& name, const char* what) {
  const auto place = all.find(name);
  if (place == all.end()) throw std::invalid_argument(std::string("the head has no ") + what + " \"" + name + '"');
  return place->second;
}

}  // namespace

Head::Head(HeadData data) : HeadData(std::move(data)) {
  const std::vector<float>& scalp = mask("scalp");
  std::vector<Triangle> solid;
  std::vector<Material> solid_materials;
  for (size_t i = 0; i < triangles.size(); i++) {
    const Triangle t = triangles[i];
    if (materials[i] == Material::lashes) {
      lash_triangles.push_back(t);
      continue;
    }
    solid.push_back(t);
    solid_materials.push_back(materials[i]);
    if (materials[i] == Material::skin && std::max({scalp[t.a], scalp[t.b], scalp[t.c]}) > 0) {
      scalp_triangles.push_back(t);
    }
  }
  triangles = std::move(solid);
  materials = std::move(solid_materials);
  openness = sky_seen(vertices, triangles);
  for (const Vec3 p : vertices) {
    const float z = p.z - axis_z, from_axis = std::sqrt(p.x * p.x + z * z);
    hair_places.push_back({atan2_of(p.x, z) * 90, -atan2_of(from_axis, p.y) * 90, 0});
  }
}

Vec3 Head::landmark(const std::vector<Vec3>& positions, size_t k) const {
  const Triangle t = landmark_corners[k];
  const Vec3 w = landmark_weights[k];
  return positions[t.a] * w.x + positions[t.b] * w.y + positions[t.c] * w.z;
}

const std::vector<float>& Head::mask(const std::string& name) const { return found(masks, name, "mask"); }
const FrontMap& Head::relief(const std::string& name) const { return found(reliefs, name, "relief"); }
const FrontMap& Head::paint(const std::string& name) const { return found(paints, name, "paint"); }

Vec3 PosedHead::turn(Vec3 p) const {
  const float* r = rotation;
  return {r[0] * p.x + r[1] * p.y + r[2] * p.z, r[3] * p.x + r[4] * p.y + r[5] * p.z,
          r[6] * p.x + r[7] * p.y + r[8] * p.z};
}

PosedHead pose(const Head& head, const std::vector<float>& identity, const std::vector<float>& actions,
               const std::vector<float>& rotation, float distance) {
  const size_t vertices = head.vertices.size(), values = 3 * vertices;
  if (identity.size() * values != head.identity.size() || actions.size() * values != head.actions.size()) {
    throw std::invalid_argument("pose: wanted " + std::to_string(head.identity.size() / values) + " weights of " +
                                "identity and " + std::to_string(head.actions.size() / values) + " of actions, got " +
                                std::to_string(identity.size()) + " and " + std::to_string(actions.size()));
  }
  if (rotation.size() != 9) throw std::invalid_argument("pose: rotation must be 9 numbers");
  PosedHead posed;
  std::copy(rotation.begin(), rotation.end(), posed.rotation);
  posed.distance = distance;
  posed.neutral = head.vertices;
  const auto add = [&](std::vector<Vec3>& to, const std::vector<float>& basis, const std::vector<float>& weights) {
    float* out = &to[0].x;
    for (size_t k = 0; k < weights.size(); k++) {
      const float weight = weights[k];
      if (weight == 0) continue;
      const float* in = &basis[k * values];
      for (size_t i = 0; i < values; i++) out[i] += weight * in[i];
    }
  };
  add(posed.neutral, head.identity, identity);
  posed.positions = posed.neutral;
  add(posed.positions, head.actions, actions);
  for (Vec3& p : posed.positions) p = posed.turn(p);
  compute_normals(posed.positions, head.triangles, posed.normals);
  for (size_t i = 0; i < head.landmark_corners.size(); i++) {
    const Vec3 p = posed.project(head.landmark(posed.positions, i));
    posed.landmarks.push_back(p.x);
    posed.landmarks.push_back(p.y);
  }
  return posed;
}

}  // namespace jaa_ext::rendering
