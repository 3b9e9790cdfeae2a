// One block computes the whole loss: N x A is small, and so a call costs one launch. Each thread keeps to one AU and
// takes samples at equal distances, such that neighbouring threads read neighbouring memory. The threads' sums are
// added as a tree, without atomics. Terms of a label are in the compute type, since most GPUs are slow in double.
#include <algorithm>

#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "softmax_dice_loss.h"

namespace jaa_ext {
namespace {

constexpr int THREADS = 512;
constexpr int LABELS_AT_ONCE = 4;  // that a thread reads before it works out the first one

// The AUs that the block works on at a time, and this thread's part in them.
struct Tile {
  int64_t first_au;
  int aus, abreast;  // AUs, and samples that the block takes at once
  int au, sample;    // of this thread
  bool takes_part;

  __device__ Tile(const SoftmaxDiceLossParams& params, int64_t first_au) : first_au(first_au) {
    aus = params.aus - first_au < THREADS ? static_cast<int>(params.aus - first_au) : THREADS;
    abreast = THREADS / aus;
    au = threadIdx.x % aus;
    sample = threadIdx.x / aus;
    takes_part = sample < abreast;
  }
};

// One label p and the difference of its two logits.
template <typename C>
struct Label {
  bool valid;
  C p, margin;
};

template <typename T, typename C = typename Compute<T>::type>
__device__ Label<C> label_of(const SoftmaxDiceLossParams& params, int64_t n, int64_t au) {
  Label<C> label;
  const int64_t index = n * params.aus + au;
  if (params.target_is_probability) {
    label.p = static_cast<const C*>(params.target)[index];
    label.valid = label.p != static_cast<C>(params.ignore_index);
  } else {
    const int64_t value = static_cast<const int64_t*>(params.target)[index];
    label.p = static_cast<C>(value);
    label.valid = value != params.ignore_index;
  }
  if (!(label.p >= 0 && label.p <= 1)) label.p = static_cast<C>(NAN);
  const T* logits = static_cast<const T*>(params.logits) + n * params.logits_stride_n + au * params.logits_stride_au;
  const C absent = widen(logits[0]), present = widen(logits[params.logits_stride_class]);
  // The softmax of an infinite logit is NaN, but that of -inf is 0.
  const bool infinite = absent == static_cast<C>(INFINITY) || present == static_cast<C>(INFINITY);
  label.margin = infinite ? static_cast<C>(NAN) : present - absent;
  return label;
}

// Runs body(n, label) on this thread's labels.
template <typename T, typename Body>
__device__ void for_each_label(const SoftmaxDiceLossParams& params, const Tile& tile, const Body& body) {
  if (!tile.takes_part) return;
  for (int64_t first = tile.sample; first < params.samples; first += LABELS_AT_ONCE * tile.abreast) {
    Label<typename Compute<T>::type> labels[LABELS_AT_ONCE];
    for (int k = 0; k < LABELS_AT_ONCE; ++k) {
      const int64_t n = first + k * tile.abreast;
      if (n < params.samples) labels[k] = label_of<T>(params, n, tile.first_au + tile.au);
    }
    for (int k = 0; k < LABELS_AT_ONCE; ++k) {
      const int64_t n = first + k * tile.abreast;
      if (n < params.samples) body(n, labels[k]);
    }
  }
}

// The softmax of two classes from their margin. Nothing overflows, since exp takes no positive number.
template <typename C>
struct Prediction {
  C small, p_hat;

