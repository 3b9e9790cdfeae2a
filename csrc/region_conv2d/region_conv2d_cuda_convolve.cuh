// 3x3 region convolutions as products of matrices: positions x channels x filters, cell by cell.
//
// A block computes a tile of a cell, for some groups of 8N output channels (N = 1 or 2). It copies the window of the
// input that the tile reads into shared memory, a chunk of channels at a time, with zeros where nothing may be read.
// A warp computes one group at 16 positions along a row (which go on in the next image where a cell is narrow) in all
// rows of the tile. It goes down the rows, and multiplies what it has loaded of an input row by the three rows of the
// filter, for the three output rows that read it. An input thus leaves shared memory three times, not nine.
//
// The arithmetic is a template argument: MatrixUnits (bfloat16, float16, TensorFloat-32) or Exact (float32). As in
// warp.cuh, g = lane / 4 and q = lane % 4.
#pragma once

#include <type_traits>

#include "../common/warp.cuh"
#include "region_conv2d.h"
#include "region_conv2d_cuda_tiles.cuh"

namespace jaa_ext {
namespace {

constexpr int WARPS_ABREAST = 12;  // on a multiprocessor, three on each quarter of it: 168 registers a thread
constexpr int CHUNK_BYTES = 64;    // of a pixel that convolve_kernel keeps in shared memory

// An arithmetic computes N blocks of 8 output channels for each of 16 positions, with sums as multiply_add keeps
// them. Output channel `column` of block n is channel 2N (column / 2) + 2n + column % 2 of the group's 8N, so that
// the channels of a lane are neighbours in memory.
template <typename T, int N>
struct MatrixUnits {
  using Element = T;
  static constexpr int BLOCKS = N;
  static constexpr int STEP = 32 / sizeof(T);  // input channels of a product
  static constexpr int MOST_WARPS = 6;         // of a block of convolve_kernel: few, so that several blocks fit
  static constexpr bool ROUND = std::is_same<T, float>::value;
  static constexpr int WEIGHT_PADDING = ROUND ? 32 : 16;  // bytes behind a pixel that keep banks apart

  struct Weights {
    uint32_t values[3][N][2];

    __device__ void load(const T* packed, int lane) {
      using Pair = Vector<uint32_t, 2>;
      const Pair* const pairs = reinterpret_cast<const Pair*>(packed);
      for (int row = 0; row < 3; ++row) {
        for (int n = 0; n < N; ++n) {
          const Pair pair = pairs[(row * N + n) * WARP + lane];
          values[row][n][0] = pair.lanes[0];
          values[row][n][1] = pair.lanes[1];
        }
      }
    }
  };

  // The input and the output channel, within a step, of the packed weight `index` of a tap.
  struct ChannelPair {
    int in, out;

    __device__ explicit ChannelPair(int index) {
      constexpr int PER_WORD = 4 / sizeof(T);
      const int half = index % PER_WORD, word = index / PER_WORD;
      const int which = word % 2, lane = word / 2 % WARP, n = word / (2 * WARP), g = lane / 4, q = lane % 4;
      in = PER_WORD * (q + 4 * which) + half;
      out = 2 * N * (g / 2) + 2 * n + g % 2;
    }
  };

  // The channels of a step at the 16 positions.
  struct Pixels {
    uint32_t values[4];
  };

  // Reads a lane's part of them. at(k) is the offset of position k in the window.
  struct Reader {
    const unsigned char* from;

    template <typename PositionOffset>
    __device__ Reader(const unsigned char* window, int lane, const PositionOffset& at)
        : from(window + at(lane % WARP_POSITIONS) + lane / WARP_POSITIONS * 16) {}
    __device__ void load(Pixels& pixels, int offset) const { load_matrices(pixels.values, from + offset); }
  };

  static __device__ void multiply(const Pixels& pixels, const Weights& weights, int row, float (&sums)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; ++n) multiply_add<T>(sums[n], pixels.values, weights.values[row][n]);
  }
};

template <int N>
struct Exact {
  using Element = float;
  static constexpr int BLOCKS = N;
  static constexpr int STEP = 2;
  static constexpr int MOST_WARPS = 3;
  static constexpr bool ROUND = false;
  static constexpr int WEIGHT_PADDING = 16;

  using Filters = Vector<float, 2 * N>;  // of a lane's output channels

  struct Weights {
    Filters values[3][STEP];

    __device__ void load(const float* packed, int lane) {
      for (int row = 0; row < 3; ++row) {
        for (int c = 0; c < STEP; ++c) {
          values[row][c] = reinterpret_cast<const Filters*>(packed)[(row * STEP + c) * 4 + lane % 4];
        }
      }
    }
  };

  struct ChannelPair {
    int in, out;

    __device__ explicit ChannelPair(int index) : in(index / (8 * N)), out(index % (8 * N)) {}
  };

