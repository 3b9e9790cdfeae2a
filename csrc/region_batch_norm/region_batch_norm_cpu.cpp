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
// entry i % period of each table.
template <typename C>
struct Tables {
  int64_t period;  // whole vectors of channels, and whole pixels
  C *mean, *scale, *bias;
  C *slope, *offset;  // of what the gradient loses through the batch's statistics
  C *sum, *product;
};

template <typename T>
struct Kernels {
  using C = typename Compute<T>::type;
  int64_t lanes;
  // sum += x - mean, product += (x - mean)^2
  void (*add_moments)(const T* x, int64_t length, const Tables<C>&);
  void (*normalise)(const T* x, int64_t length, const Tables<C>&, T* output);
  // sum += grad, product += grad * (x - mean), with the gradient before ReLU
  void (*add_gradients)(const T* grad, const T* x, int64_t length, const Tables<C>&);
  void (*gradient)(const T* grad, const T* x, int64_t length, const Tables<C>&, T* grad_x);
};

#define CPU_KERNEL_FILE "../region_batch_norm/region_batch_norm_cpu_kernel.h"
#include "../common/for_each_cpu_level.h"

template <typename T, bool RELU>
Kernels<T> kernels_for_processor() {
  JAA_EXT_AT_CPU_LEVEL(kernels<T, RELU>());
}

// The memory of one thread's tables.
template <typename C>
class Workspace {
 public:
  explicit Workspace(int64_t period) : memory_((7 * period * sizeof(C) + sizeof(CacheLine) - 1) / sizeof(CacheLine)) {
    C* next = reinterpret_cast<C*>(memory_.data());
    tables_.period = period;
    for (C** table : {&tables_.mean, &tables_.scale, &tables_.bias, &tables_.slope, &tables_.offset, &tables_.sum,
                      &tables_.product}) {
      *table = next;
      next += period;
    }
  }
  const Tables<C>& tables() const { return tables_; }

 private:
  struct alignas(64) CacheLine {
    std::byte bytes[64];
  };
  std::vector<CacheLine> memory_;
  Tables<C> tables_;
};

// Statistics are gathered for a group: with channels last a cell with all its channels, else one channel of a cell.
// A group is cut into chunks, each summed in the compute type; chunks make up units, summed in double in order, each
// by one thread. All of that depends on sizes alone: the bits do not depend on the number of threads.
template <typename T>
class RegionBatchNormCpu {
  using C = typename Compute<T>::type;