  __device__ explicit Prediction(C margin) : small(exp(margin < 0 ? margin : -margin)) {
    p_hat = (margin < 0 ? small : C(1)) / (1 + small);
  }
};

// Writes the sums of the tile's AUs to `sums`: with WITH_LOSSES all terms, or else those that gradients need.
template <typename T, bool WITH_LOSSES>
__device__ void sum_over_samples(const SoftmaxDiceLossParams& params, const Tile& tile, AuSums (&sums)[THREADS]) {
  using C = typename Compute<T>::type;
  C softmax = 0, dice = 0, overlap = 0, squares = 0;
  int labels = 0;
  for_each_label<T>(params, tile, [&](int64_t, const Label<C>& label) {
    if (!label.valid) return;
    ++labels;
    if (!WITH_LOSSES && !params.batch_dice) return;
    const Prediction<C> prediction(label.margin);
    const C p = label.p, p_hat = prediction.p_hat, square = p * p + p_hat * p_hat;
    overlap += p * p_hat;
    squares += square;
    if (!WITH_LOSSES) return;
    // -(p log(p_hat) + (1 - p) log(1 - p_hat)); a term of weight 0 is 0, also where its logarithm is infinite
    const C wrong = label.margin < 0 ? p : 1 - p;
    softmax += log1p(prediction.small) + (wrong == 0 ? C(0) : wrong * std::fabs(label.margin));
    dice += dice_ratio(p * p_hat, square, static_cast<C>(params.smooth));
  });
  __syncthreads();  // the last tile's sums have been read
  AuSums& own = sums[threadIdx.x];
  own = {softmax, dice, overlap, squares, labels};
  for (int rows = tile.abreast, half; rows > 1; rows = half) {
    __syncthreads();
    half = (rows + 1) / 2;
    if (tile.sample + half < rows) own += sums[threadIdx.x + half * tile.aus];
  }
  __syncthreads();
}

template <typename T>
__global__ void forward_kernel(SoftmaxDiceLossParams params, T* softmax, T* dice) {
  using C = typename Compute<T>::type;
  __shared__ AuSums sums[THREADS];
  __shared__ double softmax_of[THREADS], dice_of[THREADS];
  double softmax_sum = 0, dice_sum = 0;
  int64_t aus = 0;
  for (int64_t first_au = 0; first_au < params.aus; first_au += THREADS) {
    const Tile tile(params, first_au);
    sum_over_samples<T, true>(params, tile, sums);
    const int self = threadIdx.x;
    if (self < tile.aus) {
      softmax_of[self] = dice_of[self] = 0;
      au_loss<C>(params, first_au + self, sums[self], softmax_of[self], dice_of[self]);
    }
    __syncthreads();
    for (int au = 0; au < tile.aus; ++au) {
      softmax_sum += softmax_of[au];
      dice_sum += dice_of[au];
      aus += sums[au].labels > 0;
    }
  }
  if (threadIdx.x != 0) return;
  if (aus == 0) aus = 1;
  *softmax = narrow<T>(static_cast<C>(softmax_sum / static_cast<double>(aus)));
  *dice = narrow<T>(static_cast<C>(dice_sum / static_cast<double>(aus)));
}

// The gradient of the losses of one AU with respect to the margin of a valid label.
template <typename C>
struct MarginGradient {
  C softmax, dice;

  __device__ MarginGradient(const SoftmaxDiceLossParams& params, const Label<C>& label, const AuSums& sums) {
    const C p = label.p, p_hat = Prediction<C>(label.margin).p_hat, labels = static_cast<C>(sums.labels);
    const C overlap = params.batch_dice ? static_cast<C>(sums.overlap) : p * p_hat;
    const C squares =
        (params.batch_dice ? static_cast<C>(sums.squares) : p * p + p_hat * p_hat) + static_cast<C>(params.smooth);
    const C by_p_hat = -2 * (p - (2 * overlap + static_cast<C>(params.smooth)) / squares * p_hat) / squares;
    softmax = (p_hat - p) / labels;
    dice = by_p_hat * p_hat * (1 - p_hat) / (params.batch_dice ? C(1) : labels);
  }
};

template <typename T>
__global__ void backward_kernel(SoftmaxDiceLossParams params, const T* grad_softmax, const T* grad_dice,
                                T* grad_logits) {
  using C = typename Compute<T>::type;
  __shared__ AuSums sums[THREADS];
  int64_t aus = 0;
  for (int64_t first_au = 0; first_au < params.aus; first_au += THREADS) {
    const Tile tile(params, first_au);
    sum_over_samples<T, false>(params, tile, sums);
    for (int au = 0; au < tile.aus; ++au) aus += sums[au].labels > 0;
  }
  for (int64_t first_au = 0; first_au < params.aus; first_au += THREADS) {
    const Tile tile(params, first_au);
    if (params.aus > THREADS) sum_over_samples<T, false>(params, tile, sums);
    const AuSums& of_au = sums[tile.au];
    const int64_t au = first_au + tile.au;
    const C weight = static_cast<C>(weight_of<C>(params, au)) / static_cast<C>(aus);
    const C softmax = weight * widen(*grad_softmax), dice = weight * widen(*grad_dice);
    for_each_label<T>(params, tile, [&](int64_t n, const Label<C>& label) {
      C gradient = 0;
      if (label.valid) {
        const MarginGradient<C> margin(params, label, of_au);
        gradient = softmax * margin.softmax + dice * margin.dice;
      }
      grad_logits[2 * n * params.aus + au] = narrow<T>(-gradient);
      grad_logits[(2 * n + 1) * params.aus + au] = narrow<T>(gradient);
    });
  }
}

}  // namespace

void softmax_dice_loss_forward_cuda(const SoftmaxDiceLossParams& params, void* softmax, void* dice,
                                    CudaStream stream) {
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    launch(&forward_kernel<T>, 1, THREADS, stream, params, static_cast<T*>(softmax), static_cast<T*>(dice));
  });
}

void softmax_dice_loss_backward_cuda(const SoftmaxDiceLossParams& params, const void* grad_softmax,
                                     const void* grad_dice, void* grad_logits, CudaStream stream) {
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    launch(&backward_kernel<T>, 1, THREADS, stream, params, static_cast<const T*>(grad_softmax),
           static_cast<const T*>(grad_dice), static_cast<T*>(grad_logits));
  });
}

}  // namespace jaa_ext
