// Two passes over the data in either direction: one sums, the other one works element by element. What a block sums
// it writes down, and a small kernel in between adds that up in order: no atomics, the same bits from run to run.
#include <cmath>

#include "region_batch_norm_cuda_pieces.cuh"

namespace jaa_ext {
namespace {

// What values of a lane are summed about, so that a mean far from zero costs no digits: the median of three of its
// cell's, so that no outlier does.
template <typename T>
__device__ typename Compute<T>::type shift_of(const Piece& piece, const Image& input, int lane) {
  if (piece.places == 0) return 0;
  const RegionBatchNorm& op = piece.op;
  const T* const values = piece.lane_of<T>(
      input, piece.channels_last ? piece.first_lane + lane : edge(piece.cell_column(lane), op.width, op.grid_w));
  const auto value = [&](int place) { return widen(values[offset(input.stride, piece.place(place))]); };
  const auto a = value(0), b = value(piece.places / 2), c = value(piece.places - 1);
  const auto low = a < b ? a : b, high = a < b ? b : a;
  return c < low ? low : c > high ? high : c;
}

template <typename T, int V>
__global__ void moments_kernel(RegionBatchNorm op, Plan plan, Image input,
                               Partial<typename Compute<T>::type>* partials) {
  using C = typename Compute<T>::type;
  __shared__ C shifts[V * MOST_VECTORS];
  for_each_piece(op, plan, false, [&](const Piece& piece) {
    fill(shifts, piece, [&](int lane) { return shift_of<T>(piece, input, lane); });
    C shift[V], sum[V] = {}, squares[V] = {};
    take_own(plan, shifts, shift);
    over_places<T, V, 1>(plan, piece, {input}, [&](const Vector<T, V>* x, T*) {
      for (int v = 0; v < V; ++v) {
        const C d = widen(x->lanes[v]) - shift[v];
        sum[v] += d;
        squares[v] += d * d;
      }
    });
    write_partials<V>(plan, piece, sum, squares, [&](int lane) { return shifts[lane]; }, partials);
  });
}

// How a lane is normalised.
template <typename C>
struct Affine {
  C mean, scale, bias;

