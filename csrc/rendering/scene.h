// What a picture of a head shows besides the head's shape. Colours are linear, 0..1. Lengths are millimetres of the
// average head unless another unit is named. Random textures follow from the seed.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "vec.h"

namespace jaa_ext::rendering {

constexpr int wrinkle_count = 8;  // forehead, glabella, nose, crow, nasolabial, bag, chin, dimple

// A rod with round ends that turns with the head, for fingers, microphones and cups.
struct Rod {
  Vec3 from, to;
  float from_radius = 8, to_radius = 8;
  Vec3 colour;
  bool is_skin = false;
};

struct Light {
  Vec3 direction{0, 0, 1};  // towards the light, as the camera sees it
  Vec3 colour;
};

struct Scene {
  uint32_t seed = 0;
  int size = 200;                                 // side of the picture in pixels
  int samples = 2;                                // samples along a pixel's side
  std::array<float, 6> matrix{1, 0, 0, 0, 1, 0};  // 2 x 3: from projected millimetres to pixels

  // Skin
  Vec3 skin{0.6f, 0.4f, 0.3f};
  float redness = 0.5f, freckles = 0, blotches = 0.5f, pores = 0.5f, gloss = 0.3f, under_eye = 0.3f;
  std::array<float, 2 * wrinkle_count> wrinkles{};  // depth 0..1 on the person's right and left, wrinkle by wrinkle
  Vec3 lips{0.4f, 0.15f, 0.13f};
  float lip_colour = 0.6f;  // share of `lips` in the colour of the lips; lid_colour likewise
  Vec3 lids{0.3f, 0.2f, 0.17f};
  float lid_colour = 0.2f;

  // Hair of the face
  Vec3 brow{0.05f, 0.03f, 0.02f};
  float brow_density = 0.8f, brow_thickness = 1, brow_shift = 0, brow_arch = 0, brow_gap = 4;
  float lashes = 0.5f;
  Vec3 beard{0.05f, 0.03f, 0.02f};
  float beard_density = 0, moustache_density = 0;

  // Eyes and teeth
  Vec3 iris{0.1f, 0.05f, 0.02f}, sclera{0.7f, 0.65f, 0.62f}, teeth{0.75f, 0.7f, 0.6f};
  float pupil = 0.35f;   // share of the iris
  Vec3 gaze{0, 0, 1};    // direction in the head's frame
  float mouth_open = 0;  // 0..1, how far light falls in

  // Hair of the head
  Vec3 hair{0.05f, 0.03f, 0.02f};
  float hair_length = 8;                          // how far short hair stands out; 0: none
  float hairline = 0;                             // how far it lies back, millimetres
  float curl = 0.3f;                              // 0 straight .. 1 curly
  bool long_hair = false;                         // also a curtain of hair around the head
  float curtain_bottom = -120, curtain_top = 62;  // heights of its lower end and of its upper edge over the forehead
  std::array<float, 2> curtain_opening{1.05f, 1.05f};  // radians from the front at the temples, right and left
  float curtain_volume = 10, curtain_taper = 0.1f;
  bool curtain_is_cloth = false;  // the curtain is a scarf

  // Worn
  Vec3 cloth{0.2f, 0.2f, 0.3f};
  float neckline = -125, stripes = 0;
  bool glasses = false;
  float rim_width = 25, rim_height = 19, rim_power = 2.5f, rim_radius = 1.2f;
  Vec3 rim{0.02f, 0.02f, 0.02f}, lens{0.9f, 0.9f, 0.9f};
  float lens_opacity = 0.05f;
  bool hat = false;
  float hat_line = 55, hat_tilt = 0.3f, hat_thickness = 8, brim = 0;
  Vec3 hat_colour{0.1f, 0.1f, 0.1f};
  std::vector<Rod> rods;

  // Light
  std::vector<Light> lights;                                            // the first one casts shadows
  float shadow_softness = 3;                                            // millimetres
  Vec3 sky{0.8f, 0.8f, 0.8f}, ground{0.3f, 0.3f, 0.3f}, side{0, 0, 0};  // side: what the right has more than the left

  // Behind the head
  std::array<Vec3, 2> background{Vec3{0.3f, 0.3f, 0.3f}, Vec3{0.5f, 0.5f, 0.5f}};
  int background_shapes = 0;
  float background_clouds = 0.5f, background_blur = 4;  // blur in pixels of a picture of 200

  // Camera
  float exposure = 1, contrast = 1, saturation = 1, blur = 0, noise = 0;  // blur: pixels; noise: grey levels
  Vec3 white{1, 1, 1};
  int jpeg_quality = 0;  // 1..100; 0: none
};

}  // namespace jaa_ext::rendering
