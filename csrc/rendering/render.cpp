#include "render.h"

#include <algorithm>
#include <utility>

#include "camera.h"
#include "mesh.h"
#include "noise.h"
#include "things.h"

namespace jaa_ext::rendering {

namespace {

// Maps of the face for one picture, made out of the head's maps.
struct FaceMaps {
  FrontMap creases, redness, beard;
};

// Where the vertices of a mesh lie on the picture, in samples.
struct Projection {
  float xx, xy, x0, yx, yy, y0;

  explicit Projection(const Scene& scene) {
    const float s = static_cast<float>(scene.samples);
    const std::array<float, 6>& m = scene.matrix;
    // The centres of pixels are whole numbers, and so are those of samples.
    xx = m[0] * s, xy = m[1] * s, x0 = (m[2] + 0.5f) * s - 0.5f;
    yx = m[3] * s, yy = m[4] * s, y0 = (m[5] + 0.5f) * s - 0.5f;
  }
  std::vector<Vec3> operator()(const PosedHead& head, const std::vector<Vec3>& positions, float nearer = 0) const {
    std::vector<Vec3> screen(positions.size());
    for (size_t i = 0; i < positions.size(); i++) {
      const Vec3 p = head.project(positions[i]);
      screen[i] = {xx * p.x + xy * p.y + x0, yx * p.x + yy * p.y + y0, p.z - nearer};
    }
    return screen;
  }
};

// The shadow of the first light.
class Shadow {
 public:
  Shadow(Vec3 light, float softness) : light_(light), softness_(softness * scale) {
    across_ = normalized(cross(light, std::fabs(light.y) < 0.9f ? Vec3{0, 1, 0} : Vec3{1, 0, 0}));
    down_ = cross(light, across_);
    map_.triangle.clear();
  }
  void add(const std::vector<Vec3>& positions, const std::vector<Triangle>& triangles, Faces faces) {
    std::vector<Vec3> screen(positions.size());
    for (size_t i = 0; i < positions.size(); i++) screen[i] = seen(positions[i]);
    draw(screen, triangles, 0, faces, map_);
  }
  // How much light a point of a surface gets: 0 in the shadow, 1 in the light.
  float operator()(Vec3 position, Vec3 normal, uint32_t sample) const {
    const Vec3 p = seen(position + normal * 1.5f);
    // The point and four others around it, turned by chance from sample to sample, stand for the light's width.
    const float turn = 6.2831853f * random_of(77, sample), c = cos_of(turn), s = sin_of(turn);
    float lit = at(p.x, p.y, p.z);
    for (const auto& [x, y] : {std::pair{c, s}, {-s, c}, {-c, -s}, {s, -c}}) {
      lit += at(p.x + x * softness_, p.y + y * softness_, p.z);
    }
    return lit * 0.2f;
  }

 private:
  static constexpr int side = 288;
  static constexpr float scale = side / 330.0f;  // samples per millimetre

  Vec3 seen(Vec3 p) const {
    return {dot(p, across_) * scale + side / 2.0f, dot(p, down_) * scale + side / 2.0f, -dot(p, light_)};
  }
  float at(float x, float y, float depth) const {
    if (!(x >= 0 && y >= 0 && x < side - 1 && y < side - 1)) return 1;
    const int j = static_cast<int>(x), i = static_cast<int>(y);
    const float fx = x - j, fy = y - i;
    const float* p = &map_.depth[static_cast<size_t>(i) * side + j];
    // A shadow begins gradually, over a millimetre, so that a surface does not shade itself in dots.
    const auto lit = [&](float nearest) { return clamp(nearest - depth + 2.5f, 0, 1); };
    return mix(mix(lit(p[0]), lit(p[1]), fx), mix(lit(p[side]), lit(p[side + 1]), fx), fy);
  }

  Vec3 light_, across_, down_;
  float softness_;
  Samples map_{side, side};
};

// A point of a triangle, given by the weights of its corners.
struct Spot {
  Triangle t;
  float u, v, w;

