#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <vector>

#include "../common/cpu_level.h"
#include "../common/dispatch.h"
#include "region_batch_norm.h"

#ifdef JAA_EXT_CPU_LEVELS
#include <immintrin.h>
#endif

namespace jaa_ext {
namespace {

// What belongs to the elements of a run of memory, in which the channels come round again and again: element i has
// entry i % period of each table. A period is whole vectors, and whole pixels where a run has several.
template <typename C>
struct Tables {
  int64_t period;
  C *mean, *scale, *bias;
  C *slope, *offset;  // of what the gradient loses through the batch's statistics
};

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

// Memory on cache lines' borders for tables one after another.
template <typename C>
class Workspace {
 public:
  Workspace(int64_t tables, int64_t period)
      : period_(period), memory_((tables * period * sizeof(C) + sizeof(CacheLine) - 1) / sizeof(CacheLine)) {}
  C* table(int64_t k) { return reinterpret_cast<C*>(memory_.data()) + k * period_; }

 private:
  struct alignas(64) CacheLine {
    std::byte bytes[64];
  };
  int64_t period_;
  std::vector<CacheLine> memory_;
};

// Work goes by bands: a row of cells with all channels where channels lie side by side, else with one channel. A band
// is cut into units and these into chunks, both by sizes alone. A chunk is summed in the compute type, a unit in
// double, chunk by chunk, by one thread, and the units in order: the bits do not depend on the number of threads.
template <typename T>
class RegionBatchNormCpu {
  using C = typename Compute<T>::type;

 public:
  RegionBatchNormCpu(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                     std::initializer_list<Image> images, const Parallel& parallel, int64_t threads)
      : op_(op),
        weight_(static_cast<const C*>(parameters.weight)),
        bias_(static_cast<const C*>(parameters.bias)),
        mean_(static_cast<C*>(parameters.mean)),
        var_(static_cast<C*>(parameters.var)),
        parallel_(parallel),
        kernels_(op.relu ? kernels_for_processor<T, true>() : kernels_for_processor<T, false>()) {
    const auto all = [&](const auto& property) { return std::all_of(images.begin(), images.end(), property); };
    const bool channels_last = op.channels > 1 && all([](const Image& image) { return image.stride.c == 1; });
    width_ = channels_last ? op.channels : 1;
    bands_ = op.grid_h * (op.channels / width_);
    band_a_thread_ = bands_ >= 2 * threads;

    const int64_t lanes = kernels_.lanes;
    // Pixels side by side make one run, unless the tables would get long.
    joins_pixels_ = (width_ % lanes == 0 || width_ <= 4 * lanes) &&
                    all([&](const Image& image) { return image.stride.x == width_; });
    const bool joins_rows = joins_pixels_ && op.grid_w == 1 &&
                            all([&](const Image& image) { return image.stride.y == op.width * image.stride.x; });
    const int64_t whole = joins_pixels_ ? std::lcm(width_, lanes) : width_ + lanes - 1 - (width_ - 1) % lanes;
    period_ = joins_pixels_ ? (VECTORS * lanes + whole - 1) / whole * whole : whole;

    const int64_t chunk_pixels = std::clamp<int64_t>(CHUNK / width_, 128, 2048);
    const int64_t columns = (op.width + op.grid_w - 1) / op.grid_w, rows = (op.height + op.grid_h - 1) / op.grid_h;
    rows_per_line_ = joins_rows ? std::max<int64_t>(chunk_pixels / columns, 1) : 1;
    lines_per_chunk_ = std::max<int64_t>(chunk_pixels / (rows_per_line_ * columns), 1);
    const int64_t chunks = op.batch * ((rows + rows_per_line_ - 1) / rows_per_line_) / lines_per_chunk_;
    units_ = std::clamp<int64_t>(chunks / 2, 1, std::max<int64_t>(UNITS / std::max<int64_t>(bands_, 1), 8));
  }

