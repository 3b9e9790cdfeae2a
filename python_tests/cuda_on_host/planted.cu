// A kernel that reverses 64 values, right or with one mistake that running it on the CPU must find; and shuffles.
#include "common/launch.cuh"
#include "common/warp.cuh"

using namespace jaa_ext;

namespace {

enum Mistake {
  NONE,
  NO_BARRIER,
  BARRIER_AFTER_RETURN,
  TWO_BARRIERS,
  MISSING_LANE,
  NO_WARP_BARRIER,
  NO_BARRIER_AFTER_COPY,
  NO_WAIT,
  LATE_WAIT,
  MISALIGNED_COPY,
  COPY_OUTSIDE,
  STATIC_OVERRUN,
  DYNAMIC_OVERRUN,
  GLOBAL_OVERRUN
};

constexpr int COUNT = 64, AT_ONCE = 4;

__global__ void reverse_kernel(int mistake, const int* input, int* output) {
  JAA_EXT_SHARED_MEMORY(memory);
  int *const copied = reinterpret_cast<int*>(memory), *const reversed = copied + COUNT;
  __shared__ int values[COUNT];
  const int self = threadIdx.x, lane = self % WARP;

  if (self % AT_ONCE == 0) {
    int* const to = copied + self + (mistake == MISALIGNED_COPY) + (mistake == COPY_OUTSIDE) * 2 * COUNT;
    copy_async(to, input + self + (mistake == GLOBAL_OVERRUN) * AT_ONCE);
  }
  if (mistake != NO_WAIT && mistake != LATE_WAIT) copy_wait();
  if (mistake != NO_BARRIER_AFTER_COPY) __syncthreads();

  values[self] = copied[self];
  if (mistake == LATE_WAIT) copy_wait();
  if (mistake != NO_WARP_BARRIER) __syncwarp();
  int partner = 0;  // the lane to read from; the shuffle makes the lanes meet, but does not order memory
  if (mistake != MISSING_LANE || self != 5) partner = __shfl_xor_sync(0xffffffffu, lane, WARP - 1);
  if (mistake == BARRIER_AFTER_RETURN && self == 3) return;
  reversed[self ^ WARP] = values[self - lane + partner + (mistake == STATIC_OVERRUN) * COUNT];

  if (mistake == TWO_BARRIERS && self < WARP) {
    __syncthreads();
  } else if (mistake != NO_BARRIER) {
    __syncthreads();
  }
  output[self] = reversed[self + (mistake == DYNAMIC_OVERRUN)];
}

// Writes three outputs for each of the first `lanes` lanes, which shuffle among themselves.
__global__ void shuffle_kernel(int lanes, const int* input, int* output) {
  const int self = threadIdx.x;
  if (self >= lanes) return;
  const unsigned mask = 0xffffffffu >> (WARP - lanes);
  output[3 * self] = __shfl_sync(mask, input[self], self / 2);
  output[3 * self + 1] = __shfl_down_sync(mask, input[self], 3);
  output[3 * self + 2] = __shfl_xor_sync(mask, input[self], 1);
}

}  // namespace

extern "C" void planted_cuda(int mistake, int shared_bytes, const int* input, int* output) {
  launch_shared(&reverse_kernel, 1, COUNT, shared_bytes, nullptr, mistake, input, output);
}

extern "C" void shuffles_cuda(int lanes, const int* input, int* output) {
  launch(&shuffle_kernel, 1, WARP, nullptr, lanes, input, output);
}