  struct Pixels {
    Vector<float, STEP> values[2];
  };

  struct Reader {
    const unsigned char* from[2];

    template <typename PositionOffset>
    __device__ Reader(const unsigned char* window, int lane, const PositionOffset& at)
        : from{window + at(lane / 4), window + at(lane / 4 + 8)} {}
    __device__ void load(Pixels& pixels, int offset) const {
      for (int k = 0; k < 2; ++k) {
        pixels.values[k] = *reinterpret_cast<const Vector<float, STEP>*>(from[k] + offset);
      }
    }
  };

  static __device__ void multiply(const Pixels& pixels, const Weights& weights, int row, float (&sums)[N][4]) {
#pragma unroll
    for (int c = 0; c < STEP; ++c) {
#pragma unroll
      for (int k = 0; k < 4 * N; ++k) {
        sums[k / 4][k % 4] += pixels.values[k % 4 / 2].lanes[c] * weights.values[row][c].lanes[k / 4 * 2 + k % 2];
      }
    }
  }
};

// Packs weights in the order in which warps read them: [cell][group][step][column][row of the filter][weight].
// `params` are those of the forward pass. `transposed` packs for the gradient of the input: channels are exchanged,
// and filters run backwards. A thread takes the nine taps of a pair of channels, which are neighbours in memory.
template <typename Math>
__global__ void pack_weights_kernel(RegionConv2dParams params, bool transposed, const typename Math::Element* weight,
                                    typename Math::Element* packed) {
  using T = typename Math::Element;
  constexpr int OUT = 8 * Math::BLOCKS, WEIGHTS = Math::STEP * OUT;
  const int64_t ins = transposed ? params.out_channels : params.in_channels;
  const int64_t outs = transposed ? params.in_channels : params.out_channels;
  const int64_t steps = (ins + Math::STEP - 1) / Math::STEP, groups = (outs + OUT - 1) / OUT;
  const int64_t filters = params.cells() * groups * steps * WEIGHTS;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; k < filters;
       k += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int index = static_cast<int>(k % WEIGHTS);
    const typename Math::ChannelPair channels(index);
    const int64_t step = k / WEIGHTS, cell = step / steps / groups;
    const int64_t in = step % steps * Math::STEP + channels.in, out = step / steps % groups * OUT + channels.out;
    const int64_t filter = transposed ? in * params.in_channels + out : out * params.in_channels + in;
    for (int tap = 0; tap < 9; ++tap) {
      T value{};
      if (in < ins && out < outs) {
        value = weight[cell * params.cell_weights() + filter * 9 + (transposed ? 8 - tap : tap)];
        if constexpr (Math::ROUND) value = round_to_tf32(value);
      }
      packed[(step * 9 + tap % 3 * 3 + tap / 3) * WEIGHTS + index] = value;
    }
  }
}

// The parameters of convolve_kernel.
struct ConvolutionLaunch {
  RegionConv2dParams params;  // in_channels of source, out_channels of target
  Tiling tiling;
  // For the gradient of the input with border="image", where outputs of neighbouring cells have read a target too:
  // adds these, each with the filters of its own cell.
  bool gathers;
  bool vectors;        // the source can be read in vectors of 16 bytes
  bool wide_stores;    // the channels of a lane can be written to the target at once
  int groups;          // of 8N output channels, of a block
  int64_t group_sets;  // blocks that all groups take
  int stride;          // bytes of a pixel in shared memory
};

