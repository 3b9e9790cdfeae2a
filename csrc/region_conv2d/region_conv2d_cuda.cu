// Chooses and launches kernels: for 3x3 filters those of region_conv2d_cuda_{convolve,weight}.cuh; for other filters,
// for float64, and for half types on GPUs without matrix units for them the plain ones below, one thread for each
// element. None uses atomics.
#include <algorithm>

#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "region_conv2d.h"
#include "region_conv2d_cuda_weight.cuh"

namespace jaa_ext {
namespace {

struct Position {
  int64_t n, c, y, x;
};

// The position of an element. Elements are counted so that neighbouring threads touch neighbouring memory.
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

__device__ int64_t first_element() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ int64_t element_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

template <typename T>
__global__ void forward_kernel(RegionConv2dParams params, ImageView input, const T* weight, const T* bias,
                               ImageView output) {
  using C = typename Compute<T>::type;
  const int64_t elements = params.batch * params.out_channels * params.height * params.width;
  for (int64_t element = first_element(); element < elements; element += element_step()) {
    const Position out = position(element, params.out_channels, params.height, params.width, output.stride.c == 1);
    const int i = part_of(out.y, params.height, params.grid_h), j = part_of(out.x, params.width, params.grid_w);
    const int64_t filter = (i * params.grid_w + j) * params.out_channels + out.c,
                  taps = params.kernel_h * params.kernel_w;
    const Area clip = readable_area(params, i, j);
    C sum = bias == nullptr ? C(0) : widen(bias[filter]);
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t y = out.y + tap / params.kernel_w - params.kernel_h / 2,
                    x = out.x + tap % params.kernel_w - params.kernel_w / 2;
      if (!clip.contains(y, x)) continue;
      const T* w = weight + filter * params.in_channels * taps + tap;
      const T* in = input.at<T>(out.n, 0, y, x);
      for (int64_t c = 0; c < params.in_channels; ++c) sum += widen(in[c * input.stride.c]) * widen(w[c * taps]);
    }
    *output.at<T>(out.n, out.c, out.y, out.x) = narrow<T>(sum);
  }
}

template <typename T>
__global__ void backward_input_kernel(RegionConv2dParams params, ImageView grad_output, const T* weight,
                                      ImageView grad_input) {
  using C = typename Compute<T>::type;
  const int64_t elements = params.batch * params.in_channels * params.height * params.width;
  for (int64_t element = first_element(); element < elements; element += element_step()) {
    const Position in = position(element, params.in_channels, params.height, params.width, grad_input.stride.c == 1);
    const int64_t taps = params.kernel_h * params.kernel_w;
    C sum = 0;
    for (int64_t tap = 0; tap < taps; ++tap) {
      // (y, x) is the output that read this input at this tap, with the weights of its own cell.
      const int64_t y = in.y + params.kernel_h / 2 - tap / params.kernel_w,
                    x = in.x + params.kernel_w / 2 - tap % params.kernel_w;
      if (y < 0 || y >= params.height || x < 0 || x >= params.width) continue;
      const int i = part_of(y, params.height, params.grid_h), j = part_of(x, params.width, params.grid_w);
      if (!readable_area(params, i, j).contains(in.y, in.x)) continue;
      const T* w = weight + ((i * params.grid_w + j) * params.out_channels * params.in_channels + in.c) * taps + tap;
      const T* grad = grad_output.at<T>(in.n, 0, y, x);
      for (int64_t o = 0; o < params.out_channels; ++o) {
        sum += widen(grad[o * grad_output.stride.c]) * widen(w[o * params.in_channels * taps]);
      }
    }
    *grad_input.at<T>(in.n, in.c, in.y, in.x) = narrow<T>(sum);
  }
}

// One thread sums the gradient of one weight, or of one bias, over one chunk of the batch.
template <typename T>
__global__ void backward_weight_kernel(RegionConv2dParams params, ImageView grad_output, ImageView input,
                                       typename Compute<T>::type* partial, int64_t chunks) {
  using C = typename Compute<T>::type;
  const int64_t per_cell = params.cell_weights() + params.out_channels, taps = params.kernel_h * params.kernel_w;
  const int64_t elements = chunks * params.cells() * per_cell;
  for (int64_t element = first_element(); element < elements; element += element_step()) {
    const int64_t k = element % per_cell, cell = element / per_cell % params.cells();
    const int64_t chunk = element / (per_cell * params.cells());
    const bool is_bias = k >= params.cell_weights();
    const int64_t o = is_bias ? k - params.cell_weights() : k / (params.in_channels * taps);
    const int64_t c = is_bias ? 0 : k / taps % params.in_channels, tap = k % taps;
    const int64_t shift_y = tap / params.kernel_w - params.kernel_h / 2,
                  shift_x = tap % params.kernel_w - params.kernel_w / 2;
    const int i = static_cast<int>(cell / params.grid_w), j = static_cast<int>(cell % params.grid_w);
    const Area area = cell_area(params, i, j);
    const Area clip = readable_area(params, i, j);
    C sum = 0;
    for (int64_t n = part_begin(chunk, params.batch, chunks); n < part_begin(chunk + 1, params.batch, chunks); ++n) {
      for (int64_t y = area.y0; y < area.y1; ++y) {
        for (int64_t x = area.x0; x < area.x1; ++x) {
          const C grad = widen(*grad_output.at<T>(n, o, y, x));
          if (is_bias) {
            sum += grad;
          } else if (clip.contains(y + shift_y, x + shift_x)) {
            sum += grad * widen(*input.at<T>(n, c, y + shift_y, x + shift_x));
          }
        }
      }
    }
    partial[element] = sum;
  }
}

template <typename T>
__global__ void sum_chunks_kernel(RegionConv2dParams params, const typename Compute<T>::type* partial, int64_t chunks,
                                  T* grad_weight, T* grad_bias) {
  using C = typename Compute<T>::type;
  const int64_t per_cell = params.cell_weights() + params.out_channels, elements = params.cells() * per_cell;
  for (int64_t element = first_element(); element < elements; element += element_step()) {
    C sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * elements + element];
    const int64_t cell = element / per_cell, k = element % per_cell;
    if (k < params.cell_weights()) {
      if (grad_weight != nullptr) grad_weight[cell * params.cell_weights() + k] = narrow<T>(sum);
    } else if (grad_bias != nullptr) {
      grad_bias[cell * params.out_channels + k - params.cell_weights()] = narrow<T>(sum);
    }
  }
}

