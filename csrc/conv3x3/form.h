// The one place that decides how a 3 x 3 convolution of stride 1 in float32 runs on this processor. It follows
// measurements (benchmarks/NOTES.md, "Forms of a convolution"). No torch here.
#pragma once

#include <cstdint>
#include <string>

namespace jaa_ext {

enum class ConvForm {
  winograd,  // conv3x3.h
  direct,    // conv3x3.h, and for cells the loops of ../region_conv2d
  torch,     // at::conv2d, which calls oneDNN or what else torch was built with
};

const char* name(ConvForm form);

// The form of a convolution, or of the gradient of its input, which is one too. It does not depend on the batch, so
// that an image gives the same bits alone and in a batch. The environment variable JAA_EXT_CONV3X3 can name another
// form; an unknown name throws std::runtime_error.
ConvForm conv3x3_form(int64_t in_channels, int64_t out_channels);

// The form of the gradient of the weights, Winograd's or torch's. `tiles` is the number of tiles of 4 x 4 outputs in
// all images together.
ConvForm conv3x3_weight_form(int64_t in_channels, int64_t tiles);

// The forms of a region convolution, Winograd's or direct.
ConvForm region_conv3x3_form(int64_t in_channels, int64_t out_channels, int64_t cell_pixels);
ConvForm region_conv3x3_weight_form(int64_t in_channels, int64_t out_channels, int64_t cell_pixels);

// One line for people: which forms are chosen on this processor.
std::string conv3x3_about();

}  // namespace jaa_ext