  // Interpolates values of vertices.
  template <class T>
  T operator()(const std::vector<T>& values) const {
    return values[t.a] * u + values[t.b] * v + values[t.c] * w;
  }
};

class Renderer {
 public:
  Renderer(const Head& head, const PosedHead& posed, const Scene& scene)
      : head_(head),
        posed_(posed),
        scene_(scene),
        noise_(Noise::shared()),
        project_(scene),
        side_(scene.size * scene.samples),
        samples_(side_, side_),
        shadow_(scene.lights.empty() ? Vec3{0, 0, 1} : scene.lights[0].direction, scene.shadow_softness) {
    for (int k = 0; k < 3; k++) offset_[k] = 256 * random_of(scene.seed, 900 + k);
  }

  std::vector<uint8_t> operator()() {
    make_maps();
    make_things();
    draw_solids();
    Picture fine(side_, side_);
    shade_solids(fine);
    draw_lashes(fine);
    draw_hair(fine);
    draw_lenses(fine);
    return photograph(scene_, reduced(fine), exposure(fine));
  }

 private:
  void make_maps() {
    static constexpr const char* names[wrinkle_count] = {"forehead",   "glabella", "nose", "crow",
                                                         "nasolabial", "bag",      "chin", "dimple"};
    const int side = head_.relief(names[0]).side;
    const size_t count = static_cast<size_t>(side) * side;
    maps_.creases = maps_.redness = maps_.beard = {side, std::vector<float>(count)};
    for (int k = 0; k < wrinkle_count; k++) {
      const float right = scene_.wrinkles[2 * k], left = scene_.wrinkles[2 * k + 1];
      if (right == 0 && left == 0) continue;
      const FrontMap& relief = head_.relief(names[k]);
      for (int i = 0; i < side; i++) {
        for (int j = 0; j < side; j++) {
          // The person's right is on the left of the map; the sides blend over 16 mm.
          const float t = clamp(0.5f + (j + 0.5f - side / 2.0f) / (16 * FrontMap::per_millimetre), 0, 1);
          maps_.creases.values[i * side + j] += mix(right, left, t) * relief.values[i * side + j];
        }
      }
    }
    const FrontMap &cheeks = head_.paint("cheeks"), &nose = head_.paint("nose_red");
    const FrontMap &beard = head_.paint("beard"), &moustache = head_.paint("moustache");
    for (size_t i = 0; i < count; i++) {
      maps_.redness.values[i] = scene_.redness * (0.8f * cheeks.values[i] + 0.6f * nose.values[i]);
      maps_.beard.values[i] =
          std::min(1.0f, scene_.beard_density * beard.values[i] + scene_.moustache_density * moustache.values[i]);
    }
  }

  void make_things() {
    if (scene_.glasses) things_.push_back(glasses(head_, posed_, scene_));
    if (scene_.hat) things_.push_back(hat(head_, posed_, scene_));
    if (scene_.long_hair) {
      if (scene_.curtain_is_cloth) {
        things_.push_back(curtain(posed_, scene_, 0));
      } else {
        things_.push_back(curtain(posed_, scene_, 5));
        outer_hair_ = curtain(posed_, scene_, 0);
      }
    }
    for (const Rod& one : scene_.rods) things_.push_back(rod(posed_, one));
  }

  void draw_solids() {
    draw(project_(posed_, posed_.positions), head_.triangles, 0, Faces::front, samples_);
    shadow_.add(posed_.positions, head_.triangles, Faces::front);
    int32_t first = static_cast<int32_t>(head_.triangles.size());
    for (const Mesh& thing : things_) {
      draw(project_(posed_, thing.positions), thing.triangles, first, Faces::both, samples_);
      shadow_.add(thing.positions, thing.triangles, Faces::both);
      first += static_cast<int32_t>(thing.triangles.size());
    }
  }

