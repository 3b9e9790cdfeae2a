#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <vector>

#include "../common/cells.h"
#include "../common/cpu_level.h"
#include "../common/dispatch.h"
#include "region_batch_norm.h"

#ifdef JAA_EXT_CPU_LEVELS
#include <immintrin.h>
#endif

namespace jaa_ext {
namespace {

// Tables with the factors of each channel, for a run of memory in which the channels of pixel after pixel follow each
// other: entry i % period of a table belongs to element i of the run. The period is a multiple of a vector's lanes
// and, where a run has several pixels, of their channels.
template <typename C>
struct Tables {
  int64_t period;
  C *mean, *scale, *bias;
  C *slope, *offset;  // of the statistics' term in the gradient of the input, slope * (input - mean) + offset
};

// Tables of sums of each channel, with the same period.
template <typename C>
struct Sums {
  int64_t period;
  C *shift, *sum, *product;
};

template <typename T>
struct Kernels {
  using C = typename Compute<T>::type;
  int64_t lanes;
  // sum += x - shift, product += (x - shift)^2
  void (*add_moments)(const T* x, int64_t length, Sums<C>);
  void (*normalise)(const T* x, int64_t length, Tables<C>, T* output);
  // sum += grad, product += grad * (x - mean), with the gradient before ReLU
  void (*add_gradients)(const T* grad, const T* x, int64_t length, Tables<C>, Sums<C>);
  void (*gradient)(const T* grad, const T* x, int64_t length, Tables<C>, T* grad_x);
};

#define CPU_KERNEL_FILE "../region_batch_norm/region_batch_norm_cpu_kernel.h"
#include "../common/for_each_cpu_level.h"

template <typename T, bool RELU>
Kernels<T> kernels_for_processor() {
  JAA_EXT_AT_CPU_LEVEL(kernels<T, RELU>());
}

// Memory for tables one after another, aligned to cache lines.
template <typename C>
class Workspace {
 public:
  Workspace(int64_t tables, int64_t period)
      : period_(period), memory_(ceil_div(tables * period * sizeof(C), sizeof(CacheLine))) {}
  C* table(int64_t k) { return reinterpret_cast<C*>(memory_.data()) + k * period_; }

 private:
  struct alignas(64) CacheLine {
    std::byte bytes[64];
  };
  int64_t period_;
  std::vector<CacheLine> memory_;
};

// An item is a row of cells, with all its channels where these lie side by side, or else with one channel. An item is
// cut into units and these into chunks, by sizes alone. One thread sums a unit, chunk by chunk, each chunk in the
// compute type and their sums in double; then the units are added in order. The bits therefore do not depend on the
// number of threads.
template <typename T>
class RegionBatchNormCpu {
  using C = typename Compute<T>::type;

 public:
  RegionBatchNormCpu(const RegionBatchNormParams& params, const RegionBatchNormTensors& tensors,
                     std::initializer_list<ImageView> images, const Parallel& parallel, int64_t threads)
      : params_(params),
        weight_(static_cast<const C*>(tensors.weight)),
        bias_(static_cast<const C*>(tensors.bias)),
        mean_(static_cast<C*>(tensors.mean)),
        var_(static_cast<C*>(tensors.var)),
        parallel_(parallel),
        kernels_(params.relu ? kernels_for_processor<T, true>() : kernels_for_processor<T, false>()) {
    const auto all = [&](const auto& property) { return std::all_of(images.begin(), images.end(), property); };
    const bool channels_last = params.channels > 1 && all([](const ImageView& image) { return image.stride.c == 1; });
    width_ = channels_last ? params.channels : 1;
    items_ = params.grid_h * (params.channels / width_);
    item_a_thread_ = items_ >= 2 * threads;

    const int64_t lanes = kernels_.lanes;
    // Pixels side by side make one run, unless the tables would get long.
    joins_pixels_ = (width_ % lanes == 0 || width_ <= 4 * lanes) &&
                    all([&](const ImageView& image) { return image.stride.x == width_; });
    const bool joins_rows = joins_pixels_ && params.grid_w == 1 && all([&](const ImageView& image) {
                              return image.stride.y == params.width * image.stride.x;
                            });
    const int64_t whole = joins_pixels_ ? std::lcm(width_, lanes) : width_ + lanes - 1 - (width_ - 1) % lanes;
    period_ = joins_pixels_ ? ceil_div(VECTORS * lanes, whole) * whole : whole;

    const int64_t chunk_pixels = std::clamp<int64_t>(CHUNK / width_, 128, 2048);
    const int64_t columns = widest_cell(params), rows = tallest_cell(params);
    rows_per_band_ = joins_rows ? std::max<int64_t>(chunk_pixels / columns, 1) : 1;
    bands_per_chunk_ = std::max<int64_t>(chunk_pixels / (rows_per_band_ * columns), 1);
    const int64_t chunks = params.batch * ceil_div(rows, rows_per_band_) / bands_per_chunk_;
    units_ = std::clamp<int64_t>(chunks / 2, 1, std::max<int64_t>(UNITS / std::max<int64_t>(items_, 1), 8));
  }