enum class Arithmetic { plain, exact, matrix_units };

Arithmetic arithmetic(const RegionConv2dParams& params) {
  if (params.kernel_h != 3 || params.kernel_w != 3 || params.scalar_type == ScalarType::f64) return Arithmetic::plain;
  const bool matrices = compute_capability() >= matrices_from(params.scalar_type);
  if (params.scalar_type == ScalarType::f32)
    return params.tf32 && matrices ? Arithmetic::matrix_units : Arithmetic::exact;
  return matrices ? Arithmetic::matrix_units : Arithmetic::plain;
}

// Calls body with a value whose type is the arithmetic for this many output channels. Returns false, without a call,
// where the plain kernels are to run.
template <typename Body>
bool with_arithmetic(const RegionConv2dParams& params, int64_t out_channels, const Body& body) {
  const Arithmetic chosen = arithmetic(params);
  if (chosen == Arithmetic::plain) return false;
  const auto with_blocks = [&](auto blocks) {
    constexpr int N = decltype(blocks)::value;
    if (chosen == Arithmetic::exact) return body(Exact<N>{});
    switch (params.scalar_type) {
      case ScalarType::bf16:
        return body(MatrixUnits<BFloat16, N>{});
      case ScalarType::f16:
        return body(MatrixUnits<Half, N>{});
      default:
        return body(MatrixUnits<float, N>{});
    }
  };
  out_channels <= 8 ? with_blocks(std::integral_constant<int, 1>{}) : with_blocks(std::integral_constant<int, 2>{});
  return true;
}

Tiling tiling_of(const RegionConv2dParams& params, int most_rows) {
  const int64_t widest = widest_cell(params), tallest = tallest_cell(params);
  Tiling tiling;
  tiling.strips = static_cast<int>(ceil_div(widest, MOST_POSITIONS));
  tiling.columns = static_cast<int>(ceil_div(widest, tiling.strips));
  tiling.images =
      static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(params.batch, MOST_POSITIONS / tiling.columns)));
  tiling.bands = static_cast<int>(ceil_div(tallest, most_rows));
  tiling.rows = static_cast<int>(ceil_div(tallest, tiling.bands));
  tiling.warps = static_cast<int>(ceil_div(tiling.images * tiling.columns, WARP_POSITIONS));
  tiling.batches = ceil_div(params.batch, tiling.images);
  return tiling;
}

// Whether the channels of every pixel can be read in aligned vectors of `bytes` bytes.
bool aligned(const ImageView& image, int64_t channels, int64_t element_bytes, int64_t bytes) {
  const int64_t per_vector = bytes / element_bytes;
  const auto whole = [&](int64_t stride) { return stride % per_vector == 0; };
  return image.stride.c == 1 && whole(channels) && whole(image.stride.n) && whole(image.stride.y) &&
         whole(image.stride.x) && reinterpret_cast<uintptr_t>(image.data) % bytes == 0;
}

