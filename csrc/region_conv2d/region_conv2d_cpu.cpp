#include <algorithm>
#include <vector>

#include "../common/cells.h"
#include "../common/cpu_level.h"
#include "../common/dispatch.h"
#include "../common/scratch.h"
#include "../conv3x3/conv3x3.h"
#include "../conv3x3/form.h"
#include "region_conv2d.h"

#ifdef JAA_EXT_CPU_LEVELS
#include <immintrin.h>
#endif

namespace jaa_ext {
namespace {

constexpr int CHANNEL_BLOCK = 8;  // neighbouring input channels in a ring

// One cell's weights as (tap, in, out).
struct WeightView {
  int64_t in, out, kernel_h, kernel_w, start, stride_in, stride_out, stride_tap;
};

// What a kernel reads; outside the clip it reads zeros. Where units pair images (see the kernel file), it is `images`
// = 2 images, n and n + 1, or 1 if n is the last one. Otherwise it is image n, and `images` is 0.
struct Source {
  ImageView image;
  int64_t n, images, channels;
  Rect clip;
};

// The number of lanes of a pixel in staging, and how many of them each output channel has (see the kernel file).
struct Lanes {
  int64_t count;
  int group;
};

int64_t blocks_of(int64_t channels) { return ceil_div(channels, CHANNEL_BLOCK); }

// The rows of an input that were read last, as many as `outputs` rows of output need.
template <typename C>
struct Ring {
  int64_t kernel_h, kernel_w, blocks, block_size, row_size;
  int64_t rows, first = 0, skipped = 0;
  C* data;

  Ring(C* memory, const WeightView& view, int pair, int64_t columns, int64_t outputs)
      : kernel_h(view.kernel_h),
        kernel_w(view.kernel_w),
        blocks(blocks_of(view.in)),
        block_size((columns + view.kernel_w - 1) * CHANNEL_BLOCK / pair),
        row_size(blocks * block_size),
        rows(view.kernel_h - 1 + outputs),
        data(memory) {}

  // Where to write the newest row, over the oldest one. Call turn() afterwards.
  C* newest() const { return data + first * row_size; }
  void turn() { first = first + 1 < rows ? first + 1 : 0; }
  // Makes row(0) the first row that the last `outputs` rows of output need.
  void look_at(int64_t outputs) { skipped = rows - (kernel_h - 1 + outputs); }
  // Row i, in the order of their reading.
  const C* row(int64_t i) const {
    const int64_t index = first + skipped + i;
    return data + (index < rows ? index : index - rows) * row_size;
  }
};

template <typename T>
struct Scratches {
  typename Compute<T>::type *ring, *staging, *rows;
};

// Output rows whose contributions to the weight gradient are summed in registers at a time.
constexpr int64_t WEIGHT_ROWS = 4;

template <typename T>
struct Kernels {
  using C = typename Compute<T>::type;
  int64_t vector_lanes;
  int pair;  // values in a unit
  void (*pack_weight)(const T* weight, const WeightView&, Lanes, C* rows, C* packed);
  void (*unpack_weight)(const C* sums, const WeightView&, Lanes, C* rows, T* grad_weight);
  void (*convolve)(const Source&, const WeightView&, const C* packed, Lanes, const T* bias, const ImageView&,
                   Rect area, const Scratches<T>&);
  void (*convolve_add)(const Source&, const WeightView&, const C* packed, Lanes, Rect target, int64_t y0, int64_t x0,
                       int64_t columns, const Scratches<T>&);
  void (*store_row)(C* staging, Lanes, const ImageView&, int64_t n, int64_t channels, int64_t y, int64_t x0,
                    int64_t columns, C* rows);
  void (*accumulate_weight)(const Source& input, const Source& grad_output, const WeightView&, Lanes, Rect area,
                            const Scratches<T>&, C* weight_sums, C* bias_sums);

  Lanes lanes(int64_t channels) const {
    const int64_t whole = std::max<int64_t>(vector_lanes, 4);  // rows are transposed by fours
    const int group = 2 * sizeof(C) == sizeof(uint64_t) && 2 * channels <= vector_lanes ? 2 : 1;
    return {ceil_div(channels * group, whole) * whole, group};
  }
};

#define CPU_KERNEL_FILE "../region_conv2d/region_conv2d_cpu_kernel.h"
#include "../common/for_each_cpu_level.h"

template <typename T>
Kernels<T> kernels_for_processor() {
  JAA_EXT_AT_CPU_LEVEL(kernels<T>());
}

template <typename T>
class RegionConv2dCpu {
  using C = typename Compute<T>::type;

 public:
  RegionConv2dCpu(const RegionConv2dParams& params, const Parallel& parallel)
      : params_(params), parallel_(parallel), kernels_(kernels_for_processor<T>()) {}

