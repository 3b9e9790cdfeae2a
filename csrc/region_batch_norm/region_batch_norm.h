// Region batch norm: sizes, pointers and launchers. No torch here.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/cuda_stream.h"
#include "../common/image.h"
#include "../common/parallel.h"
#include "../common/scalar.h"

namespace jaa_ext {

// Cell (i, j) spans rows floor(i * height / grid_h) .. floor((i + 1) * height / grid_h), columns likewise.
struct RegionBatchNorm {
  Scalar scalar;
  bool training;  // mean and variance are those of the batch, and gradients flow through them
  bool relu;
  int64_t batch, channels, height, width, grid_h, grid_w;
  double eps;

  JAA_EXT_INLINE int64_t cells() const { return grid_h * grid_w; }
  JAA_EXT_INLINE int64_t parameters() const { return cells() * channels; }

  // The variance is the unbiased one in training, as running statistics want it, where the biased one normalises.
  template <typename C>
  JAA_EXT_INLINE C biased(C var, int64_t values) const {
    return training ? var * static_cast<C>(values - 1) / static_cast<C>(values) : var;
  }
};

// Per cell and channel, (grid_h, grid_w, channels), contiguous, in the type that op.scalar computes in. weight and
// bias may be null: 1 and 0.
struct RegionBatchNormParameters {
  const void *weight, *bias;
  void *mean, *var;  // written by the forward pass in training
};

// The number of threads changes how long it takes, not a bit of the results.
// With r = 1 / sqrt(var + eps): output = (input - mean) * r * weight + bias, then ReLU if op.relu.
void region_batch_norm_forward_cpu(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                                   Image input, Image output, const Parallel& parallel, int64_t threads);
// grad_input.data may be null. grad_weight and grad_bias are like weight and bias, and not null.
void region_batch_norm_backward_cpu(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                                    Image grad_output, Image input, Image grad_input, void* grad_weight,
                                    void* grad_bias, const Parallel& parallel, int64_t threads);

// Bytes that the launchers need as workspace; images are {output, input}, or {grad_output, input, grad_input}. The
// forward pass outside training needs none.
int64_t region_batch_norm_workspace_cuda(const RegionBatchNorm& op, const std::vector<Image>& images);
void region_batch_norm_forward_cuda(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                                    Image input, Image output, void* workspace, CudaStream stream);
void region_batch_norm_backward_cuda(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                                     Image grad_output, Image input, Image grad_input, void* grad_weight,
                                     void* grad_bias, void* workspace, CudaStream stream);

}  // namespace jaa_ext
