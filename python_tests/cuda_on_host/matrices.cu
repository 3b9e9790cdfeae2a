// A product of small matrices by one warp, by which the matrix instructions are tested on the CPU or on a GPU.
#include "common/launch.cuh"
#include "common/warp.cuh"

using namespace jaa_ext;

namespace {

constexpr int M = 16, N = 16, ROW_BYTES = 32;

// d = a b + c. a is (M, K). b is given by columns, (N, K), or, for 16-bit values with `b_by_rows`, as (K, N). K is
// 16, or 8 for TensorFloat-32, so that a row has 32 bytes. `displacement` moves the addresses of the rows of a.
template <typename T>
__global__ void product_kernel(const unsigned char* a, const unsigned char* b, bool b_by_rows, const float* c,
                               float* d, int displacement) {
  JAA_EXT_SHARED_MEMORY(memory);
  unsigned char *const a_rows = memory, *const b_rows = memory + M * ROW_BYTES;
  const int lane = threadIdx.x;
  copy_async(a_rows + lane * 16, a + lane * 16);
  copy_async(b_rows + lane * 16, b + lane * 16);
  copy_wait();
  __syncthreads();
  uint32_t a_of[4], b_of[4];
  const int row = lane % 8, second = lane / 8 % 2, third = lane / 16;
  load_matrices(a_of, a_rows + (second * 8 + row) * ROW_BYTES + third * 16 + displacement);
  if (b_by_rows) {
    load_matrices_transposed(b_of, b_rows + (second * 8 + row) * ROW_BYTES + third * 16);
  } else {
    load_matrices(b_of, b_rows + (third * 8 + row) * ROW_BYTES + second * 16);
  }
  for (int half = 0; half < 2; ++half) {
    const int at = lane / 4 * N + half * 8 + lane % 4 * 2;
    float sums[4] = {c[at], c[at + 1], c[at + 8 * N], c[at + 8 * N + 1]};
    multiply_add<T>(sums, a_of, {b_of[2 * half], b_of[2 * half + 1]});
    d[at] = sums[0];
    d[at + 1] = sums[1];
    d[at + 8 * N] = sums[2];
    d[at + 8 * N + 1] = sums[3];
  }
}

}  // namespace

extern "C" void matrix_product_cuda(ScalarType type, const unsigned char* a, const unsigned char* b, bool b_by_rows,
                                    const float* c, float* d, int threads, int displacement) {
  const auto kernel = type == ScalarType::f32   ? &product_kernel<float>
                      : type == ScalarType::f16 ? &product_kernel<Half>
                                                : &product_kernel<BFloat16>;
  launch_shared(kernel, 1, threads, (M + N) * ROW_BYTES, nullptr, a, b, b_by_rows, c, d, displacement);
}