  // Shades the samples of each pixel, those of the same surface once.
  void shade_solids(Picture& fine) {
    const Picture behind = background(scene_);
    const int samples = scene_.samples;
    struct Shaded {
      int surface;
      float depth;
      Vec3 colour;
    };
    std::vector<Shaded> shaded;
    for (int y = 0; y < scene_.size; y++) {
      for (int x = 0; x < scene_.size; x++) {
        shaded.clear();
        for (int k = 0; k < samples * samples; k++) {
          const size_t at = static_cast<size_t>(y * samples + k / samples) * side_ + x * samples + k % samples;
          if (samples_.triangle[at] < 0) {
            fine.pixels[at] = behind.pixels[static_cast<size_t>(y) * scene_.size + x];
            continue;
          }
          const int surface = surface_of(samples_.triangle[at]);
          const float depth = samples_.depth[at];
          const auto alike = std::find_if(shaded.begin(), shaded.end(), [&](const Shaded& one) {
            return one.surface == surface && std::fabs(one.depth - depth) < 3;
          });
          if (alike == shaded.end()) {
            shaded.push_back({surface, depth, shade(at)});
            fine.pixels[at] = shaded.back().colour;
          } else {
            fine.pixels[at] = alike->colour;
          }
        }
      }
    }
  }

  // The owner of a triangle, -1 for the head or the number of a thing, and the triangle's number there.
  std::pair<int, int32_t> owner_of(int32_t triangle) const {
    int thing = -1;
    int32_t count = static_cast<int32_t>(head_.triangles.size());
    while (triangle >= count) {
      triangle -= count;
      count = static_cast<int32_t>(things_[++thing].triangles.size());
    }
    return {thing, triangle};
  }

  // A number for each material of the head and for each thing.
  int surface_of(int32_t triangle) const {
    const auto [thing, index] = owner_of(triangle);
    return thing < 0 ? static_cast<int>(head_.materials[index]) : 100 + thing;
  }

  Vec3 shade(size_t at) {
    const auto [thing, index] = owner_of(samples_.triangle[at]);
    const float u = samples_.u[at], v = samples_.v[at], w = 1 - u - v;
    if (thing >= 0) return shade_thing(at, things_[thing], {things_[thing].triangles[index], u, v, w});
    const Spot on{head_.triangles[index], u, v, w};
    switch (head_.materials[index]) {
      case Material::eye:
        return shade_eye(at, on);
      case Material::teeth:
        return shade_mouth(at, on, scene_.teeth, 0.5f);
      case Material::tongue:
        return shade_mouth(at, on, {0.42f, 0.12f, 0.11f}, 0.3f);
      default:
        return shade_skin(at, on);
    }
  }

  // Light from all sides on a surface that sees a share `open` of the sky.
  Vec3 ambient(Vec3 normal, float open, Vec3 albedo) const {
    const Vec3 light = mix(scene_.ground, scene_.sky, 0.5f + 0.5f * normal.y) + scene_.side * normal.x;
    // Light that the surface itself reflects brightens the hollows of bright things.
    const Vec3 seen{open / (1 - albedo.x * 0.8f * (1 - open)), open / (1 - albedo.y * 0.8f * (1 - open)),
                    open / (1 - albedo.z * 0.8f * (1 - open))};
    return Vec3{std::max(light.x, 0.02f), std::max(light.y, 0.02f), std::max(light.z, 0.02f)} * seen;
  }

  struct Lit {
    Vec3 diffuse, specular;
  };

