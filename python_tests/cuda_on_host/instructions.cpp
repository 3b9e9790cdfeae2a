// Matrix products, written after the tables of the PTX ISA ("Matrix Fragments for mma.m16n8k16 with floating point
// type", "Matrix Fragments for mma.m16n8k8") and with their names.
#include "instructions.h"

#include <common/scalar.h>

#include <type_traits>

namespace cuda_on_host {
namespace {

using jaa_ext::BFloat16, jaa_ext::Half;

// The operands of one lane, as numbers: a0 .. a7 and b0 .. b3, or a0 .. a3 and b0, b1 for TensorFloat-32.
struct Fragments {
  float a[8], b[4];
};

template <typename T>
struct Matrices {  // BFloat16 and Half: m16n8k16
  static constexpr int K = 16;
  static float number(uint32_t packed, int half) {
    return jaa_ext::widen(T{static_cast<uint16_t>(half == 0 ? packed : packed >> 16)});
  }
  static Fragments fragments(const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Fragments result = {};
    for (int i = 0; i < 8; ++i) result.a[i] = number(a[i / 2], i % 2);
    for (int i = 0; i < 4; ++i) result.b[i] = number(b[i / 2], i % 2);
    return result;
  }
  // row = groupID for a0, a1, a4, a5 and groupID + 8 for the others,
  // col = threadID_in_group * 2 + (i & 1), + 8 from a4 on
  static float a(Lanes<Fragments> lanes, int row, int col) {
    return lanes[row % 8 * 4 + col % 8 / 2].a[col % 2 + row / 8 * 2 + col / 8 * 4];
  }
  // row = threadID_in_group * 2 + (i & 1), + 8 from b2 on; col = groupID
  static float b(Lanes<Fragments> lanes, int row, int col) {
    return lanes[col * 4 + row % 8 / 2].b[row % 2 + row / 8 * 2];
  }
};

template <>
struct Matrices<float> {  // TensorFloat-32: m16n8k8
  static constexpr int K = 8;
  static float number(uint32_t bits) { return jaa_ext::detail::bit_cast<float>(bits & 0xffffe000); }
  static Fragments fragments(const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    Fragments result = {};
    for (int i = 0; i < 4; ++i) result.a[i] = number(a[i]);
    for (int i = 0; i < 2; ++i) result.b[i] = number(b[i]);
    return result;
  }
  // row = groupID for a0, a2 and groupID + 8 for a1, a3; col = threadID_in_group, + 4 from a2 on
  static float a(Lanes<Fragments> lanes, int row, int col) {
    return lanes[row % 8 * 4 + col % 4].a[row / 8 + col / 4 * 2];
  }
  // row = threadID_in_group, + 4 for b1; col = groupID
  static float b(Lanes<Fragments> lanes, int row, int col) { return lanes[col * 4 + row % 4].b[row / 4]; }
};

}  // namespace

// The sum is rounded once; the GPU rounds in between.
template <typename T>
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line) {
  check_capability(std::is_same_v<T, Half> ? 75 : 80, line);
  const auto lanes = gather(WHOLE_WARP, Matrices<T>::fragments(a, b), line);
  // row = groupID for c0, c1 and groupID + 8 for c2, c3; col = threadID_in_group * 2 + (i & 1)
  for (int i = 0; i < 4; ++i) {
    const int row = lane() / 4 + i / 2 * 8, col = lane() % 4 * 2 + i % 2;
    double sum = sums[i];
    for (int k = 0; k < Matrices<T>::K; ++k) {
      sum += static_cast<double>(Matrices<T>::a(lanes, row, k)) * Matrices<T>::b(lanes, k, col);
    }
    sums[i] = static_cast<float>(sum);
  }
}

template void multiply_add<BFloat16>(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2], int);
template void multiply_add<Half>(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2], int);
template void multiply_add<float>(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2], int);

}  // namespace cuda_on_host