  void forward(ImageView input, ImageView output) const {
    const auto prepare = [&](int64_t item, Workspace<C>& tables) { fill(item, tables, nullptr, nullptr); };
    const auto normalise = [&](int64_t item, int64_t unit, Workspace<C>& tables) {
      for_each_run(item, unit, [&](int64_t j, Position at, int64_t length) {
        kernels_.normalise(element(input, at), length, tables_of(tables, j), element(output, at));
      });
    };
    const auto nothing = [](auto&&...) {};
    if (!params_.training) return run(prepare, nothing, nothing, normalise);

    // For each unit and cell of an item: the number of values, the means, and the summed squares about them.
    const int64_t size = 1 + 2 * width_;
    std::vector<double> moments(items_ * units_ * params_.grid_w * size);
    const auto moments_of = [&](int64_t item, int64_t unit, int64_t j) {
      return moments.data() + ((item * units_ + unit) * params_.grid_w + j) * size;
    };
    const auto sum = [&](int64_t item, int64_t unit, Workspace<C>&, Workspace<C>& sums) {
      for_each_chunk(item, unit, [&](const Extent& extent, Bands bands) {
        for (int64_t j = 0; j < params_.grid_w; ++j) start(extent, bands, j, input, sums_of(sums, j));
        for_each_run(extent, bands, [&](int64_t j, Position at, int64_t length) {
          kernels_.add_moments(element(input, at), length, sums_of(sums, j));
        });
        for (int64_t j = 0; j < params_.grid_w; ++j) {
          add_chunk(moments_of(item, unit, j), sums_of(sums, j), extent.rows(bands) * columns(j));
        }
      });
    };
    const auto finish = [&](int64_t item, Workspace<C>& tables) {
      for (int64_t j = 0; j < params_.grid_w; ++j) {
        double* total = moments_of(item, 0, j);
        for (int64_t unit = 1; unit < units_; ++unit) {
          const double* other = moments_of(item, unit, j);
          combine(total, other[0], other + 1, other + 1 + width_);
        }
        for (int64_t c = 0; c < width_; ++c) {
          mean_[first_cell_channel(item, j) + c] = static_cast<C>(total[1 + c]);
          var_[first_cell_channel(item, j) + c] = static_cast<C>(total[1 + width_ + c] / (total[0] - 1));
        }
      }
      prepare(item, tables);
    };
    run(nothing, sum, finish, normalise);
  }

