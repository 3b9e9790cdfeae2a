// Small vectors, and arithmetic that gives the same bits on every machine. It uses no function of the mathematics
// library whose last digit differs from one library to another, and no fused multiply-adds.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__) && (defined(__FMA__) || !defined(__x86_64__))
// Only where there are fused multiply-adds: functions under this pragma inline nothing from before it.
#pragma GCC optimize("fp-contract=off")
#endif

namespace jaa_ext::rendering {

struct Vec3 {
  float x = 0, y = 0, z = 0;
};

inline Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline Vec3 operator*(Vec3 a, Vec3 b) { return {a.x * b.x, a.y * b.y, a.z * b.z}; }
inline Vec3 operator*(Vec3 a, float s) { return {a.x * s, a.y * s, a.z * s}; }
inline Vec3 operator*(float s, Vec3 a) { return a * s; }
inline Vec3& operator+=(Vec3& a, Vec3 b) { return a = a + b; }
inline Vec3& operator*=(Vec3& a, Vec3 b) { return a = a * b; }
inline Vec3& operator*=(Vec3& a, float s) { return a = a * s; }
inline float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Vec3 cross(Vec3 a, Vec3 b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
inline float length(Vec3 a) { return std::sqrt(dot(a, a)); }
inline Vec3 normalized(Vec3 a) { return a * (1 / (length(a) + 1e-12f)); }
inline Vec3 mix(Vec3 a, Vec3 b, float t) { return a + (b - a) * t; }
// floor of x for |x| < 2^31. Makes no call, also where the processor's baseline has no instruction for it.
inline int floor_of(float x) {
  const int whole = static_cast<int>(x);
  return whole - (x < static_cast<float>(whole));
}
inline float mix(float a, float b, float t) { return a + (b - a) * t; }
inline float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }
inline float smoothstep(float from, float to, float x) {
  const float t = clamp((x - from) / (to - from), 0, 1);
  return t * t * (3 - 2 * t);
}

// 2^x for -126 < x < 126, to 2e-6 of its value.
inline float exp2_of(float x) {
  x = clamp(x, -126, 126);
  const int whole = floor_of(x);
  const float part = x - whole;
  const float value =
      1 + part * (0.6931472f + part * (0.2402265f + part * (0.0555041f + part * (0.0096181f + part * 0.0013333f))));
  const auto bits = static_cast<uint32_t>(whole + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return value * scale;
}
inline float exp_of(float x) { return exp2_of(x * 1.442695f); }

// log2 of x > 0, to 1e-5.
inline float log2_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  bits = (bits & 0x7fffffu) | 0x3f800000u;
  float m;
  std::memcpy(&m, &bits, 4);
  // log2(m) = 2 / ln 2 * artanh(t) with t = (m - 1) / (m + 1) in 0..1/3.
  const float t = (m - 1) / (m + 1), s = t * t;
  return exponent + 2.885390f * t * (1 + s * (0.3333333f + s * (0.2f + s * (0.1428571f + s * 0.1111111f))));
}
inline float pow_of(float x, float y) { return x <= 0 ? 0 : exp2_of(y * log2_of(x)); }

// The angle of (y, x) in -pi..pi, to 1e-4.
inline float atan2_of(float y, float x) {
  const float a = std::fabs(x), b = std::fabs(y), big = a > b ? a : b, small = a > b ? b : a;
  const float t = small / (big + 1e-20f), s = t * t;
  float angle = t * (0.9998660f + s * (-0.3302995f + s * (0.1801410f + s * (-0.0851330f + s * 0.0208351f))));
  if (b > a) angle = 1.5707963f - angle;
  if (x < 0) angle = 3.1415927f - angle;
  return y < 0 ? -angle : angle;
}

inline float sin_of(float x) {
  x -= 6.2831853f * floor_of(x * 0.15915494f + 0.5f);
  if (x > 1.5707963f) x = 3.1415927f - x;
  if (x < -1.5707963f) x = -3.1415927f - x;
  const float s = x * x;
  return x * (1 + s * (-0.16666667f + s * (0.00833333f + s * (-0.00019841f + s * 2.7557e-6f))));
}
inline float cos_of(float x) { return sin_of(x + 1.5707963f); }

inline uint32_t hash(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}
// A random number in 0..1 that follows from two numbers.
inline float random_of(uint32_t seed, uint32_t index) {
  return static_cast<float>(hash(seed * 0x9e3779b9u + hash(index)) >> 8) * (1.0f / 16777216);
}

}  // namespace jaa_ext::rendering