  // Light from the scene's lights. `wrap` is how far each colour creeps around the surface, `power` the highlight's.
  Lit lit(size_t at, Vec3 position, Vec3 normal, Vec3 smooth, Vec3 wrap, float power) const {
    Lit sum;
    const Vec3 view = normalized(Vec3{0, 0, posed_.distance} - position);
    for (size_t k = 0; k < scene_.lights.size(); k++) {
      const Light& light = scene_.lights[k];
      const float cosine = dot(normal, light.direction);
      const Vec3 diffuse{std::max(0.0f, (cosine + wrap.x) / ((1 + wrap.x) * (1 + wrap.x))),
                         std::max(0.0f, (cosine + wrap.y) / ((1 + wrap.y) * (1 + wrap.y))),
                         std::max(0.0f, (cosine + wrap.z) / ((1 + wrap.z) * (1 + wrap.z)))};
      if (diffuse.x <= 0) continue;
      const float reached = k == 0 ? shadow_(position, smooth, static_cast<uint32_t>(at)) : 1;
      if (reached <= 0) continue;
      sum.diffuse += diffuse * light.colour * reached;
      if (cosine > 0) {
        const float mirror = std::max(0.0f, dot(normal, normalized(light.direction + view)));
        sum.specular += light.colour * (reached * pow_of(mirror, power) * (power + 2) * 0.016f);
      }
    }
    return sum;
  }

  Vec3 shade_skin(size_t at, Spot on) const {
    const Vec3 position = on(posed_.positions), smooth = normalized(on(posed_.normals));
    const Vec3 q = on(head_.vertices);
    const float depth_turn = q.z * 0.7f;
    if (on(neck_) > 0.5f && q.y < scene_.neckline + 0.004f * q.x * q.x) {
      return shade_cloth(at, position, smooth, {q.x + depth_turn, q.y, 0}, scene_.cloth, on(head_.openness));
    }
    const float front = smoothstep(-60, -35, q.z);
    const float lips = on(lips_), lids = on(lids_), inside = on(inside_);
    const float low = noise_.clouds(q.x * 0.9f + depth_turn + offset_[0], q.y * 0.9f + offset_[1]);
    const float pore = noise_.pores(q.x * 2.1f + depth_turn + offset_[1], q.y * 2.1f + offset_[2]);
    const float pore2 = noise_.pores(q.x * 2.1f + depth_turn + offset_[2], q.y * 2.1f + offset_[0]);

    Vec3 albedo = scene_.skin * exp_of(0.06f * scene_.blotches * low + 0.035f * scene_.pores * pore);
    if (front > 0) {
      const float red = front * maps_.redness(q.x, q.y);
      albedo *= Vec3{1 + 0.06f * red, 1 - 0.22f * red, 1 - 0.2f * red};
      const float dark = front * scene_.under_eye * under_eye_(q.x, q.y);
      albedo *= Vec3{1 - 0.22f * dark, 1 - 0.3f * dark, 1 - 0.24f * dark};
    }
    if (scene_.freckles > 0) {
      const float spot =
          smoothstep(1.3f, 2.0f, noise_.pores(q.x * 0.8f + depth_turn, q.y * 0.8f + offset_[0]) + 0.4f * low);
      albedo *= mix(Vec3{1, 1, 1}, Vec3{0.75f, 0.6f, 0.5f}, spot * scene_.freckles);
    }
    albedo = mix(albedo, scene_.lips * (1 + 0.08f * pore), lips * scene_.lip_colour);
    albedo = mix(albedo, scene_.lids, lids * scene_.lid_colour);
    const float mouth = inside * (1 - lips);
    albedo = mix(albedo, Vec3{0.3f, 0.07f, 0.06f}, mouth);

    float hairy = 0;
    if (front > 0) {
      const float strand = noise_.strands(q.x * 5 + q.y * 2.5f + offset_[0], q.y * 7 - q.x * 3 + offset_[1]);
      // The brow's map is moved and stretched about its own middle line, 17 mm above the eyes. Its inner end is moved
      // outwards, its outer end stays.
      const float across = std::fabs(q.x), side = across - 30;
      const float middle = 17 + scene_.brow_shift + scene_.brow_arch * (1 - side * side / 500);
      const float brow_x = across < 56 ? 56 - (56 - across) * 50 / (50 - scene_.brow_gap) : across;
      // Beyond the middle lies the other brow.
      const float brow_y = 17 + (q.y - middle) / scene_.brow_thickness;
      const float brow = brow_x > 3 ? front * brow_(brow_x, brow_y) : 0;
      const float brows = clamp(brow * 1.5f * (1 + 0.3f * strand), 0, 1) * scene_.brow_density;
      albedo = mix(albedo, scene_.brow, brows);
      const float beard = maps_.beard(q.x, q.y) * smoothstep(-95, -60, q.z) * (1 - lips);
      const float beards = clamp(beard * (1 + 0.25f * strand * clamp(beard * 2, 0, 1) + 0.25f * pore), 0, 0.97f);
      albedo = mix(albedo, scene_.beard, beards);
      hairy = std::max(brows, beards);
    }
    // The scalp under the hair.
    const float scalp = smoothstep(0.3f, 0.8f, on(scalp_)) * (scene_.hair_length > 0 ? 1.0f : 0.12f);
    albedo = mix(albedo, scene_.hair * 0.8f + scene_.skin * 0.1f, scalp * 0.8f);

    // Creases and pores tilt the normal.
    Vec3 normal = smooth;
    float crease = 0;
    const float* r = posed_.rotation;
    const Vec3 right{r[0], r[3], r[6]}, up{r[1], r[4], r[7]};
    if (front > 0) {
      constexpr float step = 0.8f;
      crease = front * maps_.creases(q.x, q.y);
      const float across = maps_.creases(q.x + step, q.y) - maps_.creases(q.x - step, q.y);
      const float along = maps_.creases(q.x, q.y + step) - maps_.creases(q.x, q.y - step);
      normal += (right * across + up * along) * (front * 1.15f);
      albedo *= exp_of(-0.3f * std::min(crease, 1.5f));
    }
    const float rough = 0.02f + 0.04f * scene_.pores + 0.2f * hairy;
    normal = normalized(normal + right * (rough * pore) + up * (rough * pore2));

    const float open =
        mix(on(head_.openness), 0.1f + 0.6f * scene_.mouth_open, mouth) * (1 - 0.25f * std::min(crease, 1.0f));
    const Lit light =
        lit(at, position, normal, smooth, Vec3{0.3f, 0.13f, 0.09f} * (1 - 0.7f * hairy), 14 + 20 * scene_.gloss);
    const float shine = (0.25f + scene_.gloss) * (1 - 0.8f * hairy) * (1 - mouth) + 0.5f * lips * scene_.gloss;
    const float grazing = 1 - std::max(0.0f, normal.z);
    const Vec3 around = ambient(normal, open, albedo);
    return albedo * (light.diffuse + around) + light.specular * shine +
           around * (0.05f * grazing * grazing * grazing * open);
  }

