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
  double softmax = 0, dice = 0;     // of Eq. 6 and Eq. 7
  double overlap = 0, squares = 0;  // p p_hat and p^2 + p_hat^2, for batch_dice
  int64_t labels = 0;

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

// One label and its prediction, in the compute type C.
template <typename C>
struct Label {
  bool valid, wrong;
  C p, p_hat, cross_entropy;
};

template <typename T, typename C = typename Compute<T>::type>
JAA_EXT_INLINE Label<C> label_of(const SoftmaxDiceLoss& op, int64_t n, int64_t au) {
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

JAA_EXT_INLINE double dice_ratio(double overlap, double squares, double smooth) {
  return 1 - (2 * overlap + smooth) / (squares + smooth);
}

template <typename C>
JAA_EXT_INLINE void add(AuSums& sums, const Label<C>& label, double smooth) {
  const double p = label.p, p_hat = label.p_hat;
  sums.softmax += label.cross_entropy;
  sums.dice += dice_ratio(p * p_hat, p * p + p_hat * p_hat, smooth);
  sums.overlap += p * p_hat;
  sums.squares += p * p + p_hat * p_hat;
  sums.labels += 1;
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

// Gradient with respect to the margin logits[1] - logits[0] of a valid label. The two incoming gradients are
// already divided by the number of AUs with labels and multiplied by this AU's weight.
template <typename C>
JAA_EXT_INLINE double margin_gradient(const SoftmaxDiceLoss& op, const Label<C>& label, const AuSums& sums,
                                      double grad_softmax, double grad_dice) {
  const double p = label.p, p_hat = label.p_hat, labels = static_cast<double>(sums.labels);
  const double overlap = op.batch_dice ? sums.overlap : p * p_hat;
  const double squares = (op.batch_dice ? sums.squares : p * p + p_hat * p_hat) + op.smooth;
  const double dice_by_p_hat = -2 * (p * squares - (2 * overlap + op.smooth) * p_hat) / (squares * squares);
  const double dice = dice_by_p_hat * p_hat * (1 - p_hat) / (op.batch_dice ? 1 : labels);
  return grad_softmax * (p_hat - p) / labels + grad_dice * dice;
}

}  // namespace jaa_ext
