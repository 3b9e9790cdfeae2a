// The gradient of the filters of 3x3 region convolutions, as products of matrices: input channels x positions x
// output channels, once for each of the nine taps. Blocks have tiles as in region_conv2d_cuda_convolve.cuh. A warp
// goes down the rows, keeps the gradients of three output rows, and multiplies each input row by all three.
#pragma once

#include "region_conv2d_cuda_convolve.cuh"

namespace jaa_ext {
namespace {

// Adds up, over positions, an input channel times a channel of the output's gradient: 16 input channels by 8N output
// channels for a warp. A lane holds, for each tap, input channels g, g + 8 and output channels 8n + 2q, 8n + 2q + 1
// of each block n.
template <typename Math>
struct WeightSums;

template <typename T, int N>
struct WeightSums<MatrixUnits<T, N>> {
  static constexpr int POSITIONS = 32 / sizeof(T);  // of a product

  // Adds the products at POSITIONS positions. input_at(k) and grad_at(k) are offsets of position k in the windows.
  template <typename PositionOffset>
  static __device__ void add(const unsigned char* input, const Window& window, const PositionOffset& input_at,
                             const unsigned char* grad, const Window& grads, const PositionOffset& grad_at, int rows,
                             int lane, float (&sums)[3][3][N][4]) {
    uint32_t gradients[3][N][2] = {};  // of this output row and the two above
    // Half types are loaded as matrices of 8 positions and 8 channels: matrix 0 .. 3 of the input has channels 0, 8,
    // 0, 8 and positions 0, 0, 8, 8 onwards; that of the gradient, for N = 2, channels 0, 0, 8, 8 and positions 0, 8,
    // 0, 8. TensorFloat-32 values are read one by one.
    constexpr bool HALF = sizeof(T) == 2;
    const int g = lane / 4, q = lane % 4, matrix = lane / 8;
    const unsigned char *from[2], *grad_from[2];
    if (HALF) {
      from[0] = input + input_at(lane % 8 + matrix / 2 * 8) + matrix % 2 * 16;
      grad_from[0] = grad + grad_at(lane % 8 + matrix % 2 * 8) + matrix / 2 % N * 16;
      from[1] = grad_from[1] = nullptr;
    } else {
      for (int k = 0; k < 2; ++k) {
        from[k] = input + input_at(q + 4 * k) + g * 4;
        grad_from[k] = grad + grad_at(q + 4 * k) + g * 4;
      }
    }
    const auto word = [](const unsigned char* at) { return *reinterpret_cast<const uint32_t*>(at); };
    for (int row = 0; row < rows + 2; ++row) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
        for (int k = 0; k < 2; ++k) {
          gradients[2][n][k] = gradients[1][n][k];
          gradients[1][n][k] = gradients[0][n][k];
          gradients[0][n][k] = 0;
        }
      }
      if (row < rows) {
        const int offset = row * grads.pitch * grads.stride;
        if constexpr (HALF) {
          uint32_t matrices[4];
          load_matrices_transposed(matrices, grad_from[0] + offset);
          for (int k = 0; k < 2 * N; ++k) gradients[0][k / 2][k % 2] = matrices[k];
        } else {
          for (int k = 0; k < 2 * N; ++k) {
            const uint32_t bits = word(grad_from[k % 2] + offset + k / 2 * 32);
            gradients[0][k / 2][k % 2] = detail::bit_cast<uint32_t>(round_to_tf32(detail::bit_cast<float>(bits)));
          }
        }
      }
#pragma unroll
      for (int column = 0; column < 3; ++column) {
        const int offset = (row * window.pitch + column) * window.stride;
        uint32_t pixels[4];
        if constexpr (HALF) {
          load_matrices_transposed(pixels, from[0] + offset);
        } else {
          for (int k = 0; k < 4; ++k) pixels[k] = word(from[k / 2] + offset + k % 2 * 32);
        }
#pragma unroll
        for (int k = 0; k < 3; ++k) {
          if (row < k || row - k >= rows) continue;
#pragma unroll
          for (int n = 0; n < N; ++n) multiply_add<T>(sums[k][column][n], pixels, gradients[k][n]);
        }
      }
    }
  }
};