template <typename Math>
int64_t packed_bytes(const RegionConv2dParams& params, bool transposed) {
  const int64_t ins = transposed ? params.out_channels : params.in_channels;
  const int64_t outs = transposed ? params.in_channels : params.out_channels;
  constexpr int OUT = 8 * Math::BLOCKS;
  return params.cells() * ceil_div(outs, OUT) * OUT * ceil_div(ins, Math::STEP) * Math::STEP * 9 *
         static_cast<int64_t>(sizeof(typename Math::Element));
}

// Launches the forward pass or, `transposed`, the gradient of the input, which is a convolution as well.
template <typename Math>
void convolve(const RegionConv2dParams& params, bool transposed, ImageView source, const void* weight,
              const void* bias, ImageView target, const Allocate& allocate, CudaStream stream) {
  using T = typename Math::Element;
  constexpr int OUT = 8 * Math::BLOCKS, SIZE = sizeof(T);
  const int64_t packed_size = packed_bytes<Math>(params, transposed);
  T* const packed = static_cast<T*>(allocate(packed_size));
  launch_elements(&pack_weights_kernel<Math>, packed_size / SIZE / 9, stream, params, transposed,
                  static_cast<const T*>(weight), packed);

  ConvolutionLaunch launch;
  launch.params = params;
  if (transposed) std::swap(launch.params.in_channels, launch.params.out_channels);
  const int64_t in_channels = launch.params.in_channels, out_channels = launch.params.out_channels;
  launch.tiling = tiling_of(params, MOST_ROWS);
  launch.gathers = transposed && params.border == Border::image;
  launch.vectors = aligned(source, in_channels, SIZE, 16);
  launch.wide_stores = aligned(target, out_channels, SIZE, 2 * Math::BLOCKS * SIZE);
  const int64_t groups = ceil_div(out_channels, OUT);
  launch.groups = static_cast<int>(std::min<int64_t>(groups, Math::MOST_WARPS / launch.tiling.warps));
  launch.group_sets = ceil_div(groups, launch.groups);
  // An odd multiple of 16 bytes, so that the 8 rows of a matrix, which are positions, lie in different banks.
  launch.stride = static_cast<int>(std::min<int64_t>(CHUNK_BYTES, ceil_div(in_channels * SIZE, 32) * 32)) + 16;
  launch_shared(&convolve_kernel<Math>, params.cells() * launch.group_sets * launch.tiling.tiles(),
                launch.tiling.warps * launch.groups * WARP,
                input_window(launch.tiling, launch.tiling.rows, launch.stride).bytes(), stream, launch, source,
                static_cast<const T*>(packed), static_cast<const T*>(bias), target);
}

template <typename Math>
WeightGradientLaunch weight_gradient_of(const RegionConv2dParams& params) {
  constexpr int IN = 16, OUT = 8 * Math::BLOCKS, SIZE = sizeof(typename Math::Element);
  WeightGradientLaunch launch;
  launch.params = params;
  launch.in_groups = params.in_channels > IN ? 2 : 1;
  launch.out_groups = launch.in_groups == 1 && params.out_channels > OUT ? 2 : 1;
  launch.in_sets = ceil_div(params.in_channels, IN * launch.in_groups);
  launch.out_sets = ceil_div(params.out_channels, OUT * launch.out_groups);
  launch.stride = launch.in_groups * IN * SIZE + Math::WEIGHT_PADDING;
  launch.grad_stride = launch.out_groups * OUT * SIZE + Math::WEIGHT_PADDING;
  // As many rows as let two blocks share a multiprocessor, or one block where a multiprocessor has only 64 KB.
  const int most_bytes = (compute_capability() >= 80 ? 96 : 64) << 10;
  int rows = MOST_ROWS, windows;
  do {
    launch.tiling = tiling_of(params, rows);
    windows = launch.input(launch.tiling.rows).bytes() + launch.grad(launch.tiling.rows).bytes();
  } while (windows > most_bytes && --rows > 0);
  // At most as many blocks as the GPU runs at once: a second round of few blocks would take as long as the first.
  launch.threads = launch.tiling.warps * launch.in_groups * launch.out_groups * WARP;
  const int handed = launch.in_groups * launch.out_groups * 16 * 8 * Math::BLOCKS * 9 * 4;
  launch.shared_bytes = std::max(windows, handed);
  constexpr int REGISTERS = 1 << 16, RESERVED_BYTES = 1 << 10;  // of a multiprocessor; of a block
  const int resident = std::min(
      REGISTERS / (WEIGHT_REGISTERS * launch.threads),
      device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / (launch.shared_bytes + RESERVED_BYTES));
  const int64_t chunks = multiprocessors() * resident / (params.cells() * launch.in_sets * launch.out_sets);
  launch.chunks = std::max<int64_t>(1, std::min(chunks, launch.tiling.tiles()));
  return launch;
}