  void backward(ImageView grad_output, ImageView input, ImageView grad_input, C* grad_weight, C* grad_bias) const {
    const int64_t size = 2 * width_;
    std::vector<double> totals(items_ * units_ * params_.grid_w * size);
    const auto totals_of = [&](int64_t item, int64_t unit, int64_t j) {
      return totals.data() + ((item * units_ + unit) * params_.grid_w + j) * size;
    };
    const auto prepare = [&](int64_t item, Workspace<C>& tables) { fill(item, tables, nullptr, nullptr); };
    const auto sum = [&](int64_t item, int64_t unit, Workspace<C>& tables, Workspace<C>& sums) {
      for_each_chunk(item, unit, [&](const Extent& extent, Bands bands) {
        for (int64_t j = 0; j < params_.grid_w; ++j) clear(sums_of(sums, j));
        for_each_run(extent, bands, [&](int64_t j, Position at, int64_t length) {
          kernels_.add_gradients(element(grad_output, at), element(input, at), length, tables_of(tables, j),
                                 sums_of(sums, j));
        });
        for (int64_t j = 0; j < params_.grid_w; ++j) {
          const Sums<C> chunk = sums_of(sums, j);
          collapse(chunk.sum);
          collapse(chunk.product);
          double* total = totals_of(item, unit, j);
          for (int64_t c = 0; c < width_; ++c) {
            total[c] += chunk.sum[c];
            total[width_ + c] += chunk.product[c];
          }
        }
      });
    };
    const auto finish = [&](int64_t item, Workspace<C>& tables) {
      for (int64_t j = 0; j < params_.grid_w; ++j) {
        double* total = totals_of(item, 0, j);
        for (int64_t unit = 1; unit < units_; ++unit) {
          for (int64_t k = 0; k < size; ++k) total[k] += totals_of(item, unit, j)[k];
        }
        for (int64_t c = 0; c < width_; ++c) {
          const int64_t k = first_cell_channel(item, j) + c;
          grad_bias[k] = static_cast<C>(total[c]);
          grad_weight[k] = static_cast<C>(total[width_ + c] * inverse_deviation(item, j, k));
        }
      }
      fill(item, tables, grad_weight, grad_bias);
    };
    const auto gradient = [&](int64_t item, int64_t unit, Workspace<C>& tables) {
      if (grad_input.data == nullptr) return;
      for_each_run(item, unit, [&](int64_t j, Position at, int64_t length) {
        kernels_.gradient(element(grad_output, at), element(input, at), length, tables_of(tables, j),
                          element(grad_input, at));
      });
    };
    run(prepare, sum, finish, gradient);
  }

 private:
  static constexpr int64_t VECTORS = 8;       // of a period, at least, so that additions need not wait for each other
  static constexpr int64_t CHUNK = 16 << 10;  // values, about
  static constexpr int64_t UNITS = 64;        // of all items, about

  struct Position {
    int64_t n, c, y, x;
  };
  // A band is some rows of an item in one image. Bands are counted through all images of the batch.
  struct Bands {
    int64_t begin, end;
  };
  // What an item is made of: its first channel, its rows, and their bands.
  struct Extent {
    int64_t channel, y0, y1, rows_per_band, bands_per_image;

    int64_t row(int64_t band) const { return y0 + band % bands_per_image * rows_per_band; }
    int64_t rows(int64_t band) const { return std::min(rows_per_band, y1 - row(band)); }
    int64_t rows(Bands bands) const {
      int64_t sum = 0;
      for (int64_t band = bands.begin; band < bands.end; ++band) sum += rows(band);
      return sum;
    }
  };

  // For each item, runs prepare(item, tables), first(item, unit, tables, sums) on all its units, finish(item, tables)
  // and second(item, unit, tables) on all its units.
  template <typename Prepare, typename First, typename Finish, typename Second>
  void run(const Prepare& prepare, const First& first, const Finish& finish, const Second& second) const {
    // Item by item and backwards, so that the second pass finds in the cache what the first one read.
    if (item_a_thread_) {
      return parallel_(items_, [&](int64_t begin, int64_t end) {
        Workspace<C> tables = new_tables(), sums = new_sums();
        for (int64_t item = begin; item < end; ++item) {
          prepare(item, tables);
          for (int64_t unit = 0; unit < units_; ++unit) first(item, unit, tables, sums);
          finish(item, tables);
          for (int64_t unit = units_ - 1; unit >= 0; --unit) second(item, unit, tables);
        }
      });
    }
    Workspace<C> tables = new_tables();
    for (int64_t item = 0; item < items_; ++item) {
      prepare(item, tables);
      parallel_(units_, [&](int64_t begin, int64_t end) {
        Workspace<C> sums = new_sums();
        for (int64_t unit = begin; unit < end; ++unit) first(item, unit, tables, sums);
      });
      finish(item, tables);
      parallel_(units_, [&](int64_t begin, int64_t end) {
        for (int64_t unit = end - 1; unit >= begin; --unit) second(item, unit, tables);
      });
    }
  }

  Workspace<C> new_tables() const { return {5 * params_.grid_w, period_}; }
  Workspace<C> new_sums() const { return {3 * params_.grid_w, period_}; }

  // The tables of cell j of an item.
  Tables<C> tables_of(Workspace<C>& tables, int64_t j) const {
    const auto table = [&](int64_t k) { return tables.table(5 * j + k); };
    return {period_, table(0), table(1), table(2), table(3), table(4)};
  }
  Sums<C> sums_of(Workspace<C>& sums, int64_t j) const {
    return {period_, sums.table(3 * j), sums.table(3 * j + 1), sums.table(3 * j + 2)};
  }