template <int N>
struct WeightSums<Exact<N>> {
  static constexpr int POSITIONS = 1;

  template <typename PositionOffset>
  static __device__ void add(const unsigned char* input, const Window& window, const PositionOffset& input_at,
                             const unsigned char* grad, const Window& grads, const PositionOffset& grad_at, int rows,
                             int lane, float (&sums)[3][3][N][4]) {
    using Pair = Vector<float, 2>;
    Pair gradients[3][N] = {};
    const unsigned char* const from = input + input_at(0) + lane / 4 * 4;
    const unsigned char* const grad_from = grad + grad_at(0) + lane % 4 * 8;
    for (int row = 0; row < rows + 2; ++row) {
#pragma unroll
      for (int n = 0; n < N; ++n) {
        gradients[2][n] = gradients[1][n];
        gradients[1][n] = gradients[0][n];
        gradients[0][n] = Pair{};
        if (row < rows) {
          const int offset = row * grads.pitch * grads.stride;
          gradients[0][n] = *reinterpret_cast<const Pair*>(grad_from + offset + n * 32);
        }
      }
#pragma unroll
      for (int column = 0; column < 3; ++column) {
        const unsigned char* const at = from + (row * window.pitch + column) * window.stride;
        const float pixels[2] = {*reinterpret_cast<const float*>(at), *reinterpret_cast<const float*>(at + 32)};
#pragma unroll
        for (int k = 0; k < 3; ++k) {
          if (row < k || row - k >= rows) continue;
#pragma unroll
          for (int i = 0; i < 4 * N; ++i) {
            sums[k][column][i / 4][i % 4] += pixels[i % 4 / 2] * gradients[k][i / 4].lanes[i % 2];
          }
        }
      }
    }
  }
};

constexpr int WEIGHT_WARPS = 2 * MOST_POSITIONS / WARP_POSITIONS;  // of a block, at most
constexpr int WEIGHT_REGISTERS = 168;                              // of a thread, at most

// The parameters of weight_gradient_kernel. Channels come in groups of 16 (input) and 8N (output). A block takes one
// group of each, or two of one and one of the other.
struct WeightGradientLaunch {
  RegionConv2dParams params;
  Tiling tiling;
  bool vectors, grad_vectors;
  int in_groups, out_groups;  // of a block
  int64_t in_sets, out_sets;  // blocks that all groups take
  int64_t chunks;             // blocks that share the tiles of a cell
  int threads, shared_bytes;
  int stride, grad_stride;  // bytes of a pixel in shared memory

  // Pairs of groups, and output channels, rounded up to whole blocks.
  JAA_EXT_INLINE int64_t pairs() const { return in_sets * in_groups * out_sets * out_groups; }
  JAA_EXT_INLINE int64_t biases(int group_size) const { return out_sets * out_groups * group_size; }
  JAA_EXT_INLINE Window input(int rows) const { return input_window(tiling, rows, stride); }
  JAA_EXT_INLINE Window grad(int rows) const {
    return {rows, tiling.images, tiling.columns, tiling.warps * WARP_POSITIONS, grad_stride};
  }
};

