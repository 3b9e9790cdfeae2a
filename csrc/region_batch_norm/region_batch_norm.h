// Region batch norm: sizes, pointers and launchers. No torch here.
#pragma once

#include <cstdint>

#include "../common/allocate.h"
#include "../common/cuda_stream.h"
#include "../common/image_view.h"
#include "../common/parallel.h"
#include "../common/scalar.h"

namespace jaa_ext {

// The cells are those of ../common/cells.h.
struct RegionBatchNormParams {
  ScalarType scalar_type;
  bool training;  // mean and variance are the batch's, and gradients flow through them
  bool relu;
  int64_t batch, channels, height, width, grid_h, grid_w;
  double eps;

  JAA_EXT_INLINE int64_t cells() const { return grid_h * grid_w; }
  JAA_EXT_INLINE int64_t cell_channels() const { return cells() * channels; }

  // The variance that normalises: in training the biased one, while `var` is unbiased, as running statistics want it.
  template <typename C>
  JAA_EXT_INLINE C biased(C var, int64_t values) const {
    return training ? var * static_cast<C>(values - 1) / static_cast<C>(values) : var;
  }
};

// Values for each cell and channel, (grid_h, grid_w, channels), contiguous, in the type that params.scalar_type
// computes in. weight and bias may be null, which stands for 1 and 0.
struct RegionBatchNormTensors {
  const void *weight, *bias;
  void *mean, *var;  // written by the forward pass in training
};

// output = (input - mean) / sqrt(var + eps) * weight + bias, then ReLU if params.relu. The number of threads changes
// the time that it takes, but not a bit of the results.
void region_batch_norm_forward_cpu(const RegionBatchNormParams& params, const RegionBatchNormTensors& tensors,
                                   ImageView input, ImageView output, const Parallel& parallel, int64_t threads);
// grad_input.data may be null. grad_weight and grad_bias are like weight and bias, but must not be null.
void region_batch_norm_backward_cpu(const RegionBatchNormParams& params, const RegionBatchNormTensors& tensors,
                                    ImageView grad_output, ImageView input, ImageView grad_input, void* grad_weight,
                                    void* grad_bias, const Parallel& parallel, int64_t threads);

void region_batch_norm_forward_cuda(const RegionBatchNormParams& params, const RegionBatchNormTensors& tensors,
                                    ImageView input, ImageView output, const Allocate& allocate, CudaStream stream);
void region_batch_norm_backward_cuda(const RegionBatchNormParams& params, const RegionBatchNormTensors& tensors,
                                     ImageView grad_output, ImageView input, ImageView grad_input, void* grad_weight,
                                     void* grad_bias, const Allocate& allocate, CudaStream stream);

}  // namespace jaa_ext
