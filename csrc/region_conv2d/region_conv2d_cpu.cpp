#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

#include "../common/cpu_level.h"
#include "../common/dispatch.h"
#include "region_conv2d.h"

#ifdef JAA_EXT_CPU_LEVELS
#include <immintrin.h>
#endif

namespace jaa_ext {
namespace {

constexpr int CHANNEL_BLOCK = 8;  // input channels that lie together in a tile

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

// Lanes of a pixel in staging, and how many of them each output channel has: see the kernel file.
struct Lanes {
  int64_t count;
  int group;
};

// Strides of a tile in units.
struct TileRows {
  int64_t kernel_h, kernel_w, blocks, block_stride, row_stride;
};

// Memory that is needed next: fetched into the second-level cache piece by piece, while the present is computed.
struct Ahead {
  const char* data = nullptr;
  int64_t rows = 0, row_stride = 0, runs = 0, run_stride = 0, run_bytes = 0;

  // Fetches piece `part` of `parts`.
  void fetch(int64_t part, int64_t parts) const {
    constexpr int64_t CACHE_LINE = 64;
    for (int64_t row = part * rows / parts; row < (part + 1) * rows / parts; ++row) {
      for (int64_t run = 0; run < runs; ++run) {
        const char* start = data + row * row_stride + run * run_stride;
        for (int64_t byte = 0; byte < run_bytes; byte += CACHE_LINE) __builtin_prefetch(start + byte, 0, 2);
      }
    }
  }
};

template <typename T>
struct Kernels {
  using C = typename Compute<T>::type;
  int64_t vector_lanes;
  int pair;  // values in a unit
  void (*load_tile)(const Image&, int64_t n, int64_t images, int64_t channels, Rect area, Rect clip, C* rows,
                    C* tile);
  void (*load_staging)(const Image&, int64_t n, int64_t images, int64_t channels, Lanes lanes, Rect area, C* rows,
                       C* staging);
  void (*store_row)(C* staging, Lanes lanes, const Image&, int64_t n, int64_t channels, int64_t y, int64_t x0,
                    int64_t columns, C* rows);
  void (*pack_weight)(const T* weight, const WeightView&, Lanes lanes, C* packed);
  void (*convolve)(const C* tile, const WeightView&, const C* packed, Lanes lanes, const T* bias, const Image&,
                   int64_t n, Rect area, const Ahead&, C* staging, C* rows);
  void (*convolve_add)(const C* tile, const WeightView&, const C* packed, Lanes lanes, Rect target,
                       int64_t staging_columns, C* staging);
  void (*accumulate_weight)(const C* tile, const WeightView&, const C* grad, Lanes lanes, int64_t rows,
                            int64_t columns, const Ahead&, C* weight_sums, C* bias_sums);

