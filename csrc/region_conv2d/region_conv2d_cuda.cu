// Launches: the kernels of region_conv2d_cuda_{convolve,weight}.cuh for 3x3 filters; plain ones, a thread an element,
// for other filters, float64, and bfloat16 on GPUs without matrix units for it. Nowhere atomics.
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
    const int i = part_of(out.y, op.height, op.grid_h), j = part_of(out.x, op.width, op.grid_w);
    const int64_t filter = (i * op.grid_w + j) * op.out_channels + out.c, taps = op.kernel_h * op.kernel_w;
    const Area clip = readable_area(op, i, j);
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
      const int i = part_of(y, op.height, op.grid_h), j = part_of(x, op.width, op.grid_w);
      if (!readable_area(op, i, j).contains(in.y, in.x)) continue;
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
    const int i = static_cast<int>(cell / op.grid_w), j = static_cast<int>(cell % op.grid_w);
    const Area area = cell_area(op, i, j);
    const Area clip = readable_area(op, i, j);
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

enum class Arithmetic { plain, exact, matrix_units };

Arithmetic arithmetic(const RegionConv2d& op) {
  if (op.kernel_h != 3 || op.kernel_w != 3 || op.scalar == Scalar::f64) return Arithmetic::plain;
  const bool matrices = compute_capability() >= matrices_from(op.scalar);
  if (op.scalar == Scalar::f32) return op.tf32 && matrices ? Arithmetic::matrix_units : Arithmetic::exact;
  return matrices ? Arithmetic::matrix_units : Arithmetic::plain;
}

// Calls body with a value of the arithmetic that is for this many output channels; false: it takes the plain kernels.
template <typename Body>
bool with_arithmetic(const RegionConv2d& op, int64_t out_channels, const Body& body) {
  const Arithmetic chosen = arithmetic(op);
  if (chosen == Arithmetic::plain) return false;
  const auto with_blocks = [&](auto blocks) {
    constexpr int N = decltype(blocks)::value;
    if (chosen == Arithmetic::exact) return body(Exact<N>{});
    switch (op.scalar) {
      case Scalar::bf16:
        return body(MatrixUnits<BFloat16, N>{});
      case Scalar::f16:
        return body(MatrixUnits<Half, N>{});
      default:
        return body(MatrixUnits<float, N>{});
    }
  };
  out_channels <= 8 ? with_blocks(std::integral_constant<int, 1>{}) : with_blocks(std::integral_constant<int, 2>{});
  return true;
}

Tiling tiling_of(const RegionConv2d& op, int most_rows) {
  const int64_t widest = ceil_div(op.width, op.grid_w), tallest = ceil_div(op.height, op.grid_h);
  Tiling tiling;
  tiling.strips = static_cast<int>(ceil_div(widest, MOST_POSITIONS));
  tiling.columns = static_cast<int>(ceil_div(widest, tiling.strips));
  tiling.images =
      static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(op.batch, MOST_POSITIONS / tiling.columns)));
  tiling.bands = static_cast<int>(ceil_div(tallest, most_rows));
  tiling.rows = static_cast<int>(ceil_div(tallest, tiling.bands));
  tiling.warps = static_cast<int>(ceil_div(tiling.images * tiling.columns, TILE));
  tiling.batches = ceil_div(op.batch, tiling.images);
  return tiling;
}

// Whether `bytes` neighbouring bytes of channels are aligned everywhere.
bool aligned(const Image& image, int64_t channels, int64_t element_bytes, int64_t bytes) {
  const int64_t per_vector = bytes / element_bytes;
  const auto whole = [&](int64_t stride) { return stride % per_vector == 0; };
  return image.stride.c == 1 && whole(channels) && whole(image.stride.n) && whole(image.stride.y) &&
         whole(image.stride.x) && reinterpret_cast<uintptr_t>(image.data) % bytes == 0;
}

template <typename Math>
int64_t packed_bytes(const RegionConv2d& op, bool transposed) {
  const int64_t ins = transposed ? op.out_channels : op.in_channels;
  const int64_t outs = transposed ? op.in_channels : op.out_channels;
  constexpr int OUT = 8 * Math::BLOCKS;
  return op.cells() * ceil_div(outs, OUT) * OUT * ceil_div(ins, Math::STEP) * Math::STEP * 9 *
         static_cast<int64_t>(sizeof(typename Math::Element));
}

