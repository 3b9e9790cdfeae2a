// Initial attention maps: sizes, pointers, launchers, and the geometry that both kernels share. No torch here.
#pragma once

#include <cmath>
#include <cstdint>

#include "../common/cuda_stream.h"
#include "../common/parallel.h"
#include "../common/scalar.h"

namespace jaa_ext {

struct AttentionMapsParams {
  ScalarType scalar_type;
  int64_t batch, aus, map_size;
  double scale;      // pixels of the map for one of the image
  double half_size;  // of a region of interest, in pixels of the map
  double slope;      // by which the weight falls with each pixel of the map

  const void* landmarks;  // (N, 49, 2)
  int64_t stride_n, stride_point, stride_xy;
  void* maps;  // (N, aus, map_size, map_size), contiguous
};

// The rule of each AU, in the host's memory: two landmarks and the shift down in units of r.
struct AttentionRules {
  const int64_t* points;
  const double* dy;
};

void attention_maps_cpu(const AttentionMapsParams& params, AttentionRules rules, const Parallel& parallel);
void attention_maps_cuda(const AttentionMapsParams& params, AttentionRules rules, CudaStream stream);

// A product that is rounded before it is added. Fused into the sum, it could move a centre by a pixel of the map.
template <typename C>
JAA_EXT_INLINE C rounded_product(C a, C b) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(C) == sizeof(float)) return __fmul_rn(a, b);
  return __dmul_rn(a, b);
#else
  volatile C product = a * b;
  return product;
#endif
}

// The region of interest: a square around one centre, clamped to the map. Its edges belong to it.
template <typename C>
struct Roi {
  C x, y, slope;
  int x0, x1, y0, y1;

  JAA_EXT_INLINE bool is_finite() const { return x - x == 0 && y - y == 0; }
  JAA_EXT_INLINE bool contains(int row, int column) const {
    return row >= y0 && row <= y1 && column >= x0 && column <= x1;
  }
  // Eq. 3 without its lower bound of 0, which holds because the maps begin as zeros and take the larger value.
  JAA_EXT_INLINE C weight(int row, int column) const {
    return 1 - (std::fabs(column - x) + std::fabs(row - y)) * slope;
  }
};

template <typename C>
JAA_EXT_INLINE int clamped(C edge, C last) {
  return static_cast<int>(edge < 0 ? C(0) : edge > last ? last : edge);
}

// The region of interest around landmark `point` of face n.
template <typename T, typename C = typename Compute<T>::type>
JAA_EXT_INLINE Roi<C> roi_of(const AttentionMapsParams& params, int64_t n, int64_t point, double dy) {
  const T* face = static_cast<const T*>(params.landmarks) + n * params.stride_n;
  const C left = widen(face[22 * params.stride_point]), right = widen(face[25 * params.stride_point]);
  const C r = left > right ? left - right : right - left;  // between the inner corners of the eyes
  const C scale = static_cast<C>(params.scale), half = static_cast<C>(params.half_size);
  const C last = static_cast<C>(params.map_size - 1);
  const C shifted =
      widen(face[point * params.stride_point + params.stride_xy]) + rounded_product(static_cast<C>(dy), r);
  Roi<C> roi;
  roi.x = rint(widen(face[point * params.stride_point]) * scale);
  roi.y = rint(shifted * scale);
  roi.slope = static_cast<C>(params.slope);
  if (roi.is_finite()) {
    roi.x0 = clamped(roi.x - half, last);
    roi.x1 = clamped(roi.x + half, last);
    roi.y0 = clamped(roi.y - half, last);
    roi.y1 = clamped(roi.y + half, last);
  } else {
    roi.x0 = roi.y0 = 0;
    roi.x1 = roi.y1 = -1;
  }
  return roi;
}

}  // namespace jaa_ext
