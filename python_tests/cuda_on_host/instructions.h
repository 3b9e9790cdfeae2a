// Defines for the CPU what csrc/common/warp.cuh defines for GPUs. Accesses to shared memory are in this header, so
// that sanitizers see them.
#pragma once

#include <cuda_runtime.h>

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

// As in warp.cuh.
template <typename T>
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line);

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

// PTX ISA, ldmatrix: thread T gets the elements 2 * (T % 4) and the one after it of row T / 4.
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

template <typename T>
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line = __builtin_LINE()) {
  cuda_on_host::multiply_add<T>(sums, a, b, line);
}

}  // namespace jaa_ext
