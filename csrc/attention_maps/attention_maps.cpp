#include "attention_maps.h"

#include <ATen/ops/empty.h>

#include "../common/registration.h"
#include "../common/tensors.h"

namespace jaa_ext {
namespace {

using at::Tensor;

constexpr const char* NAME = "attention_maps";
constexpr int64_t LANDMARKS = 49;

// The words are those of check_attention_maps in jaa_ext/ops/reference.py.
void check(const Tensor& landmarks, at::IntArrayRef points, at::ArrayRef<double> dy, int64_t image_size,
           int64_t map_size, double roi_ratio, double decay) {
  TORCH_CHECK_VALUE(landmarks.dim() == 3 && landmarks.size(1) == LANDMARKS && landmarks.size(2) == 2, NAME,
                    ": landmarks must be (N, 49, 2), got ", landmarks.sizes());
  check_float(NAME, "landmarks", landmarks);
  TORCH_CHECK_VALUE(image_size >= 1, NAME, ": image_size must be at least 1, got ", image_size);
  TORCH_CHECK_VALUE(map_size >= 1, NAME, ": map_size must be at least 1, got ", map_size);
  TORCH_CHECK_VALUE(roi_ratio > 0 && roi_ratio <= 1, NAME, ": roi_ratio must be in (0, 1], got ", roi_ratio);
  TORCH_CHECK_VALUE(decay >= 0, NAME, ": decay must be at least 0, got ", decay);
  TORCH_CHECK_VALUE(points.size() == 2 * dy.size(), NAME, ": points must hold two landmarks an AU, ", 2 * dy.size(),
                    ", got ", points.size());
  for (const int64_t point : points) {
    TORCH_CHECK_VALUE(point >= 0 && point < LANDMARKS, NAME, ": points must be in 0..48, got ", point);
  }
}

Tensor attention_maps(const Tensor& landmarks, at::IntArrayRef points, at::ArrayRef<double> dy, int64_t image_size,
                      int64_t map_size, double roi_ratio, double decay) {
  check(landmarks, points, dy, image_size, map_size, roi_ratio, decay);
  const int64_t batch = landmarks.size(0), aus = static_cast<int64_t>(dy.size());
  const Tensor maps = at::empty({batch, aus, map_size, map_size}, landmarks.options());
  const AttentionMapsParams params{scalar_type_of(landmarks),
                                   batch,
                                   aus,
                                   map_size,
                                   static_cast<double>(map_size) / static_cast<double>(image_size),
                                   std::rint(static_cast<double>(map_size - 1) / 2 * roi_ratio),
                                   decay / (static_cast<double>(map_size) * roi_ratio),
                                   landmarks.data_ptr(),
                                   landmarks.stride(0),
                                   landmarks.stride(1),
                                   landmarks.stride(2),
                                   maps.data_ptr()};
  const AttentionRules rules{points.data(), dy.data()};
#ifdef JAA_EXT_CUDA
  if (landmarks.is_cuda()) {
    const c10::cuda::CUDAGuard guard(landmarks.device());
    attention_maps_cuda(params, rules, c10::cuda::getCurrentCUDAStream());
    return maps;
  }
#endif
  attention_maps_cpu(params, rules, aten_parallel());
  return maps;
}

constexpr OpCall<&attention_maps> call{"jaa_ext::attention_maps"};

// The maps count as constants: they have no gradient with respect to the landmarks.
Tensor attention_maps_autograd(const Tensor& landmarks, at::IntArrayRef points, at::ArrayRef<double> dy,
                               int64_t image_size, int64_t map_size, double roi_ratio, double decay) {
  return call.below_autograd(landmarks, points, dy, image_size, map_size, roi_ratio, decay);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(jaa_ext, m) {
  m.def(
      "attention_maps(Tensor landmarks, int[] points, float[] dy, int image_size, int map_size, float roi_ratio,"
      " float decay) -> Tensor");
}

JAA_EXT_KERNELS(m) { m.impl("attention_maps", &attention_maps); }

TORCH_LIBRARY_IMPL(jaa_ext, Autograd, m) { m.impl("attention_maps", &attention_maps_autograd); }

// Autocast changes nothing, since the rounded centres must not depend on it.
JAA_EXT_AUTOCAST(m) { m.impl("attention_maps", torch::CppFunction::makeFallthrough()); }

}  // namespace jaa_ext
