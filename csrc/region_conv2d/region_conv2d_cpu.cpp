#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

#include "../common/cpu_level.h"
#include "../common/dispatch.h"
#include "region_conv2d.h"

namespace jaa_ext {
namespace {

constexpr int BLOCK = 8;  // input channels that lie together in a tile

struct Rect {
  int64_t y0, y1, x0, x1;

  int64_t rows() const { return y1 - y0; }
  int64_t columns() const { return x1 - x0; }
  int64_t pixels() const { return rows() * columns(); }
};

// How to read one cell's weights as (ky, kx, in, out).
struct WeightView {
  int64_t in, out, kernel_h, kernel_w, start, stride_in, stride_out, stride_ky, stride_kx;
};

template <typename T>
struct Kernels {
  using C = typename Compute<T>::type;
  int64_t vector_lanes;
  void (*load_tile)(const Image&, int64_t n, int64_t channels, Rect area, Rect clip, C* tile);
  void (*load_staging)(const Image&, int64_t n, int64_t channels, int64_t lanes, Rect area, C* staging);
  void (*store_staging)(const C* staging, int64_t lanes, const Image&, int64_t n, int64_t channels, Rect area);
  void (*start_staging)(const T* bias, int64_t channels, int64_t lanes, int64_t pixels, C* staging);
  void (*pack_weight)(const T* weight, const WeightView&, int64_t lanes, C* packed);
  void (*convolve)(const C* tile, int64_t in_channels, int64_t kernel_h, int64_t kernel_w, const C* packed,
                   int64_t lanes, Rect target, int64_t staging_columns, C* staging);
  void (*accumulate_weight)(const C* tile, int64_t in_channels, int64_t kernel_h, int64_t kernel_w, const C* grad,
                            int64_t lanes, int64_t rows, int64_t columns, C* weight_sums, C* bias_sums);

  int64_t lanes(int64_t channels) const { return (channels + vector_lanes - 1) / vector_lanes * vector_lanes; }
};

#define CPU_KERNEL_FILE "../region_conv2d/region_conv2d_cpu_kernel.h"
#include "../common/for_each_cpu_level.h"

template <typename T>
Kernels<T> kernels_for_processor() {
  JAA_EXT_AT_CPU_LEVEL(kernels<T>());
}

// Scratch memory on a cache line's border.
template <typename C>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<C*>(::operator new(std::max<int64_t>(count, 1) * sizeof(C), std::align_val_t{64}))) {}
  C* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(C* data) const { ::operator delete(data, std::align_val_t{64}); }
  };
  std::unique_ptr<C, Free> data_;
};

template <typename T>
class RegionConv2dCpu {
  using C = typename Compute<T>::type;

 public:
  RegionConv2dCpu(const RegionConv2d& op, const Parallel& parallel)
      : op_(op), parallel_(parallel), kernels_(kernels_for_processor<T>()) {}

  void forward(Image input, const T* weight, const T* bias, Image output) const {
    const int64_t taps = op_.kernel_h * op_.kernel_w;
    const WeightView view{op_.in_channels,
                          op_.out_channels,
                          op_.kernel_h,
                          op_.kernel_w,
                          0,
                          taps,
                          op_.in_channels * taps,
                          op_.kernel_w,
                          1};
    const int64_t lanes = kernels_.lanes(view.out), packed_size = packed(view.in, lanes);
    const Scratch<C> all_packed = pack_cells(weight, view);
    for_each_band(view.in, [&](int64_t cell, int64_t n, Rect area, C* tile, C* staging) {
      const Rect clip = op_.image_border ? image_rect() : cell_rect(cell);
      kernels_.load_tile(input, n, view.in, dilated(area), clip, tile);
      const T* cell_bias = bias == nullptr ? nullptr : bias + cell * view.out;
      kernels_.start_staging(cell_bias, view.out, lanes, area.pixels(), staging);
      kernels_.convolve(tile, view.in, op_.kernel_h, op_.kernel_w, all_packed.get() + cell * packed_size, lanes,
                        {0, area.rows(), 0, area.columns()}, area.columns(), staging);
      kernels_.store_staging(staging, lanes, output, n, view.out, area);
    });
  }