template <typename Math>
__global__ void __launch_bounds__(Math::MOST_WARPS* WARP, WARPS_ABREAST / Math::MOST_WARPS)
    convolve_kernel(ConvolutionLaunch launch, ImageView source, const typename Math::Element* __restrict__ packed,
                    const typename Math::Element* bias, ImageView target) {
  using T = typename Math::Element;
  constexpr int N = Math::BLOCKS, OUT = 8 * N, CHUNK = CHUNK_BYTES / sizeof(T);
  JAA_EXT_SHARED_MEMORY(shared);
  const RegionConv2dParams& params = launch.params;
  const Tiling& tiling = launch.tiling;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP,
            first_position = warp % tiling.warps * WARP_POSITIONS;
  const int in_channels = static_cast<int>(params.in_channels), out_channels = static_cast<int>(params.out_channels);
  const int steps = (in_channels + Math::STEP - 1) / Math::STEP, all_groups = (out_channels + OUT - 1) / OUT;
  const int positions = tiling.images * tiling.columns;
  const int64_t blocks = params.cells() * launch.group_sets * tiling.tiles();

  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t tile = block % tiling.tiles(), cell = block / tiling.tiles() / launch.group_sets;
    const int group =
        static_cast<int>(block / tiling.tiles() % launch.group_sets) * launch.groups + warp / tiling.warps;
    const int cell_i = static_cast<int>(cell / params.grid_w), cell_j = static_cast<int>(cell % params.grid_w);
    const Area area = tiling.area(cell_area(params, cell_i, cell_j), tile);
    const int64_t n0 = tiling.first_image(tile);
    const Window window = input_window(tiling, area.rows(), launch.stride);
    const typename Math::Reader reader(shared, lane, [&](int k) {
      const int position = first_position + k;
      const int at = position < positions ? position / tiling.columns * window.columns + position % tiling.columns
                                          : window.images * window.columns;
      return at * window.stride;
    });

    int i0 = cell_i, i1 = cell_i, j0 = cell_j, j1 = cell_j;  // the cells whose filters apply
    if (launch.gathers) {
      i0 = area.y0 > 0 ? part_of<int64_t>(area.y0 - 1, params.height, params.grid_h) : cell_i;
      i1 = area.y1 < params.height ? part_of<int64_t>(area.y1, params.height, params.grid_h) : cell_i;
      j0 = area.x0 > 0 ? part_of<int64_t>(area.x0 - 1, params.width, params.grid_w) : cell_j;
      j1 = area.x1 < params.width ? part_of<int64_t>(area.x1, params.width, params.grid_w) : cell_j;
    }
    float sums[MOST_ROWS][N][4] = {};
    for (int cells = 0; cells < (i1 - i0 + 1) * (j1 - j0 + 1); ++cells) {
      const int i = i0 + cells / (j1 - j0 + 1), j = j0 + cells % (j1 - j0 + 1);
      Area readable = launch.gathers ? cell_area(params, i, j) : readable_area(params, i, j);
      if (readable.x1 > area.x1 + 1) readable.x1 = area.x1 + 1;
      for (int channel = 0; channel < in_channels; channel += CHUNK) {
        const int chunk = in_channels - channel < CHUNK ? in_channels - channel : CHUNK;
        const int chunk_steps = (chunk + Math::STEP - 1) / Math::STEP;
        __syncthreads();  // the last chunk has been used
        load_window<T, Math::ROUND>(window, shared, source, n0, params.batch, area.y0 - 1, area.x0 - 1, readable,
                                    channel, chunk, chunk_steps * Math::STEP * sizeof(T), launch.vectors);
        __syncthreads();
        if (group >= all_groups) continue;
        const T* const filters =
            packed +
            (((i * params.grid_w + j) * all_groups + group) * steps + channel / Math::STEP) * (9 * Math::STEP * OUT);
        for (int step = 0; step < chunk_steps; ++step) {
          for (int column = 0; column < 3; ++column) {
            typename Math::Weights weights;
            weights.load(filters + (step * 3 + column) * (3 * Math::STEP * OUT), lane);
            int offset = column * window.stride + step * Math::STEP * static_cast<int>(sizeof(T));
            typename Math::Pixels pixels[2];  // one row is loaded while the row before is multiplied
            reader.load(pixels[0], offset);
#pragma unroll
            for (int row = 0; row < MOST_ROWS + 2; ++row) {
              offset += window.pitch * window.stride;
              if (row + 1 < window.rows) reader.load(pixels[(row + 1) % 2], offset);
#pragma unroll
              for (int k = 0; k < 3; ++k) {
                if (row - k >= 0 && row - k < MOST_ROWS) Math::multiply(pixels[row % 2], weights, k, sums[row - k]);
              }
              if (row + 1 >= window.rows) break;
            }
          }
        }
      }
    }

    const int out = group * OUT + lane % 4 * 2 * N;
    if (out >= out_channels) continue;
    float biases[2 * N] = {};
    if (bias != nullptr) {
#pragma unroll
      for (int k = 0; k < 2 * N; ++k) {
        if (out + k < out_channels) biases[k] = widen(bias[cell * out_channels + out + k]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int position = first_position + lane / 4 + 8 * half, x = position % tiling.columns;
      const int64_t n = n0 + position / tiling.columns;
      if (position >= positions || x >= area.columns() || n >= params.batch) continue;
      T* const to = static_cast<T*>(target.data) + n * target.stride.n + area.y0 * target.stride.y +
                    (area.x0 + x) * target.stride.x + out * target.stride.c;
#pragma unroll
      for (int row = 0; row < MOST_ROWS; ++row) {
        if (row >= area.rows()) break;
        using Neighbours = Vector<T, 2 * N>;
        Neighbours results;
#pragma unroll
        for (int k = 0; k < 2 * N; ++k) {
          results.lanes[k] = narrow<T>(sums[row][k / 2][2 * half + k % 2] + biases[k]);
        }
        if (launch.wide_stores) {
          *reinterpret_cast<Neighbours*>(to + row * target.stride.y) = results;
        } else {
#pragma unroll
          for (int k = 0; k < 2 * N; ++k) {
            if (out + k < out_channels) to[row * target.stride.y + k * target.stride.c] = results.lanes[k];
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace jaa_ext
