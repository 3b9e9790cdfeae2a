// The forward and the backward pass each read the data twice: a first kernel sums, and a last one works element by
// element. Each block of the first kernel writes its partial sums, and a small kernel in between adds these in order:
// there are no atomics, and the bits are the same from run to run.
#include <cmath>

#include "region_batch_norm_cuda_tiles.cuh"

namespace jaa_ext {
namespace {

// The value about which a lane's values are summed, so that a mean far from zero costs no digits. It is the median of
// three values of the lane's cell, so that an outlier costs none either.
template <typename T>
__device__ typename Compute<T>::type shift_of(const Tile& tile, const ImageView& input, int lane) {
  if (tile.positions == 0) return 0;
  const RegionBatchNormParams& params = tile.params;
  const T* const values =
      tile.lane_of<T>(input, tile.channels_last ? tile.first_lane + lane
                                                : cell_begin(tile.cell_column(lane), params.width, params.grid_w));
  const auto value = [&](int index) { return widen(values[offset(input.stride, tile.position(index))]); };
  const auto a = value(0), b = value(tile.positions / 2), c = value(tile.positions - 1);
  const auto low = a < b ? a : b, high = a < b ? b : a;
  return c < low ? low : c > high ? high : c;
}

template <typename T, int V>
__global__ void moments_kernel(RegionBatchNormParams params, Tiling tiling, ImageView input,
                               Partial<typename Compute<T>::type>* partials) {
  using C = typename Compute<T>::type;
  __shared__ C shifts[V * MOST_VECTORS];
  for_each_tile(params, tiling, false, [&](const Tile& tile) {
    fill(shifts, tile, [&](int lane) { return shift_of<T>(tile, input, lane); });
    C shift[V], sum[V] = {}, squares[V] = {};
    take_own(tiling, shifts, shift);
    for_each_vector<T, V, 1>(tiling, tile, {input}, [&](const Vector<T, V>* x, T*) {
      for (int v = 0; v < V; ++v) {
        const C d = widen(x->lanes[v]) - shift[v];
        sum[v] += d;
        squares[v] += d * d;
      }
    });
    write_partials<V>(tiling, tile, sum, squares, [&](int lane) { return shifts[lane]; }, partials);
  });
}

// The factors by which a lane is normalised.
template <typename C>
struct Affine {
  C mean, scale, bias;

