#include "mesh.h"

#include <algorithm>

namespace jaa_ext::rendering {

Samples::Samples(int width, int height)
    : width(width),
      height(height),
      depth(static_cast<size_t>(width) * height, 1e9f),
      triangle(depth.size(), -1),
      u(depth.size()),
      v(depth.size()) {}

void draw(const std::vector<Vec3>& screen, const std::vector<Triangle>& triangles, int32_t first, Faces faces,
          Samples& samples) {
  const int width = samples.width, height = samples.height;
  const bool depth_alone = samples.triangle.empty();
  for (size_t i = 0; i < triangles.size(); i++) {
    const Vec3 a = screen[triangles[i].a], b = screen[triangles[i].b], c = screen[triangles[i].c];
    // Twice the area, above 0 where a, b and c go clockwise on the screen, as they do seen from behind.
    const float area = (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
    if (std::fabs(area) < 1e-9f || (faces == Faces::front && area > 0)) continue;
    const float left = std::min({a.x, b.x, c.x}), right = std::max({a.x, b.x, c.x});
    const float top = std::min({a.y, b.y, c.y}), bottom = std::max({a.y, b.y, c.y});
    if (right < 0 || bottom < 0 || left > width - 1 || top > height - 1) continue;
    const int x0 = std::max(0, -floor_of(-left)), x1 = std::min(width - 1, static_cast<int>(right));
    const int y0 = std::max(0, -floor_of(-top)), y1 = std::min(height - 1, static_cast<int>(bottom));
    if (x0 > x1 || y0 > y1) continue;
    // By how much the weights of a and b grow from sample to sample.
    const float scale = 1 / area;
    const float ux = (b.y - c.y) * scale, uy = (c.x - b.x) * scale;
    const float vx = (c.y - a.y) * scale, vy = (a.x - c.x) * scale;
    for (int y = y0; y <= y1; y++) {
      const float u0 = (x0 - c.x) * ux + (y - c.y) * uy, v0 = (x0 - c.x) * vx + (y - c.y) * vy;
      const size_t row = static_cast<size_t>(y) * width;
      for (int x = x0; x <= x1; x++) {
        const float u = u0 + (x - x0) * ux, v = v0 + (x - x0) * vx, w = 1 - u - v;
        if (u < -1e-5f || v < -1e-5f || w < -1e-5f) continue;
        const float depth = u * a.z + v * b.z + w * c.z;
        if (depth >= samples.depth[row + x]) continue;
        samples.depth[row + x] = depth;
        if (depth_alone) continue;
        samples.triangle[row + x] = first + static_cast<int32_t>(i);
        samples.u[row + x] = u;
        samples.v[row + x] = v;
      }
    }
  }
}

void compute_normals(const std::vector<Vec3>& positions, const std::vector<Triangle>& triangles,
                     std::vector<Vec3>& normals) {
  normals.assign(positions.size(), Vec3{});
  for (const Triangle& t : triangles) {
    const Vec3 n = cross(positions[t.b] - positions[t.a], positions[t.c] - positions[t.a]);
    normals[t.a] += n;
    normals[t.b] += n;
    normals[t.c] += n;
  }
  for (Vec3& n : normals) n = normalized(n);
}

void Mesh::compute_normals() { rendering::compute_normals(positions, triangles, normals); }

void Mesh::add_grid_triangles(int start, int rows, int columns, bool closed) {
  const int steps = closed ? columns : columns - 1;
  for (int row = 0; row + 1 < rows; row++) {
    for (int column = 0; column < steps; column++) {
      const int a = start + row * columns + column, b = start + row * columns + (column + 1) % columns;
      triangles.push_back({a, a + columns, b});
      triangles.push_back({b, a + columns, b + columns});
    }
  }
}

}  // namespace jaa_ext::rendering