  int64_t items_per_row() const { return params_.channels / width_; }

  Extent extent_of(int64_t item) const {
    const int64_t i = item / items_per_row();
    const Rect cell = cell_rect(params_, i, 0);
    return {item % items_per_row(), cell.y0, cell.y1, rows_per_band_, ceil_div(cell.rows(), rows_per_band_)};
  }

  int64_t first_column(int64_t j) const { return part_begin(j, params_.width, params_.grid_w); }
  int64_t columns(int64_t j) const { return first_column(j + 1) - first_column(j); }

  // The index of cell j and its first channel in RegionBatchNormTensors.
  int64_t first_cell_channel(int64_t item, int64_t j) const {
    return (item / items_per_row() * params_.grid_w + j) * params_.channels + item % items_per_row();
  }

  int64_t values(int64_t item, int64_t j) const {
    const Extent extent = extent_of(item);
    return params_.batch * (extent.y1 - extent.y0) * columns(j);
  }

  // Runs body(extent, bands) on each chunk of a unit.
  template <typename Body>
  void for_each_chunk(int64_t item, int64_t unit, const Body& body) const {
    const Extent extent = extent_of(item);
    const int64_t bands = params_.batch * extent.bands_per_image;
    const int64_t chunks = ceil_div(bands, bands_per_chunk_);
    for (int64_t chunk = part_begin(unit, chunks, units_); chunk < part_begin(unit + 1, chunks, units_); ++chunk) {
      body(extent, Bands{chunk * bands_per_chunk_, std::min((chunk + 1) * bands_per_chunk_, bands)});
    }
  }

  // Runs body(j, position, number of values) on each run of memory of each cell j.
  template <typename Body>
  void for_each_run(const Extent& extent, Bands bands, const Body& body) const {
    for (int64_t band = bands.begin; band < bands.end; ++band) {
      Position at{band / extent.bands_per_image, extent.channel, extent.row(band), 0};
      for (int64_t j = 0; j < params_.grid_w; ++j) {
        if (joins_pixels_) {
          at.x = first_column(j);
          body(j, at, extent.rows(band) * columns(j) * width_);
        } else {
          for (at.x = first_column(j); at.x < first_column(j + 1); ++at.x) body(j, at, width_);
        }
      }
    }
  }
  template <typename Body>
  void for_each_run(int64_t item, int64_t unit, const Body& body) const {
    for_each_chunk(item, unit, [&](const Extent& extent, Bands bands) { for_each_run(extent, bands, body); });
  }

  static T* element(const ImageView& image, Position at) { return image.at<T>(at.n, at.c, at.y, at.x); }

  double inverse_deviation(int64_t item, int64_t j, int64_t k) const {
    return 1 / std::sqrt(params_.biased<double>(var_[k], values(item, j)) + params_.eps);
  }

  // Fills the tables of an item, slope and offset only where the sums of gradients are given.
  void fill(int64_t item, Workspace<C>& workspace, const C* grad_weight, const C* grad_bias) const {
    const bool through_statistics = grad_weight != nullptr && params_.training;
    for (int64_t j = 0; j < params_.grid_w; ++j) {
      const Tables<C> tables = tables_of(workspace, j);
      const double count = static_cast<double>(values(item, j));
      for (int64_t c = 0; c < width_; ++c) {
        const int64_t k = first_cell_channel(item, j) + c;
        const double r = inverse_deviation(item, j, k), scale = weight_ == nullptr ? r : r * weight_[k];
        tables.mean[c] = mean_[k];
        tables.scale[c] = static_cast<C>(scale);
        tables.bias[c] = bias_ == nullptr ? C(0) : bias_[k];
        tables.slope[c] = through_statistics ? static_cast<C>(scale * r * grad_weight[k] / count) : C(0);
        tables.offset[c] = through_statistics ? static_cast<C>(scale * grad_bias[k] / count) : C(0);
      }
      for (C* table : {tables.mean, tables.scale, tables.bias, tables.slope, tables.offset}) repeat(table);
    }
  }

  // Repeats the channels of a table's first pixel to its end.
  void repeat(C* table) const {
    for (int64_t filled = width_; filled < period_; filled *= 2) {
      std::copy_n(table, std::min(filled, period_ - filled), table + filled);
    }
  }

