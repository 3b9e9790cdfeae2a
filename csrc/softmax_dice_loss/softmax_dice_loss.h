// The softmax and Dice losses: sizes, pointers, launchers, and the arithmetic both kernels share. No torch here.
#pragma once

#include <cmath>
#include <cstdint>

#include "../common/cuda_stream.h"
#include "../common/parallel.h"
#include "../common/scalar.h"

namespace jaa_ext {

struct SoftmaxDiceLoss {
  Scalar scalar;
  bool batch_dice;  // sum over the valid labels of an AU before the ratio is taken
  int64_t samples, aus;
  double smooth;

  const void* logits;  // (samples, 2, aus)
  int64_t logits_stride_n, logits_stride_class, logits_stride_au;
  // (samples, aus), contiguous: int64, or the compute type where it holds probabilities.
  const void* target;
  bool target_is_probability;
  int64_t ignore_index;
  const void* weight;  // (aus) of the compute type, contiguous, or null for ones
};

// What is summed over the valid labels of one AU.
struct AuSums {
  double softmax, dice;     // of Eq. 6 and Eq. 7
  double overlap, squares;  // p p_hat and p^2 + p_hat^2, for batch_dice
  int64_t labels;

  JAA_EXT_INLINE AuSums& operator+=(const AuSums& other) {
    softmax += other.softmax;
    dice += other.dice;
    overlap += other.overlap;
    squares += other.squares;
    labels += other.labels;
    return *this;
  }
};

// softmax and dice point to one element each. Returns the index n * aus + au of a label outside 0..1 that is not
// ignore_index, or -1; then nothing is written.
int64_t softmax_dice_loss_forward_cpu(const SoftmaxDiceLoss& op, void* softmax, void* dice, const Parallel& parallel);
// grad_logits (samples, 2, aus), contiguous.
void softmax_dice_loss_backward_cpu(const SoftmaxDiceLoss& op, const void* grad_softmax, const void* grad_dice,
                                    void* grad_logits, const Parallel& parallel);

// As on the CPU, but a wrong label makes the losses NaN.
void softmax_dice_loss_forward_cuda(const SoftmaxDiceLoss& op, void* softmax, void* dice, CudaStream stream);
void softmax_dice_loss_backward_cuda(const SoftmaxDiceLoss& op, const void* grad_softmax, const void* grad_dice,
                                     void* grad_logits, CudaStream stream);

template <typename C>
JAA_EXT_INLINE C dice_ratio(C overlap, C squares, C smooth) {
  return 1 - (2 * overlap + smooth) / (squares + smooth);
}

template <typename C>
JAA_EXT_INLINE double weight_of(const SoftmaxDiceLoss& op, int64_t au) {
  return op.weight == nullptr ? 1.0 : static_cast<double>(static_cast<const C*>(op.weight)[au]);
}

// An AU's two terms of the sums over AUs.
template <typename C>
JAA_EXT_INLINE void au_loss(const SoftmaxDiceLoss& op, int64_t au, const AuSums& sums, double& softmax,
                            double& dice) {
  if (sums.labels == 0) return;
  const double weight = weight_of<C>(op, au), labels = static_cast<double>(sums.labels);
  softmax += weight * sums.softmax / labels;
  dice += weight * (op.batch_dice ? dice_ratio(sums.overlap, sums.squares, op.smooth) : sums.dice / labels);
}

}  // namespace jaa_ext
