// Triangle meshes and the z-buffer that draws them.
#pragma once

#include <cstdint>
#include <vector>

#include "vec.h"

namespace jaa_ext::rendering {

struct Triangle {
  int32_t a, b, c;
};

enum class Material : uint8_t { skin, eye, teeth, tongue, lashes, cloth, hair, glossy, lens };

// Positions in millimetres as the camera sees them: x to the right, y up, z towards it.
struct Mesh {
  std::vector<Vec3> positions;
  std::vector<Vec3> normals;
  // Where on the unmoved thing a vertex is, for textures.
  std::vector<Vec3> coordinates;
  std::vector<Triangle> triangles;
  Material material = Material::glossy;
  Vec3 colour;
  float gloss = 0.2f;

  void compute_normals();
  // Joins a grid of rows and columns of vertices, of which `start` is the first, to triangles; a closed one joins the
  // last column to the first.
  void add_grid_triangles(int start, int rows, int columns, bool closed);
};

// What is nearest in each sample of a picture.
struct Samples {
  int width = 0, height = 0;
  std::vector<float> depth;
  std::vector<int32_t> triangle;  // -1: none
  std::vector<float> u, v;        // weights of the triangle's corners a and b

  Samples(int width, int height);
};

// Screen positions: x, y in samples, z the depth, smaller in front.
// Triangle i is noted as first + i. Where `samples.triangle` is empty, depths alone are drawn.
enum class Faces { both, front };  // front: triangles seen from behind are left out
void draw(const std::vector<Vec3>& screen, const std::vector<Triangle>& triangles, int32_t first, Faces faces,
          Samples& samples);

// Normals of vertices, of unit length, as sums of the triangles' around them.
void compute_normals(const std::vector<Vec3>& positions, const std::vector<Triangle>& triangles,
                     std::vector<Vec3>& normals);

}  // namespace jaa_ext::rendering