  void forward(ImageView input, const T* weight, const T* bias, ImageView output) const {
    const int64_t taps = params_.kernel_h * params_.kernel_w, filter = params_.in_channels * taps;
    const WeightView view{
        params_.in_channels, params_.out_channels, params_.kernel_h, params_.kernel_w, 0, taps, filter, 1};
    const Lanes lanes = kernels_.lanes(view.out);
    const Scratch<C> packed(params_.cells() * packed_size(view, lanes));
    pack_cells(weight, view, lanes, packed.get());
    for_each_band([&](int64_t cell, int64_t n, Rect area, const Scratches<T>& scratch) {
      kernels_.convolve({input, n, 0, view.in, readable_rect(cell)}, view,
                        packed.get() + cell * packed_size(view, lanes), lanes,
                        bias == nullptr ? nullptr : bias + cell * view.out, output, area, scratch);
    });
  }

  void backward_input(ImageView grad_output, const T* weight, ImageView grad_input) const {
    const int64_t taps = params_.kernel_h * params_.kernel_w, filter = params_.in_channels * taps;
    const WeightView view{
        params_.out_channels, params_.in_channels, params_.kernel_h, params_.kernel_w, taps - 1, filter, taps, -1};
    const Lanes lanes = kernels_.lanes(view.out);
    const Scratch<C> all_packed(params_.cells() * packed_size(view, lanes));
    pack_cells(weight, view, lanes, all_packed.get());
    for_each_band([&](int64_t own_cell, int64_t n, Rect area, const Scratches<T>& scratch) {
      const auto source = [&](int64_t cell) { return Source{grad_output, n, 0, view.in, cell_rect(params_, cell)}; };
      const auto packed = [&](int64_t cell) { return all_packed.get() + cell * packed_size(view, lanes); };
      if (params_.border == Border::cell) {
        kernels_.convolve(source(own_cell), view, packed(own_cell), lanes, nullptr, grad_input, area, scratch);
        return;
      }
      // Neighbouring cells, too, have read a pixel near their border, each with its own weights.
      std::fill_n(scratch.staging, area.pixels() * lanes.count, C(0));
      for (int64_t cell = 0; cell < params_.cells(); ++cell) {
        const Rect reached = intersection(area, dilated(cell_rect(params_, cell)));
        if (reached.rows() <= 0 || reached.columns() <= 0) continue;
        kernels_.convolve_add(source(cell), view, packed(cell), lanes, reached, area.y0, area.x0, area.columns(),
                              scratch);
      }
      for (int64_t y = area.y0; y < area.y1; ++y) {
        kernels_.store_row(scratch.staging + (y - area.y0) * area.columns() * lanes.count, lanes, grad_input, n,
                           view.out, y, area.x0, area.columns(), scratch.rows);
      }
    });
  }

  void backward_weight(ImageView grad_output, ImageView input, T* grad_weight, T* grad_bias) const {
    const WeightView view{params_.in_channels, params_.out_channels, params_.kernel_h, params_.kernel_w, 0, 0, 0, 0};
    const Lanes lanes = kernels_.lanes(view.out);
    const int64_t taps = params_.kernel_h * params_.kernel_w;
    const int64_t weight_size = taps * blocks_of(view.in) * CHANNEL_BLOCK / lanes.group * lanes.count;
    const int64_t sums_size = weight_size + lanes.count, pair = kernels_.pair;
    const int64_t pairs = ceil_div(params_.batch, pair);  // pairs of images, or single images
    // Enough units for the threads of any processor.
    const int64_t chunks = std::max<int64_t>(1, std::min(ceil_div(64, params_.cells()), pairs));
    const Scratch<C> all_sums(params_.cells() * chunks * sums_size);
    parallel_(params_.cells() * chunks, [&](int64_t begin, int64_t end) {
      const Memory memory(*this);
      std::fill_n(all_sums.get() + begin * sums_size, (end - begin) * sums_size, C(0));
      // Image by image, and within it along a row of cells, in the order of the pixels in memory.
      for (int64_t unit = begin, run; unit < end; unit += run) {
        const int64_t column = unit % params_.grid_w, chunk = unit / params_.grid_w % chunks;
        const int64_t cell = unit / (params_.grid_w * chunks) * params_.grid_w + column;
        run = std::min(end - unit, params_.grid_w - column);
        for (int64_t next = part_begin(chunk, pairs, chunks); next < part_begin(chunk + 1, pairs, chunks); ++next) {
          const int64_t n = next * pair, images = pair == 1 ? 0 : std::min(params_.batch - n, pair);
          for (int64_t i = 0; i < run; ++i) {
            const Rect area = cell_rect(params_, cell + i);
            const Source x{input, n, images, view.in, readable_rect(cell + i)};
            const Source grad{grad_output, n, images, view.out, area};
            C* sums = all_sums.get() + (unit + i) * sums_size;
            kernels_.accumulate_weight(x, grad, view, lanes, area, memory.scratches(), sums, sums + weight_size);
          }
        }
      }
    });
    parallel_(params_.cells(), [&](int64_t begin, int64_t end) {
      const Scratch<C> rows(8 * (view.in * taps + 3));
      for (int64_t cell = begin; cell < end; ++cell) {
        const int64_t next = params_.grid_w * sums_size;  // from chunk to chunk
        C* total = all_sums.get() + cell / params_.grid_w * chunks * next + cell % params_.grid_w * sums_size;
        for (int64_t chunk = 1; chunk < chunks; ++chunk) {
          for (int64_t i = 0; i < sums_size; ++i) total[i] += total[chunk * next + i];
        }
        if (grad_weight != nullptr) {
          kernels_.unpack_weight(total, view, lanes, rows.get(), grad_weight + cell * params_.cell_weights());
        }
        if (grad_bias != nullptr) {
          T* to = grad_bias + cell * params_.out_channels;
          for (int64_t o = 0; o < params_.out_channels; ++o) to[o] = narrow<T>(total[weight_size + o * lanes.group]);
        }
      }
    });
  }