  void forward(Image input, Image output) const {
    const auto prepare = [&](int64_t band, Workspace<C>& tables) { fill(band, tables, nullptr, nullptr); };
    const auto normalise = [&](int64_t band, int64_t unit, Workspace<C>& tables) {
      for_each_run(band, unit, [&](int64_t j, Position at, int64_t length) {
        kernels_.normalise(element(input, at), length, tables_of(tables, j), element(output, at));
      });
    };
    const auto nothing = [](auto&&...) {};
    if (!op_.training) return run(prepare, nothing, nothing, normalise);

    // Of each unit and cell of a band: values, then means and summed squares about them.
    const int64_t size = 1 + 2 * width_;
    std::vector<double> moments(bands_ * units_ * op_.grid_w * size);
    const auto moments_of = [&](int64_t band, int64_t unit, int64_t j) {
      return moments.data() + ((band * units_ + unit) * op_.grid_w + j) * size;
    };
    const auto sum = [&](int64_t band, int64_t unit, Workspace<C>&, Workspace<C>& sums) {
      for_each_chunk(band, unit, [&](const Band& cells, Lines lines) {
        for (int64_t j = 0; j < op_.grid_w; ++j) start(cells, lines, j, input, sums_of(sums, j));
        for_each_run(cells, lines, [&](int64_t j, Position at, int64_t length) {
          kernels_.add_moments(element(input, at), length, sums_of(sums, j));
        });
        for (int64_t j = 0; j < op_.grid_w; ++j) {
          add_chunk(moments_of(band, unit, j), sums_of(sums, j), cells.rows(lines) * columns(j));
        }
      });
    };
    const auto finish = [&](int64_t band, Workspace<C>& tables) {
      for (int64_t j = 0; j < op_.grid_w; ++j) {
        double* total = moments_of(band, 0, j);
        for (int64_t unit = 1; unit < units_; ++unit) {
          const double* other = moments_of(band, unit, j);
          combine(total, other[0], other + 1, other + 1 + width_);
        }
        for (int64_t c = 0; c < width_; ++c) {
          mean_[first_parameter(band, j) + c] = static_cast<C>(total[1 + c]);
          var_[first_parameter(band, j) + c] = static_cast<C>(total[1 + width_ + c] / (total[0] - 1));
        }
      }
      prepare(band, tables);
    };
    run(nothing, sum, finish, normalise);
  }

  void backward(Image grad_output, Image input, Image grad_input, C* grad_weight, C* grad_bias) const {
    const int64_t size = 2 * width_;
    std::vector<double> totals(bands_ * units_ * op_.grid_w * size);
    const auto totals_of = [&](int64_t band, int64_t unit, int64_t j) {
      return totals.data() + ((band * units_ + unit) * op_.grid_w + j) * size;
    };
    const auto prepare = [&](int64_t band, Workspace<C>& tables) { fill(band, tables, nullptr, nullptr); };
    const auto sum = [&](int64_t band, int64_t unit, Workspace<C>& tables, Workspace<C>& sums) {
      for_each_chunk(band, unit, [&](const Band& cells, Lines lines) {
        for (int64_t j = 0; j < op_.grid_w; ++j) clear(sums_of(sums, j));
        for_each_run(cells, lines, [&](int64_t j, Position at, int64_t length) {
          kernels_.add_gradients(element(grad_output, at), element(input, at), length, tables_of(tables, j),
                                 sums_of(sums, j));
        });
        for (int64_t j = 0; j < op_.grid_w; ++j) {
          const Sums<C> chunk = sums_of(sums, j);
          collapse(chunk.sum);
          collapse(chunk.product);
          double* total = totals_of(band, unit, j);
          for (int64_t c = 0; c < width_; ++c) {
            total[c] += chunk.sum[c];
            total[width_ + c] += chunk.product[c];
          }
        }
      });
    };
    const auto finish = [&](int64_t band, Workspace<C>& tables) {
      for (int64_t j = 0; j < op_.grid_w; ++j) {
        double* total = totals_of(band, 0, j);
        for (int64_t unit = 1; unit < units_; ++unit) {
          for (int64_t k = 0; k < size; ++k) total[k] += totals_of(band, unit, j)[k];
        }
        for (int64_t c = 0; c < width_; ++c) {
          const int64_t k = first_parameter(band, j) + c;
          grad_bias[k] = static_cast<C>(total[c]);
          grad_weight[k] = static_cast<C>(total[width_ + c] * inverse_deviation(band, j, k));
        }
      }
      fill(band, tables, grad_weight, grad_bias);
    };
    const auto gradient = [&](int64_t band, int64_t unit, Workspace<C>& tables) {
      if (grad_input.data == nullptr) return;
      for_each_run(band, unit, [&](int64_t j, Position at, int64_t length) {
        kernels_.gradient(element(grad_output, at), element(input, at), length, tables_of(tables, j),
                          element(grad_input, at));
      });
    };
    run(prepare, sum, finish, gradient);
  }

 private:
  static constexpr int64_t VECTORS = 8;       // of a period, at least: a sum's next term then need not wait
  static constexpr int64_t CHUNK = 16 << 10;  // values, about
  static constexpr int64_t UNITS = 64;        // of all bands, about

  struct Position {
    int64_t n, c, y, x;
  };
  // Some rows of a band in one image; counted through all images of the batch.
  struct Lines {
    int64_t begin, end;
  };
  struct Band {
    int64_t channel, y0, y1, rows_per_line, lines_per_image;

