#include "camera.h"

#include <algorithm>
#include <array>

#include "noise.h"

namespace jaa_ext::rendering {

namespace {

// Blurs by a Gaussian of standard deviation `sigma` in pixels. Outside the picture its edge goes on.
void blur(Picture& picture, float sigma) {
  if (sigma < 0.2f) return;
  const int reach = std::min(static_cast<int>(3 * sigma + 1), 40);
  std::vector<float> weights(2 * reach + 1);
  float sum = 0;
  for (int i = -reach; i <= reach; i++) sum += weights[i + reach] = exp_of(-0.5f * i * i / (sigma * sigma));
  for (float& weight : weights) weight /= sum;
  const int width = picture.width, height = picture.height;
  std::vector<Vec3> line(std::max(width, height) + 2 * reach);
  const auto pass = [&](Vec3* start, int count, int stride) {
    for (int i = -reach; i < count + reach; i++) line[i + reach] = start[std::clamp(i, 0, count - 1) * stride];
    for (int i = 0; i < count; i++) {
      Vec3 total;
      for (int k = 0; k <= 2 * reach; k++) total += line[i + k] * weights[k];
      start[i * stride] = total;
    }
  };
  for (int y = 0; y < height; y++) pass(&picture.pixels[static_cast<size_t>(y) * width], width, 1);
  for (int x = 0; x < width; x++) pass(&picture.pixels[x], height, width);
}

// The tables of ITU-T T.81, annex K.
constexpr std::array<int, 64> luminance_steps = {
    16, 11,  10,  16, 24, 40, 51, 61, 12,  12,  14,  19,  26, 58, 60, 55,  14,  13,  16,  24, 40, 57,
    69, 56,  14,  17, 22, 29, 51, 87, 80,  62,  18,  22,  37, 56, 68, 109, 103, 77,  24,  35, 55, 64,
    81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98,  112, 100, 103, 99};
constexpr std::array<int, 64> chrominance_steps = {17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
                                                   24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
                                                   99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
                                                   99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99};

struct Cosines {
  float at[8][8];  // [frequency][sample]
  Cosines() {
    for (int k = 0; k < 8; k++) {
      for (int n = 0; n < 8; n++) {
        at[k][n] = (k == 0 ? 0.35355339f : 0.5f) * cos_of((2 * n + 1) * k * 0.19634954f);
      }
    }
  }
};

// Replaces a plane of values around 0 by what JPEG's quantization leaves of it.
void quantize(std::vector<float>& plane, int width, int height, const std::array<int, 64>& steps, int quality) {
  static const Cosines cosines;
  const int scale = quality < 50 ? 5000 / quality : 200 - 2 * quality;
  float step[64], block[64], half[64];
  for (int i = 0; i < 64; i++) step[i] = static_cast<float>(std::clamp((steps[i] * scale + 50) / 100, 1, 255));
  for (int top = 0; top < height; top += 8) {
    for (int left = 0; left < width; left += 8) {
      for (int i = 0; i < 64; i++) {
        const int y = std::min(top + i / 8, height - 1), x = std::min(left + i % 8, width - 1);
        block[i] = plane[static_cast<size_t>(y) * width + x];
      }
      for (int y = 0; y < 8; y++) {
        for (int k = 0; k < 8; k++) {
          float sum = 0;
          for (int n = 0; n < 8; n++) sum += block[8 * y + n] * cosines.at[k][n];
          half[8 * y + k] = sum;
        }
      }
      for (int k = 0; k < 8; k++) {
        for (int x = 0; x < 8; x++) {
          float sum = 0;
          for (int n = 0; n < 8; n++) sum += half[8 * n + x] * cosines.at[k][n];
          block[8 * k + x] = floor_of(sum / step[8 * k + x] + 0.5f) * step[8 * k + x];
        }
      }
      for (int k = 0; k < 8; k++) {
        for (int n = 0; n < 8; n++) {
          float sum = 0;
          for (int f = 0; f < 8; f++) sum += block[8 * k + f] * cosines.at[f][n];
          half[8 * k + n] = sum;
        }
      }
      for (int y = 0; y < std::min(8, height - top); y++) {
        for (int x = 0; x < std::min(8, width - left); x++) {
          float sum = 0;
          for (int f = 0; f < 8; f++) sum += half[8 * f + x] * cosines.at[f][y];
          plane[static_cast<size_t>(top + y) * width + left + x] = sum;
        }
      }
    }
  }
}

// Passes a picture of values 0..255 through JPEG, with a quality of 1..100 and colours at half the resolution.
void through_jpeg(Picture& picture, int quality) {
  const int width = picture.width, height = picture.height, w = (width + 1) / 2, h = (height + 1) / 2;
  std::vector<float> light(static_cast<size_t>(width) * height), blue(static_cast<size_t>(w) * h), red(blue.size());
  for (int y = 0; y < height; y++) {
    for (int x = 0; x < width; x++) {
      const Vec3 p = picture.pixels[static_cast<size_t>(y) * width + x];
      const float value = 0.299f * p.x + 0.587f * p.y + 0.114f * p.z;
      light[static_cast<size_t>(y) * width + x] = value - 128;
      const size_t half = static_cast<size_t>(y / 2) * w + x / 2;
      blue[half] += 0.25f * 0.564f * (p.z - value);
      red[half] += 0.25f * 0.713f * (p.x - value);
    }
  }
  quantize(light, width, height, luminance_steps, quality);
  quantize(blue, w, h, chrominance_steps, quality);
  quantize(red, w, h, chrominance_steps, quality);
  for (int y = 0; y < height; y++) {
    for (int x = 0; x < width; x++) {
      const float value = light[static_cast<size_t>(y) * width + x] + 128;
      const size_t half = static_cast<size_t>(y / 2) * w + x / 2;
      const float b = blue[half], r = red[half];
      picture.pixels[static_cast<size_t>(y) * width + x] = {value + 1.402f * r, value - 0.344f * b - 0.714f * r,
                                                            value + 1.773f * b};
    }
  }
}

// Turns linear light into grey levels 0..255, along a curve whose shoulder keeps highlights from being cut off.
class Film {
 public:
  Film() {
    for (int i = 0; i <= steps; i++) {
      const float root = most * i / steps, light = root * root;
      levels_[i] = 255 * pow_of(clamp(light * (1 + light * 0.12f) / (1 + light * 0.35f), 0, 1), 1 / 2.2f);
    }
  }
  float operator()(float light) const {
    const float step = std::sqrt(clamp(light, 0, most * most)) * (steps / most);
    const int i = std::min(static_cast<int>(step), steps - 1);
    return mix(levels_[i], levels_[i + 1], step - i);
  }

