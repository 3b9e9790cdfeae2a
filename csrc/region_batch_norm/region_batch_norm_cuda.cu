// Plain kernels: one block sums a channel of a cell, as a tree in shared memory; no atomics.
#include <cmath>

#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "region_batch_norm.h"

namespace jaa_ext {
namespace {

constexpr int THREADS = 256;

// A channel of a cell, and where its parameters are.
struct Cell {
  int64_t parameter, c, y0, y1, x0, x1, values;
};

__device__ Cell cell_at(const RegionBatchNorm& op, int64_t parameter) {
  const int64_t cell = parameter / op.channels, i = cell / op.grid_w, j = cell % op.grid_w;
  Cell at = {parameter,
             parameter % op.channels,
             i * op.height / op.grid_h,
             (i + 1) * op.height / op.grid_h,
             j * op.width / op.grid_w,
             (j + 1) * op.width / op.grid_w,
             0};
  at.values = op.batch * (at.y1 - at.y0) * (at.x1 - at.x0);
  return at;
}

// The cell that a row or column lies in: the inverse of floor(cell * size / cells).
__device__ int64_t cell_of(int64_t place, int64_t size, int64_t cells) { return ((place + 1) * cells - 1) / size; }

template <typename T>
__device__ T* element(const Image& image, int64_t n, int64_t c, int64_t y, int64_t x) {
  return static_cast<T*>(image.data) + n * image.stride.n + c * image.stride.c + y * image.stride.y +
         x * image.stride.x;
}

// Value `index` of a cell's channel.
template <typename T>
__device__ T* element(const Image& image, const Cell& cell, int64_t index) {
  const int64_t columns = cell.x1 - cell.x0, rows = cell.y1 - cell.y0;
  return element<T>(image, index / (rows * columns), cell.c, cell.y0 + index / columns % rows,
                    cell.x0 + index % columns);
}

// How a channel of a cell is normalised.
template <typename C>
struct Affine {
  C mean, deviation, scale, bias;  // deviation: its inverse

