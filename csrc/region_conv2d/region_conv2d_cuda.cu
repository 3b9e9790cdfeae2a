// Plain kernels, one thread an element, that run on every GPU: no shared memory, no atomics.
#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "region_conv2d.h"

namespace jaa_ext {
namespace {

struct Position {
  int64_t n, c, y, x;
};

// Position of an element, counted so that neighbouring threads touch neighbouring memory.
__device__ Position position(int64_t element, int64_t channels, int64_t height, int64_t width, bool channels_last) {
  Position at;
  if (channels_last) {
    at.c = element % channels;
    element /= channels;
  }
  at.x = element % width;
  element /= width;
  at.y = element % height;
  element /= height;
  if (!channels_last) {
    at.c = element % channels;
    element /= channels;
  }
  at.n = element;
  return at;
}

// The cell that a row or column lies in: the inverse of floor(cell * size / cells).
__device__ int64_t cell_of(int64_t place, int64_t size, int64_t cells) { return ((place + 1) * cells - 1) / size; }

struct Rect {
  int64_t y0, y1, x0, x1;

  __device__ bool contains(int64_t y, int64_t x) const { return y >= y0 && y < y1 && x >= x0 && x < x1; }
};

__device__ Rect cell_rect(const RegionConv2d& op, int64_t i, int64_t j) {
  return {i * op.height / op.grid_h, (i + 1) * op.height / op.grid_h, j * op.width / op.grid_w,
          (j + 1) * op.width / op.grid_w};
}

__device__ Rect readable(const RegionConv2d& op, int64_t i, int64_t j) {
  return op.image_border ? Rect{0, op.height, 0, op.width} : cell_rect(op, i, j);
}

template <typename T>
__device__ T* at(const Image& image, int64_t n, int64_t c, int64_t y, int64_t x) {
  return static_cast<T*>(image.data) + n * image.stride.n + c * image.stride.c + y * image.stride.y +
         x * image.stride.x;
}

__device__ int64_t first_element() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ int64_t element_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

template <typename T>
__global__ void forward_kernel(RegionConv2d op, Image input, const T* weight, const T* bias, Image output) {
  using C = typename Compute<T>::type;
  const int64_t elements = op.batch * op.out_channels * op.height * op.width;
  for (int64_t element = first_element(); element < elements; element += element_step()) {
    const Position out = position(element, op.out_channels, op.height, op.width, output.stride.c == 1);
    const int64_t i = cell_of(out.y, op.height, op.grid_h), j = cell_of(out.x, op.width, op.grid_w);
    const int64_t filter = (i * op.grid_w + j) * op.out_channels + out.c, taps = op.kernel_h * op.kernel_w;
    const Rect clip = readable(op, i, j);
    C sum = bias == nullptr ? C(0) : widen(bias[filter]);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t y = out.y + tap / op.kernel_w - op.kernel_h / 2, x = out.x + tap % op.kernel_w - op.kernel_w / 2;
      if (!clip.contains(y, x)) continue;
      const T* w = weight + filter * op.in_channels * taps + tap;
      const T* in = at<T>(input, out.n, 0, y, x);
      for (int64_t c = 0; c < op.in_channels; ++c) sum += widen(in[c * input.stride.c]) * widen(w[c * taps]);
    }
    *at<T>(output, out.n, out.c, out.y, out.x) = narrow<T>(sum);
  }
}

template <typename T>
__global__ void backward_input_kernel(RegionConv2d op, Image grad_output, const T* weight, Image grad_input) {
  using C = typename Compute<T>::type;
  const int64_t elements = op.batch * op.in_channels * op.height * op.width;
  for (int64_t element = first_element(); element < elements; element += element_step()) {
    const Position in = position(element, op.in_channels, op.height, op.width, grad_input.stride.c == 1);
    const int64_t taps = op.kernel_h * op.kernel_w;
    C sum = 0;
    for (int64_t tap = 0; tap < taps; ++tap) {
      // The output that reads this input at this tap; its cell's weights count.
      const int64_t y = in.y + op.kernel_h / 2 - tap / op.kernel_w, x = in.x + op.kernel_w / 2 - tap % op.kernel_w;
      if (y < 0 || y >= op.height || x < 0 || x >= op.width) continue;
      const int64_t i = cell_of(y, op.height, op.grid_h), j = cell_of(x, op.width, op.grid_w);
      if (!readable(op, i, j).contains(in.y, in.x)) continue;
      const T* w = weight + ((i * op.grid_w + j) * op.out_channels * op.in_channels + in.c) * taps + tap;
      const T* grad = at<T>(grad_output, in.n, 0, y, x);
      for (int64_t o = 0; o < op.out_channels; ++o) {
        sum += widen(grad[o * grad_output.stride.c]) * widen(w[o * op.in_channels * taps]);
      }
    }
    *at<T>(grad_input, in.n, in.c, in.y, in.x) = narrow<T>(sum);
  }
}

// One thread sums one weight's gradient, or one bias's, over one chunk of the batch.
template <typename T>
__global__ void backward_weight_kernel(RegionConv2d op, Image grad_output, Image input,
                                       typename Compute<T>::type* partial, int64_t chunks) {
  using C = typename Compute<T>::type;
  const int64_t per_cell = op.cell_weights() + op.out_channels, taps = op.kernel_h * op.kernel_w;
  const int64_t elements = chunks * op.cells() * per_cell;
  for (int64_t element = first_element(); element < elements; element += element_step()) {
    const int64_t k = element % per_cell, cell = element / per_cell % op.cells();
    const int64_t chunk = element / (per_cell * op.cells());
    const bool is_bias = k >= op.cell_weights();
    const int64_t o = is_bias ? k - op.cell_weights() : k / (op.in_channels * taps);
    const int64_t c = is_bias ? 0 : k / taps % op.in_channels, tap = k % taps;
    const int64_t shift_y = tap / op.kernel_w - op.kernel_h / 2, shift_x = tap % op.kernel_w - op.kernel_w / 2;
    const Rect area = cell_rect(op, cell / op.grid_w, cell % op.grid_w);
    const Rect clip = readable(op, cell / op.grid_w, cell % op.grid_w);
    C sum = 0;
    for (int64_t n = chunk * op.batch / chunks; n < (chunk + 1) * op.batch / chunks; ++n) {
      for (int64_t y = area.y0; y < area.y1; ++y) {
        for (int64_t x = area.x0; x < area.x1; ++x) {
          const C grad = widen(*at<T>(grad_output, n, o, y, x));
          if (is_bias) {
            sum += grad;
          } else if (clip.contains(y + shift_y, x + shift_x)) {
            sum += grad * widen(*at<T>(input, n, c, y + shift_y, x + shift_x));
          }
        }
      }
    }
    partial[element] = sum;
  }
}

template <typename T>
__global__ void sum_chunks_kernel(RegionConv2d op, const typename Compute<T>::type* partial, int64_t chunks,
                                  T* grad_weight, T* grad_bias) {
  using C = typename Compute<T>::type;
  const int64_t per_cell = op.cell_weights() + op.out_channels, elements = op.cells() * per_cell;
  for (int64_t element = first_element(); element < elements; element += element_step()) {
    C sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * elements + element];
    const int64_t cell = element / per_cell, k = element % per_cell;
    if (k < op.cell_weights()) {
      if (grad_weight != nullptr) grad_weight[cell * op.cell_weights() + k] = narrow<T>(sum);
    } else if (grad_bias != nullptr) {
      grad_bias[cell * op.out_channels + k - op.cell_weights()] = narrow<T>(sum);
    }
  }
}

}  // namespace