 private:
  static constexpr int steps = 1024;  // of the light's square root, along which the levels grow nearly evenly
  static constexpr float most = 2;
  float levels_[steps + 1];
};

}  // namespace

Picture background(const Scene& scene) {
  // Drawn at half the resolution, since it is blurred anyway.
  const int size = (scene.size + 1) / 2;
  Picture picture(size, size);
  const Noise& noise = Noise::shared();
  const auto random = [&](uint32_t k) { return random_of(scene.seed ^ 0xbac6u, k); };
  const float u = 256 * random(0), v = 256 * random(1), turn = 6.2831853f * random(2);
  const float across = cos_of(turn), down = sin_of(turn), scale = 200.0f / size;
  for (int y = 0; y < size; y++) {
    for (int x = 0; x < size; x++) {
      const float slope = 0.5f + ((x * scale - 100) * across + (y * scale - 100) * down) * 0.005f;
      const float cloud = noise.clouds(x * scale * 0.5f + u, y * scale * 0.5f + v);
      const float t = clamp(mix(slope, 0.5f + 0.3f * cloud, scene.background_clouds), 0, 1);
      picture.pixels[static_cast<size_t>(y) * size + x] = mix(scene.background[0], scene.background[1], t);
    }
  }
  for (int shape = 0; shape < scene.background_shapes; shape++) {
    const uint32_t k = 10 + 16 * shape;
    const float cx = size * random(k), cy = size * random(k + 1);
    const float w = size * (0.02f + 0.3f * random(k + 2)), h = size * (0.02f + 0.4f * random(k + 3));
    const float lean = (random(k + 4) - 0.5f) * 0.6f;
    const bool round = random(k + 5) < 0.35f;
    const float t = random(k + 6) * 1.6f - 0.3f, light = 0.3f + 1.2f * random(k + 7);
    Vec3 colour = mix(scene.background[0], scene.background[1], t) * light;
    colour = {std::max(colour.x, 0.0f), std::max(colour.y, 0.0f), std::max(colour.z, 0.0f)};
    for (int y = std::max(0, static_cast<int>(cy - h)); y < std::min(size, static_cast<int>(cy + h) + 1); y++) {
      for (int x = 0; x < size; x++) {
        const float dx = (x - cx - lean * (y - cy)) / w, dy = (y - cy) / h;
        if (round ? dx * dx + dy * dy < 1 : std::fabs(dx) < 1 && std::fabs(dy) < 1) {
          picture.pixels[static_cast<size_t>(y) * size + x] = colour;
        }
      }
    }
  }
  blur(picture, scene.background_blur * size / 200);
  Picture whole(scene.size, scene.size);
  for (int y = 0; y < scene.size; y++) {
    for (int x = 0; x < scene.size; x++) {
      const float u = clamp(x * 0.5f - 0.25f, 0, size - 1.001f), v = clamp(y * 0.5f - 0.25f, 0, size - 1.001f);
      const int j = static_cast<int>(u), i = static_cast<int>(v);
      const Vec3* p = &picture.pixels[static_cast<size_t>(i) * size + j];
      whole.pixels[static_cast<size_t>(y) * scene.size + x] =
          mix(mix(p[0], p[1], u - j), mix(p[size], p[size + 1], u - j), v - i);
    }
  }
  return whole;
}

std::vector<uint8_t> photograph(const Scene& scene, Picture light, float exposure) {
  static const Film film;
  for (Vec3& p : light.pixels) {
    p = p * scene.white * exposure;
    p = {film(p.x), film(p.y), film(p.z)};
    const float grey = 0.299f * p.x + 0.587f * p.y + 0.114f * p.z;
    p = mix(Vec3{grey, grey, grey}, p, scene.saturation);
    p = (p - Vec3{118, 118, 118}) * scene.contrast + Vec3{118, 118, 118};
  }
  blur(light, scene.blur);
  if (scene.noise > 0) {
    uint32_t k = 0;
    for (Vec3& p : light.pixels) {
      // A sum of uniform numbers is near enough to a normal one.
      const auto normal = [&] {
        const float sum = random_of(scene.seed ^ 0x5eedu, k) + random_of(scene.seed ^ 0x5eedu, k + 1) +
                          random_of(scene.seed ^ 0x5eedu, k + 2);
        k += 3;
        return (sum - 1.5f) * 2 * scene.noise;
      };
      const float grey = normal() * 0.8f;
      p += Vec3{grey + 0.5f * normal(), grey + 0.4f * normal(), grey + 0.6f * normal()};
    }
  }
  const auto rounded = [](float value) { return static_cast<float>(floor_of(clamp(value, 0, 255) + 0.5f)); };
  for (Vec3& p : light.pixels) p = {rounded(p.x), rounded(p.y), rounded(p.z)};
  if (scene.jpeg_quality > 0) through_jpeg(light, std::min(scene.jpeg_quality, 100));
  std::vector<uint8_t> levels;
  levels.reserve(3 * light.pixels.size());
  for (const Vec3& p : light.pixels) {
    for (const float value : {p.x, p.y, p.z}) levels.push_back(static_cast<uint8_t>(clamp(value, 0, 255) + 0.5f));
  }
  return levels;
}

}  // namespace jaa_ext::rendering