  void backward_input(Image grad_output, const T* weight, Image grad_input) const {
    const int64_t taps = op_.kernel_h * op_.kernel_w;
    const WeightView view{op_.out_channels,
                          op_.in_channels,
                          op_.kernel_h,
                          op_.kernel_w,
                          taps - 1,
                          op_.in_channels * taps,
                          taps,
                          -op_.kernel_w,
                          -1};
    const int64_t lanes = kernels_.lanes(view.out), packed_size = packed(view.in, lanes);
    const Scratch<C> all_packed = pack_cells(weight, view);
    for_each_band(view.in, [&](int64_t cell, int64_t n, Rect area, C* tile, C* staging) {
      kernels_.start_staging(nullptr, view.out, lanes, area.pixels(), staging);
      const auto add_from = [&](int64_t source) {
        const Rect clip = cell_rect(source);
        const Rect reached = intersection(area, dilated(clip));
        if (reached.rows() <= 0 || reached.columns() <= 0) return;
        kernels_.load_tile(grad_output, n, view.in, dilated(reached), clip, tile);
        const Rect target{reached.y0 - area.y0, reached.y1 - area.y0, reached.x0 - area.x0, reached.x1 - area.x0};
        kernels_.convolve(tile, view.in, op_.kernel_h, op_.kernel_w, all_packed.get() + source * packed_size, lanes,
                          target, area.columns(), staging);
      };
      if (op_.image_border) {
        // A pixel near a border is read by neighbouring cells too, each with its own weights.
        for (int64_t source = 0; source < op_.cells(); ++source) add_from(source);
      } else {
        add_from(cell);
      }
      kernels_.store_staging(staging, lanes, grad_input, n, view.out, area);
    });
  }

