// What csrc/common/warp.cuh declares, on the CPU: written from the tables of the PTX ISA ("Matrix Fragments for
// mma.m16n8k16 with floating point type", "... for mma.m16n8k8", "ldmatrix"), whose names are used.
#pragma once

#include <common/scalar.h>
#include <cuda_runtime.h>

#include <type_traits>
#include <vector>

namespace cuda_on_host {

constexpr unsigned WHOLE_WARP = 0xffffffff;

// An asynchronous copy, made when it is waited for.
struct Copy {
  unsigned char* shared;
  uint64_t values[2];
  int line;
};
std::vector<Copy>& copies();  // that this thread has begun

void check_capability(int least, int line);         // of the GPU
void check_shared(const void* address, int line);   // 16 aligned bytes of the block's shared memory
void check_aligned(const void* address, int line);  // to 16 bytes

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

}  // namespace cuda_on_host

namespace jaa_ext {

inline void copy_async(void* shared, const void* global, int line = __builtin_LINE()) {
  cuda_on_host::check_shared(shared, line);
  cuda_on_host::check_aligned(global, line);
  cuda_on_host::Copy copy = {static_cast<unsigned char*>(shared), {}, line};
  std::memcpy(copy.values, global, 16);
  cuda_on_host::copies().push_back(copy);
  std::memset(shared, 0xff, 16);  // not numbers, until it is waited for
}

inline void copy_wait() {
  for (const cuda_on_host::Copy& copy : cuda_on_host::copies()) std::memcpy(copy.shared, copy.values, 16);
  cuda_on_host::copies().clear();
}

// rows[8 * i + r] is the address of row r of matrix i.
inline cuda_on_host::Lanes<const unsigned char*> gather_rows(const void* row, int line) {
  cuda_on_host::check_capability(75, line);
  cuda_on_host::check_shared(row, line);
  return cuda_on_host::gather(cuda_on_host::WHOLE_WARP, static_cast<const unsigned char*>(row), line);
}

// Thread T gets the elements 2 * (T % 4) and the one after it of row T / 4.
inline void load_matrices(uint32_t (&matrices)[4], const void* row, int line = __builtin_LINE()) {
  const auto rows = gather_rows(row, line);
  const int lane = cuda_on_host::lane();
  for (int i = 0; i < 4; ++i) std::memcpy(&matrices[i], rows[8 * i + lane / 4] + lane % 4 * 4, 4);
}

// The same elements of the transposed matrix.
inline void load_matrices_transposed(uint32_t (&matrices)[4], const void* row, int line = __builtin_LINE()) {
  const auto rows = gather_rows(row, line);
  const int lane = cuda_on_host::lane();
  for (int i = 0; i < 4; ++i) {
    uint16_t elements[2];
    for (int k = 0; k < 2; ++k) std::memcpy(&elements[k], rows[8 * i + lane % 4 * 2 + k] + lane / 4 * 2, 2);
    std::memcpy(&matrices[i], elements, 4);
  }
}

// The sum is rounded once; the GPU rounds in between.
template <typename T>
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line = __builtin_LINE()) {
  using Matrices = cuda_on_host::Matrices<T>;
  cuda_on_host::check_capability(std::is_same_v<T, Half> ? 75 : 80, line);
  const auto lanes = cuda_on_host::gather(cuda_on_host::WHOLE_WARP, Matrices::fragments(a, b), line);
  const int lane = cuda_on_host::lane();
  // row = groupID for c0, c1 and groupID + 8 for c2, c3; col = threadID_in_group * 2 + (i & 1)
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
    double sum = sums[i];
    for (int k = 0; k < Matrices::K; ++k) {
      sum += static_cast<double>(Matrices::a(lanes, row, k)) * Matrices::b(lanes, k, col);
    }
    sums[i] = static_cast<float>(sum);
  }
}

}  // namespace jaa_ext
