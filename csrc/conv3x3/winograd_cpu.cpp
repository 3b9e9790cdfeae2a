#include <algorithm>
#include <cstring>
#include <vector>

#include "../common/cache.h"
#include "../common/cells.h"
#include "../common/cpu_level.h"
#include "../common/scratch.h"
#include "conv3x3.h"

namespace jaa_ext {
namespace {

constexpr int64_t POSITIONS = 36, TILE = 4, PATCH = 6;

// Where to write a tile's outputs, and how many of them lie in the image.
struct OutputTile {
  float* data;
  int64_t stride_y, stride_x, rows, columns, channels;
};

struct Kernels {
  int64_t lanes, most_rows;
  void (*transform_input)(const float* patch, int64_t stride_y, int64_t stride_x, int64_t vectors, float* inputs,
                          int64_t position_stride, int64_t vector_stride);
  void (*transform_scattered_input)(const float* const* pixels, const float* scales, int64_t vectors, float* inputs,
                                    int64_t position_stride, int64_t vector_stride);
  void (*multiply)(const float* inputs, int64_t position_stride, int64_t vector_stride, int64_t channels,
                   int64_t tiles, int64_t vectors, const float* filters, float* products, int64_t products_stride);
  void (*transform_output)(const float* products, int64_t products_stride, const float* bias, bool relu, bool pool,
                           const OutputTile& tile);
  void (*transform_filter)(const float* from, int64_t stride_out, int64_t stride_tap, int64_t count, float* filters,
                           int64_t position_stride);
  void (*transform_gradient)(const float* const* pixels, int64_t vectors, float* gradients, int64_t position_stride,
                             int64_t vector_stride);
  void (*accumulate)(const float* inputs, const float* gradients, int64_t gradient_stride, int64_t tiles,
                     int64_t vectors, bool add, float* sums);
  void (*transform_taps)(const float* sums, int64_t position_stride, float* taps);
};

#define CPU_KERNEL_FILE "../conv3x3/winograd_cpu_kernel.h"
#include "../common/for_each_cpu_level.h"

Kernels kernels_for_processor() { JAA_EXT_AT_CPU_LEVEL(kernels()); }

// The kernels whose vectors the channels fill.
Kernels kernels_for(const Conv3x3Params& params) {
#ifdef JAA_EXT_CPU_LEVELS
  if (cpu_level() > CpuLevel::avx2 && std::min(params.in_channels, params.out_channels) <= 8) return avx2::kernels();
#endif
  return kernels_for_processor();
}

// A tile: its outputs begin at (y, x) of image n, its inputs at (y - padding, x - padding).
struct Tile {
  int64_t n, y, x;
};

// The addresses of the pixels of a square. Outside the clip they lead to zeros. Channels that do not fill whole
// vectors are copied.
class Pixels {
 public:
  Pixels(int64_t most_channels, int64_t lanes)
      : lanes_(lanes), rounded_(ceil_div(most_channels, lanes) * lanes), zeros_(rounded_), copies_(36 * rounded_) {
    std::fill_n(zeros_.get(), rounded_, 0.f);
    std::fill_n(copies_.get(), 36 * rounded_, 0.f);
  }

  void find(const ImageView& image, int64_t n, int64_t y0, int64_t x0, int64_t side, const Rect& clip, int64_t first,
            int64_t channels) const {
    for (int64_t i = 0; i < side * side; ++i) {
      const int64_t y = y0 + i / side, x = x0 + i % side;
      const float*& to = pixels_[i];
      to = zeros_.get();
      if (!clip.contains(y, x)) continue;
      to = image.at<float>(n, 0, y, x) + first;
      if (channels % lanes_ == 0) continue;
      float* const copy = copies_.get() + i * rounded_;
      std::memcpy(copy, to, channels * sizeof(float));
      to = copy;
    }
  }
  const float* const* get() const { return pixels_; }

 private:
  const int64_t lanes_, rounded_;
  const Scratch<float> zeros_, copies_;
  mutable const float* pixels_[36];
};

class WinogradCpu {
 public:
  WinogradCpu(const Conv3x3Params& params, const Parallel& parallel)
      : params_(params), parallel_(parallel), kernels_(kernels_for(params)) {}

  int64_t filters_size() const { return params_.parts() * part_filters(); }