 private:
  // The rows that a thread needs beside the packed weights.
  class Memory {
   public:
    explicit Memory(const RegionConv2dCpu& cpu)
        : ring_((cpu.params_.kernel_h - 1 + WEIGHT_ROWS) * (widest_cell(cpu.params_) + cpu.params_.kernel_w - 1) *
                blocks_of(cpu.most_channels()) * CHANNEL_BLOCK),
          staging_((cpu.params_.border == Border::image ? BAND_ROWS : WEIGHT_ROWS) * widest_cell(cpu.params_) *
                   cpu.most_lanes()),
          rows_((widest_cell(cpu.params_) + cpu.params_.kernel_w - 1) * std::max<int64_t>(2 * cpu.most_lanes(), 4)) {}
    Scratches<T> scratches() const { return {ring_.get(), staging_.get(), rows_.get()}; }

   private:
    const Scratch<C> ring_, staging_, rows_;
  };

  static constexpr int64_t BAND_ROWS = 32;

  // Cuts all cells of all images into bands of rows and runs body(cell, n, area of the band, scratches) on each.
  // Neighbouring cells follow each other, as their pixels do in memory.
  template <typename Body>
  void for_each_band(const Body& body) const {
    const int64_t bands = ceil_div(tallest_cell(params_), BAND_ROWS);
    parallel_(params_.cells() * params_.batch * bands, [&](int64_t begin, int64_t end) {
      const Memory memory(*this);
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t column = unit % params_.grid_w, band = unit / params_.grid_w % bands;
        const int64_t n = unit / (params_.grid_w * bands) % params_.batch,
                      row = unit / (params_.grid_w * bands * params_.batch);
        const int64_t cell = row * params_.grid_w + column;
        Rect area = cell_rect(params_, cell);
        area.y0 += band * BAND_ROWS;
        area.y1 = std::min(area.y1, area.y0 + BAND_ROWS);
        if (area.rows() > 0) body(cell, n, area, memory.scratches());
      }
    });
  }

  void pack_cells(const T* weight, const WeightView& view, Lanes lanes, C* packed) const {
    const int64_t size = packed_size(view, lanes);
    parallel_(params_.cells(), [&](int64_t begin, int64_t end) {
      const Scratch<C> rows(8 * size / lanes.count);
      for (int64_t cell = begin; cell < end; ++cell) {
        kernels_.pack_weight(weight + cell * params_.cell_weights(), view, lanes, rows.get(), packed + cell * size);
      }
    });
  }

  int64_t packed_size(const WeightView& view, Lanes lanes) const {
    const int64_t units = blocks_of(view.in) * CHANNEL_BLOCK / (kernels_.pair * lanes.group);
    return view.kernel_h * view.kernel_w * units * lanes.count;
  }
  int64_t most_channels() const { return std::max(params_.in_channels, params_.out_channels); }
  int64_t most_lanes() const { return kernels_.lanes(most_channels()).count; }

  // What the outputs of a cell may read.
  Rect readable_rect(int64_t cell) const {
    return params_.border == Border::image ? image_rect(params_) : cell_rect(params_, cell);
  }
  Rect dilated(Rect rect) const {
    const int64_t y = params_.kernel_h / 2, x = params_.kernel_w / 2;
    return {rect.y0 - y, rect.y1 + y, rect.x0 - x, rect.x1 + x};
  }
  static Rect intersection(Rect a, Rect b) {
    return {std::max(a.y0, b.y0), std::min(a.y1, b.y1), std::max(a.x0, b.x0), std::min(a.x1, b.x1)};
  }