  Vec3 shade_eye(size_t at, Spot on) const {
    const Vec3 position = on(posed_.positions), q = on(head_.vertices);
    const Vec3 centre = head_.eye_centres[q.x < 0 ? 0 : 1];
    const Vec3 outwards = normalized(q - centre);
    const float chord = length(outwards - scene_.gaze);
    const float iris = 5.9f / head_.eye_radius;
    Vec3 albedo = scene_.sclera;
    // Veins towards the corners.
    albedo *= mix(Vec3{1, 1, 1}, Vec3{1, 0.82f, 0.8f}, smoothstep(0.5f, 1.0f, chord));
    const float inside = smoothstep(iris + 0.03f, iris - 0.03f, chord);
    const Vec3 from = outwards - scene_.gaze;
    const float ray = noise_.strands(12 * atan2_of(from.y, from.x) + offset_[0], 20 * chord);
    const float edge = smoothstep(iris - 0.14f, iris, chord);
    Vec3 colour = scene_.iris * (1.1f + 0.25f * ray) * (1 - 0.6f * edge);
    colour = mix(colour, Vec3{0.004f, 0.004f, 0.004f},
                 smoothstep(iris * scene_.pupil + 0.03f, iris * scene_.pupil - 0.02f, chord));
    albedo = mix(albedo, colour, inside);
    const Vec3 normal = normalized(posed_.turn(outwards));
    const float open = 0.25f + 0.6f * (on(head_.openness));
    const Lit light = lit(at, position, normal, normal, {0.1f, 0.1f, 0.1f}, 20);
    // The cornea is a mirror: the lights and a window of sky.
    Vec3 mirror;
    const Vec3 back = 2 * normal.z * normal - Vec3{0, 0, 1};
    for (const Light& one : scene_.lights) {
      mirror += one.colour * smoothstep(0.965f, 0.985f, dot(back, one.direction)) * 0.9f;
    }
    mirror += scene_.sky * (0.04f * smoothstep(0.1f, 0.6f, back.y));
    return albedo * (light.diffuse * 0.8f + ambient(normal, open, albedo)) + mirror * (inside > 0.5f ? 1.0f : 0.35f);
  }