  // Adds all pixels of a table to its first one.
  void collapse(C* table) const {
    for (int64_t pixels = period_ / width_; pixels > 1;) {
      const int64_t half = pixels / 2;
      const C* upper = table + (pixels - half) * width_;
      for (int64_t k = 0; k < half * width_; ++k) table[k] += upper[k];
      pixels -= half;
    }
  }

  void clear(Sums<C> sums) const {
    std::fill_n(sums.sum, period_, C(0));
    std::fill_n(sums.product, period_, C(0));
  }

  // Starts a chunk's sums, about the mean of its first pixels. However far from zero the chunk's mean is,
  // cancellation then costs the sum of (x - shift)^2 next to nothing, and at worst pixels / SHIFT_PIXELS roundoffs.
  void start(const Extent& extent, Bands bands, int64_t j, ImageView input, Sums<C> sums) const {
    constexpr int64_t SHIFT_PIXELS = 16;
    const int64_t pixels = std::min(SHIFT_PIXELS, columns(j));
    const Position at{bands.begin / extent.bands_per_image, extent.channel, extent.row(bands.begin), first_column(j)};
    std::fill_n(sums.shift, width_, C(0));
    for (int64_t x = 0; x < pixels; ++x) {
      const T* from = element(input, at) + x * input.stride.x;
      for (int64_t c = 0; c < width_; ++c) sums.shift[c] += widen(from[c]);
    }
    for (int64_t c = 0; c < width_; ++c) sums.shift[c] /= static_cast<C>(pixels);
    repeat(sums.shift);
    clear(sums);
  }

  // Adds a chunk to `total`, with its sums turned into means and squares about these.
  void add_chunk(double* total, Sums<C> sums, int64_t pixels) const {
    collapse(sums.sum);
    collapse(sums.product);
    const double count = static_cast<double>(pixels);
    for (int64_t c = 0; c < width_; ++c) {
      const double sum = sums.sum[c], square = sums.product[c] - sum * sum / count;
      combine(total, count, c, sums.shift[c] + sum / count, std::max(square, 0.0));
    }
    total[0] += count;
  }

  void combine(double* total, double count, const double* means, const double* squares) const {
    if (count == 0) return;
    for (int64_t c = 0; c < width_; ++c) combine(total, count, c, means[c], squares[c]);
    total[0] += count;
  }

  // Chan, Golub and LeVeque (1979), eq. 2.1, for one channel of two sets of values with their means and squares.
  void combine(double* total, double count, int64_t c, double other_mean, double other_squares) const {
    const double share = count / (total[0] + count), delta = other_mean - total[1 + c];
    total[1 + c] += delta * share;
    total[1 + width_ + c] += other_squares + delta * delta * total[0] * share;
  }

  const RegionBatchNormParams& params_;
  const C *weight_, *bias_;
  C *mean_, *var_;
  const Parallel& parallel_;
  const Kernels<T> kernels_;
  int64_t width_;   // channels of an item
  int64_t items_;   // of all cells and channels
  int64_t units_;   // of an item
  int64_t period_;  // of the tables
  int64_t rows_per_band_, bands_per_chunk_;
  bool joins_pixels_;   // into one run
  bool item_a_thread_;  // or else all threads work on one item after the other
};

}  // namespace

void region_batch_norm_forward_cpu(const RegionBatchNormParams& params, const RegionBatchNormTensors& tensors,
                                   ImageView input, ImageView output, const Parallel& parallel, int64_t threads) {
  dispatch(params.scalar_type, [&](auto zero) {
    RegionBatchNormCpu<decltype(zero)>(params, tensors, {input, output}, parallel, threads).forward(input, output);
  });
}

void region_batch_norm_backward_cpu(const RegionBatchNormParams& params, const RegionBatchNormTensors& tensors,
                                    ImageView grad_output, ImageView input, ImageView grad_input, void* grad_weight,
                                    void* grad_bias, const Parallel& parallel, int64_t threads) {
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    RegionBatchNormCpu<T>(params, tensors, {grad_output, input, grad_input}, parallel, threads)
        .backward(grad_output, input, grad_input, static_cast<C*>(grad_weight), static_cast<C*>(grad_bias));
  });
}

}  // namespace jaa_ext