// Writes to `partial` the sums [chunk][cell][group of input channels][group of output channels][tap, block,
// sum][lane] of the weights, and then [chunk][cell][output channel] of the bias.
template <typename Math>
__global__ void __launch_bounds__(WEIGHT_WARPS* WARP, 2)
    weight_gradient_kernel(WeightGradientLaunch launch, ImageView grad_output, ImageView input, float* partial) {
  using T = typename Math::Element;
  constexpr int N = Math::BLOCKS, IN = 16, OUT = 8 * N, SUMS = 9 * N * 4;
  JAA_EXT_SHARED_MEMORY(shared);
  const RegionConv2dParams& params = launch.params;
  const Tiling& tiling = launch.tiling;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, position_warp = warp % tiling.warps;
  const int pair = warp / tiling.warps, in_group = pair % launch.in_groups, out_group = pair / launch.in_groups;
  const int in_channels = launch.in_groups * IN, out_channels = launch.out_groups * OUT;  // of the block
  const int positions = tiling.images * tiling.columns;
  const int64_t sets = launch.in_sets * launch.out_sets, cells = params.cells(),
                blocks = launch.chunks * cells * sets;
  // A thread sums the bias's gradient for one channel, at every adders-th position.
  const int bias_channel = threadIdx.x % out_channels, adder = threadIdx.x / out_channels;
  const int adders = blockDim.x / out_channels;

  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t in_set = block % launch.in_sets, out_set = block / launch.in_sets % launch.out_sets;
    const int64_t cell = block / sets % cells, chunk = block / sets / cells;
    const int first_in = static_cast<int>(in_set) * in_channels, first_out = static_cast<int>(out_set) * out_channels;
    const int cell_i = static_cast<int>(cell / params.grid_w), cell_j = static_cast<int>(cell % params.grid_w);
    const Area cell_there = cell_area(params, cell_i, cell_j);
    const auto channels_of = [](int64_t all, int first, int most) {
      return all - first < most ? static_cast<int>(all) - first : most;
    };
    float sums[3][3][N][4] = {};
    float bias_sum = 0;
    const int64_t tiles_end = part_begin(chunk + 1, tiling.tiles(), launch.chunks);
    for (int64_t tile = part_begin(chunk, tiling.tiles(), launch.chunks); tile < tiles_end; ++tile) {
      const Area area = tiling.area(cell_there, tile);
      const int64_t n0 = tiling.first_image(tile);
      const Window window = launch.input(area.rows()), grads = launch.grad(area.rows());
      unsigned char* const shared_grads = shared + window.bytes();
      Area readable = readable_area(params, cell_i, cell_j);
      if (readable.x1 > area.x1 + 1) readable.x1 = area.x1 + 1;
      __syncthreads();  // the last tile has been used
      load_window<T, Math::ROUND>(window, shared, input, n0, params.batch, area.y0 - 1, area.x0 - 1, readable,
                                  first_in, channels_of(params.in_channels, first_in, in_channels),
                                  in_channels * sizeof(T), launch.vectors);
      load_window<T, false>(grads, shared_grads, grad_output, n0, params.batch, area.y0, area.x0, area, first_out,
                            channels_of(params.out_channels, first_out, out_channels), out_channels * sizeof(T),
                            launch.grad_vectors);
      __syncthreads();
      for (int first = position_warp * WARP_POSITIONS; first < (position_warp + 1) * WARP_POSITIONS;
           first += WeightSums<Math>::POSITIONS) {
        if (first >= positions) break;
        const auto offset_in = [&](const Window& in, bool filtered) {
          return [&in, filtered, first, positions, &tiling](int k) {
            const int position = first + k;
            if (!filtered) return position * in.stride;
            return (position < positions ? position / tiling.columns * in.columns + position % tiling.columns
                                         : in.images * in.columns) *
                   in.stride;
          };
        };
        WeightSums<Math>::add(shared + in_group * IN * sizeof(T), window, offset_in(window, true),
                              shared_grads + out_group * OUT * sizeof(T), grads, offset_in(grads, false), area.rows(),
                              lane, sums);
      }
      if (in_set == 0 && adder < adders) {
        for (int position = adder; position < grads.rows * grads.pitch; position += adders) {
          bias_sum += widen(reinterpret_cast<const T*>(shared_grads + position * grads.stride)[bias_channel]);
        }
      }
    }

    // One after the other, the warps of other positions hand their sums to the warp of the first ones.
    float* const handed = reinterpret_cast<float*>(shared) + pair * SUMS * WARP + lane;
    for (int from = 1; from < tiling.warps; ++from) {
      __syncthreads();
      if (position_warp == from) {
#pragma unroll
        for (int k = 0; k < SUMS; ++k) handed[k * WARP] = (&sums[0][0][0][0])[k];
      }
      __syncthreads();
      if (position_warp == 0) {
#pragma unroll
        for (int k = 0; k < SUMS; ++k) (&sums[0][0][0][0])[k] += handed[k * WARP];
      }
    }
    if (position_warp == 0) {
      const int64_t in_at = in_set * launch.in_groups + in_group, out_at = out_set * launch.out_groups + out_group;
      const int64_t at =
          (chunk * cells + cell) * launch.pairs() + in_at * launch.out_sets * launch.out_groups + out_at;
#pragma unroll
      for (int k = 0; k < SUMS; ++k) partial[(at * SUMS + k) * WARP + lane] = (&sums[0][0][0][0])[k];
    }
    __syncthreads();
    float* const bias_sums = reinterpret_cast<float*>(shared);
    if (adder < adders) bias_sums[threadIdx.x] = bias_sum;
    __syncthreads();
    if (in_set == 0 && adder == 0) {
      for (int k = 1; k < adders; ++k) bias_sum += bias_sums[k * out_channels + bias_channel];
      float* const to = partial + launch.chunks * cells * launch.pairs() * SUMS * WARP;
      to[(chunk * cells + cell) * launch.biases(OUT) + first_out + bias_channel] = bias_sum;
    }
  }
}

