#include "things.h"

#include <algorithm>

#include "noise.h"

namespace jaa_ext::rendering {

namespace {

constexpr float pi = 3.1415927f;
constexpr float axis_z = Head::axis_z;

void turn_all(const PosedHead& head, Mesh& mesh) {
  for (Vec3& p : mesh.positions) p = head.turn(p);
  mesh.compute_normals();
}

// Adds a tube around a line of points, with `around` corners. `closed` joins its ends.
void add_tube(Mesh& mesh, const std::vector<Vec3>& line, float radius, float flatness, bool closed) {
  constexpr int around = 6;
  const int points = static_cast<int>(line.size()), start = static_cast<int>(mesh.positions.size());
  for (int i = 0; i < points; i++) {
    const Vec3 before = line[closed ? (i + points - 1) % points : std::max(0, i - 1)];
    const Vec3 after = line[closed ? (i + 1) % points : std::min(points - 1, i + 1)];
    const Vec3 along = normalized(after - before);
    const Vec3 across = normalized(cross(along, std::fabs(along.z) < 0.9f ? Vec3{0, 0, 1} : Vec3{0, 1, 0}));
    const Vec3 up = cross(across, along);
    for (int k = 0; k < around; k++) {
      const float angle = 2 * pi * k / around;
      mesh.positions.push_back(line[i] + across * (radius * cos_of(angle)) +
                               up * (radius * flatness * sin_of(angle)));
    }
  }
  for (int i = 0; i < (closed ? points : points - 1); i++) {
    for (int k = 0; k < around; k++) {
      const int a = start + i * around + k, b = start + i * around + (k + 1) % around;
      const int next = ((i + 1) % points - i) * around;
      mesh.triangles.push_back({a, b, a + next});
      mesh.triangles.push_back({b, b + next, a + next});
    }
  }
}

constexpr int rim_points = 28;

// Returns the middle line of the rim in front of the person's right (0) or left (1) eye, in the head's frame.
std::vector<Vec3> rim(const Head& head, const PosedHead& posed, const Scene& scene, int eye) {
  const auto point = [&](int k) { return head.landmark(posed.neutral, k); };
  const Vec3 outer = point(eye == 0 ? 19 : 28), inner = point(eye == 0 ? 22 : 25), nasion = point(10);
  const Vec3 centre = (outer + inner) * 0.5f;
  const float z = std::max(nasion.z + 1, centre.z + 14);
  const float sign = eye == 0 ? -1.0f : 1.0f;
  std::vector<Vec3> line;
  for (int i = 0; i < rim_points; i++) {
    const float angle = 2 * pi * i / rim_points, c = cos_of(angle), s = sin_of(angle);
    // A superellipse: a power of 2 gives an ellipse, and larger powers come near to a rectangle.
    const float r =
        pow_of(pow_of(std::fabs(c), scene.rim_power) + pow_of(std::fabs(s), scene.rim_power), -1 / scene.rim_power);
    const float x = centre.x + sign * 1.5f + scene.rim_width * r * c, y = centre.y - 2 + scene.rim_height * r * s;
    line.push_back({x, y, z - 0.0022f * x * x});
  }
  return line;
}

}  // namespace

Mesh curtain(const PosedHead& head, const Scene& scene, float inset) {
  // How far the head reaches from the axis, by height and angle.
  constexpr int angles = 64;
  constexpr float step = 6;
  const float top = 150, bottom = scene.curtain_bottom;
  const int rows = std::max(2, static_cast<int>((top - bottom) / step) + 1);
  std::vector<float> reach(static_cast<size_t>(rows) * angles, 0.0f);
  float highest = -1e9f;
  for (const Vec3 p : head.neutral) {
    highest = std::max(highest, p.y);
    const float r = std::sqrt(p.x * p.x + (p.z - axis_z) * (p.z - axis_z));
    const int row = static_cast<int>((top - p.y) / step + 0.5f);
    const float angle = atan2_of(p.x, p.z - axis_z);
    const int column = static_cast<int>((angle + pi) / (2 * pi) * angles) % angles;
    if (row >= 0 && row < rows && r < 115) {
      for (const int near : {column, (column + 1) % angles, (column + angles - 1) % angles}) {
        reach[row * angles + near] = std::max(reach[row * angles + near], r);
      }
    }
  }
  const float volume = scene.curtain_volume - inset;
  const int first = std::max(0, static_cast<int>((top - highest - volume) / step));
  Mesh mesh;
  mesh.material = scene.curtain_is_cloth ? Material::cloth : Material::hair;
  mesh.colour = scene.curtain_is_cloth ? scene.cloth : scene.hair;
  constexpr int columns = 56;
  std::vector<float> hull(angles, 0.0f);
  const Noise& noise = Noise::shared();
  const float shift = 37.0f * (scene.seed % 97);
  for (int row = first; row < rows; row++) {
    const float y = top - row * step;
    for (int k = 0; k < angles; k++) {
      // What hangs stays as far out as the head above it, less the taper.
      const float head_here = reach[row * angles + k];
      hull[k] = std::max(head_here > 0 ? head_here + volume : 0.0f, hull[k] - scene.curtain_taper * step);
    }
    for (int pass = 0; pass < 2; pass++) {
      std::vector<float> before = hull;
      for (int k = 0; k < angles; k++) {
        hull[k] = std::max(before[k] * 0.75f,
                           0.25f * (before[(k + 1) % angles] + before[(k + angles - 1) % angles]) + 0.5f * before[k]);
      }
    }
    const float depth = scene.curtain_top - y;  // under the edge over the forehead
    for (int column = 0; column < columns; column++) {
      const float t = static_cast<float>(column) / (columns - 1);
      const auto edge = [&](int side) {
        const float rise = depth <= 0 ? 0 : std::sqrt(std::min(1.0f, depth / 45));
        const float low = smoothstep(40, 130, depth) * 0.2f;
        const float ragged = 0.05f * noise.clouds(y * 0.9f + shift, 50.0f * side + shift);
        return depth <= 0 ? 0.0f : (scene.curtain_opening[side] + low + ragged) * rise + inset * 0.012f;
      };
      const float from = edge(1), to = 2 * pi - edge(0), angle = from + (to - from) * t;
      const float place = (angle + pi) / (2 * pi) * angles - 0.5f;
      const int k0 = floor_of(place);
      const float r0 = hull[(k0 + angles) % angles], r1 = hull[(k0 + 1 + angles) % angles];
      float r = mix(r0, r1, place - k0);
      r *= 1 + 0.05f * scene.curl * noise.clouds(angle * 28 + shift, y * 0.7f + shift);
      mesh.positions.push_back({r * sin_of(angle), y, axis_z + r * cos_of(angle)});
      const float edge_distance = depth <= 0 ? 40.0f : std::min(angle - from, to - angle) * r;
      mesh.coordinates.push_back({angle * 90, y, std::min(edge_distance, y - bottom)});
    }
  }
  const int made = static_cast<int>(mesh.positions.size()) / columns;
  mesh.add_grid_triangles(0, made, columns, false);
  turn_all(head, mesh);
  return mesh;
}

Mesh glasses(const Head& head, const PosedHead& posed, const Scene& scene) {
  Mesh mesh;
  mesh.colour = scene.rim;
  mesh.gloss = 0.8f;
  const std::vector<Vec3> right = rim(head, posed, scene, 0), left = rim(head, posed, scene, 1);
  const float thin = scene.rim_radius;
  add_tube(mesh, right, thin, 1.2f, true);
  add_tube(mesh, left, thin, 1.2f, true);
  const int quarter = rim_points / 4;
  // The bridge goes over the nose, from the inner side of the right rim (angle 0) to that of the left one (angle pi).
  const Vec3 a = right[2], b = left[2 * quarter - 2];
  add_tube(mesh, {a, (a + b) * 0.5f + Vec3{0, 2, 2.5f}, b}, thin, 1, false);
  const Vec3 outer_right = right[2 * quarter - 2], outer_left = left[2];
  float ear = 68;
  for (const Vec3 p : posed.neutral) {
    if (p.y > -8 && p.y < 12 && p.z < -70 && p.z > -90) ear = std::max(ear, std::min(std::fabs(p.x), 78.0f));
  }
  add_tube(mesh, {outer_right, {-ear, outer_right.y + 1, -20}, {-ear, 2, -95}}, thin, 1.5f, false);
  add_tube(mesh, {outer_left, {ear, outer_left.y + 1, -20}, {ear, 2, -95}}, thin, 1.5f, false);
  turn_all(posed, mesh);
  return mesh;
}

Mesh lenses(const Head& head, const PosedHead& posed, const Scene& scene) {
  Mesh mesh;
  mesh.material = Material::lens;
  mesh.colour = scene.lens;
  for (int eye = 0; eye < 2; eye++) {
    const std::vector<Vec3> line = rim(head, posed, scene, eye);
    const int start = static_cast<int>(mesh.positions.size());
    Vec3 centre;
    for (const Vec3 p : line) centre += p * (1.0f / rim_points);
    mesh.positions.push_back(centre + Vec3{0, 0, 2});
    mesh.positions.insert(mesh.positions.end(), line.begin(), line.end());
    for (int i = 0; i < rim_points; i++) {
      mesh.triangles.push_back({start, start + 1 + i, start + 1 + (i + 1) % rim_points});
    }
  }
  turn_all(posed, mesh);
  return mesh;
}

Mesh hat(const Head& head, const PosedHead& posed, const Scene& scene) {
  Mesh mesh;
  mesh.material = Material::cloth;
  mesh.colour = scene.hat_colour;
  // The scalp above a tilted plane, moved outwards. Vertices below the plane are pulled up to it for a straight edge.
  std::vector<int32_t> index(posed.neutral.size(), -1);
  std::vector<Vec3> normals;
  compute_normals(posed.neutral, head.scalp_triangles, normals);
  const auto above = [&](Vec3 p) { return p.y - scene.hat_line - scene.hat_tilt * (p.z + 10) * 0.5f; };
  const auto vertex = [&](int32_t i) {
    if (index[i] < 0) {
      const Vec3 p = posed.neutral[i];
      const float height = above(p);
      Vec3 q = p + normals[i] * scene.hat_thickness;
      if (height < 0) q.y -= height;
      index[i] = static_cast<int32_t>(mesh.positions.size());
      mesh.positions.push_back(q);
      mesh.coordinates.push_back({atan2_of(p.x, p.z - axis_z) * 90, p.y, 40});
    }
    return index[i];
  };
  for (const Triangle t : head.scalp_triangles) {
    if (std::max({above(posed.neutral[t.a]), above(posed.neutral[t.b]), above(posed.neutral[t.c])}) <= 0) continue;
    mesh.triangles.push_back({vertex(t.a), vertex(t.b), vertex(t.c)});
  }
  if (scene.brim > 0) {
    constexpr int columns = 17, rows = 4;
    const int start = static_cast<int>(mesh.positions.size());
    for (int row = 0; row < rows; row++) {
      for (int column = 0; column < columns; column++) {
        const float angle = (static_cast<float>(column) / (columns - 1) - 0.5f) * 2.2f;
        const float out = scene.brim * row / (rows - 1) * std::sqrt(std::max(0.0f, 1 - 0.8f * angle * angle));
        const float r = 92 + scene.hat_thickness * 0.5f + out, z = axis_z + r * cos_of(angle) * 1.03f;
        mesh.positions.push_back(
            {0.82f * r * sin_of(angle), scene.hat_line + scene.hat_tilt * 30 - 0.18f * out - 6 * angle * angle, z});
        mesh.coordinates.push_back({angle * 90, scene.hat_line, 40});
      }
    }
    mesh.add_grid_triangles(start, rows, columns, false);
  }
  turn_all(posed, mesh);
  return mesh;
}

Mesh rod(const PosedHead& posed, const Rod& rod) {
  Mesh mesh;
  mesh.colour = rod.colour;
  mesh.gloss = rod.is_skin ? 0.1f : 0.5f;
  mesh.material = rod.is_skin ? Material::skin : Material::glossy;
  constexpr int around = 12, caps = 5;
  const Vec3 along = normalized(rod.to - rod.from);
  const Vec3 across = normalized(cross(along, std::fabs(along.z) < 0.9f ? Vec3{0, 0, 1} : Vec3{0, 1, 0}));
  const Vec3 up = cross(across, along);
  const int rows = 2 * caps;
  for (int row = 0; row < rows; row++) {
    const bool at_end = row >= caps;
    const float angle = (static_cast<float>(at_end ? row - caps : row - caps + 1) / (caps - 1)) * pi / 2;
    const float radius = at_end ? rod.to_radius : rod.from_radius;
    const Vec3 centre = (at_end ? rod.to : rod.from) + along * (radius * sin_of(angle));
    for (int k = 0; k < around; k++) {
      const float turn = 2 * pi * k / around, r = radius * cos_of(angle);
      mesh.positions.push_back(centre + across * (r * cos_of(turn)) + up * (r * sin_of(turn)));
    }
  }
  mesh.add_grid_triangles(0, rows, around, true);
  turn_all(posed, mesh);
  return mesh;
}

}  // namespace jaa_ext::rendering