  void transform(const Filters3x3& filters, float* transformed) const {
    const int64_t width = 2 * kernels_.lanes, blocks = out_blocks();
    parallel_(params_.parts() * blocks, [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t part = unit / blocks, first = unit % blocks * width;
        const int64_t count = std::min(width, params_.out_channels - first);
        const float* from = filters.data + part * filters.stride_part + first * filters.stride_out;
        float* to = transformed + unit * POSITIONS * params_.in_channels * width;
        for (int64_t i = 0; i < params_.in_channels; ++i) {
          kernels_.transform_filter(from + i * filters.stride_in, filters.stride_out, filters.stride_tap, count,
                                    to + i * width, params_.in_channels * width);
        }
      }
    });
  }

  void forward(ImageView input, const float* filters, const Fusion3x3& fusion, ImageView output) const {
    const int64_t lanes = kernels_.lanes, width = 2 * lanes, vectors = in_vectors();
    // A unit is a block of tiles of a part, for one vector of output channels. A thread gets units that follow each
    // other: it transforms the inputs of a block of tiles once for them, and multiplies for two vectors together.
    const int64_t most = most_tiles(), out_vectors = ceil_div(params_.out_channels, lanes);
    std::vector<int64_t> first_unit(params_.parts() + 1, 0);
    for (int64_t part = 0; part < params_.parts(); ++part) {
      first_unit[part + 1] = first_unit[part] + ceil_div(tiles_of(part), most) * out_vectors;
    }
    parallel_(first_unit.back(), [&](int64_t begin, int64_t end) {
      const int64_t vector_stride = most * lanes, position_stride = vectors * vector_stride + lanes;
      const int64_t products_stride = most * width + lanes;
      const Scratch<float> inputs(POSITIONS * position_stride), products(POSITIONS * products_stride);
      const Scratch<float> bias(width);
      const Pixels pixels(params_.in_channels, lanes);
      int64_t part = std::upper_bound(first_unit.begin(), first_unit.end(), begin) - first_unit.begin() - 1;
      for (int64_t unit = begin, count; unit < end; unit += count) {
        while (unit >= first_unit[part + 1]) ++part;
        const int64_t tile_blocks = (first_unit[part + 1] - first_unit[part]) / out_vectors, all = tiles_of(part);
        const int64_t index = unit - first_unit[part], tile_block = index / out_vectors, v0 = index % out_vectors;
        const int64_t tile0 = part_begin(tile_block, all, tile_blocks),
                      tile1 = part_begin(tile_block + 1, all, tile_blocks);
        count = v0 % 2 == 0 && v0 + 1 < out_vectors && unit + 1 < end ? 2 : 1;
        if (unit == begin || v0 == 0) {
          for (int64_t i = tile0; i < tile1; ++i) {
            read_tile(part, i, input, fusion, pixels, inputs.get() + (i - tile0) * lanes, position_stride,
                      vector_stride);
          }
        }
        kernels_.multiply(
            inputs.get(), position_stride, vector_stride, params_.in_channels, tile1 - tile0, count,
            filters + part * part_filters() + v0 / 2 * POSITIONS * params_.in_channels * width + v0 % 2 * lanes,
            products.get(), products_stride);
        const int64_t first = v0 * lanes, channels = std::min(count * lanes, params_.out_channels - first);
        std::fill_n(bias.get(), width, 0.f);
        if (fusion.bias != nullptr) {
          std::copy_n(fusion.bias + part * params_.out_channels + first, channels, bias.get());
        }
        for (int64_t i = tile0; i < tile1; ++i) {
          for (int64_t v = 0; v < count; ++v) {
            const OutputTile to = output_tile(part, i, output, fusion.pool, first + v * lanes, channels - v * lanes);
            kernels_.transform_output(products.get() + (i - tile0) * width + v * lanes, products_stride,
                                      bias.get() + v * lanes, fusion.relu, fusion.pool, to);
          }
        }
      }
    });
  }

  void backward_weight(ImageView grad_output, ImageView input, ImageView grad_weight) const {
    // With few parts, all threads work on one part after the other; with many, each thread works on parts of its own.
    if (params_.parts() < MANY_PARTS) {
      for (int64_t part = 0; part < params_.parts(); ++part) {
        backward_weight(part, grad_output, input, grad_weight, parallel_);
      }
      return;
    }
    const Parallel alone = [](int64_t count, const Range& range) { range(0, count); };
    parallel_(params_.parts(), [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) backward_weight(part, grad_output, input, grad_weight, alone);
    });
  }