template <typename Math>
int64_t sums_bytes(const WeightGradientLaunch& launch) {
  constexpr int OUT = 8 * Math::BLOCKS;
  return launch.chunks * launch.params.cells() * (launch.pairs() * 16 * OUT * 9 + launch.biases(OUT)) * 4;
}

template <typename Math>
void weight_gradient(const RegionConv2dParams& params, ImageView grad_output, ImageView input,
                     const Allocate& allocate, void* grad_weight, void* grad_bias, CudaStream stream) {
  using T = typename Math::Element;
  constexpr int SIZE = sizeof(T);
  WeightGradientLaunch launch = weight_gradient_of<Math>(params);
  launch.vectors = aligned(input, params.in_channels, SIZE, 16);
  launch.grad_vectors = aligned(grad_output, params.out_channels, SIZE, 16);
  float* const partial = static_cast<float*>(allocate(sums_bytes<Math>(launch)));
  launch_shared(&weight_gradient_kernel<Math>, launch.chunks * params.cells() * launch.in_sets * launch.out_sets,
                launch.threads, launch.shared_bytes, stream, launch, grad_output, input, partial);
  constexpr int OUT = 8 * Math::BLOCKS;
  const int64_t filters = params.cells() * launch.pairs() * 16 * OUT, biases = params.cells() * launch.biases(OUT);
  launch_elements(&sum_weight_gradients_kernel<Math>, filters + biases, stream, launch,
                  static_cast<const float*>(partial), static_cast<T*>(grad_weight), static_cast<T*>(grad_bias));
}

// The number of chunks of the batch, each of which the plain kernels sum by itself.
int64_t plain_chunks(const RegionConv2dParams& params) {
  return std::max<int64_t>(1, std::min<int64_t>(ceil_div(256, params.cells()), params.batch));
}

}  // namespace

void region_conv2d_forward_cuda(const RegionConv2dParams& params, ImageView input, const void* weight,
                                const void* bias, ImageView output, const Allocate& allocate, CudaStream stream) {
  if (with_arithmetic(params, params.out_channels, [&](auto math) {
        convolve<decltype(math)>(params, false, input, weight, bias, output, allocate, stream);
      })) {
    return;
  }
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    launch_elements(&forward_kernel<T>, params.batch * params.out_channels * params.height * params.width, stream,
                    params, input, static_cast<const T*>(weight), static_cast<const T*>(bias), output);
  });
}

void region_conv2d_backward_input_cuda(const RegionConv2dParams& params, ImageView grad_output, const void* weight,
                                       ImageView grad_input, const Allocate& allocate, CudaStream stream) {
  if (with_arithmetic(params, params.in_channels, [&](auto math) {
        convolve<decltype(math)>(params, true, grad_output, weight, nullptr, grad_input, allocate, stream);
      })) {
    return;
  }
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    launch_elements(&backward_input_kernel<T>, params.batch * params.in_channels * params.height * params.width,
                    stream, params, grad_output, static_cast<const T*>(weight), grad_input);
  });
}

void region_conv2d_backward_weight_cuda(const RegionConv2dParams& params, ImageView grad_output, ImageView input,
                                        void* grad_weight, void* grad_bias, const Allocate& allocate,
                                        CudaStream stream) {
  if (with_arithmetic(params, params.out_channels, [&](auto math) {
        weight_gradient<decltype(math)>(params, grad_output, input, allocate, grad_weight, grad_bias, stream);
      })) {
    return;
  }
  dispatch(params.scalar_type, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    const int64_t elements = params.cells() * (params.cell_weights() + params.out_channels),
                  chunks = plain_chunks(params);
    C* sums = static_cast<C*>(allocate(chunks * elements * int64_t{sizeof(C)}));
    launch_elements(&backward_weight_kernel<T>, chunks * elements, stream, params, grad_output, input, sums, chunks);
    launch_elements(&sum_chunks_kernel<T>, elements, stream, params, static_cast<const C*>(sums), chunks,
                    static_cast<T*>(grad_weight), static_cast<T*>(grad_bias));
  });
}

}  // namespace jaa_ext