  Vec3 shade_mouth(size_t at, Spot on, Vec3 albedo, float gloss) const {
    const Vec3 position = on(posed_.positions), normal = normalized(on(posed_.normals)), q = on(head_.vertices);
    // The gaps between teeth.
    if (gloss > 0.4f) {
      const float place = q.x / 7.2f, gap = place - floor_of(place) - 0.5f;
      albedo *= 1 - 0.3f * exp_of(-gap * gap * 500);
    }
    const float front = smoothstep(-45, -5, q.z);
    const float open = (0.25f + 0.75f * front) * (0.6f + 0.4f * scene_.mouth_open);
    const Lit light = lit(at, position, normal, normal, {0.3f, 0.25f, 0.2f}, 40);
    return albedo * (light.diffuse * (0.3f + 0.7f * front) + ambient(normal, open, albedo)) +
           light.specular * (gloss * front);
  }

  Vec3 shade_cloth(size_t at, Vec3 position, Vec3 smooth, Vec3 place, Vec3 albedo, float open) const {
    const float weave = noise_.pores(place.x * 3 + offset_[2], place.y * 3),
                fold = noise_.clouds(place.x * 0.6f + offset_[0], place.y * 0.25f);
    if (scene_.stripes > 0) {
      const float stripe = place.y / (4 + 20 * scene_.stripes);
      if (stripe - floor_of(stripe) < 0.5f) albedo = albedo * 0.4f + Vec3{0.3f, 0.3f, 0.3f};
    }
    const Vec3 normal = normalized(smooth + Vec3{0.18f * fold, 0.12f * fold, 0});
    const Lit light = lit(at, position, normal, smooth, {0.1f, 0.1f, 0.1f}, 6);
    return albedo * (1 + 0.1f * weave) * (light.diffuse + ambient(normal, open * 0.9f, albedo));
  }

  // Shades strands of hair. `place` are the coordinates of `curtain`.
  Vec3 shade_strands(size_t at, Vec3 position, Vec3 normal, Vec3 place, Vec3 colour, float open) const {
    const float strand =
        noise_.strands(place.x * 1.7f + offset_[0] + scene_.curl * 6 * noise_.clouds(place.x, place.y * 0.8f),
                       place.y * 1.1f + offset_[1]);
    const float lock = noise_.strands(place.x * 0.35f + offset_[1], place.y * 0.5f + offset_[2]);
    const Lit light = lit(at, position, normal, normal, {0.3f, 0.3f, 0.3f}, 10);
    const Vec3 albedo = colour * exp_of(0.3f * strand + 0.25f * lock);
    const float glint = clamp(0.5f + 0.5f * strand, 0, 1.5f);
    return albedo * (light.diffuse + ambient(normal, open, albedo)) + light.specular * (0.12f * glint);
  }