void region_conv2d_forward_cuda(const RegionConv2d& op, Image input, const void* weight, const void* bias,
                                Image output, CudaStream stream) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    launch_elements(&forward_kernel<T>, op.batch * op.out_channels * op.height * op.width, stream, op, input,
                    static_cast<const T*>(weight), static_cast<const T*>(bias), output);
  });
}

void region_conv2d_backward_input_cuda(const RegionConv2d& op, Image grad_output, const void* weight,
                                       Image grad_input, CudaStream stream) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    launch_elements(&backward_input_kernel<T>, op.batch * op.in_channels * op.height * op.width, stream, op,
                    grad_output, static_cast<const T*>(weight), grad_input);
  });
}

void region_conv2d_backward_weight_cuda(const RegionConv2d& op, Image grad_output, Image input, void* partial,
                                        int64_t chunks, void* grad_weight, void* grad_bias, CudaStream stream) {
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    const int64_t elements = op.cells() * (op.cell_weights() + op.out_channels);
    C* sums = static_cast<C*>(partial);
    launch_elements(&backward_weight_kernel<T>, chunks * elements, stream, op, grad_output, input, sums, chunks);
    launch_elements(&sum_chunks_kernel<T>, elements, stream, op, static_cast<const C*>(sums), chunks,
                    static_cast<T*>(grad_weight), static_cast<T*>(grad_bias));
  });
}

}  // namespace jaa_ext
