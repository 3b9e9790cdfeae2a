// The one place that decides how a 3 x 3 convolution of stride 1 in float32 runs on this processor. What it knows was
// measured: benchmarks/NOTES.md, "Forms of a convolution". No torch here.
#pragma once

#include <cstdint>
#include <string>

namespace jaa_ext {

enum class ConvForm {
  winograd,  // conv3x3.h
  direct,    // conv3x3.h, and for cells the loops of ../region_conv2d
  torch,     // at::conv2d: oneDNN, or what else torch was built with
};

const char* name(ConvForm form);

// The form for one image, so that it is the same alone and in a batch, or the one that the environment variable
// JAA_EXT_CONV3X3 names. Throws std::runtime_error if that is unknown.
ConvForm conv3x3_form(int64_t in_channels, int64_t out_channels, int64_t out_height, int64_t out_width);

// The form for the gradient of the weights: Winograd's or torch's.
ConvForm conv3x3_weight_form(int64_t in_channels, int64_t out_channels, int64_t out_height, int64_t out_width);

// The form for the cells of a region convolution: Winograd's or direct.
ConvForm region_conv3x3_form(int64_t in_channels, int64_t out_channels, int64_t cell_height, int64_t cell_width);

// One line for people: what is chosen on this processor, and why.
std::string conv3x3_about();

}  // namespace jaa_ext