  const RegionConv2dParams& params_;
  const Parallel& parallel_;
  const Kernels<T> kernels_;
};

// Whether Winograd's algorithm computes the cells: in channels_last images, where `form` says that it is faster.
bool is_for_winograd(const RegionConv2dParams& params, ImageView a, ImageView b,
                     decltype(region_conv3x3_form)* form) {
  return params.scalar_type == ScalarType::f32 && params.border == Border::cell && params.kernel_h == 3 &&
         params.kernel_w == 3 && a.stride.c == 1 && b.stride.c == 1 &&
         form(params.in_channels, params.out_channels,
              (params.height / params.grid_h) * (params.width / params.grid_w)) == ConvForm::winograd;
}

Conv3x3Params cells_of(const RegionConv2dParams& params, int64_t in_channels, int64_t out_channels) {
  return {params.batch, in_channels, out_channels, params.height, params.width, 1, 1, params.grid_h, params.grid_w};
}

void winograd_convolve(const Conv3x3Params& params, ImageView input, const Filters3x3& weight, const void* bias,
                       ImageView output, const Parallel& parallel) {
  const Scratch<float> filters(winograd_filters_size(params));
  winograd_filters(params, weight, filters.get(), parallel);
  winograd_forward(params, input, filters.get(), {static_cast<const float*>(bias), {}, false, false}, output,
                   parallel);
}

// Sums the gradient over the batch and over each cell's pixels: (cells, channels).
void sum_cells(const RegionConv2dParams& params, ImageView grad_output, float* sums, const Parallel& parallel) {
  parallel(params.cells(), [&](int64_t begin, int64_t end) {
    std::vector<double> sum(params.out_channels);
    for (int64_t cell = begin; cell < end; ++cell) {
      const Rect rect = cell_rect(params, cell);
      std::fill(sum.begin(), sum.end(), 0);
      for (int64_t n = 0; n < params.batch; ++n) {
        for (int64_t y = rect.y0; y < rect.y1; ++y) {
          for (int64_t x = rect.x0; x < rect.x1; ++x) {
            const float* pixel = grad_output.at<float>(n, 0, y, x);
            for (int64_t o = 0; o < params.out_channels; ++o) sum[o] += pixel[o];
          }
        }
      }
      std::copy(sum.begin(), sum.end(), sums + cell * params.out_channels);
    }
  });
}

}  // namespace

void region_conv2d_forward_cpu(const RegionConv2dParams& params, ImageView input, const void* weight,
                               const void* bias, ImageView output, const Parallel& parallel) {
  if (is_for_winograd(params, input, output, &region_conv3x3_form)) {
    const Conv3x3Params cells = cells_of(params, params.in_channels, params.out_channels);
    const Filters3x3 view{static_cast<const float*>(weight), params.cell_weights(), params.in_channels * 9, 9, 1};
    return winograd_convolve(cells, input, view, bias, output, parallel);
  }
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    RegionConv2dCpu<T>(params, parallel)
        .forward(input, static_cast<const T*>(weight), static_cast<const T*>(bias), output);
  });
}

void region_conv2d_backward_input_cpu(const RegionConv2dParams& params, ImageView grad_output, const void* weight,
                                      ImageView grad_input, const Parallel& parallel) {
  if (is_for_winograd(params, grad_output, grad_input, &region_conv3x3_form)) {
    const Conv3x3Params cells = cells_of(params, params.out_channels, params.in_channels);
    const Filters3x3 view{static_cast<const float*>(weight) + 8, params.cell_weights(), 9, params.in_channels * 9,
                          -1};
    return winograd_convolve(cells, grad_output, view, nullptr, grad_input, parallel);
  }
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    RegionConv2dCpu<T>(params, parallel).backward_input(grad_output, static_cast<const T*>(weight), grad_input);
  });
}

void region_conv2d_backward_weight_cpu(const RegionConv2dParams& params, ImageView grad_output, ImageView input,
                                       void* grad_weight, void* grad_bias, const Parallel& parallel) {
  if (is_for_winograd(params, input, grad_output, &region_conv3x3_weight_form)) {
    const ImageStrides stride{params.in_channels * 9, 9, 3, 1};
    if (grad_weight != nullptr) {
      winograd_backward_weight(cells_of(params, params.in_channels, params.out_channels), grad_output, input,
                               {grad_weight, stride}, parallel);
    }
    if (grad_bias != nullptr) sum_cells(params, grad_output, static_cast<float*>(grad_bias), parallel);
    return;
  }
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    RegionConv2dCpu<T>(params, parallel)
        .backward_weight(grad_output, input, static_cast<T*>(grad_weight), static_cast<T*>(grad_bias));
  });
}

}  // namespace jaa_ext