    int64_t row(int64_t line) const { return y0 + line % lines_per_image * rows_per_line; }
    int64_t rows(int64_t line) const { return std::min(rows_per_line, y1 - row(line)); }
    int64_t rows(Lines lines) const {
      int64_t sum = 0;
      for (int64_t line = lines.begin; line < lines.end; ++line) sum += rows(line);
      return sum;
    }
  };

  // On each band prepare(band, tables), then first(band, unit, tables, sums) on all its units, finish(band, tables),
  // then second(band, unit, tables) on all its units.
  template <typename Prepare, typename First, typename Finish, typename Second>
  void run(const Prepare& prepare, const First& first, const Finish& finish, const Second& second) const {
    // Band by band, so that the second pass finds in the cache what the first one read.
    if (band_a_thread_) {
      return parallel_(bands_, [&](int64_t begin, int64_t end) {
        Workspace<C> tables = new_tables(), sums = new_sums();
        for (int64_t band = begin; band < end; ++band) {
          prepare(band, tables);
          for (int64_t unit = 0; unit < units_; ++unit) first(band, unit, tables, sums);
          finish(band, tables);
          for (int64_t unit = units_ - 1; unit >= 0; --unit) second(band, unit, tables);
        }
      });
    }
    Workspace<C> tables = new_tables();
    for (int64_t band = 0; band < bands_; ++band) {
      prepare(band, tables);
      parallel_(units_, [&](int64_t begin, int64_t end) {
        Workspace<C> sums = new_sums();
        for (int64_t unit = begin; unit < end; ++unit) first(band, unit, tables, sums);
      });
      finish(band, tables);
      parallel_(units_, [&](int64_t begin, int64_t end) {
        for (int64_t unit = end - 1; unit >= begin; --unit) second(band, unit, tables);
      });
    }
  }

  Workspace<C> new_tables() const { return {5 * op_.grid_w, period_}; }
  Workspace<C> new_sums() const { return {3 * op_.grid_w, period_}; }

  // Those of cell j of a band.
  Tables<C> tables_of(Workspace<C>& tables, int64_t j) const {
    const auto table = [&](int64_t k) { return tables.table(5 * j + k); };
    return {period_, table(0), table(1), table(2), table(3), table(4)};
  }
  Sums<C> sums_of(Workspace<C>& sums, int64_t j) const {
    return {period_, sums.table(3 * j), sums.table(3 * j + 1), sums.table(3 * j + 2)};
  }

  int64_t bands_per_row() const { return op_.channels / width_; }

  Band band_at(int64_t band) const {
    const int64_t i = band / bands_per_row();
    const int64_t y0 = i * op_.height / op_.grid_h, y1 = (i + 1) * op_.height / op_.grid_h;
    return {band % bands_per_row(), y0, y1, rows_per_line_, (y1 - y0 + rows_per_line_ - 1) / rows_per_line_};
  }

  int64_t first_column(int64_t j) const { return j * op_.width / op_.grid_w; }
  int64_t columns(int64_t j) const { return first_column(j + 1) - first_column(j); }

  // Place of cell j's parameters.
  int64_t first_parameter(int64_t band, int64_t j) const {
    return (band / bands_per_row() * op_.grid_w + j) * op_.channels + band % bands_per_row();
  }

  int64_t values(int64_t band, int64_t j) const {
    const Band cells = band_at(band);
    return op_.batch * (cells.y1 - cells.y0) * columns(j);
  }

  // Runs body(band, lines) on each chunk of a unit.
  template <typename Body>
  void for_each_chunk(int64_t band, int64_t unit, const Body& body) const {
    const Band cells = band_at(band);
    const int64_t lines = op_.batch * cells.lines_per_image;
    const int64_t chunks = (lines + lines_per_chunk_ - 1) / lines_per_chunk_;
    for (int64_t chunk = unit * chunks / units_; chunk < (unit + 1) * chunks / units_; ++chunk) {
      body(cells, Lines{chunk * lines_per_chunk_, std::min((chunk + 1) * lines_per_chunk_, lines)});
    }
  }

  // Runs body(j, position, values) on each run of memory, of cell j.
  template <typename Body>
  void for_each_run(const Band& cells, Lines lines, const Body& body) const {
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      Position at{line / cells.lines_per_image, cells.channel, cells.row(line), 0};
      for (int64_t j = 0; j < op_.grid_w; ++j) {
        if (joins_pixels_) {
          at.x = first_column(j);
          body(j, at, cells.rows(line) * columns(j) * width_);
        } else {
          for (at.x = first_column(j); at.x < first_column(j + 1); ++at.x) body(j, at, width_);
        }
      }
    }
  }
  template <typename Body>
  void for_each_run(int64_t band, int64_t unit, const Body& body) const {
    for_each_chunk(band, unit, [&](const Band& cells, Lines lines) { for_each_run(cells, lines, body); });
  }

