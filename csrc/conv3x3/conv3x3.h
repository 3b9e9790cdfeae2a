// 3 x 3 convolutions of stride 1 on the CPU in float32, in two forms, of which form.h chooses one. No torch here.
//
// Winograd's algorithm F(4x4, 3x3) takes 36 multiplications for a tile of 4 x 4 outputs, where a direct convolution
// takes 144, and does them as 36 products of matrices:
//
//   Y = A^T [ (G g G^T) * (B^T d B) ] A
//
// where d are 6 x 6 inputs, g is the 3 x 3 filter and Y are 4 x 4 outputs; * multiplies element by element and sums
// over the input channels.
//
// The interpolation points 0, +-sqrt(1/2), +-sqrt(2) and infinity keep the rounding errors near those of a direct
// convolution; with the usual 0, +-1, +-2 they are four times as large. A NaN or an infinity spreads over its tiles.
#pragma once

#include <cstdint>

#include "../common/image_view.h"
#include "../common/parallel.h"

namespace jaa_ext {

// The image is cut into a grid of cells, each with filters of its own and with zero padding of its own (a region
// convolution, padding 1). A single cell is an ordinary convolution, with padding 0 or 1, or 2 where it is the
// gradient of one with padding 0. Its channels may come in groups; in_channels and out_channels are those of a group.
struct Conv3x3Params {
  int64_t batch, in_channels, out_channels, height, width, padding;
  int64_t groups = 1, grid_h = 1, grid_w = 1;

  int64_t cells() const { return grid_h * grid_w; }
  // The number of parts, each of which has filters of its own: cells or groups.
  int64_t parts() const { return groups * cells(); }
  int64_t out_height() const { return height + 2 * padding - 2; }
  int64_t out_width() const { return width + 2 * padding - 2; }
};

// Filters: filter(part, o, i, tap) = data[part * stride_part + o * stride_out + i * stride_in + tap * stride_tap].
struct Filters3x3 {
  const float* data;
  int64_t stride_part, stride_out, stride_in, stride_tap;
};

// What is computed along with the convolution.
struct Fusion3x3 {
  const float* bias = nullptr;  // (parts, out_channels), or null
  ImageView attention = {};     // (N, 1, H, W) that multiplies the input, or no data; for one group only
  bool relu = false;
  bool pool = false;  // 2 x 2 max-pooling of stride 2, last of all
};

// In all images the channels of a pixel lie side by side.

// The size of the transformed filters in floats: 36 / 9 times the weights, with the output channels rounded up.
int64_t winograd_filters_size(const Conv3x3Params& params);
void winograd_filters(const Conv3x3Params& params, const Filters3x3& filters, float* transformed,
                      const Parallel& parallel);
void winograd_forward(const Conv3x3Params& params, ImageView input, const float* transformed, const Fusion3x3& fusion,
                      ImageView output, const Parallel& parallel);
// grad_weight is (parts * out_channels, in_channels, 3, 3) of any strides.
void winograd_backward_weight(const Conv3x3Params& params, ImageView grad_output, ImageView input,
                              ImageView grad_weight, const Parallel& parallel);

// For few channels, a single cell, and no pooling.
void direct_forward(const Conv3x3Params& params, ImageView input, const Filters3x3& filters, const Fusion3x3& fusion,
                    ImageView output, const Parallel& parallel);

}  // namespace jaa_ext