// The forward pass or, `transposed`, the gradient of the input, which is a convolution of the output's.
template <typename Math>
void convolve(const RegionConv2d& op, bool transposed, Image source, const void* weight, const void* bias,
              Image target, void* workspace, CudaStream stream) {
  using T = typename Math::Element;
  constexpr int OUT = 8 * Math::BLOCKS, SIZE = sizeof(T);
  T* const packed = static_cast<T*>(workspace);
  launch_elements(&pack_weights_kernel<Math>, packed_bytes<Math>(op, transposed) / SIZE / 9, stream, op, transposed,
                  static_cast<const T*>(weight), packed);

  Convolution launch;
  launch.op = op;
  if (transposed) std::swap(launch.op.in_channels, launch.op.out_channels);
  const int64_t in_channels = launch.op.in_channels, out_channels = launch.op.out_channels;
  launch.tiling = tiling_of(op, MOST_ROWS);
  launch.gathers = transposed && op.image_border;
  launch.vectors = aligned(source, in_channels, SIZE, 16);
  launch.wide_stores = aligned(target, out_channels, SIZE, 2 * Math::BLOCKS * SIZE);
  const int64_t groups = ceil_div(out_channels, OUT);
  launch.groups = static_cast<int>(std::min<int64_t>(groups, Math::MOST_WARPS / launch.tiling.warps));
  launch.group_sets = ceil_div(groups, launch.groups);
  // An odd number of 16 bytes: rows of matrices, 8 positions, then lie in different banks.
  launch.stride = static_cast<int>(std::min<int64_t>(CHUNK_BYTES, ceil_div(in_channels * SIZE, 32) * 32)) + 16;
  launch_shared(&convolve_kernel<Math>, op.cells() * launch.group_sets * launch.tiling.tiles(),
                launch.tiling.warps * launch.groups * WARP,
                input_window(launch.tiling, launch.tiling.rows, launch.stride).bytes(), stream, launch, source,
                static_cast<const T*>(packed), static_cast<const T*>(bias), target);
}

template <typename Math>
WeightGradient weight_gradient_of(const RegionConv2d& op) {
  constexpr int IN = 16, OUT = 8 * Math::BLOCKS, SIZE = sizeof(typename Math::Element);
  WeightGradient launch;
  launch.op = op;
  launch.in_tiles = op.in_channels > IN ? 2 : 1;
  launch.out_tiles = launch.in_tiles == 1 && op.out_channels > OUT ? 2 : 1;
  launch.in_sets = ceil_div(op.in_channels, IN * launch.in_tiles);
  launch.out_sets = ceil_div(op.out_channels, OUT * launch.out_tiles);
  launch.stride = launch.in_tiles * IN * SIZE + Math::WEIGHT_PADDING;
  launch.grad_stride = launch.out_tiles * OUT * SIZE + Math::WEIGHT_PADDING;
  // As many rows as let two blocks share a multiprocessor, or one where that has only 64 KB.
  const int most_bytes = (compute_capability() >= 80 ? 96 : 64) << 10;
  int rows = MOST_ROWS;
  do {
    launch.tiling = tiling_of(op, rows);
  } while (launch.input(launch.tiling.rows).bytes() + launch.grad(launch.tiling.rows).bytes() > most_bytes &&
           --rows > 0);
  // One block in each place for one, or a little less: a second round would leave most of them empty.
  launch.threads = launch.tiling.warps * launch.in_tiles * launch.out_tiles * WARP;
  const int windows = launch.input(launch.tiling.rows).bytes() + launch.grad(launch.tiling.rows).bytes();
  const int handed = launch.in_tiles * launch.out_tiles * 16 * 8 * Math::BLOCKS * 9 * 4;
  launch.shared_bytes = std::max(windows, handed);
  constexpr int REGISTERS = 1 << 16, RESERVED_BYTES = 1 << 10;  // of a multiprocessor; of a block
  const int places = std::min(
      REGISTERS / (WEIGHT_REGISTERS * launch.threads),
      device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / (launch.shared_bytes + RESERVED_BYTES));
  const int64_t chunks = multiprocessors() * places / (op.cells() * launch.in_sets * launch.out_sets);
  launch.chunks = std::max<int64_t>(1, std::min(chunks, launch.tiling.tiles()));
  return launch;
}

template <typename Math>
int64_t sums_bytes(const WeightGradient& launch) {
  constexpr int OUT = 8 * Math::BLOCKS;
  return launch.chunks * launch.op.cells() * (launch.pairs() * 16 * OUT * 9 + launch.biases(OUT)) * 4;
}