  __device__ C operator()(C x) const { return (x - mean) * scale + bias; }
};

template <typename C>
__device__ C inverse_deviation(const RegionBatchNorm& op, C var, int64_t values) {
  return 1 / std::sqrt(op.biased(var, values) + static_cast<C>(op.eps));
}

template <typename C>
__device__ Affine<C> affine_of(const RegionBatchNormParameters& parameters, const Piece& piece, int lane) {
  const int64_t k = piece.parameter(lane);
  const C deviation = inverse_deviation(piece.op, static_cast<const C*>(parameters.var)[k], piece.values(lane));
  return {static_cast<const C*>(parameters.mean)[k],
          parameters.weight == nullptr ? deviation : deviation * static_cast<const C*>(parameters.weight)[k],
          parameters.bias == nullptr ? C(0) : static_cast<const C*>(parameters.bias)[k]};
}

template <typename T, int V>
__global__ void normalise_kernel(RegionBatchNorm op, Plan plan, RegionBatchNormParameters parameters, Image input,
                                 Image output) {
  using C = typename Compute<T>::type;
  __shared__ Affine<C> affines[V * MOST_VECTORS];
  for_each_piece(op, plan, true, [&](const Piece& piece) {
    fill(affines, piece, [&](int lane) { return affine_of<C>(parameters, piece, lane); });
    Affine<C> affine[V];
    take_own(plan, affines, affine);
    over_places<T, V, 1>(plan, piece, {input, output}, [&](const Vector<T, V>* x, T* to) {
      Vector<T, V> result;
      for (int v = 0; v < V; ++v) {
        const C y = affine[v](widen(x->lanes[v]));
        result.lanes[v] = narrow<T>(op.relu && y < 0 ? C(0) : y);  // a NaN stays
      }
      *reinterpret_cast<Vector<T, V>*>(to) = result;
    });
  });
}

template <typename T, typename C>
__device__ C gradient_before_relu(const RegionBatchNorm& op, const Affine<C>& affine, T grad, C x) {
  return op.relu && affine(x) <= 0 ? C(0) : widen(grad);
}

template <typename T, int V>
__global__ void gradient_sums_kernel(RegionBatchNorm op, Plan plan, RegionBatchNormParameters parameters,
                                     Image grad_output, Image input, Partial<typename Compute<T>::type>* partials) {
  using C = typename Compute<T>::type;
  __shared__ Affine<C> affines[V * MOST_VECTORS];
  for_each_piece(op, plan, false, [&](const Piece& piece) {
    fill(affines, piece, [&](int lane) { return affine_of<C>(parameters, piece, lane); });
    Affine<C> affine[V];
    take_own(plan, affines, affine);
    C sum[V] = {}, product[V] = {};
    over_places<T, V, 2>(plan, piece, {grad_output, input}, [&](const Vector<T, V>* vectors, T*) {
      for (int v = 0; v < V; ++v) {
        const C x = widen(vectors[1].lanes[v]);
        const C g = gradient_before_relu(op, affine[v], vectors[0].lanes[v], x);
        sum[v] += g;
        product[v] += g * (x - affine[v].mean);
      }
    });
    write_partials<V>(plan, piece, sum, product, [](int) { return C(0); }, partials);
  });
}

// What the gradient loses through the batch's statistics: slope * (input - mean) + offset.
template <typename C>
struct Loss {
  C slope, offset;
};

template <typename T, int V>
__global__ void gradient_kernel(RegionBatchNorm op, Plan plan, RegionBatchNormParameters parameters,
                                const typename Compute<T>::type* grad_weight,
                                const typename Compute<T>::type* grad_bias, Image grad_output, Image input,
                                Image grad_input) {
  using C = typename Compute<T>::type;
  __shared__ Affine<C> affines[V * MOST_VECTORS];
  __shared__ Loss<C> losses[V * MOST_VECTORS];
  for_each_piece(op, plan, true, [&](const Piece& piece) {
    fill(affines, piece, [&](int lane) { return affine_of<C>(parameters, piece, lane); });
    fill(losses, piece, [&](int lane) -> Loss<C> {
      if (!op.training) return {0, 0};
      const int64_t k = piece.parameter(lane), values = piece.values(lane);
      const C share = affines[lane].scale / static_cast<C>(values);
      const C deviation = inverse_deviation(op, static_cast<const C*>(parameters.var)[k], values);
      return {share * deviation * grad_weight[k], share * grad_bias[k]};
    });
    Affine<C> affine[V];
    Loss<C> loss[V];
    take_own(plan, affines, affine);
    take_own(plan, losses, loss);
    over_places<T, V, 2>(plan, piece, {grad_output, input, grad_input}, [&](const Vector<T, V>* vectors, T* to) {
      Vector<T, V> result;
      for (int v = 0; v < V; ++v) {
        const C x = widen(vectors[1].lanes[v]);
        const C g = gradient_before_relu(op, affine[v], vectors[0].lanes[v], x);
        // With running statistics nothing, also where x is infinite.
        const C lost = loss[v].slope == 0 ? C(0) : loss[v].slope * (x - affine[v].mean);
        result.lanes[v] = narrow<T>(affine[v].scale * g - (lost + loss[v].offset));
      }
      *reinterpret_cast<Vector<T, V>*>(to) = result;
    });
  });
}

template <typename C>
__global__ void merge_moments_kernel(RegionBatchNorm op, const Partial<C>* partials, int64_t slots, C* mean, C* var) {
  merge(op, partials, slots, [&](int64_t k, int64_t values, double shift, double sum, double squares) {
    const double away = sum / static_cast<double>(values);
    const double unbiased = (squares - sum * away) / static_cast<double>(values - 1);
    mean[k] = static_cast<C>(shift + away);
    var[k] = static_cast<C>(unbiased < 0 ? 0.0 : unbiased);  // a NaN stays
  });
}

template <typename C>
__global__ void merge_gradients_kernel(RegionBatchNorm op, const Partial<C>* partials, int64_t slots,
                                       RegionBatchNormParameters parameters, C* grad_weight, C* grad_bias) {
  merge(op, partials, slots, [&](int64_t k, int64_t values, double, double sum, double product) {
    const C deviation = inverse_deviation(op, static_cast<const C*>(parameters.var)[k], values);
    grad_weight[k] = static_cast<C>(product * deviation);
    grad_bias[k] = static_cast<C>(sum);
  });
}

}  // namespace

int64_t region_batch_norm_workspace_cuda(const RegionBatchNorm& given, const std::vector<Image>& images) {
  int64_t bytes = 0;
  dispatch_plan(given, images, [&](const RegionBatchNorm& op, const Plan& plan, auto zero, auto) {
    bytes = plan.slots() * op.parameters() * int64_t{sizeof(Partial<typename Compute<decltype(zero)>::type>)};
  });
  return bytes;
}

void region_batch_norm_forward_cuda(const RegionBatchNorm& given, const RegionBatchNormParameters& parameters,
                                    Image input, Image output, void* workspace, CudaStream stream) {
  dispatch_plan(given, {output, input}, [&](const RegionBatchNorm& op, const Plan& plan, auto zero, auto vector) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    constexpr int V = decltype(vector)::value;
    if (op.training) {
      auto* const partials = static_cast<Partial<C>*>(workspace);
      launch(&moments_kernel<T, V>, plan.blocks(), THREADS, stream, op, plan, input, partials);
      launch(&merge_moments_kernel<C>, ceil_div(op.parameters(), KEYS), THREADS, stream, op, partials, plan.slots(),
             static_cast<C*>(parameters.mean), static_cast<C*>(parameters.var));
    }
    launch(&normalise_kernel<T, V>, plan.blocks(), THREADS, stream, op, plan, parameters, input, output);
  });
}

void region_batch_norm_backward_cuda(const RegionBatchNorm& given, const RegionBatchNormParameters& parameters,
                                     Image grad_output, Image input, Image grad_input, void* grad_weight,
                                     void* grad_bias, void* workspace, CudaStream stream) {
  const auto run = [&](const RegionBatchNorm& op, const Plan& plan, auto zero, auto vector) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    constexpr int V = decltype(vector)::value;
    C *const weight = static_cast<C*>(grad_weight), *const bias = static_cast<C*>(grad_bias);
    auto* const partials = static_cast<Partial<C>*>(workspace);
    launch(&gradient_sums_kernel<T, V>, plan.blocks(), THREADS, stream, op, plan, parameters, grad_output, input,
           partials);
    launch(&merge_gradients_kernel<C>, ceil_div(op.parameters(), KEYS), THREADS, stream, op, partials, plan.slots(),
           parameters, weight, bias);
    if (grad_input.data == nullptr) return;
    launch(&gradient_kernel<T, V>, plan.blocks(), THREADS, stream, op, plan, parameters, weight, bias, grad_output,
           input, grad_input);
  };
  dispatch_plan(given, {grad_output, input, grad_input}, run);
}

}  // namespace jaa_ext