 public:
  RegionBatchNormCpu(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                     std::initializer_list<Image> images, const Parallel& parallel)
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
    groups_ = op.cells() * (op.channels / width_);
    const int64_t lanes = kernels_.lanes;
    // Pixels side by side are one run, unless the tables would get long.
    const bool joins_pixels = (width_ % lanes == 0 || width_ <= 4 * lanes) &&
                              all([&](const Image& image) { return image.stride.x == width_; });
    const bool joins_rows = joins_pixels && op.grid_w == 1 &&
                            all([&](const Image& image) { return image.stride.y == op.width * image.stride.x; });
    if (joins_pixels) {
      const int64_t whole = std::lcm(width_, lanes);
      period_ = (VECTORS * lanes + whole - 1) / whole * whole;
    } else {
      period_ = (width_ + lanes - 1) / lanes * lanes;
    }
    joins_pixels_ = joins_pixels;
    chunk_pixels_ = std::clamp<int64_t>((16 << 10) / width_, 128, 2048);
    rows_per_line_ = joins_rows ? std::max<int64_t>(chunk_pixels_ / op.width, 1) : 1;
    units_ = groups_ >= GROUPS ? 1 : UNITS / std::max<int64_t>(groups_, 1);
  }

  void forward(Image input, Image output) const {
    const auto normalise = [&](int64_t group, int64_t unit, const Tables<C>& tables) {
      fill(group, tables, nullptr, nullptr);
      for_each_run(group, unit, [&](Position at, int64_t length) {
        kernels_.normalise(element(input, at), length, tables, element(output, at));
      });
    };
    if (!op_.training) return in_parallel(normalise);

    // Count, then means and summed squares about them, of each unit.
    std::vector<double> moments(groups_ * units_ * (1 + 2 * width_));
    const auto moments_of = [&](int64_t group, int64_t unit) {
      return moments.data() + (group * units_ + unit) * (1 + 2 * width_);
    };
    const auto sum = [&](int64_t group, int64_t unit, const Tables<C>& tables) {
      for_each_chunk(group, unit, [&](const Group& cell, Lines lines) {
        shift(cell, lines, input, tables);
        for_each_run(cell, lines,
                     [&](Position at, int64_t length) { kernels_.add_moments(element(input, at), length, tables); });
        add_chunk(moments_of(group, unit), tables, cell.pixels(lines));
      });
    };
    const auto finish = [&](int64_t group) {
      double* total = moments_of(group, 0);
      for (int64_t unit = 1; unit < units_; ++unit) {
        const double* other = moments_of(group, unit);
        combine(
            total, other[0], [&](int64_t c) { return other[1 + c]; },
            [&](int64_t c) { return other[1 + width_ + c]; });
      }
      for (int64_t c = 0; c < width_; ++c) {
        mean_[group * width_ + c] = static_cast<C>(total[1 + c]);
        var_[group * width_ + c] = static_cast<C>(total[1 + width_ + c] / (total[0] - 1));
      }
    };
    in_parallel(sum, finish, normalise);
  }

  void backward(Image grad_output, Image input, Image grad_input, C* grad_weight, C* grad_bias) const {
    std::vector<double> sums(groups_ * units_ * 2 * width_);
    const auto sums_of = [&](int64_t group, int64_t unit) {
      return sums.data() + (group * units_ + unit) * 2 * width_;
    };
    const auto sum = [&](int64_t group, int64_t unit, const Tables<C>& tables) {
      fill(group, tables, nullptr, nullptr);
      double* total = sums_of(group, unit);
      for_each_chunk(group, unit, [&](const Group& cell, Lines lines) {
        std::fill_n(tables.sum, period_, C(0));
        std::fill_n(tables.product, period_, C(0));
        for_each_run(cell, lines, [&](Position at, int64_t length) {
          kernels_.add_gradients(element(grad_output, at), element(input, at), length, tables);
        });
        for (int64_t c = 0; c < width_; ++c) {
          total[c] += over_period(tables.sum, c);
          total[width_ + c] += over_period(tables.product, c);
        }
      });
    };
    const auto finish = [&](int64_t group) {
      double* total = sums_of(group, 0);
      for (int64_t unit = 1; unit < units_; ++unit) {
        for (int64_t c = 0; c < 2 * width_; ++c) total[c] += sums_of(group, unit)[c];
      }
      for (int64_t c = 0; c < width_; ++c) {
        grad_bias[group * width_ + c] = static_cast<C>(total[c]);
        grad_weight[group * width_ + c] = static_cast<C>(total[width_ + c] * inverse_deviation(group, c));
      }
    };
    const auto gradient = [&](int64_t group, int64_t unit, const Tables<C>& tables) {
      if (grad_input.data == nullptr) return;
      fill(group, tables, grad_weight, grad_bias);
      for_each_run(group, unit, [&](Position at, int64_t length) {
        kernels_.gradient(element(grad_output, at), element(input, at), length, tables, element(grad_input, at));
      });
    };
    in_parallel(sum, finish, gradient);
  }

 private:
  static constexpr int64_t VECTORS = 8;  // in a period, at least: sums of neighbours do not wait for each other
  static constexpr int64_t GROUPS = 16, UNITS = 64;

  struct Position {
    int64_t n, c, y, x;
  };
  // Lines are counted through all images of the batch.
  struct Lines {
    int64_t begin, end;
  };
  struct Group {
    int64_t channel, y0, y1, x0, x1, rows_per_line, lines_per_image;

    int64_t rows() const { return y1 - y0; }
    int64_t columns() const { return x1 - x0; }
    int64_t row_of(int64_t line) const { return y0 + line % lines_per_image * rows_per_line; }
    int64_t rows_of(int64_t line) const { return std::min(rows_per_line, y1 - row_of(line)); }
    int64_t pixels(Lines lines) const {
      int64_t sum = 0;
      for (int64_t line = lines.begin; line < lines.end; ++line) sum += rows_of(line) * columns();
      return sum;
    }
  };

  // Runs first(group, unit, tables) and second(...) on all units, with finish(group) between them.
  template <typename First, typename Finish, typename Second>
  void in_parallel(const First& first, const Finish& finish, const Second& second) const {
    if (units_ == 1) {
      // The second pass finds a group in the cache.
      return parallel_(groups_, [&](int64_t begin, int64_t end) {
        const Workspace<C> workspace(period_);
        for (int64_t group = begin; group < end; ++group) {
          first(group, 0, workspace.tables());
          finish(group);
          second(group, 0, workspace.tables());
        }
      });
    }
    in_parallel(first);
    for (int64_t group = 0; group < groups_; ++group) finish(group);
    in_parallel(second);
  }

  // Backwards, since a first pass leaves in the cache what it read last.
  template <typename Pass>
  void in_parallel(const Pass& pass) const {
    parallel_(groups_ * units_, [&](int64_t begin, int64_t end) {
      const Workspace<C> workspace(period_);
      for (int64_t place = end - 1; place >= begin; --place) pass(place / units_, place % units_, workspace.tables());
    });
  }

  Group group_at(int64_t group) const {
    const int64_t per_cell = op_.channels / width_, cell = group / per_cell;
    const int64_t i = cell / op_.grid_w, j = cell % op_.grid_w;
    const int64_t y0 = i * op_.height / op_.grid_h, y1 = (i + 1) * op_.height / op_.grid_h;
    return {group % per_cell,
            y0,
            y1,
            j * op_.width / op_.grid_w,
            (j + 1) * op_.width / op_.grid_w,
            rows_per_line_,
            (y1 - y0 + rows_per_line_ - 1) / rows_per_line_};
  }

  int64_t values(int64_t group) const {
    const Group cell = group_at(group);
    return op_.batch * cell.rows() * cell.columns();
  }

  // Runs body(group, lines) on each chunk of a unit.
  template <typename Body>
  void for_each_chunk(int64_t group, int64_t unit, const Body& body) const {
    const Group cell = group_at(group);
    const int64_t lines = op_.batch * cell.lines_per_image;
    const int64_t step = std::max<int64_t>(chunk_pixels_ / (rows_per_line_ * cell.columns()), 1);
    const int64_t chunks = (lines + step - 1) / step;
    for (int64_t chunk = unit * chunks / units_; chunk < (unit + 1) * chunks / units_; ++chunk) {
      body(cell, Lines{chunk * step, std::min((chunk + 1) * step, lines)});
    }
  }

  // Runs body(position, elements) on each run of memory.
  template <typename Body>
  void for_each_run(const Group& cell, Lines lines, const Body& body) const {
    for (int64_t line = lines.begin; line < lines.end; ++line) {
      Position at{line / cell.lines_per_image, cell.channel, cell.row_of(line), cell.x0};
      if (joins_pixels_) {
        body(at, cell.rows_of(line) * cell.columns() * width_);
      } else {
        for (; at.x < cell.x1; ++at.x) body(at, width_);
      }
    }
  }
  template <typename Body>
  void for_each_run(int64_t group, int64_t unit, const Body& body) const {
    for_each_chunk(group, unit, [&](const Group& cell, Lines lines) { for_each_run(cell, lines, body); });
  }

  static T* element(const Image& image, Position at) {
    return static_cast<T*>(image.data) + at.n * image.stride.n + at.c * image.stride.c + at.y * image.stride.y +
           at.x * image.stride.x;
  }

  double inverse_deviation(int64_t group, int64_t c) const {
    return 1 / std::sqrt(op_.biased(var_[group * width_ + c], values(group)) + op_.eps);
  }

  // Tables of a group; slope and offset where the sums of gradients are given.
  void fill(int64_t group, const Tables<C>& tables, const C* grad_weight, const C* grad_bias) const {
    const double count = static_cast<double>(values(group));
    for (int64_t c = 0; c < width_; ++c) {
      const int64_t k = group * width_ + c;
      const double r = inverse_deviation(group, c), scale = weight_ == nullptr ? r : r * weight_[k];
      tables.mean[c] = mean_[k];
      tables.scale[c] = static_cast<C>(scale);
      tables.bias[c] = bias_ == nullptr ? C(0) : bias_[k];
      const bool through_statistics = grad_weight != nullptr && op_.training;
      tables.slope[c] = through_statistics ? static_cast<C>(scale * r * grad_weight[k] / count) : C(0);
      tables.offset[c] = through_statistics ? static_cast<C>(scale * grad_bias[k] / count) : C(0);
    }
    for (C* table : {tables.mean, tables.scale, tables.bias, tables.slope, tables.offset}) repeat(table);
  }

  void repeat(C* table) const {
    for (int64_t k = width_; k < period_; ++k) table[k] = table[k - width_];
  }

  double over_period(const C* table, int64_t c) const {
    double sum = 0;
    for (int64_t k = c; k < period_; k += width_) sum += table[k];
    return sum;
  }

  // Starts a chunk's sums, about the mean of its first pixels: of (x - shift)^2 cancellation then loses next to
  // nothing, and at worst pixels / SHIFT_PIXELS roundoffs, however far from zero the mean is.
  void shift(const Group& cell, Lines lines, Image input, const Tables<C>& tables) const {
    constexpr int64_t SHIFT_PIXELS = 16;
    const int64_t pixels = std::min(SHIFT_PIXELS, cell.columns());
    const Position at{lines.begin / cell.lines_per_image, cell.channel, cell.row_of(lines.begin), cell.x0};
    std::fill_n(tables.mean, width_, C(0));
    for (int64_t x = 0; x < pixels; ++x) {
      const T* from = element(input, at) + x * input.stride.x;
      for (int64_t c = 0; c < width_; ++c) tables.mean[c] += widen(from[c]);
    }
    for (int64_t c = 0; c < width_; ++c) tables.mean[c] /= static_cast<C>(pixels);
    repeat(tables.mean);
    std::fill_n(tables.sum, period_, C(0));
    std::fill_n(tables.product, period_, C(0));
  }

  void add_chunk(double* total, const Tables<C>& tables, int64_t pixels) const {
    const double count = static_cast<double>(pixels);
    combine(
        total, count, [&](int64_t c) { return tables.mean[c] + over_period(tables.sum, c) / count; },
        [&](int64_t c) {
          const double sum = over_period(tables.sum, c);
          return std::max(over_period(tables.product, c) - sum * sum / count, 0.0);
        });
  }

  // Chan, Golub and LeVeque (1979), eq. 2.1: total, a count with means and summed squares about them, and another.
  template <typename Means, typename Squares>
  void combine(double* total, double count, const Means& means, const Squares& squares) const {
    if (count == 0) return;
    const double share = count / (total[0] + count), weight = total[0] * share;
    total[0] += count;
    for (int64_t c = 0; c < width_; ++c) {
      double &mean = total[1 + c], &square = total[1 + width_ + c];
      const double delta = means(c) - mean;
      mean += delta * share;
      square += squares(c) + delta * delta * weight;
    }
  }

  const RegionBatchNorm& op_;
  const C *weight_, *bias_;
  C *mean_, *var_;
  const Parallel& parallel_;
  const Kernels<T> kernels_;
  int64_t width_;           // channels of a group
  int64_t groups_, units_;  // units of a group
  int64_t period_;          // of the tables
  bool joins_pixels_;       // into one run
  int64_t rows_per_line_;   // more than one where rows lie side by side too
  int64_t chunk_pixels_;    // about as many
};

}  // namespace

void region_batch_norm_forward_cpu(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                                   Image input, Image output, const Parallel& parallel) {
  dispatch(op.scalar, [&](auto zero) {
    RegionBatchNormCpu<decltype(zero)>(op, parameters, {input, output}, parallel).forward(input, output);
  });
}

void region_batch_norm_backward_cpu(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                                    Image grad_output, Image input, Image grad_input, void* grad_weight,
                                    void* grad_bias, const Parallel& parallel) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    RegionBatchNormCpu<T>(op, parameters, {grad_output, input, grad_input}, parallel)
        .backward(grad_output, input, grad_input, static_cast<C*>(grad_weight), static_cast<C*>(grad_bias));
  });
}

}  // namespace jaa_ext