  Vec3 shade_thing(size_t at, const Mesh& mesh, Spot on) const {
    const Vec3 position = on(mesh.positions);
    Vec3 normal = normalized(on(mesh.normals));
    if (dot(normal, Vec3{0, 0, posed_.distance} - position) < 0) normal = normal * -1.0f;
    if (mesh.material == Material::cloth)
      return shade_cloth(at, position, normal, on(mesh.coordinates), mesh.colour, 0.8f);
    if (mesh.material == Material::hair) {
      return shade_strands(at, position, normal, on(mesh.coordinates), mesh.colour, 0.45f);
    }
    const bool is_skin = mesh.material == Material::skin;
    const Lit light =
        lit(at, position, normal, normal, is_skin ? Vec3{0.3f, 0.13f, 0.09f} : Vec3{}, is_skin ? 12.0f : 40.0f);
    return mesh.colour * (light.diffuse + ambient(normal, 0.85f, mesh.colour)) + light.specular * mesh.gloss;
  }

  void draw_lashes(Picture& picture) {
    if (scene_.lashes <= 0 || head_.lash_triangles.empty()) return;
    layer(project_(posed_, posed_.positions, 0.8f), head_.lash_triangles, [&](size_t at, Spot on) {
      const float tip = on(lash_tip_);
      const float share = 0.9f * scene_.lashes * (1 - tip) * (head_.vertices[on.t.a].y < -1 ? 0.4f : 1.0f);
      picture.pixels[at] = mix(picture.pixels[at], Vec3{0.012f, 0.008f, 0.007f}, share);
    });
  }

  void draw_hair(Picture& picture) {
    if (scene_.long_hair && !scene_.curtain_is_cloth) {
      const Mesh& mesh = outer_hair_;
      layer(project_(posed_, mesh.positions), mesh.triangles, [&](size_t at, Spot on) {
        const Vec3 place = on(mesh.coordinates);
        const float strand = noise_.strands(place.x * 1.7f + offset_[0], place.y * 1.1f + offset_[1]);
        const float share = smoothstep(-1, 4, place.z + 3 * strand);
        if (share <= 0) return;
        const Vec3 position = on(mesh.positions);
        Vec3 normal = normalized(on(mesh.normals));
        if (dot(normal, Vec3{0, 0, posed_.distance} - position) < 0) normal = normal * -1.0f;
        picture.pixels[at] =
            mix(picture.pixels[at], shade_strands(at, position, normal, place, mesh.colour, 0.75f), share);
      });
    }
    if (scene_.hair_length <= 0 || scene_.hat) return;
    // Short hair: layers over the scalp, each with fewer strands.
    const std::vector<float>& scalp = scalp_;
    std::vector<Vec3> raised(posed_.positions.size());
    constexpr float heights[] = {0, 0.6f, 0.82f, 1};
    for (int k = 0; k < 4; k++) {
      const float height = heights[k];
      for (size_t i = 0; i < raised.size(); i++) {
        if (scalp[i] <= 0) continue;
        const float grown = scene_.hair_length * height * smoothstep(0.1f, 0.9f, scalp[i]);
        raised[i] = posed_.positions[i] + posed_.normals[i] * grown;
      }
      layer(project_(posed_, raised, 0.5f), head_.scalp_triangles, [&](size_t at, Spot on) {
        const Vec3 place = on(head_.hair_places);
        const Vec3 q = on(head_.vertices);
        const float ragged = noise_.clouds(q.x * 1.4f + offset_[1], q.y * 1.4f + q.z + offset_[0]);
        const float strand =
            noise_.strands(place.x * 1.7f + offset_[0] + scene_.curl * 6 * ragged, place.y * 1.1f + offset_[1]);
        const float grown = on(scalp) - scene_.hairline * 0.06f * smoothstep(-40, 20, q.z);
        const float share = smoothstep(0.25f, 0.6f, grown + 0.1f * ragged + 0.08f * strand) *
                            clamp(2.2f - 1.8f * height + 0.5f * strand + 0.25f * ragged, 0, 1);
        if (share <= 0.01f) return;
        const Vec3 colour =
            shade_strands(at, on(raised), normalized(on(posed_.normals)), place, scene_.hair, 0.35f + 0.45f * height);
        picture.pixels[at] = mix(picture.pixels[at], colour, share);
      });
    }
  }

