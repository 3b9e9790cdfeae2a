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
  // Where the vertices are on the thing before it is turned, for textures.
  std::vector<Vec3> coordinates;
  std::vector<Triangle> triangles;
  Material material = Material::glossy;
  Vec3 colour;
  float gloss = 0.2f;

  void compute_normals();
  // Makes triangles of a grid of rows and columns of vertices, the first of which is `start`. A closed grid joins its
  // last column to its first.
  void add_grid_triangles(int start, int rows, int columns, bool closed);
};

// The nearest surface in each sample of a picture.
struct Samples {
  int width = 0, height = 0;
  std::vector<float> depth;
  std::vector<int32_t> triangle;  // -1: none
  std::vector<float> u, v;        // weights of the triangle's corners a and b

  Samples(int width, int height);
};

enum class Faces { both, front };  // front leaves out triangles that are seen from behind
// Draws triangles. `screen` has x and y in samples, and the depth, which is smaller in front. Triangle i is noted as
// first + i. Where `samples.triangle` is empty, only depths are drawn.
void draw(const std::vector<Vec3>& screen, const std::vector<Triangle>& triangles, int32_t first, Faces faces,
          Samples& samples);

// Computes the normals of vertices, of unit length, as sums of those of the triangles around them.
void compute_normals(const std::vector<Vec3>& positions, const std::vector<Triangle>& triangles,
                     std::vector<Vec3>& normals);

}  // namespace jaa_ext::rendering