// Adds the chunks in order. Either result may be null. A thread takes the nine taps of a pair of channels, or a bias.
template <typename Math>
__global__ void sum_weight_gradients_kernel(WeightGradientLaunch launch, const float* partial,
                                            typename Math::Element* grad_weight, typename Math::Element* grad_bias) {
  using T = typename Math::Element;
  constexpr int N = Math::BLOCKS, IN = 16, OUT = 8 * N, FILTERS = IN * OUT;
  const RegionConv2dParams& params = launch.params;
  const int64_t filters = params.cells() * launch.pairs() * FILTERS, biases = params.cells() * launch.biases(OUT);
  const int64_t out_groups = launch.out_sets * launch.out_groups;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; k < filters + biases;
       k += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    if (k >= filters) {
      const int64_t cell = (k - filters) / launch.biases(OUT), out = (k - filters) % launch.biases(OUT);
      if (grad_bias == nullptr || out >= params.out_channels) continue;
      const float* const from = partial + launch.chunks * filters * 9 + k - filters;
      float sum = 0;
      for (int64_t chunk = 0; chunk < launch.chunks; ++chunk) sum += from[chunk * biases];
      grad_bias[cell * params.out_channels + out] = narrow<T>(sum);
      continue;
    }
    const int index = static_cast<int>(k % FILTERS), lane = index % WARP, part = index / WARP % 4,
              n = index / WARP / 4;
    const int64_t cell_pair = k / FILTERS, pair = cell_pair % launch.pairs(), cell = cell_pair / launch.pairs();
    const int64_t in = pair / out_groups * IN + lane / 4 + part / 2 * 8;
    const int64_t out = pair % out_groups * OUT + n * 8 + lane % 4 * 2 + part % 2;
    if (grad_weight == nullptr || in >= params.in_channels || out >= params.out_channels) continue;
    float sums[9] = {};
    for (int64_t chunk = 0; chunk < launch.chunks; ++chunk) {
      const float* const from = partial + (chunk * filters + cell_pair * FILTERS) * 9 + index;
#pragma unroll
      for (int tap = 0; tap < 9; ++tap) sums[tap] += from[tap * FILTERS];
    }
    T* const to = grad_weight + cell * params.cell_weights() + (out * params.in_channels + in) * 9;
    for (int tap = 0; tap < 9; ++tap) to[tap] = narrow<T>(sums[tap]);
  }
}

}  // namespace
}  // namespace jaa_ext
