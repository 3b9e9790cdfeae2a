// Region convolution: sizes, strides, pointers and launchers. No torch here.
#pragma once

#include <cstdint>

#include "../common/allocate.h"
#include "../common/cuda_stream.h"
#include "../common/image_view.h"
#include "../common/parallel.h"
#include "../common/scalar.h"

namespace jaa_ext {

// What lies outside a cell: zeros, or the image, which alone is zero-padded then.
enum class Border { cell, image };

// The cells are those of ../common/cells.h.
struct RegionConv2dParams {
  ScalarType scalar_type;
  Border border;
  bool tf32;  // float32 factors may be rounded to TensorFloat-32 on a GPU
  int64_t batch, in_channels, out_channels, height, width, grid_h, grid_w, kernel_h, kernel_w;

  JAA_EXT_INLINE int64_t cells() const { return grid_h * grid_w; }
  JAA_EXT_INLINE int64_t cell_weights() const { return out_channels * in_channels * kernel_h * kernel_w; }
};

// weight (grid_h, grid_w, out_channels, in_channels, kernel_h, kernel_w) and bias (grid_h, grid_w,
// out_channels), or null, are contiguous.
void region_conv2d_forward_cpu(const RegionConv2dParams& params, ImageView input, const void* weight,
                               const void* bias, ImageView output, const Parallel& parallel);
void region_conv2d_backward_input_cpu(const RegionConv2dParams& params, ImageView grad_output, const void* weight,
                                      ImageView grad_input, const Parallel& parallel);
// Either result may be null. The sums over the batch go by chunks, which are added in order, so that the bits do not
// depend on the number of threads.
void region_conv2d_backward_weight_cpu(const RegionConv2dParams& params, ImageView grad_output, ImageView input,
                                       void* grad_weight, void* grad_bias, const Parallel& parallel);

void region_conv2d_forward_cuda(const RegionConv2dParams& params, ImageView input, const void* weight,
                                const void* bias, ImageView output, const Allocate& allocate, CudaStream stream);
void region_conv2d_backward_input_cuda(const RegionConv2dParams& params, ImageView grad_output, const void* weight,
                                       ImageView grad_input, const Allocate& allocate, CudaStream stream);
// Either result may be null.
void region_conv2d_backward_weight_cuda(const RegionConv2dParams& params, ImageView grad_output, ImageView input,
                                        void* grad_weight, void* grad_bias, const Allocate& allocate,
                                        CudaStream stream);

}  // namespace jaa_ext
