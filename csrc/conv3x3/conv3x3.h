// 3 x 3 convolutions of stride 1 on the CPU in float32, in two forms; form.h tells when which is fast. No torch here.
//
// Winograd's algorithm F(4x4, 3x3) takes 36 products of matrices in place of the 144 multiplications that a tile of
// 4 x 4 outputs takes directly:
//
//   Y = A^T [ (G g G^T) * (B^T d B) ] A
//
// where d are 6 x 6 inputs, g the 3 x 3 filter and Y 4 x 4 outputs; * is by elements, summed over the input channels.
//
// The interpolation points 0, +-sqrt(1/2), +-sqrt(2) and infinity keep the rounding errors near those of a direct
// convolution; the usual 0, +-1, +-2 make them four times as large. A NaN or an infinity spreads over its tiles.
#pragma once

#include <cstdint>

#include "../common/image.h"
#include "../common/parallel.h"

namespace jaa_ext {

// The image is cut into a grid of cells, each with filters of its own and padded by itself with zeros (region
// convolution, padding 1). A single cell is an ordinary convolution: of padding 0 or 1, or 2 as the gradient of 0.
// Its channels may come in groups; numbers of channels are those of a group.
struct Conv3x3 {
  int64_t batch, in_channels, out_channels, height, width, padding;
  int64_t groups = 1, grid_h = 1, grid_w = 1;

  // How many convolutions with filters of their own there are: of cells or of groups.
  int64_t parts() const { return groups * grid_h * grid_w; }
  int64_t out_height() const { return height + 2 * padding - 2; }
  int64_t out_width() const { return width + 2 * padding - 2; }
};

// Where the filters lie: filter(part, o, i, tap) = data[part * stride_part + o * stride_out + i * stride_in + tap *
// stride_tap].
struct Filters3x3 {
  const float* data;
  int64_t stride_part, stride_out, stride_in, stride_tap;
};

// What is done beside the convolution.
struct Fusion3x3 {
  const float* bias = nullptr;  // (parts, out_channels), or null
  Image attention = {};         // (N, 1, H, W), by which the input is multiplied, or without data; for one group
  bool relu = false;
  bool pool = false;  // then 2 x 2 max-pooling of stride 2
};

// Images have the channels of a pixel side by side.

// Floats of the transformed filters: 36 / 9 times the weights, output channels rounded up.
int64_t winograd_filters_size(const Conv3x3& op);
void winograd_filters(const Conv3x3& op, const Filters3x3& filters, float* transformed, const Parallel& parallel);
void winograd_forward(const Conv3x3& op, Image input, const float* transformed, const Fusion3x3& fusion, Image output,
                      const Parallel& parallel);
// grad_weight is (parts * out_channels, in_channels, 3, 3) of any strides.
void winograd_backward_weight(const Conv3x3& op, Image grad_output, Image input, Image grad_weight,
                              const Parallel& parallel);

// For few channels; of a single cell, without pooling.
void direct_forward(const Conv3x3& op, Image input, const Filters3x3& filters, const Fusion3x3& fusion, Image output,
                    const Parallel& parallel);

}  // namespace jaa_ext
