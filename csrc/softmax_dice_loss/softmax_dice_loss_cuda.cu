// One block for the whole loss: N x A is small, and so one launch is all that a call costs. Each warp takes every
// WARPS-th AU and sums over its samples in a fixed order: no atomics.
#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "softmax_dice_loss.h"

namespace jaa_ext {
namespace {

constexpr int WARP = 32, WARPS = 16;

// One label and its prediction, in the compute type C.
template <typename C>
struct Label {
  bool valid, wrong;
  C p, p_hat, cross_entropy;
};

template <typename T, typename C = typename Compute<T>::type>
__device__ inline Label<C> label_of(const SoftmaxDiceLoss& op, int64_t n, int64_t au) {
  Label<C> label{};
  const int64_t place = n * op.aus + au;
  if (op.target_is_probability) {
    label.p = static_cast<const C*>(op.target)[place];
    label.valid = label.p != static_cast<C>(op.ignore_index);
  } else {
    const int64_t value = static_cast<const int64_t*>(op.target)[place];
    label.p = static_cast<C>(value);
    label.valid = value != op.ignore_index;
  }
  if (!label.valid) return label;
  label.wrong = !(label.p >= 0 && label.p <= 1);
  if (label.wrong) label.p = static_cast<C>(NAN);
  const T* logits = static_cast<const T*>(op.logits) + n * op.logits_stride_n + au * op.logits_stride_au;
  const C margin = widen(logits[op.logits_stride_class]) - widen(logits[0]);
  // The softmax of two classes from their margin, without overflow: exp is of a number that is not positive.
  const C small = exp(margin < 0 ? margin : -margin), log_sum = log1p(small);
  label.p_hat = (margin < 0 ? small : C(1)) / (1 + small);
  const C log_present = (margin < 0 ? margin : C(0)) - log_sum, log_absent = (margin < 0 ? C(0) : -margin) - log_sum;
  label.cross_entropy = -(label.p * log_present + (1 - label.p) * log_absent);
  return label;
}

template <typename C>
__device__ inline void add(AuSums& sums, const Label<C>& label, double smooth) {
  const double p = label.p, p_hat = label.p_hat;
  sums.softmax += label.cross_entropy;
  sums.dice += dice_ratio(p * p_hat, p * p + p_hat * p_hat, smooth);
  sums.overlap += p * p_hat;
  sums.squares += p * p + p_hat * p_hat;
  sums.labels += 1;
}

// Gradient with respect to the margin logits[1] - logits[0] of a valid label. The two incoming gradients are
// already divided by the number of AUs with labels and multiplied by this AU's weight.
template <typename C>
__device__ inline double margin_gradient(const SoftmaxDiceLoss& op, const Label<C>& label, const AuSums& sums,
                                         double grad_softmax, double grad_dice) {
  const double p = label.p, p_hat = label.p_hat, labels = static_cast<double>(sums.labels);
  const double overlap = op.batch_dice ? sums.overlap : p * p_hat;
  const double squares = (op.batch_dice ? sums.squares : p * p + p_hat * p_hat) + op.smooth;
  const double dice_by_p_hat = -2 * (p * squares - (2 * overlap + op.smooth) * p_hat) / (squares * squares);
  const double dice = dice_by_p_hat * p_hat * (1 - p_hat) / (op.batch_dice ? 1 : labels);
  return grad_softmax * (p_hat - p) / labels + grad_dice * dice;
}

// The sum over a warp's lanes, in every lane.
template <typename V>
__device__ V warp_sum(V value) {
  for (int distance = WARP / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

template <typename T>
__device__ AuSums sum_over_samples(const SoftmaxDiceLoss& op, int64_t au, int lane) {
  using C = typename Compute<T>::type;
  AuSums sums;
  for (int64_t n = lane; n < op.samples; n += WARP) {
    const Label<C> label = label_of<T>(op, n, au);
    if (label.valid) add(sums, label, op.smooth);
  }
  sums.softmax = warp_sum(sums.softmax);
  sums.dice = warp_sum(sums.dice);
  sums.overlap = warp_sum(sums.overlap);
  sums.squares = warp_sum(sums.squares);
  sums.labels = warp_sum(static_cast<long long>(sums.labels));
  return sums;
}

template <typename T>
__global__ void forward_kernel(SoftmaxDiceLoss op, T* softmax, T* dice) {
  using C = typename Compute<T>::type;
  __shared__ double softmax_of[WARPS], dice_of[WARPS];
  __shared__ int aus_of[WARPS];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  double softmax_sum = 0, dice_sum = 0;
  int aus = 0;
  for (int64_t au = warp; au < op.aus; au += WARPS) {
    const AuSums sums = sum_over_samples<T>(op, au, lane);
    au_loss<C>(op, au, sums, softmax_sum, dice_sum);
    aus += sums.labels > 0;
  }
  if (lane == 0) {
    softmax_of[warp] = softmax_sum;
    dice_of[warp] = dice_sum;
    aus_of[warp] = aus;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int other = 1; other < WARPS; ++other) {
    softmax_sum += softmax_of[other];
    dice_sum += dice_of[other];
    aus += aus_of[other];
  }
  if (aus == 0) aus = 1;
  *softmax = narrow<T>(static_cast<C>(softmax_sum / aus));
  *dice = narrow<T>(static_cast<C>(dice_sum / aus));
}

template <typename T>
__global__ void backward_kernel(SoftmaxDiceLoss op, const T* grad_softmax, const T* grad_dice, T* grad_logits) {
  using C = typename Compute<T>::type;
  __shared__ int aus_of[WARPS];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  int aus = 0;
  for (int64_t au = warp; au < op.aus; au += WARPS) {
    int labels = 0;
    for (int64_t n = lane; n < op.samples; n += WARP) labels += label_of<T>(op, n, au).valid;
    aus += warp_sum(labels) > 0;
  }
  if (lane == 0) aus_of[warp] = aus;
  __syncthreads();
  aus = 0;
  for (int other = 0; other < WARPS; ++other) aus += aus_of[other];
  const double softmax = static_cast<double>(widen(*grad_softmax)) / aus;
  const double dice = static_cast<double>(widen(*grad_dice)) / aus;
  for (int64_t au = warp; au < op.aus; au += WARPS) {
    const AuSums sums = sum_over_samples<T>(op, au, lane);
    const double weight = weight_of<C>(op, au);
    for (int64_t n = lane; n < op.samples; n += WARP) {
      const Label<C> label = label_of<T>(op, n, au);
      const double gradient = label.valid ? margin_gradient(op, label, sums, weight * softmax, weight * dice) : 0.0;
      grad_logits[(2 * n) * op.aus + au] = narrow<T>(static_cast<C>(-gradient));
      grad_logits[(2 * n + 1) * op.aus + au] = narrow<T>(static_cast<C>(gradient));
    }
  }
}

}  // namespace

void softmax_dice_loss_forward_cuda(const SoftmaxDiceLoss& op, void* softmax, void* dice, CudaStream stream) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    launch(&forward_kernel<T>, 1, WARP * WARPS, stream, op, static_cast<T*>(softmax), static_cast<T*>(dice));
  });
}

void softmax_dice_loss_backward_cuda(const SoftmaxDiceLoss& op, const void* grad_softmax, const void* grad_dice,
                                     void* grad_logits, CudaStream stream) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    launch(&backward_kernel<T>, 1, WARP * WARPS, stream, op, static_cast<const T*>(grad_softmax),
           static_cast<const T*>(grad_dice), static_cast<T*>(grad_logits));
  });
}

}  // namespace jaa_ext