  void draw_lenses(Picture& picture) {
    if (!scene_.glasses) return;
    const Mesh mesh = lenses(head_, posed_, scene_);
    layer(project_(posed_, mesh.positions), mesh.triangles, [&](size_t at, Spot on) {
      const Vec3 normal = normalized(on(mesh.normals));
      Vec3 colour = mix(picture.pixels[at], scene_.lens * (scene_.sky + scene_.ground) * 0.5f, scene_.lens_opacity);
      const Vec3 back = 2 * normal.z * normal - Vec3{0, 0, 1};
      for (const Light& light : scene_.lights)
        colour += light.colour * (0.35f * smoothstep(0.985f, 0.995f, dot(back, light.direction)));
      picture.pixels[at] = colour + scene_.sky * 0.015f;
    });
  }

  // Draws triangles and calls paint(sample, spot) where they lie in front of what is solid.
  template <class Paint>
  void layer(const std::vector<Vec3>& screen, const std::vector<Triangle>& triangles, const Paint& paint) {
    layer_.depth = samples_.depth;
    std::fill(layer_.triangle.begin(), layer_.triangle.end(), -1);
    draw(screen, triangles, 0, Faces::both, layer_);
    for (size_t at = 0; at < layer_.triangle.size(); at++) {
      if (layer_.triangle[at] < 0) continue;
      const float u = layer_.u[at], v = layer_.v[at];
      paint(at, Spot{triangles[layer_.triangle[at]], u, v, 1 - u - v});
    }
  }

  // The exposure by which a camera brings the face towards a middling brightness, though dark skin not all the way.
  float exposure(const Picture& fine) const {
    double sum = 0;
    size_t count = 0;
    for (size_t at = 0; at < fine.pixels.size(); at += 7) {
      const int32_t index = samples_.triangle[at];
      if (index < 0 || owner_of(index).first >= 0) continue;
      const Vec3 p = fine.pixels[at];
      sum += 0.3f * p.x + 0.6f * p.y + 0.1f * p.z;
      count++;
    }
    const float mean = count ? static_cast<float>(sum / static_cast<double>(count)) : 0.2f;
    return scene_.exposure * pow_of(0.36f / std::max(mean, 0.01f), 0.75f);
  }

  Picture reduced(const Picture& fine) const {
    const int size = scene_.size, s = scene_.samples;
    Picture picture(size, size);
    for (int y = 0; y < side_; y++) {
      for (int x = 0; x < side_; x++) {
        const Vec3 p = fine.pixels[static_cast<size_t>(y) * side_ + x];
        // A highlight in one sample must not outshine the whole pixel.
        picture.pixels[static_cast<size_t>(y / s) * size + x / s] +=
            Vec3{std::min(p.x, 4.0f), std::min(p.y, 4.0f), std::min(p.z, 4.0f)} * (1.0f / (s * s));
      }
    }
    return picture;
  }

  const Head& head_;
  const PosedHead& posed_;
  const Scene& scene_;
  const Noise& noise_;
  Projection project_;
  int side_;
  Samples samples_;
  Samples layer_ = samples_;
  Shadow shadow_;
  float offset_[3];
  FaceMaps maps_;
  std::vector<Mesh> things_;
  Mesh outer_hair_;
  const std::vector<float>& lips_ = head_.mask("lips");
  const std::vector<float>& lids_ = head_.mask("eyelids");
  const std::vector<float>& inside_ = head_.mask("inside_mouth");
  const std::vector<float>& scalp_ = head_.mask("scalp");
  const std::vector<float>& neck_ = head_.mask("neck");
  const std::vector<float>& lash_tip_ = head_.mask("lash_tip");
  const FrontMap& brow_ = head_.paint("brow");
  const FrontMap& under_eye_ = head_.paint("under_eye");
};

}  // namespace

std::vector<uint8_t> render(const Head& head, const PosedHead& posed, const Scene& scene) {
  return Renderer(head, posed, scene)();
}

}  // namespace jaa_ext::rendering
