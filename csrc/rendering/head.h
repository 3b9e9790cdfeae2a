// The head of which all faces are made: its shape, identities, facial actions, and maps of its skin.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "mesh.h"

namespace jaa_ext::rendering {

// A map of the face as seen from the front, with two values for a millimetre. The middle column is between the eyes,
// and row 0 is `top` millimetres above them.
struct FrontMap {
  static constexpr float per_millimetre = 2, top = 80;
  int side = 0;
  std::vector<float> values;  // (side, side) of 0..1

  // The value at x, y millimetres of the average head, or 0 outside the map.
  float operator()(float x, float y) const {
    const float column = x * per_millimetre + side * 0.5f - 0.5f, row = (top - y) * per_millimetre - 0.5f;
    if (!(column >= 0 && row >= 0 && column < side - 1 && row < side - 1)) return 0;
    const int j = static_cast<int>(column), i = static_cast<int>(row);
    const float fx = column - j, fy = row - i;
    const float* p = &values[i * side + j];
    return mix(mix(p[0], p[1], fx), mix(p[side], p[side + 1], fx), fy);
  }
};

// The arrays of the data file.
struct HeadData {
  std::vector<Vec3> vertices;   // of the average head, millimetres; origin between the eyes, x to the person's left
  std::vector<float> identity;  // (identities, vertices, 3) millimetres per standard deviation
  std::vector<float> actions;   // (actions, vertices, 3) millimetres
  std::vector<Triangle> triangles;
  std::vector<Material> materials;                  // of each triangle
  std::map<std::string, std::vector<float>> masks;  // (vertices,) of 0..1: lips, eyelids, inside_mouth, ears, ...
  std::vector<Triangle> landmark_corners;           // of each of the 49 landmarks, the three vertices around it
  std::vector<Vec3> landmark_weights;               // of these vertices
  std::vector<Vec3> eye_centres;                    // of the person's right and left eye
  float eye_radius = 12;
  std::map<std::string, FrontMap> reliefs;  // heights of creases
  std::map<std::string, FrontMap> paints;   // brow, beard, ...
};

struct Head : HeadData {
  static constexpr float axis_z = -75;  // the head's vertical axis, millimetres behind the eyes

  explicit Head(HeadData data);
  // The position of landmark k on a head whose vertices have these positions.
  Vec3 landmark(const std::vector<Vec3>& positions, size_t k) const;

  // How much of the sky each vertex of the average head sees, 0..1.
  std::vector<float> openness;
  // The triangles of skin of which some corner grows hair, and the lashes. `triangles` keeps all but the lashes.
  std::vector<Triangle> scalp_triangles, lash_triangles;
  // Coordinates along which strands lie: radians around the crown times 90, and the distance from it in millimetres.
  std::vector<Vec3> hair_places;
  const std::vector<float>& mask(const std::string& name) const;
  const FrontMap& relief(const std::string& name) const;
  const FrontMap& paint(const std::string& name) const;
};

// A head with a shape and an expression, before and after it is turned.
struct PosedHead {
  std::vector<Vec3> neutral;    // (vertices,) with the identity alone, millimetres
  std::vector<Vec3> positions;  // (vertices,) with the expression too, as the camera sees them
  std::vector<Vec3> normals;
  float rotation[9];
  float distance;                // from the camera to the origin, millimetres
  std::vector<float> landmarks;  // (49, 2) projected: x right, y down, millimetres at the origin's distance

  // Returns x to the right and y down, in millimetres at the origin's distance, and the depth.
  Vec3 project(Vec3 p) const {
    const float depth = distance - p.z, scale = distance / depth;
    return {p.x * scale, -p.y * scale, depth};
  }
  Vec3 turn(Vec3 p) const;
};

// Poses a head. `rotation` is a 3 x 3 matrix, row by row; identity and actions are weights of all that the head has.
PosedHead pose(const Head& head, const std::vector<float>& identity, const std::vector<float>& actions,
               const std::vector<float>& rotation, float distance);

}  // namespace jaa_ext::rendering
