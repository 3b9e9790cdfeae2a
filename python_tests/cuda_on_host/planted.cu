// A reversal of up to 64 values by one block, right or with one mistake: what running on the CPU must find.
#include "common/launch.cuh"

namespace {

enum Mistake { NONE, NO_BARRIER, BARRIER_AFTER_RETURN, TWO_BARRIERS, MISSING_LANE, SHARED_OVERRUN, GLOBAL_OVERRUN };

__global__ void reverse_kernel(int mistake, const int* input, int* output, int count) {
  __shared__ int values[64];
  const int self = threadIdx.x;
  int value = input[self + (mistake == GLOBAL_OVERRUN)];
  if (mistake != MISSING_LANE || self != 5) value = __shfl_xor_sync(0xffffffffu, value, 1);
  if (mistake == BARRIER_AFTER_RETURN && self == 3) return;
  values[self ^ 1] = value;
  if (mistake == TWO_BARRIERS && self < 32) {
    __syncthreads();
  } else if (mistake != NO_BARRIER) {
    __syncthreads();
  }
  output[self] = values[count - 1 - self + (mistake == SHARED_OVERRUN)];
}

}  // namespace

extern "C" void planted_cuda(int mistake, const int* input, int* output, int count) {
  jaa_ext::launch(&reverse_kernel, 1, count, nullptr, mistake, input, output, count);
}
