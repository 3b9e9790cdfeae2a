#include <algorithm>
#include <cmath>
#include <vector>

#include "../common/cpu_level.h"
#include "../common/dispatch.h"
#include "../common/parts.h"
#include "softmax_dice_loss.h"

namespace jaa_ext {
namespace {

// Samples that are summed together in the compute type. The sums of chunks are added in order and in double, so that
// the bits do not depend on the number of threads.
constexpr int64_t CHUNK = 64;

template <typename T>
struct Kernels {
  using C = typename Compute<T>::type;
  void (*sum_over_samples)(const SoftmaxDiceLossParams&, int64_t begin, int64_t end, AuSums* sums);
  void (*differentiate)(const SoftmaxDiceLossParams&, int64_t begin, int64_t end, const C* of_aus, T* grad_logits);
};

#define CPU_KERNEL_FILE "../softmax_dice_loss/softmax_dice_loss_cpu_kernel.h"
#include "../common/for_each_cpu_level.h"

template <typename T>
Kernels<T> kernels_for_processor() {
  JAA_EXT_AT_CPU_LEVEL(kernels<T>());
}

// Runs body(chunk, begin, end) on every chunk of samples.
template <typename Body>
void for_each_chunk(const SoftmaxDiceLossParams& params, const Parallel& parallel, const Body& body) {
  parallel(ceil_div(params.samples, CHUNK), [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      body(chunk, chunk * CHUNK, std::min((chunk + 1) * CHUNK, params.samples));
    }
  });
}

template <typename T>
std::vector<AuSums> sum_over_samples(const SoftmaxDiceLossParams& params, const Parallel& parallel) {
  const Kernels<T> kernels = kernels_for_processor<T>();
  const int64_t chunks = std::max<int64_t>(ceil_div(params.samples, CHUNK), 1);
  std::vector<AuSums> sums(chunks * params.aus);
  for_each_chunk(params, parallel, [&](int64_t chunk, int64_t begin, int64_t end) {
    kernels.sum_over_samples(params, begin, end, sums.data() + chunk * params.aus);
  });
  for (int64_t chunk = 1; chunk < chunks; ++chunk) {
    for (int64_t au = 0; au < params.aus; ++au) sums[au] += sums[chunk * params.aus + au];
  }
  sums.resize(params.aus);
  return sums;
}

double aus_with_labels(const std::vector<AuSums>& sums) {
  const auto count = std::count_if(sums.begin(), sums.end(), [](const AuSums& au) { return au.labels > 0; });
  return static_cast<double>(std::max<int64_t>(count, 1));
}

template <typename C>
int64_t first_wrong_label(const SoftmaxDiceLossParams& params) {
  for (int64_t place = 0; place < params.samples * params.aus; ++place) {
    const C p = params.target_is_probability ? static_cast<const C*>(params.target)[place]
                                             : static_cast<C>(static_cast<const int64_t*>(params.target)[place]);
    if (p != static_cast<C>(params.ignore_index) && !(p >= 0 && p <= 1)) return place;
  }
  return -1;
}

}  // namespace

int64_t softmax_dice_loss_forward_cpu(const SoftmaxDiceLossParams& params, void* softmax, void* dice,
                                      const Parallel& parallel) {
  int64_t wrong = -1;
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    const std::vector<AuSums> sums = sum_over_samples<T>(params, parallel);
    double softmax_sum = 0, dice_sum = 0;
    for (int64_t au = 0; au < params.aus; ++au) au_loss<C>(params, au, sums[au], softmax_sum, dice_sum);
    if (std::isnan(softmax_sum)) wrong = first_wrong_label<C>(params);
    if (wrong >= 0) return;
    *static_cast<T*>(softmax) = narrow<T>(static_cast<C>(softmax_sum / aus_with_labels(sums)));
    *static_cast<T*>(dice) = narrow<T>(static_cast<C>(dice_sum / aus_with_labels(sums)));
  });
  return wrong;
}

void softmax_dice_loss_backward_cpu(const SoftmaxDiceLossParams& params, const void* grad_softmax,
                                    const void* grad_dice, void* grad_logits, const Parallel& parallel) {
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    const std::vector<AuSums> sums = sum_over_samples<T>(params, parallel);
    const double softmax = widen(*static_cast<const T*>(grad_softmax)) / aus_with_labels(sums);
    const double dice = widen(*static_cast<const T*>(grad_dice)) / aus_with_labels(sums);
    std::vector<C> of_aus(4 * params.aus);
    for (int64_t au = 0; au < params.aus; ++au) {
      const double weight = weight_of<C>(params, au),
                   labels = static_cast<double>(std::max<int64_t>(sums[au].labels, 1));
      const double values[] = {weight * softmax / labels, weight * dice / (params.batch_dice ? 1 : labels),
                               sums[au].overlap, sums[au].squares};
      for (int i = 0; i < 4; ++i) of_aus[i * params.aus + au] = static_cast<C>(values[i]);
    }
    const Kernels<T> kernels = kernels_for_processor<T>();
    for_each_chunk(params, parallel, [&](int64_t, int64_t begin, int64_t end) {
      kernels.differentiate(params, begin, end, of_aus.data(), static_cast<T*>(grad_logits));
    });
  });
}

}  // namespace jaa_ext
