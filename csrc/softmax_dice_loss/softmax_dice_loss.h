// The softmax and Dice losses: sizes, pointers, launchers, and the arithmetic both kernels share. No torch here.
#pragma once

#include <cmath>
#include <cstdint>

#include "../common/cuda_stream.h"
#include "../common/parallel.h"
#include "../common/scalar.h"

namespace jaa_ext {

struct SoftmaxDiceLossParams {
  ScalarType scalar_type;
  bool batch_dice;  // one ratio for all valid labels of an AU, not one for each label
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

// Sums over the valid labels of one AU.
struct AuSums {
  double softmax, dice;     // the terms of Eq. 6 and Eq. 7
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

// Writes one element each to softmax and dice, and returns -1. Where a label is neither in 0..1 nor ignore_index,
// writes nothing and returns that label's index n * aus + au.
int64_t softmax_dice_loss_forward_cpu(const SoftmaxDiceLossParams& params, void* softmax, void* dice,
                                      const Parallel& parallel);
// grad_logits is (samples, 2, aus), contiguous.
void softmax_dice_loss_backward_cpu(const SoftmaxDiceLossParams& params, const void* grad_softmax,
                                    const void* grad_dice, void* grad_logits, const Parallel& parallel);

// The same, but a wrong label makes the losses NaN.
void softmax_dice_loss_forward_cuda(const SoftmaxDiceLossParams& params, void* softmax, void* dice,
                                    CudaStream stream);
void softmax_dice_loss_backward_cuda(const SoftmaxDiceLossParams& params, const void* grad_softmax,
                                     const void* grad_dice, void* grad_logits, CudaStream stream);

template <typename C>
JAA_EXT_INLINE C dice_ratio(C overlap, C squares, C smooth) {
  return 1 - (2 * overlap + smooth) / (squares + smooth);
}

template <typename C>
JAA_EXT_INLINE double weight_of(const SoftmaxDiceLossParams& params, int64_t au) {
  return params.weight == nullptr ? 1.0 : static_cast<double>(static_cast<const C*>(params.weight)[au]);
}

// Adds an AU's terms to the sums over AUs.
template <typename C>
JAA_EXT_INLINE void au_loss(const SoftmaxDiceLossParams& params, int64_t au, const AuSums& sums, double& softmax,
                            double& dice) {
  if (sums.labels == 0) return;
  const double weight = weight_of<C>(params, au), labels = static_cast<double>(sums.labels);
  softmax += weight * sums.softmax / labels;
  dice += weight * (params.batch_dice ? dice_ratio(sums.overlap, sums.squares, params.smooth) : sums.dice / labels);
}

}  // namespace jaa_ext