  void backward_weight(Image grad_output, Image input, T* grad_weight, T* grad_bias) const {
    const int64_t lanes = kernels_.lanes(op_.out_channels), packed_size = packed(op_.in_channels, lanes);
    const int64_t sums_size = packed_size + lanes, chunks = region_conv2d_chunks(op_, 64);
    const Scratch<C> all_sums(op_.cells() * chunks * sums_size);
    const int64_t band = band_rows(op_.in_channels);
    parallel_(op_.cells() * chunks, [&](int64_t begin, int64_t end) {
      const Scratch<C> tile(tile_size(op_.in_channels)), grad(widest_band().pixels() * lanes);
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t cell = unit / chunks, chunk = unit % chunks;
        C* sums = all_sums.get() + unit * sums_size;
        std::fill_n(sums, sums_size, C(0));
        const Rect whole = cell_rect(cell), clip = op_.image_border ? image_rect() : whole;
        for (int64_t n = chunk * op_.batch / chunks; n < (chunk + 1) * op_.batch / chunks; ++n) {
          for (int64_t y = whole.y0; y < whole.y1; y += band) {
            const Rect area{y, std::min(y + band, whole.y1), whole.x0, whole.x1};
            kernels_.load_tile(input, n, op_.in_channels, dilated(area), clip, tile.get());
            kernels_.load_staging(grad_output, n, op_.out_channels, lanes, area, grad.get());
            kernels_.accumulate_weight(tile.get(), op_.in_channels, op_.kernel_h, op_.kernel_w, grad.get(), lanes,
                                       area.rows(), area.columns(), sums, sums + packed_size);
          }
        }
      }
    });
    parallel_(op_.cells(), [&](int64_t begin, int64_t end) {
      for (int64_t cell = begin; cell < end; ++cell) {
        C* total = all_sums.get() + cell * chunks * sums_size;
        for (int64_t chunk = 1; chunk < chunks; ++chunk) {
          for (int64_t i = 0; i < sums_size; ++i) total[i] += total[chunk * sums_size + i];
        }
        if (grad_weight != nullptr) unpack(total, lanes, grad_weight + cell * op_.cell_weights());
        if (grad_bias != nullptr) {
          T* to = grad_bias + cell * op_.out_channels;
          for (int64_t o = 0; o < op_.out_channels; ++o) to[o] = narrow<T>(total[packed_size + o]);
        }
      }
    });
  }

 private:
  // Runs body(cell, n, area, tile, staging) on every band of rows of every cell and image.
  template <typename Body>
  void for_each_band(int64_t in_channels, const Body& body) const {
    const int64_t lanes = kernels_.lanes(std::max(op_.in_channels, op_.out_channels)), band = band_rows(in_channels);
    const int64_t bands = (tallest_cell() + band - 1) / band;
    parallel_(op_.cells() * op_.batch * bands, [&](int64_t begin, int64_t end) {
      const Scratch<C> tile(tile_size(in_channels)), staging(widest_band().pixels() * lanes);
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t cell = unit / (op_.batch * bands), n = unit / bands % op_.batch;
        Rect area = cell_rect(cell);
        area.y0 += unit % bands * band;
        area.y1 = std::min(area.y1, area.y0 + band);
        if (area.rows() > 0) body(cell, n, area, tile.get(), staging.get());
      }
    });
  }

  Scratch<C> pack_cells(const T* weight, const WeightView& view) const {
    const int64_t lanes = kernels_.lanes(view.out), size = packed(view.in, lanes);
    Scratch<C> all(op_.cells() * size);
    parallel_(op_.cells(), [&](int64_t begin, int64_t end) {
      for (int64_t cell = begin; cell < end; ++cell) {
        kernels_.pack_weight(weight + cell * op_.cell_weights(), view, lanes, all.get() + cell * size);
      }
    });
    return all;
  }

  void unpack(const C* sums, int64_t lanes, T* grad_weight) const {
    const int64_t blocks = (op_.in_channels + BLOCK - 1) / BLOCK;
    for (int64_t o = 0; o < op_.out_channels; ++o) {
      for (int64_t i = 0; i < op_.in_channels; ++i) {
        for (int64_t ky = 0; ky < op_.kernel_h; ++ky) {
          for (int64_t kx = 0; kx < op_.kernel_w; ++kx) {
            const int64_t row = ((ky * blocks + i / BLOCK) * op_.kernel_w + kx) * BLOCK + i % BLOCK;
            *grad_weight++ = narrow<T>(sums[row * lanes + o]);
          }
        }
      }
    }
  }

  int64_t packed(int64_t in_channels, int64_t lanes) const {
    return op_.kernel_h * op_.kernel_w * whole_blocks(in_channels) * lanes;
  }
  static int64_t whole_blocks(int64_t channels) { return (channels + BLOCK - 1) / BLOCK * BLOCK; }

  int64_t tallest_cell() const { return (op_.height + op_.grid_h - 1) / op_.grid_h; }
  int64_t widest_cell() const { return (op_.width + op_.grid_w - 1) / op_.grid_w; }

  // Rows that a band has so that its tile stays in the second-level cache.
  int64_t band_rows(int64_t in_channels) const {
    constexpr int64_t TILE_BYTES = 96 << 10;
    const int64_t row_bytes = (widest_cell() + op_.kernel_w - 1) * whole_blocks(in_channels) * sizeof(C);
    const int64_t rows = TILE_BYTES / std::max<int64_t>(row_bytes, 1) - (op_.kernel_h - 1);
    return std::clamp<int64_t>(rows, 1, tallest_cell());
  }
  Rect widest_band() const {
    return {0, std::max(band_rows(op_.in_channels), band_rows(op_.out_channels)), 0, widest_cell()};
  }
  int64_t tile_size(int64_t in_channels) const { return dilated(widest_band()).pixels() * whole_blocks(in_channels); }

  Rect image_rect() const { return {0, op_.height, 0, op_.width}; }
  Rect cell_rect(int64_t cell) const {
    const int64_t i = cell / op_.grid_w, j = cell % op_.grid_w;
    return {i * op_.height / op_.grid_h, (i + 1) * op_.height / op_.grid_h, j * op_.width / op_.grid_w,
            (j + 1) * op_.width / op_.grid_w};
  }
  Rect dilated(Rect rect) const {
    const int64_t y = op_.kernel_h / 2, x = op_.kernel_w / 2;
    return {rect.y0 - y, rect.y1 + y, rect.x0 - x, rect.x1 + x};
  }
  static Rect intersection(Rect a, Rect b) {
    return {std::max(a.y0, b.y0), std::min(a.y1, b.y1), std::max(a.x0, b.x0), std::min(a.x1, b.x1)};
  }

  const RegionConv2d& op_;
  const Parallel& parallel_;
  const Kernels<T> kernels_;
};

}  // namespace

void region_conv2d_forward_cpu(const RegionConv2d& op, Image input, const void* weight, const void* bias,
                               Image output, const Parallel& parallel) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    RegionConv2dCpu<T>(op, parallel)
        .forward(input, static_cast<const T*>(weight), static_cast<const T*>(bias), output);
  });
}

void region_conv2d_backward_input_cpu(const RegionConv2d& op, Image grad_output, const void* weight, Image grad_input,
                                      const Parallel& parallel) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    RegionConv2dCpu<T>(op, parallel).backward_input(grad_output, static_cast<const T*>(weight), grad_input);
  });
}

void region_conv2d_backward_weight_cpu(const RegionConv2d& op, Image grad_output, Image input, void* grad_weight,
                                       void* grad_bias, const Parallel& parallel) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    RegionConv2dCpu<T>(op, parallel)
        .backward_weight(grad_output, input, static_cast<T*>(grad_weight), static_cast<T*>(grad_bias));
  });
}

}  // namespace jaa_ext