  Lanes lanes(int64_t channels) const {
    const int64_t whole = std::max<int64_t>(vector_lanes, 4);  // rows are transposed by fours
    const int group = 2 * sizeof(C) == sizeof(uint64_t) && 2 * channels <= vector_lanes ? 2 : 1;
    return {(channels * group + whole - 1) / whole * whole, group};
  }
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
    const Lanes lanes = kernels_.lanes(view.out);
    const Scratch<C> packed = pack_cells(weight, view, lanes);
    for_each_band(view.in, [&](const Band& band, const Band* next, C* tile, C* staging, C* rows) {
      const Rect clip = op_.image_border ? image_rect() : cell_rect(band.cell);
      kernels_.load_tile(input, band.n, 0, view.in, dilated(band.area), clip, rows, tile);
      kernels_.convolve(tile, view, packed.get() + band.cell * packed_size(view, lanes), lanes,
                        bias == nullptr ? nullptr : bias + band.cell * view.out, output, band.n, band.area,
                        ahead(input, view.in, next), staging, rows);
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
    const Lanes lanes = kernels_.lanes(view.out);
    const Scratch<C> packed = pack_cells(weight, view, lanes);
    for_each_band(view.in, [&](const Band& band, const Band* next, C* tile, C* staging, C* rows) {
      const Rect& area = band.area;
      if (!op_.image_border) {
        kernels_.load_tile(grad_output, band.n, 0, view.in, dilated(area), cell_rect(band.cell), rows, tile);
        kernels_.convolve(tile, view, packed.get() + band.cell * packed_size(view, lanes), lanes, nullptr, grad_input,
                          band.n, area, ahead(grad_output, view.in, next), staging, rows);
        return;
      }
      // A pixel near a border is read by neighbouring cells too, each with its own weights.
      std::fill_n(staging, area.pixels() * lanes.count, C(0));
      for (int64_t cell = 0; cell < op_.cells(); ++cell) {
        const Rect clip = cell_rect(cell), reached = intersection(area, dilated(clip));
        if (reached.rows() <= 0 || reached.columns() <= 0) continue;
        kernels_.load_tile(grad_output, band.n, 0, view.in, dilated(reached), clip, rows, tile);
        const Rect target{reached.y0 - area.y0, reached.y1 - area.y0, reached.x0 - area.x0, reached.x1 - area.x0};
        kernels_.convolve_add(tile, view, packed.get() + cell * packed_size(view, lanes), lanes, target,
                              area.columns(), staging);
      }
      for (int64_t y = area.y0; y < area.y1; ++y, staging += area.columns() * lanes.count) {
        kernels_.store_row(staging, lanes, grad_input, band.n, view.out, y, area.x0, area.columns(), rows);
      }
    });
  }

  void backward_weight(Image grad_output, Image input, T* grad_weight, T* grad_bias) const {
    const WeightView view{op_.in_channels, op_.out_channels, op_.kernel_h, op_.kernel_w, 0, 0, 0, 0, 0};
    const Lanes lanes = kernels_.lanes(view.out);
    const int64_t weight_size = op_.kernel_h * op_.kernel_w * whole_blocks(view.in) / lanes.group * lanes.count;
    const int64_t sums_size = weight_size + lanes.count, chunks = region_conv2d_chunks(op_, 64);
    const Scratch<C> all_sums(op_.cells() * chunks * sums_size);
    const int64_t height = band_rows(view.in);
    parallel_(op_.cells() * chunks, [&](int64_t begin, int64_t end) {
      const Scratch<C> tile(tile_size(view.in)), grad(widest_band().pixels() * lanes.count), rows(rows_size());
      std::fill_n(all_sums.get() + begin * sums_size, (end - begin) * sums_size, C(0));
      // Neighbouring cells of a row take turns, image by image, as their pixels lie in memory.
      for (int64_t unit = begin, run; unit < end; unit += run) {
        const int64_t column = unit % op_.grid_w, chunk = unit / op_.grid_w % chunks;
        const int64_t cell = unit / (op_.grid_w * chunks) * op_.grid_w + column;
        run = std::min(end - unit, op_.grid_w - column);
        const int64_t last = (chunk + 1) * op_.batch / chunks;
        for (int64_t n = chunk * op_.batch / chunks; n < last; n += kernels_.pair) {
          const int64_t images = kernels_.pair == 1 ? 0 : std::min<int64_t>(last - n, 2);
          for (int64_t i = 0; i < run; ++i) {
            C* sums = all_sums.get() + (unit + i) * sums_size;
            const Rect whole = cell_rect(cell + i), clip = op_.image_border ? image_rect() : whole;
            for (int64_t y = whole.y0; y < whole.y1; y += height) {
              const Rect area{y, std::min(y + height, whole.y1), whole.x0, whole.x1};
              kernels_.load_tile(input, n, images, view.in, dilated(area), clip, rows.get(), tile.get());
              kernels_.load_staging(grad_output, n, images, view.out, lanes, area, rows.get(), grad.get());
              kernels_.accumulate_weight(tile.get(), view, grad.get(), lanes, area.rows(), area.columns(), Ahead{},
                                         sums, sums + weight_size);
            }
          }
        }
      }
    });
    parallel_(op_.cells(), [&](int64_t begin, int64_t end) {
      for (int64_t cell = begin; cell < end; ++cell) {
        const int64_t next = op_.grid_w * sums_size;  // from chunk to chunk
        C* total = all_sums.get() + cell / op_.grid_w * chunks * next + cell % op_.grid_w * sums_size;
        for (int64_t chunk = 1; chunk < chunks; ++chunk) {
          for (int64_t i = 0; i < sums_size; ++i) total[i] += total[chunk * next + i];
        }
        if (grad_weight != nullptr) unpack(total, lanes, grad_weight + cell * op_.cell_weights());
        if (grad_bias != nullptr) {
          T* to = grad_bias + cell * op_.out_channels;
          for (int64_t o = 0; o < op_.out_channels; ++o) to[o] = narrow<T>(total[weight_size + o * lanes.group]);
        }
      }
    });
  }

 private:
  // Rows of one cell of one image, as many as a tile holds.
  struct Band {
    int64_t cell, n;
    Rect area;
  };

  // Runs body(band, next band or null, tile, staging, rows) on all bands.
  template <typename Body>
  void for_each_band(int64_t in_channels, const Body& body) const {
    const int64_t height = band_rows(in_channels), bands = (tallest_cell() + height - 1) / height;
    // Neighbouring cells of a row come one after the other, as their pixels do in memory.
    const auto band_at = [&](int64_t unit) {
      const int64_t row = unit / (op_.grid_w * bands * op_.batch), column = unit % op_.grid_w;
      Band band{row * op_.grid_w + column, unit / (op_.grid_w * bands) % op_.batch, {}};
      band.area = cell_rect(band.cell);
      band.area.y0 += unit / op_.grid_w % bands * height;
      band.area.y1 = std::min(band.area.y1, band.area.y0 + height);
      return band;
    };
    parallel_(op_.cells() * op_.batch * bands, [&](int64_t begin, int64_t end) {
      const Lanes most = kernels_.lanes(std::max(op_.in_channels, op_.out_channels));
      const Scratch<C> tile(tile_size(in_channels)), rows(rows_size());
      const Scratch<C> staging((op_.image_border ? widest_band().pixels() : widest_cell()) * most.count * 2);
      for (int64_t unit = begin; unit < end; ++unit) {
        const Band band = band_at(unit), next = band_at(std::min(unit + 1, end - 1));
        if (band.area.rows() > 0) {
          body(band, unit + 1 < end ? &next : nullptr, tile.get(), staging.get(), rows.get());
        }
      }
    });
  }

  // The part of an image that a band needs.
  Ahead ahead(const Image& image, int64_t channels, const Band* band) const {
    if (band == nullptr) return {};
    const Rect area = intersection(dilated(band->area), cell_rect(band->cell));
    const ImageStrides& stride = image.stride;
    const char* data = static_cast<const char*>(image.data) +
                       (band->n * stride.n + area.y0 * stride.y + area.x0 * stride.x) * int64_t{sizeof(T)};
    const int64_t row = stride.y * sizeof(T), columns = area.columns();
    if (stride.c == 1) return {data, area.rows(), row, 1, 0, columns * stride.x * int64_t{sizeof(T)}};
    return {data, area.rows(), row, channels, stride.c * int64_t{sizeof(T)}, columns * stride.x * int64_t{sizeof(T)}};
  }

  Scratch<C> pack_cells(const T* weight, const WeightView& view, Lanes lanes) const {
    const int64_t size = packed_size(view, lanes);
    Scratch<C> all(op_.cells() * size);
    parallel_(op_.cells(), [&](int64_t begin, int64_t end) {
      for (int64_t cell = begin; cell < end; ++cell) {
        kernels_.pack_weight(weight + cell * op_.cell_weights(), view, lanes, all.get() + cell * size);
      }
    });
    return all;
  }

  void unpack(const C* sums, Lanes lanes, T* grad_weight) const {
    const int64_t blocks = whole_blocks(op_.in_channels) / CHANNEL_BLOCK;
    for (int64_t o = 0; o < op_.out_channels; ++o) {
      for (int64_t i = 0; i < op_.in_channels; ++i) {
        for (int64_t ky = 0; ky < op_.kernel_h; ++ky) {
          for (int64_t kx = 0; kx < op_.kernel_w; ++kx) {
            const int64_t unit =
                ((ky * blocks + i / CHANNEL_BLOCK) * op_.kernel_w + kx) * CHANNEL_BLOCK + i % CHANNEL_BLOCK;
            *grad_weight++ = narrow<T>(sums[unit / lanes.group * lanes.count + o * lanes.group + unit % lanes.group]);
          }
        }
      }
    }
  }

  int64_t packed_size(const WeightView& view, Lanes lanes) const {
    return view.kernel_h * view.kernel_w * whole_blocks(view.in) / (kernels_.pair * lanes.group) * lanes.count;
  }
  static int64_t whole_blocks(int64_t channels) {
    return (channels + CHANNEL_BLOCK - 1) / CHANNEL_BLOCK * CHANNEL_BLOCK;
  }

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
  // A row of all channels twice, or four rows of units.
  int64_t rows_size() const {
    const int64_t channels = kernels_.lanes(std::max(op_.in_channels, op_.out_channels)).count;
    return (widest_cell() + op_.kernel_w) * std::max<int64_t>(2 * channels, 4);
  }

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
