#include <algorithm>
#include <cstring>

#include "../common/cpu_level.h"
#include "../common/parts.h"
#include "../common/scratch.h"
#include "conv3x3.h"

namespace jaa_ext {
namespace {

struct Kernels {
  int64_t lanes;
  void (*convolve_row)(const float* const* rows, int64_t row_length, int64_t in_channels, int64_t columns,
                       const float* filters, const float* bias, bool relu, float* output, int64_t stride_x,
                       int64_t out_channels);
  void (*dot_row)(const float* const* rows, int64_t channels, int64_t columns, const float* filter, float bias,
                  bool relu, float* output, int64_t stride_x);
};

#define CPU_KERNEL_FILE "../conv3x3/direct_cpu_kernel.h"
#include "../common/for_each_cpu_level.h"

Kernels kernels_for_processor() { JAA_EXT_AT_CPU_LEVEL(kernels()); }

class DirectCpu {
 public:
  DirectCpu(const Conv3x3Params& params, const Fusion3x3& fusion)
      : params_(params),
        fusion_(fusion),
        kernels_(kernels_for_processor()),
        dots_(params.in_channels > params.out_channels),
        in_rounded_(ceil_div(params.in_channels, kernels_.lanes) * kernels_.lanes),
        filters_(dots_ ? 9 * in_rounded_ * params.out_channels : 9 * params.in_channels * blocks() * width()),
        bias_(blocks() * width()) {}

  void forward(ImageView input, const Filters3x3& filters, ImageView output, const Parallel& parallel) const {
    pack(filters);
    const int64_t bands = ceil_div(params_.out_height(), BAND_ROWS);
    parallel(params_.batch * bands, [&](int64_t begin, int64_t end) {
      const Scratch<float> ring(3 * row_size());
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t n = unit / bands, y0 = unit % bands * BAND_ROWS,
                      y1 = std::min(y0 + BAND_ROWS, params_.out_height());
        for (int64_t y = y0 - params_.padding; y < y1 + 2 - params_.padding; ++y) {
          const int64_t next = y - y0 + params_.padding;
          read_row(input, n, y, ring.get() + next % 3 * row_size());
          if (next < 2) continue;
          const float* rows[3];
          for (int64_t ky = 0; ky < 3; ++ky) rows[ky] = ring.get() + (next - 2 + ky) % 3 * row_size();
          write_row(rows, n, y0 + next - 2, output);
        }
      }
    });
  }

 private:
  static constexpr int64_t BAND_ROWS = 16;

  int64_t width() const { return 2 * kernels_.lanes; }
  int64_t blocks() const { return ceil_div(params_.out_channels, width()); }
  int64_t row_length() const { return params_.width + 2 * params_.padding; }
  int64_t row_size() const { return row_length() * (dots_ ? in_rounded_ : params_.in_channels); }

  void pack(const Filters3x3& filters) const {
    const auto filter = [&](int64_t o, int64_t i, int64_t tap) {
      return filters.data[o * filters.stride_out + i * filters.stride_in + tap * filters.stride_tap];
    };
    std::fill_n(bias_.get(), blocks() * width(), 0.f);
    if (fusion_.bias != nullptr) std::copy_n(fusion_.bias, params_.out_channels, bias_.get());
    float* to = filters_.get();
    if (dots_) {
      std::fill_n(to, 9 * in_rounded_ * params_.out_channels, 0.f);
      for (int64_t o = 0; o < params_.out_channels; ++o) {
        for (int64_t tap = 0; tap < 9; ++tap, to += in_rounded_) {
          for (int64_t i = 0; i < params_.in_channels; ++i) to[i] = filter(o, i, tap);
        }
      }
      return;
    }
    for (int64_t block = 0; block < blocks(); ++block) {
      for (int64_t ky = 0; ky < 3; ++ky) {
        for (int64_t i = 0; i < params_.in_channels; ++i) {
          for (int64_t kx = 0; kx < 3; ++kx) {
            for (int64_t o = block * width(); o < (block + 1) * width(); ++o) {
              *to++ = o < params_.out_channels ? filter(o, i, 3 * ky + kx) : 0;
            }
          }
        }
      }
    }
  }

  // Reads row y, padded with zeros: as (column, channel) for dots, or else as (channel, column).
  void read_row(ImageView input, int64_t n, int64_t y, float* row) const {
    std::memset(row, 0, row_size() * sizeof(float));
    if (y < 0 || y >= params_.height) return;
    const int64_t pixel = dots_ ? in_rounded_ : 1, channel = dots_ ? 1 : row_length();
    const float* from = input.at<float>(n, 0, y, 0);
    float* const to = row + params_.padding * pixel;
    for (int64_t x = 0; x < params_.width; ++x) {
      for (int64_t c = 0; c < params_.in_channels; ++c) to[x * pixel + c * channel] = from[x * input.stride.x + c];
    }
    const ImageView& attention = fusion_.attention;
    if (attention.data == nullptr) return;
    const float* map = attention.at<float>(n, 0, y, 0);
    for (int64_t x = 0; x < params_.width; ++x) {
      for (int64_t c = 0; c < params_.in_channels; ++c) to[x * pixel + c * channel] *= map[x * attention.stride.x];
    }
  }

  void write_row(const float* const* rows, int64_t n, int64_t y, ImageView output) const {
    float* to = output.at<float>(n, 0, y, 0);
    if (dots_) {
      for (int64_t o = 0; o < params_.out_channels; ++o) {
        kernels_.dot_row(rows, in_rounded_, params_.out_width(), filters_.get() + o * 9 * in_rounded_, bias_.get()[o],
                         fusion_.relu, to + o, output.stride.x);
      }
      return;
    }
    for (int64_t block = 0; block < blocks(); ++block) {
      const int64_t first = block * width();
      kernels_.convolve_row(rows, row_length(), params_.in_channels, params_.out_width(),
                            filters_.get() + block * 9 * params_.in_channels * width(), bias_.get() + first,
                            fusion_.relu, to + first, output.stride.x,
                            std::min(width(), params_.out_channels - first));
    }
  }

  const Conv3x3Params& params_;
  const Fusion3x3& fusion_;
  const Kernels kernels_;
  const bool dots_;  // whether lanes are input channels, whose products are added up as dot products
  const int64_t in_rounded_;
  const Scratch<float> filters_, bias_;
};

ImageView channels_from(const ImageView& image, int64_t channel) {
  return {static_cast<float*>(image.data) + channel, image.stride};
}

}  // namespace

void direct_forward(const Conv3x3Params& params, ImageView input, const Filters3x3& filters, const Fusion3x3& fusion,
                    ImageView output, const Parallel& parallel) {
  // Groups follow each other; their loops run on all threads.
  for (int64_t group = 0; group < params.groups; ++group) {
    Filters3x3 own_filters = filters;
    own_filters.data += group * filters.stride_part;
    Fusion3x3 own_fusion = fusion;
    if (fusion.bias != nullptr) own_fusion.bias += group * params.out_channels;
    DirectCpu(params, own_fusion)
        .forward(channels_from(input, group * params.in_channels), own_filters,
                 channels_from(output, group * params.out_channels), parallel);
  }
}

}  // namespace jaa_ext