  __device__ Affine(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters, const Cell& cell) {
    const int64_t k = cell.parameter;
    mean = static_cast<const C*>(parameters.mean)[k];
    const double var = op.biased(static_cast<const C*>(parameters.var)[k], cell.values);
    deviation = static_cast<C>(1 / std::sqrt(var + op.eps));
    scale = parameters.weight == nullptr ? deviation : deviation * static_cast<const C*>(parameters.weight)[k];
    bias = parameters.bias == nullptr ? C(0) : static_cast<const C*>(parameters.bias)[k];
  }
  __device__ C operator()(C x) const { return (x - mean) * scale + bias; }
};

// The sum over a block's threads, in every thread.
template <typename C>
__device__ C block_sum(C value) {
  __shared__ C sums[THREADS];
  sums[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = THREADS / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  const C sum = sums[0];
  __syncthreads();  // before the next call writes
  return sum;
}

template <typename T>
__global__ void moments_kernel(RegionBatchNorm op, RegionBatchNormParameters parameters, Image input) {
  using C = typename Compute<T>::type;
  for (int64_t k = blockIdx.x; k < op.cells() * op.channels; k += gridDim.x) {
    const Cell cell = cell_at(op, k);
    // About the first value, so that a mean far from zero costs no digits.
    const C shift = widen(*element<T>(input, cell, 0));
    C sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < cell.values; i += THREADS) sum += widen(*element<T>(input, cell, i)) - shift;
    const C mean = shift + block_sum(sum) / static_cast<C>(cell.values);
    for (int64_t i = threadIdx.x; i < cell.values; i += THREADS) {
      const C d = widen(*element<T>(input, cell, i)) - mean;
      squares += d * d;
    }
    squares = block_sum(squares);
    if (threadIdx.x == 0) {
      static_cast<C*>(parameters.mean)[k] = mean;
      static_cast<C*>(parameters.var)[k] = squares / static_cast<C>(cell.values - 1);
    }
  }
}

template <typename T, typename C>
__device__ C gradient_before_relu(const RegionBatchNorm& op, const Affine<C>& affine, T grad, C x) {
  return op.relu && affine(x) <= 0 ? C(0) : widen(grad);
}

template <typename T>
__global__ void gradient_sums_kernel(RegionBatchNorm op, RegionBatchNormParameters parameters, Image grad_output,
                                     Image input, typename Compute<T>::type* grad_weight,
                                     typename Compute<T>::type* grad_bias) {
  using C = typename Compute<T>::type;
  for (int64_t k = blockIdx.x; k < op.cells() * op.channels; k += gridDim.x) {
    const Cell cell = cell_at(op, k);
    const Affine<C> affine(op, parameters, cell);
    C sum = 0, product = 0;
    for (int64_t i = threadIdx.x; i < cell.values; i += THREADS) {
      const C x = widen(*element<T>(input, cell, i));
      const C g = gradient_before_relu(op, affine, *element<T>(grad_output, cell, i), x);
      sum += g;
      product += g * (x - affine.mean);
    }
    sum = block_sum(sum);
    product = block_sum(product);
    if (threadIdx.x == 0) {
      grad_bias[k] = sum;
      grad_weight[k] = product * affine.deviation;
    }
  }
}

struct Position {
  int64_t n, c, y, x;
};

// Position of an element, counted so that neighbouring threads touch neighbouring memory.
__device__ Position position(const RegionBatchNorm& op, int64_t element, bool channels_last) {
  Position at;
  if (channels_last) {
    at.c = element % op.channels;
    element /= op.channels;
  }
  at.x = element % op.width;
  element /= op.width;
  at.y = element % op.height;
  element /= op.height;
  if (!channels_last) {
    at.c = element % op.channels;
    element /= op.channels;
  }
  at.n = element;
  return at;
}

__device__ Cell cell_around(const RegionBatchNorm& op, const Position& at) {
  const int64_t i = cell_of(at.y, op.height, op.grid_h), j = cell_of(at.x, op.width, op.grid_w);
  return cell_at(op, (i * op.grid_w + j) * op.channels + at.c);
}

template <typename T>
__device__ T* element(const Image& image, const Position& at) {
  return element<T>(image, at.n, at.c, at.y, at.x);
}

__device__ int64_t first_element() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ int64_t element_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }
JAA_EXT_INLINE int64_t elements(const RegionBatchNorm& op) { return op.batch * op.channels * op.height * op.width; }

template <typename T>
__global__ void normalise_kernel(RegionBatchNorm op, RegionBatchNormParameters parameters, Image input,
                                 Image output) {
  using C = typename Compute<T>::type;
  for (int64_t k = first_element(); k < elements(op); k += element_step()) {
    const Position at = position(op, k, output.stride.c == 1);
    const Affine<C> affine(op, parameters, cell_around(op, at));
    const C y = affine(widen(*element<T>(input, at)));
    *element<T>(output, at) = narrow<T>(op.relu && y < 0 ? C(0) : y);
  }
}

template <typename T>
__global__ void gradient_kernel(RegionBatchNorm op, RegionBatchNormParameters parameters, Image grad_output,
                                Image input, const typename Compute<T>::type* grad_weight,
                                const typename Compute<T>::type* grad_bias, Image grad_input) {
  using C = typename Compute<T>::type;
  for (int64_t k = first_element(); k < elements(op); k += element_step()) {
    const Position at = position(op, k, grad_input.stride.c == 1);
    const Cell cell = cell_around(op, at);
    const Affine<C> affine(op, parameters, cell);
    const C x = widen(*element<T>(input, at));
    C g = gradient_before_relu(op, affine, *element<T>(grad_output, at), x);
    if (op.training) {
      // What goes through the batch's mean and variance.
      const C normalised = (x - affine.mean) * affine.deviation;
      g -= (grad_bias[cell.parameter] + normalised * grad_weight[cell.parameter]) / static_cast<C>(cell.values);
    }
    *element<T>(grad_input, at) = narrow<T>(affine.scale * g);
  }
}

}  // namespace

void region_batch_norm_forward_cuda(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                                    Image input, Image output, CudaStream stream) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    if (op.training) launch(&moments_kernel<T>, op.cells() * op.channels, THREADS, stream, op, parameters, input);
    launch_elements(&normalise_kernel<T>, elements(op), stream, op, parameters, input, output);
  });
}

void region_batch_norm_backward_cuda(const RegionBatchNorm& op, const RegionBatchNormParameters& parameters,
                                     Image grad_output, Image input, Image grad_input, void* grad_weight,
                                     void* grad_bias, CudaStream stream) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    C *weight = static_cast<C*>(grad_weight), *bias = static_cast<C*>(grad_bias);
    launch(&gradient_sums_kernel<T>, op.cells() * op.channels, THREADS, stream, op, parameters, grad_output, input,
           weight, bias);
    if (grad_input.data == nullptr) return;
    launch_elements(&gradient_kernel<T>, elements(op), stream, op, parameters, grad_output, input,
                    static_cast<const C*>(weight), static_cast<const C*>(bias), grad_input);
  });
}

}  // namespace jaa_ext