template <typename Math>
void weight_gradient(const RegionConv2d& op, Image grad_output, Image input, void* workspace, void* grad_weight,
                     void* grad_bias, CudaStream stream) {
  using T = typename Math::Element;
  constexpr int SIZE = sizeof(T);
  WeightGradient launch = weight_gradient_of<Math>(op);
  launch.vectors = aligned(input, op.in_channels, SIZE, 16);
  launch.grad_vectors = aligned(grad_output, op.out_channels, SIZE, 16);
  float* const partial = static_cast<float*>(workspace);
  launch_shared(&weight_gradient_kernel<Math>, launch.chunks * op.cells() * launch.in_sets * launch.out_sets,
                launch.threads, launch.shared_bytes, stream, launch, grad_output, input, partial);
  constexpr int OUT = 8 * Math::BLOCKS;
  const int64_t filters = op.cells() * launch.pairs() * 16 * OUT, biases = op.cells() * launch.biases(OUT);
  launch_elements(&sum_weight_gradients_kernel<Math>, filters + biases, stream, launch,
                  static_cast<const float*>(partial), static_cast<T*>(grad_weight), static_cast<T*>(grad_bias));
}

// Chunks of the batch that the plain kernels sum apart.
int64_t plain_chunks(const RegionConv2d& op) {
  return std::max<int64_t>(1, std::min<int64_t>(ceil_div(256, op.cells()), op.batch));
}

}  // namespace

int64_t region_conv2d_workspace_cuda(const RegionConv2d& op, RegionConv2dPass pass) {
  int64_t bytes = 0;
  const bool transposed = pass == RegionConv2dPass::backward_input;
  if (pass == RegionConv2dPass::backward_weight) {
    if (with_arithmetic(op, op.out_channels, [&](auto math) {
          using Math = decltype(math);
          bytes = sums_bytes<Math>(weight_gradient_of<Math>(op));
        })) {
      return bytes;
    }
    return plain_chunks(op) * op.cells() * (op.cell_weights() + op.out_channels) * (op.scalar == Scalar::f64 ? 8 : 4);
  }
  with_arithmetic(op, transposed ? op.in_channels : op.out_channels,
                  [&](auto math) { bytes = packed_bytes<decltype(math)>(op, transposed); });
  return bytes;
}

void region_conv2d_forward_cuda(const RegionConv2d& op, Image input, const void* weight, const void* bias,
                                Image output, void* workspace, CudaStream stream) {
  if (with_arithmetic(op, op.out_channels, [&](auto math) {
        convolve<decltype(math)>(op, false, input, weight, bias, output, workspace, stream);
      })) {
    return;
  }
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    launch_elements(&forward_kernel<T>, op.batch * op.out_channels * op.height * op.width, stream, op, input,
                    static_cast<const T*>(weight), static_cast<const T*>(bias), output);
  });
}

void region_conv2d_backward_input_cuda(const RegionConv2d& op, Image grad_output, const void* weight,
                                       Image grad_input, void* workspace, CudaStream stream) {
  if (with_arithmetic(op, op.in_channels, [&](auto math) {
        convolve<decltype(math)>(op, true, grad_output, weight, nullptr, grad_input, workspace, stream);
      })) {
    return;
  }
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    launch_elements(&backward_input_kernel<T>, op.batch * op.in_channels * op.height * op.width, stream, op,
                    grad_output, static_cast<const T*>(weight), grad_input);
  });
}

void region_conv2d_backward_weight_cuda(const RegionConv2d& op, Image grad_output, Image input, void* grad_weight,
                                        void* grad_bias, void* workspace, CudaStream stream) {
  if (with_arithmetic(op, op.out_channels, [&](auto math) {
        weight_gradient<decltype(math)>(op, grad_output, input, workspace, grad_weight, grad_bias, stream);
      })) {
    return;
  }
  dispatch(op.scalar, [&](auto zero) {
    using T = decltype(zero);
    using C = typename Compute<T>::type;
    const int64_t elements = op.cells() * (op.cell_weights() + op.out_channels), chunks = plain_chunks(op);
    C* sums = static_cast<C*>(workspace);
    launch_elements(&backward_weight_kernel<T>, chunks * elements, stream, op, grad_output, input, sums, chunks);
    launch_elements(&sum_chunks_kernel<T>, elements, stream, op, static_cast<const C*>(sums), chunks,
                    static_cast<T*>(grad_weight), static_cast<T*>(grad_bias));
  });
}

}  // namespace jaa_ext