 private:
  static constexpr int64_t MANY_PARTS = 8;

  void backward_weight(int64_t part, ImageView grad_output, ImageView input, ImageView grad_weight,
                       const Parallel& parallel) const {
    const int64_t lanes = kernels_.lanes, in = in_vectors(), out = ceil_div(params_.out_channels, lanes);
    const int64_t position_sums = in * lanes * out * lanes;
    const int64_t all = tiles_of(part), chunks = std::max<int64_t>(1, ceil_div(all, most_summed()));
    const int64_t vector_stride = ceil_div(all, chunks) * lanes;
    const int64_t in_stride = in * vector_stride + lanes, out_stride = out * vector_stride + lanes;
    const Scratch<float> sums(POSITIONS * position_sums), inputs(POSITIONS * in_stride);
    const Scratch<float> gradients(POSITIONS * out_stride);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t tile0 = part_begin(chunk, all, chunks), tiles = part_begin(chunk + 1, all, chunks) - tile0;
      parallel(tiles, [&](int64_t begin, int64_t end) {
        const Pixels of_input(params_.in_channels, lanes), of_gradient(params_.out_channels, lanes);
        for (int64_t i = begin; i < end; ++i) {
          read_tile(part, tile0 + i, input, {}, of_input, inputs.get() + i * lanes, in_stride, vector_stride);
          const Tile tile = tile_of(part, tile0 + i);
          of_gradient.find(grad_output, tile.n, tile.y, tile.x, TILE, output_rect(part),
                           group_of(part) * params_.out_channels, params_.out_channels);
          kernels_.transform_gradient(of_gradient.get(), out, gradients.get() + i * lanes, out_stride, vector_stride);
        }
      });
      // One thread adds all tiles of a sum, in their order.
      parallel(POSITIONS * in, [&](int64_t begin, int64_t end) {
        for (int64_t unit = begin; unit < end; ++unit) {
          const int64_t position = unit / in, v = unit % in;
          kernels_.accumulate(inputs.get() + position * in_stride + v * vector_stride,
                              gradients.get() + position * out_stride, vector_stride, tiles, out, chunk > 0,
                              sums.get() + position * position_sums + v * lanes * out * lanes);
        }
      });
    }
    parallel(params_.in_channels, [&](int64_t begin, int64_t end) {
      const Scratch<float> taps(9 * lanes);
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t v = 0; v < out; ++v) {
          kernels_.transform_taps(sums.get() + (i * out + v) * lanes, position_sums, taps.get());
          for (int64_t o = v * lanes; o < std::min((v + 1) * lanes, params_.out_channels); ++o) {
            const ImageStrides& stride = grad_weight.stride;
            float* to = grad_weight.at<float>(part * params_.out_channels + o, i, 0, 0);
            for (int64_t tap = 0; tap < 9; ++tap) {
              to[tap / 3 * stride.y + tap % 3 * stride.x] = taps.get()[tap * lanes + o - v * lanes];
            }
          }
        }
      }
    });
  }

  // Reads the 6 x 6 inputs of a tile and transforms them.
  void read_tile(int64_t part, int64_t index, ImageView input, const Fusion3x3& fusion, const Pixels& pixels,
                 float* inputs, int64_t position_stride, int64_t vector_stride) const {
    const Tile tile = tile_of(part, index);
    const Rect clip = cell_rect(part);
    const int64_t y = tile.y - params_.padding, x = tile.x - params_.padding, group = group_of(part);
    const ImageView& attention = fusion.attention;
    const bool inside = y >= clip.y0 && y + PATCH <= clip.y1 && x >= clip.x0 && x + PATCH <= clip.x1;
    if (inside && attention.data == nullptr && params_.in_channels % kernels_.lanes == 0) {
      kernels_.transform_input(input.at<float>(tile.n, 0, y, x) + group * params_.in_channels, input.stride.y,
                               input.stride.x, in_vectors(), inputs, position_stride, vector_stride);
      return;
    }
    float scales[PATCH * PATCH];
    if (attention.data != nullptr) {
      for (int64_t i = 0; i < PATCH * PATCH; ++i) {
        const int64_t row = y + i / PATCH, column = x + i % PATCH;
        scales[i] = clip.contains(row, column) ? *attention.at<float>(tile.n, 0, row, column) : 0;
      }
    }
    pixels.find(input, tile.n, y, x, PATCH, clip, group * params_.in_channels, params_.in_channels);
    kernels_.transform_scattered_input(pixels.get(), attention.data != nullptr ? scales : nullptr, in_vectors(),
                                       inputs, position_stride, vector_stride);
  }

  OutputTile output_tile(int64_t part, int64_t index, ImageView output, bool pool, int64_t channel,
                         int64_t channels) const {
    const Tile tile = tile_of(part, index);
    const Rect area = output_rect(part);
    const int64_t step = pool ? 2 : 1;
    float* data =
        output.at<float>(tile.n, 0, tile.y / step, tile.x / step) + group_of(part) * params_.out_channels + channel;
    return {data, output.stride.y, output.stride.x, (area.y1 - tile.y) / step, (area.x1 - tile.x) / step, channels};
  }

  int64_t in_vectors() const { return ceil_div(params_.in_channels, kernels_.lanes); }
  int64_t out_blocks() const { return ceil_div(params_.out_channels, 2 * kernels_.lanes); }
  int64_t part_filters() const { return out_blocks() * POSITIONS * params_.in_channels * 2 * kernels_.lanes; }

  // The number of tiles of a block, whose inputs and products fill three quarters of the second-level cache.
  int64_t most_tiles() const {
    const int64_t tile = POSITIONS * (in_vectors() + 2) * kernels_.lanes * sizeof(float);
    const int64_t rows = second_level_cache() * 3 / 4 / tile / kernels_.most_rows;
    return std::clamp<int64_t>(rows, 1, 8) * kernels_.most_rows;
  }

  int64_t group_of(int64_t part) const { return part / params_.cells(); }
  // The number of tiles that are summed before the sums of weights go back to memory. Their inputs and gradients may
  // fill twice the second-level cache.
  int64_t most_summed() const {
    const int64_t tile = POSITIONS * (params_.in_channels + params_.out_channels) * sizeof(float);
    return std::max<int64_t>(64, 2 * second_level_cache() / tile);
  }

  Rect cell_rect(int64_t part) const { return jaa_ext::cell_rect(params_, part % params_.cells()); }
  Rect output_rect(int64_t part) const {
    const Rect rect = cell_rect(part);
    const int64_t more = 2 * params_.padding - 2;  // than the input has; 0 where there are several cells
    return {rect.y0, rect.y1 + more, rect.x0, rect.x1 + more};
  }
  int64_t tiles_of(int64_t part) const {
    const Rect area = output_rect(part);
    return params_.batch * ceil_div(area.rows(), TILE) * ceil_div(area.columns(), TILE);
  }
  Tile tile_of(int64_t part, int64_t index) const {
    const Rect area = output_rect(part);
    const int64_t rows = ceil_div(area.rows(), TILE), columns = ceil_div(area.columns(), TILE);
    return {index / (rows * columns), area.y0 + index / columns % rows * TILE, area.x0 + index % columns * TILE};
  }

  const Conv3x3Params& params_;
  const Parallel& parallel_;
  const Kernels kernels_;
};

}  // namespace

int64_t winograd_filters_size(const Conv3x3Params& params) { return WinogradCpu(params, {}).filters_size(); }

void winograd_filters(const Conv3x3Params& params, const Filters3x3& filters, float* transformed,
                      const Parallel& parallel) {
  WinogradCpu(params, parallel).transform(filters, transformed);
}

void winograd_forward(const Conv3x3Params& params, ImageView input, const float* transformed, const Fusion3x3& fusion,
                      ImageView output, const Parallel& parallel) {
  WinogradCpu(params, parallel).forward(input, transformed, fusion, output);
}

void winograd_backward_weight(const Conv3x3Params& params, ImageView grad_output, ImageView input,
                              ImageView grad_weight, const Parallel& parallel) {
  WinogradCpu(params, parallel).backward_weight(grad_output, input, grad_weight);
}

}  // namespace jaa_ext