  __device__ C operator()(C x) const { return (x - mean) * scale + bias; }
};

template <typename C>
__device__ C inverse_deviation(const RegionBatchNormParams& params, C var, int64_t values) {
  return 1 / std::sqrt(params.biased(var, values) + static_cast<C>(params.eps));
}

template <typename C>
__device__ Affine<C> affine_of(const RegionBatchNormTensors& tensors, const Tile& tile, int lane) {
  const int64_t k = tile.cell_channel(lane);
  const C deviation = inverse_deviation(tile.params, static_cast<const C*>(tensors.var)[k], tile.values(lane));
  return {static_cast<const C*>(tensors.mean)[k],
          tensors.weight == nullptr ? deviation : deviation * static_cast<const C*>(tensors.weight)[k],
          tensors.bias == nullptr ? C(0) : static_cast<const C*>(tensors.bias)[k]};
}

template <typename T, int V>
__global__ void normalise_kernel(RegionBatchNormParams params, Tiling tiling, RegionBatchNormTensors tensors,
                                 ImageView input, ImageView output) {
  using C = typename Compute<T>::type;
  __shared__ Affine<C> affines[V * MOST_VECTORS];
  for_each_tile(params, tiling, true, [&](const Tile& tile) {
    fill(affines, tile, [&](int lane) { return affine_of<C>(tensors, tile, lane); });
    Affine<C> affine[V];
    take_own(tiling, affines, affine);
    for_each_vector<T, V, 1>(tiling, tile, {input, output}, [&](const Vector<T, V>* x, T* to) {
      Vector<T, V> result;
      for (int v = 0; v < V; ++v) {
        const C y = affine[v](widen(x->lanes[v]));
        result.lanes[v] = narrow<T>(params.relu && y < 0 ? C(0) : y);  // a NaN stays
      }
      *reinterpret_cast<Vector<T, V>*>(to) = result;
    });
  });
}

template <typename T, typename C>
__device__ C gradient_before_relu(const RegionBatchNormParams& params, const Affine<C>& affine, T grad, C x) {
  return params.relu && affine(x) <= 0 ? C(0) : widen(grad);
}

template <typename T, int V>
__global__ void gradient_sums_kernel(RegionBatchNormParams params, Tiling tiling, RegionBatchNormTensors tensors,
                                     ImageView grad_output, ImageView input,
                                     Partial<typename Compute<T>::type>* partials) {
  using C = typename Compute<T>::type;
  __shared__ Affine<C> affines[V * MOST_VECTORS];
  for_each_tile(params, tiling, false, [&](const Tile& tile) {
    fill(affines, tile, [&](int lane) { return affine_of<C>(tensors, tile, lane); });
    Affine<C> affine[V];
    take_own(tiling, affines, affine);
    C sum[V] = {}, product[V] = {};
    for_each_vector<T, V, 2>(tiling, tile, {grad_output, input}, [&](const Vector<T, V>* vectors, T*) {
      for (int v = 0; v < V; ++v) {
        const C x = widen(vectors[1].lanes[v]);
        const C g = gradient_before_relu(params, affine[v], vectors[0].lanes[v], x);
        sum[v] += g;
        product[v] += g * (x - affine[v].mean);
      }
    });
    write_partials<V>(tiling, tile, sum, product, [](int) { return C(0); }, partials);
  });
}

// What the gradient of the input lacks because the batch's mean and variance depend on it too:
// slope * (input - mean) + offset.
template <typename C>
struct StatisticsTerm {
  C slope, offset;
};

template <typename T, int V>
__global__ void gradient_kernel(RegionBatchNormParams params, Tiling tiling, RegionBatchNormTensors tensors,
                                const typename Compute<T>::type* grad_weight,
                                const typename Compute<T>::type* grad_bias, ImageView grad_output, ImageView input,
                                ImageView grad_input) {
  using C = typename Compute<T>::type;
  __shared__ Affine<C> affines[V * MOST_VECTORS];
  __shared__ StatisticsTerm<C> terms[V * MOST_VECTORS];
  for_each_tile(params, tiling, true, [&](const Tile& tile) {
    fill(affines, tile, [&](int lane) { return affine_of<C>(tensors, tile, lane); });
    fill(terms, tile, [&](int lane) -> StatisticsTerm<C> {
      if (!params.training) return {0, 0};
      const int64_t k = tile.cell_channel(lane), values = tile.values(lane);
      const C share = affines[lane].scale / static_cast<C>(values);
      const C deviation = inverse_deviation(params, static_cast<const C*>(tensors.var)[k], values);
      return {share * deviation * grad_weight[k], share * grad_bias[k]};
    });
    Affine<C> affine[V];
    StatisticsTerm<C> term[V];
    take_own(tiling, affines, affine);
    take_own(tiling, terms, term);
    for_each_vector<T, V, 2>(tiling, tile, {grad_output, input, grad_input}, [&](const Vector<T, V>* vectors, T* to) {
      Vector<T, V> result;
      for (int v = 0; v < V; ++v) {
        const C x = widen(vectors[1].lanes[v]);
        const C g = gradient_before_relu(params, affine[v], vectors[0].lanes[v], x);
        // With running statistics the term is 0, also where x is infinite.
        const C sloped = term[v].slope == 0 ? C(0) : term[v].slope * (x - affine[v].mean);
        result.lanes[v] = narrow<T>(affine[v].scale * g - (sloped + term[v].offset));
      }
      *reinterpret_cast<Vector<T, V>*>(to) = result;
    });
  });
}

template <typename C>
__global__ void merge_moments_kernel(RegionBatchNormParams params, const Partial<C>* partials, int64_t slots, C* mean,
                                     C* var) {
  merge(params, partials, slots, [&](int64_t k, int64_t values, double shift, double sum, double squares) {
    const double away = sum / static_cast<double>(values);
    const double unbiased = (squares - sum * away) / static_cast<double>(values - 1);
    mean[k] = static_cast<C>(shift + away);
    var[k] = static_cast<C>(unbiased < 0 ? 0.0 : unbiased);  // a NaN stays
  });
}

template <typename C>
__global__ void merge_gradients_kernel(RegionBatchNormParams params, const Partial<C>* partials, int64_t slots,
                                       RegionBatchNormTensors tensors, C* grad_weight, C* grad_bias) {
  merge(params, partials, slots, [&](int64_t k, int64_t values, double, double sum, double product) {
    const C deviation = inverse_deviation(params, static_cast<const C*>(tensors.var)[k], values);
    grad_weight[k] = static_cast<C>(product * deviation);
    grad_bias[k] = static_cast<C>(sum);
  });
}

// Memory for the partial sums of all cells and channels.
template <typename C>
Partial<C>* allocate_partials(const RegionBatchNormParams& params, const Tiling& tiling, const Allocate& allocate) {
  return static_cast<Partial<C>*>(allocate(tiling.slots() * params.cell_channels() * int64_t{sizeof(Partial<C>)}));
}

}  // namespace

void region_batch_norm_forward_cuda(const RegionBatchNormParams& given, const RegionBatchNormTensors& tensors,
                                    ImageView input, ImageView output, const Allocate& allocate, CudaStream stream) {
  dispatch_tiling(
      given, {output, input}, [&](const RegionBatchNormParams& params, const Tiling& tiling, auto zero, auto vector) {
        using T = decltype(zero);
        using C = typename Compute<T>::type;
        constexpr int V = decltype(vector)::value;
        if (params.training) {
          auto* const partials = allocate_partials<C>(params, tiling, allocate);
          launch(&moments_kernel<T, V>, tiling.tiles(), THREADS, stream, params, tiling, input, partials);
          launch(&merge_moments_kernel<C>, ceil_div(params.cell_channels(), KEYS), THREADS, stream, params, partials,
                 tiling.slots(), static_cast<C*>(tensors.mean), static_cast<C*>(tensors.var));
        }
        launch(&normalise_kernel<T, V>, tiling.tiles(), THREADS, stream, params, tiling, tensors, input, output);
      });
}

void region_batch_norm_backward_cuda(const RegionBatchNormParams& given, const RegionBatchNormTensors& tensors,
                                     ImageView grad_output, ImageView input, ImageView grad_input, void* grad_weight,
                                     void* grad_bias, const Allocate& allocate, CudaStream stream) {
  const auto run = [&](const RegionBatchNormParams& params, const Tiling& tiling, auto zero, auto vector) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    constexpr int V = decltype(vector)::value;
    C *const weight = static_cast<C*>(grad_weight), *const bias = static_cast<C*>(grad_bias);
    auto* const partials = allocate_partials<C>(params, tiling, allocate);
    launch(&gradient_sums_kernel<T, V>, tiling.tiles(), THREADS, stream, params, tiling, tensors, grad_output, input,
           partials);
    launch(&merge_gradients_kernel<C>, ceil_div(params.cell_channels(), KEYS), THREADS, stream, params, partials,
           tiling.slots(), tensors, weight, bias);
    if (grad_input.data == nullptr) return;
    launch(&gradient_kernel<T, V>, tiling.tiles(), THREADS, stream, params, tiling, tensors, weight, bias,
           grad_output, input, grad_input);
  };
  dispatch_tiling(given, {grad_output, input, grad_input}, run);
}

}  // namespace jaa_ext