  static T* element(const Image& image, Position at) {
    return static_cast<T*>(image.data) + at.n * image.stride.n + at.c * image.stride.c + at.y * image.stride.y +
           at.x * image.stride.x;
  }

  double inverse_deviation(int64_t band, int64_t j, int64_t k) const {
    return 1 / std::sqrt(op_.biased<double>(var_[k], values(band, j)) + op_.eps);
  }

  // The tables of a band; slope and offset where the sums of gradients are given.
  void fill(int64_t band, Workspace<C>& workspace, const C* grad_weight, const C* grad_bias) const {
    const bool through_statistics = grad_weight != nullptr && op_.training;
    for (int64_t j = 0; j < op_.grid_w; ++j) {
      const Tables<C> tables = tables_of(workspace, j);
      const double count = static_cast<double>(values(band, j));
      for (int64_t c = 0; c < width_; ++c) {
        const int64_t k = first_parameter(band, j) + c;
        const double r = inverse_deviation(band, j, k), scale = weight_ == nullptr ? r : r * weight_[k];
        tables.mean[c] = mean_[k];
        tables.scale[c] = static_cast<C>(scale);
        tables.bias[c] = bias_ == nullptr ? C(0) : bias_[k];
        tables.slope[c] = through_statistics ? static_cast<C>(scale * r * grad_weight[k] / count) : C(0);
        tables.offset[c] = through_statistics ? static_cast<C>(scale * grad_bias[k] / count) : C(0);
      }
      for (C* table : {tables.mean, tables.scale, tables.bias, tables.slope, tables.offset}) repeat(table);
    }
  }

  // Fills a table that has one pixel's channels.
  void repeat(C* table) const {
    for (int64_t filled = width_; filled < period_; filled *= 2) {
      std::copy_n(table, std::min(filled, period_ - filled), table + filled);
    }
  }

  // Adds up the pixels of a table in its first one.
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

  // Starts a chunk's sums, about the mean of its first pixels: of (x - shift)^2 cancellation then takes next to
  // nothing, and at worst pixels / SHIFT_PIXELS roundoffs, however far from zero the mean is.
  void start(const Band& cells, Lines lines, int64_t j, Image input, Sums<C> sums) const {
    constexpr int64_t SHIFT_PIXELS = 16;
    const int64_t pixels = std::min(SHIFT_PIXELS, columns(j));
    const Position at{lines.begin / cells.lines_per_image, cells.channel, cells.row(lines.begin), first_column(j)};
    std::fill_n(sums.shift, width_, C(0));
    for (int64_t x = 0; x < pixels; ++x) {
      const T* from = element(input, at) + x * input.stride.x;
      for (int64_t c = 0; c < width_; ++c) sums.shift[c] += widen(from[c]);
    }
    for (int64_t c = 0; c < width_; ++c) sums.shift[c] /= static_cast<C>(pixels);
    repeat(sums.shift);
    clear(sums);
  }

  // Adds a chunk's moments; turns its sums into means and squares about them.
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

  // Chan, Golub and LeVeque (1979), eq. 2.1, for one channel of a count with means and squares and of another.
  void combine(double* total, double count, int64_t c, double other_mean, double other_squares) const {
    const double share = count / (total[0] + count), delta = other_mean - total[1 + c];
    total[1 + c] += delta * share;
    total[1 + width_ + c] += other_squares + delta * delta * total[0] * share;
  }

  const RegionBatchNorm& op_;
  const C *weight_, *bias_;
  C *mean_, *var_;
  const Parallel& parallel_;
  const Kernels<T> kernels_;
  int64_t width_;   // channels of a band
  int64_t bands_;   // of all cells and channels
  int64_t units_;   // of a band
  int64_t period_;  // of the tables
  int64_t rows_per_line_, lines_per_chunk_;
  bool joins_pixels_;   // into one run
  bool band_a_thread_;  // else all threads work on one band after another
};

}  // namespace

void region_batch_norm_forward_cpu(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                                   Image input, Image output, const Parallel& parallel, int64_t threads) {
  dispatch(op.scalar, [&](auto zero) {
    RegionBatchNormCpu<decltype(zero)>(op, parameters, {input, output}, parallel, threads).forward(input, output);
  });
}

void region_batch_norm_backward_cpu(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                                    Image grad_output, Image input, Image grad_input, void* grad_weight,
                                    void* grad_bias, const Parallel& parallel, int64_t threads) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    RegionBatchNormCpu<T>(op, parameters, {grad_output, input, grad_input}, parallel, threads)
        .backward(grad_output, input, grad_input, static_cast<C*>(grad_weight), static_cast<C*>(grad_bias));
  });
}

}  // namespace jaa_ext
