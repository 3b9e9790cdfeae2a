#include <algorithm>
#include <vector>

#include "../common/dispatch.h"
#include "softmax_dice_loss.h"

namespace jaa_ext {
namespace {

// Samples summed together. The sums of chunks are added in order: the bits do not depend on the threads.
constexpr int64_t CHUNK = 64;

struct ChunkSums {
  std::vector<AuSums> per_au;
  int64_t wrong = -1;  // index of the first wrong label
};

template <typename T>
ChunkSums sum_over_samples(const SoftmaxDiceLoss& op, const Parallel& parallel) {
  using C = typename Compute<T>::type;
  const int64_t count = std::max<int64_t>((op.samples + CHUNK - 1) / CHUNK, 1);
  std::vector<ChunkSums> chunks(count);
  parallel(count, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      ChunkSums& sums = chunks[chunk];
      sums.per_au.resize(op.aus);
      for (int64_t n = chunk * CHUNK; n < std::min((chunk + 1) * CHUNK, op.samples); ++n) {
        for (int64_t au = 0; au < op.aus; ++au) {
          const Label<C> label = label_of<T>(op, n, au);
          if (!label.valid) continue;
          if (label.wrong && sums.wrong < 0) sums.wrong = n * op.aus + au;
          add(sums.per_au[au], label, op.smooth);
        }
      }
    }
  });
  ChunkSums& total = chunks[0];
  for (int64_t chunk = 1; chunk < count; ++chunk) {
    for (int64_t au = 0; au < op.aus; ++au) total.per_au[au] += chunks[chunk].per_au[au];
    if (total.wrong < 0) total.wrong = chunks[chunk].wrong;
  }
  return std::move(total);
}

int64_t aus_with_labels(const ChunkSums& sums) {
  return std::count_if(sums.per_au.begin(), sums.per_au.end(), [](const AuSums& au) { return au.labels > 0; });
}

}  // namespace

int64_t softmax_dice_loss_forward_cpu(const SoftmaxDiceLoss& op, void* softmax, void* dice,
                                      const Parallel& parallel) {
  int64_t wrong = -1;
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    const ChunkSums sums = sum_over_samples<T>(op, parallel);
    wrong = sums.wrong;
    if (wrong >= 0) return;
    double softmax_sum = 0, dice_sum = 0;
    for (int64_t au = 0; au < op.aus; ++au) au_loss<C>(op, au, sums.per_au[au], softmax_sum, dice_sum);
    const double aus = static_cast<double>(std::max<int64_t>(aus_with_labels(sums), 1));
    *static_cast<T*>(softmax) = narrow<T>(static_cast<C>(softmax_sum / aus));
    *static_cast<T*>(dice) = narrow<T>(static_cast<C>(dice_sum / aus));
  });
  return wrong;
}

void softmax_dice_loss_backward_cpu(const SoftmaxDiceLoss& op, const void* grad_softmax, const void* grad_dice,
                                    void* grad_logits, const Parallel& parallel) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    const ChunkSums sums = sum_over_samples<T>(op, parallel);
    const double aus = static_cast<double>(std::max<int64_t>(aus_with_labels(sums), 1));
    const double softmax = widen(*static_cast<const T*>(grad_softmax)) / aus;
    const double dice = widen(*static_cast<const T*>(grad_dice)) / aus;
    parallel((op.samples + CHUNK - 1) / CHUNK, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin * CHUNK; n < std::min(end * CHUNK, op.samples); ++n) {
        T* absent = static_cast<T*>(grad_logits) + 2 * n * op.aus;
        T* present = absent + op.aus;
        for (int64_t au = 0; au < op.aus; ++au) {
          const Label<C> label = label_of<T>(op, n, au);
          const double weight = weight_of<C>(op, au);
          const double gradient =
              label.valid ? margin_gradient(op, label, sums.per_au[au], weight * softmax, weight * dice) : 0.0;
          present[au] = narrow<T>(static_cast<C>(gradient));
          absent[au] = narrow<T>(static_cast<C>(-gradient));
        }
      }
    });
  });
}

}  // namespace jaa_ext
