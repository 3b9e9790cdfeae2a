// 3x3 region convolutions as products of matrices: positions x channels x filters, cell by cell.
//
// A block computes a tile of a cell: some rows and columns of some images, for up to 64 channels. It copies the
// window of the input that the tile reads into shared memory, a chunk of channels at a time, with zeros where nothing
// may be read. Each of its warps owns 16 positions along a row (running on into the next image where a cell is
// narrow) in all rows of the tile. It goes down the rows and multiplies what it has loaded of a row by the three rows
// of the filter at once, for the three output rows that it belongs to: an input leaves shared memory three times, not
// nine.
//
// The arithmetic is a template argument: MatrixUnits (bfloat16, float16, TensorFloat-32) or Exact (float32).
// g = lane / 4 and q = lane % 4, as in warp.cuh.
#pragma once

#include <type_traits>

#include "../common/warp.cuh"
#include "region_conv2d.h"

namespace jaa_ext {
namespace {

constexpr int WARP = 32, TILE = 16;  // positions of a warp
constexpr int MOST_ROWS = 11;        // of a tile: what the sums of a warp leave room for in registers
constexpr int MOST_POSITIONS = 48;   // of a block
constexpr int WARPS_ABREAST = 12;    // on a multiprocessor, three on each of its quarters: 168 registers a thread
constexpr int CHUNK_BYTES = 64;      // of a position that convolve_kernel keeps in shared memory

struct Area {
  int y0, y1, x0, x1;

  JAA_EXT_INLINE int rows() const { return y1 - y0; }
  JAA_EXT_INLINE int columns() const { return x1 - x0; }
};

JAA_EXT_INLINE int begin_of(int64_t part, int64_t size, int64_t parts) {
  return static_cast<int>(part * size / parts);
}
JAA_EXT_INLINE int part_of(int64_t place, int64_t size, int64_t parts) {  // the inverse
  return static_cast<int>(((place + 1) * parts - 1) / size);
}
JAA_EXT_INLINE Area cell_area(const RegionConv2d& op, int i, int j) {
  return {begin_of(i, op.height, op.grid_h), begin_of(i + 1, op.height, op.grid_h), begin_of(j, op.width, op.grid_w),
          begin_of(j + 1, op.width, op.grid_w)};
}
JAA_EXT_INLINE Area image_area(const RegionConv2d& op) {
  return {0, static_cast<int>(op.height), 0, static_cast<int>(op.width)};
}

// How a cell is cut into tiles: the same for all cells, sized for the largest.
struct Tiling {
  int images, rows, columns;  // of a tile, at most
  int bands, strips;          // tiles of a cell down and across
  int warps;                  // along the positions of a tile
  int64_t batches;            // groups of images

  JAA_EXT_INLINE int64_t tiles() const { return bands * strips * batches; }  // of a cell

  // Rows and columns of a tile. Images run fastest.
  JAA_EXT_INLINE Area area(const Area& cell, int64_t tile) const {
    const int64_t strip = tile / batches % strips, band = tile / batches / strips;
    return {cell.y0 + begin_of(band, cell.rows(), bands), cell.y0 + begin_of(band + 1, cell.rows(), bands),
            cell.x0 + begin_of(strip, cell.columns(), strips), cell.x0 + begin_of(strip + 1, cell.columns(), strips)};
  }
  JAA_EXT_INLINE int64_t first_image(int64_t tile) const { return tile % batches * images; }
};

// A part of an image in shared memory: `rows` rows of `pitch` positions of `stride` bytes. In a row `columns`
// positions of each image follow each other; what is left of the pitch is zeros.
struct Window {
  int rows, images, columns, pitch, stride;

  JAA_EXT_INLINE int bytes() const { return rows * pitch * stride; }
};

// The window that a tile's 3x3 filters read, with some zeros at the end of each row.
JAA_EXT_INLINE Window input_window(const Tiling& tiling, int rows, int stride) {
  return {rows + 2, tiling.images, tiling.columns + 2, tiling.images * (tiling.columns + 2) + 3, stride};
}

// Calls body(source, shared) for 16 bytes or an element of T at a time: where in the image they come from, null for a
// zero, and where they go. Window position (0, 0) is (y0, x0) of image n0; only what lies in `readable` is read.
template <typename Unit, typename T, typename Body>
__device__ void for_each_unit(const Window& window, unsigned char* shared, const Image& image, int64_t n0,
                              int64_t batch, int y0, int x0, const Area& readable, int first_channel, int channels,
                              int units, const Body& body) {
  constexpr int PER_UNIT = sizeof(Unit) / sizeof(T);  // channels
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const bool channels_last = image.stride.c == 1;
  const int there = channels / PER_UNIT;  // the units that the image has
  for (int run = warp; run < window.rows * (window.images + 1); run += warps) {
    const int row = run / (window.images + 1), k = run % (window.images + 1), y = y0 + row;
    const bool rest = k == window.images, inside = !rest && n0 + k < batch && y >= readable.y0 && y < readable.y1;
    const int columns = rest ? window.pitch - window.images * window.columns : window.columns;
    if (columns == 0) continue;
    unsigned char* const to = shared + (row * window.pitch + k * window.columns) * window.stride;
    const int64_t offset = (n0 + k) * image.stride.n + y * image.stride.y + first_channel * image.stride.c;
    // Neighbouring lanes touch neighbouring memory.
    const int inner = channels_last ? units : columns, outer = channels_last ? columns : units;
    const int step_inner = WARP % inner, step_outer = WARP / inner;
    for (int i = lane % inner, o = lane / inner; o < outer; i += step_inner, o += step_outer) {
      if (i >= inner) {
        i -= inner;
        if (++o >= outer) break;
      }
      const int column = channels_last ? o : i, unit = channels_last ? i : o, x = x0 + column;
      const T* from = nullptr;
      if (inside && x >= readable.x0 && x < readable.x1 && unit < there) {
        from = static_cast<const T*>(image.data) + offset + x * image.stride.x + unit * PER_UNIT * image.stride.c;
      }
      body(from, to + column * window.stride + unit * static_cast<int>(sizeof(Unit)));
    }
  }
}

struct alignas(16) Bytes16 {
  uint32_t words[4];
};

// Fills the window with `channels` channels, and zeros up to `bytes` a position. In vectors of 16 bytes where the
// image allows. Ends with every thread's own part in place: a barrier must follow.
template <typename T, bool ROUND>
__device__ void load_window(const Window& window, unsigned char* shared, const Image& image, int64_t n0,
                            int64_t batch, int y0, int x0, const Area& readable, int first_channel, int channels,
                            int bytes, bool vectors) {
  if (!vectors) {
    for_each_unit<T, T>(window, shared, image, n0, batch, y0, x0, readable, first_channel, channels,
                        bytes / static_cast<int>(sizeof(T)), [](const T* from, unsigned char* to) {
                          T value = from == nullptr ? T{} : *from;
                          if constexpr (ROUND) value = round_to_tf32(value);
                          *reinterpret_cast<T*>(to) = value;
                        });
    return;
  }
  const auto for_each_vector = [&](const auto& body) {
    for_each_unit<Bytes16, T>(window, shared, image, n0, batch, y0, x0, readable, first_channel, channels, bytes / 16,
                              body);
  };
  for_each_vector([](const T* from, unsigned char* to) {
    if (from == nullptr) {
      *reinterpret_cast<Bytes16*>(to) = Bytes16{};
    } else {
      copy_async(to, from);
    }
  });
  copy_wait();
  if constexpr (ROUND) {
    for_each_vector([](const T*, unsigned char* to) {
      for (int k = 0; k < 4; ++k) reinterpret_cast<T*>(to)[k] = round_to_tf32(reinterpret_cast<T*>(to)[k]);
    });
  }
}

// Arithmetic: N blocks of 8 output channels for each of 16 positions, with sums as multiply_add keeps them. Output
// channel `column` of block n is channel 2N (column / 2) + 2n + column % 2 of the warp's 8N, so that a lane's are
// neighbours in memory.
template <typename T, int N>
struct MatrixUnits {
  using Element = T;
  static constexpr int BLOCKS = N;
  static constexpr int STEP = 32 / sizeof(T);  // input channels of a product
  static constexpr int MOST_WARPS = 6;         // of a block of convolve_kernel: few, so that several blocks fit
  static constexpr bool ROUND = std::is_same<T, float>::value;
  static constexpr int WEIGHT_PADDING = ROUND ? 32 : 16;  // bytes behind a position that keep banks apart

  struct Weights {
    uint32_t values[3][N][2];

    __device__ void load(const T* packed, int lane) {
      struct alignas(8) Words2 {
        uint32_t words[2];
      };
      const Words2* const pairs = reinterpret_cast<const Words2*>(packed);
      for (int row = 0; row < 3; ++row) {
        for (int n = 0; n < N; ++n) {
          const Words2 pair = pairs[(row * N + n) * WARP + lane];
          values[row][n][0] = pair.words[0];
          values[row][n][1] = pair.words[1];
        }
      }
    }
  };

  // Which channels of a step the packed weight `index` of a tap connects.
  struct Place {
    int in, out;

    __device__ explicit Place(int index) {
      constexpr int PER_WORD = 4 / sizeof(T);
      const int half = index % PER_WORD, word = index / PER_WORD;
      const int which = word % 2, lane = word / 2 % WARP, n = word / (2 * WARP), g = lane / 4, q = lane % 4;
      in = PER_WORD * (q + 4 * which) + half;
      out = 2 * N * (g / 2) + 2 * n + g % 2;
    }
  };

  // A step's channels of the 16 positions.
  struct Pixels {
    uint32_t values[4];
  };

  // Where a lane reads its part of them.
  struct Reader {
    const unsigned char* from;

    template <typename Position>
    __device__ Reader(const unsigned char* window, int lane, const Position& at)
        : from(window + at(lane % TILE) + lane / TILE * 16) {}
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

  struct alignas(8 * N) Vector {
    float values[2 * N];
  };

  struct Weights {
    Vector values[3][STEP];

    __device__ void load(const float* packed, int lane) {
      for (int row = 0; row < 3; ++row) {
        for (int c = 0; c < STEP; ++c) {
          values[row][c] = reinterpret_cast<const Vector*>(packed)[(row * STEP + c) * 4 + lane % 4];
        }
      }
    }
  };

  struct Place {
    int in, out;

    __device__ explicit Place(int index) : in(index / (8 * N)), out(index % (8 * N)) {}
  };

  struct Pixels {
    struct alignas(4 * STEP) Channels {
      float values[STEP];
    };
    Channels values[2];
  };

  struct Reader {
    const unsigned char* from[2];

    template <typename Position>
    __device__ Reader(const unsigned char* window, int lane, const Position& at)
        : from{window + at(lane / 4), window + at(lane / 4 + 8)} {}
    __device__ void load(Pixels& pixels, int offset) const {
      for (int k = 0; k < 2; ++k) {
        pixels.values[k] = *reinterpret_cast<const typename Pixels::Channels*>(from[k] + offset);
      }
    }
  };

  static __device__ void multiply(const Pixels& pixels, const Weights& weights, int row, float (&sums)[N][4]) {
#pragma unroll
    for (int c = 0; c < STEP; ++c) {
#pragma unroll
      for (int k = 0; k < 4 * N; ++k) {
        sums[k / 4][k % 4] += pixels.values[k % 4 / 2].values[c] * weights.values[row][c].values[k / 4 * 2 + k % 2];
      }
    }
  }
};

// Weights in the order in which warps read them: [cell][8N output channels][step][column][row of the filter][weight].
// op is that of the forward pass; `transposed`: for the gradient of the input, channels exchanged, filters turned
// round. A thread takes the nine taps of two channels, which lie together.
template <typename Math>
__global__ void pack_weights_kernel(RegionConv2d op, bool transposed, const typename Math::Element* weight,
                                    typename Math::Element* packed) {
  using T = typename Math::Element;
  constexpr int OUT = 8 * Math::BLOCKS, WEIGHTS = Math::STEP * OUT;
  const int64_t ins = transposed ? op.out_channels : op.in_channels;
  const int64_t outs = transposed ? op.in_channels : op.out_channels;
  const int64_t steps = (ins + Math::STEP - 1) / Math::STEP, groups = (outs + OUT - 1) / OUT;
  const int64_t filters = op.cells() * groups * steps * WEIGHTS;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; k < filters;
       k += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int index = static_cast<int>(k % WEIGHTS);
    const typename Math::Place place(index);
    const int64_t step = k / WEIGHTS, cell = step / steps / groups;
    const int64_t in = step % steps * Math::STEP + place.in, out = step / steps % groups * OUT + place.out;
    const int64_t filter = transposed ? in * op.in_channels + out : out * op.in_channels + in;
    for (int tap = 0; tap < 9; ++tap) {
      T value{};
      if (in < ins && out < outs) {
        value = weight[cell * op.cell_weights() + filter * 9 + (transposed ? 8 - tap : tap)];
        if constexpr (Math::ROUND) value = round_to_tf32(value);
      }
      packed[(step * 9 + tap % 3 * 3 + tap / 3) * WEIGHTS + index] = value;
    }
  }
}

// How convolve_kernel is launched.
struct Convolution {
  RegionConv2d op;  // in_channels of source, out_channels of target
  Tiling tiling;
  // The gradient of the input with border="image": a target takes what its neighbours in other cells, too, read of
  // it, with those cells' filters.
  bool gathers;
  bool vectors;        // the source can be read in vectors of 16 bytes
  bool wide_stores;    // the target can be written in a lane's neighbouring channels at once
  int groups;          // of 8N output channels in a block
  int64_t group_sets;  // blocks that it takes for all of them
  int stride;          // bytes of a position in shared memory
};

template <typename Math>
__global__ void __launch_bounds__(Math::MOST_WARPS* WARP, WARPS_ABREAST / Math::MOST_WARPS)
    convolve_kernel(Convolution launch, Image source, const typename Math::Element* __restrict__ packed,
                    const typename Math::Element* bias, Image target) {
  using T = typename Math::Element;
  constexpr int N = Math::BLOCKS, OUT = 8 * N, CHUNK = CHUNK_BYTES / sizeof(T);
  JAA_EXT_SHARED_MEMORY(shared);
  const RegionConv2d& op = launch.op;
  const Tiling& tiling = launch.tiling;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, first_position = warp % tiling.warps * TILE;
  const int in_channels = static_cast<int>(op.in_channels), out_channels = static_cast<int>(op.out_channels);
  const int steps = (in_channels + Math::STEP - 1) / Math::STEP, all_groups = (out_channels + OUT - 1) / OUT;
  const int positions = tiling.images * tiling.columns;
  const int64_t blocks = op.cells() * launch.group_sets * tiling.tiles();

  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t tile = block % tiling.tiles(), cell = block / tiling.tiles() / launch.group_sets;
    const int group =
        static_cast<int>(block / tiling.tiles() % launch.group_sets) * launch.groups + warp / tiling.warps;
    const int cell_i = static_cast<int>(cell / op.grid_w), cell_j = static_cast<int>(cell % op.grid_w);
    const Area area = tiling.area(cell_area(op, cell_i, cell_j), tile);
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
      i0 = area.y0 > 0 ? part_of(area.y0 - 1, op.height, op.grid_h) : cell_i;
      i1 = area.y1 < op.height ? part_of(area.y1, op.height, op.grid_h) : cell_i;
      j0 = area.x0 > 0 ? part_of(area.x0 - 1, op.width, op.grid_w) : cell_j;
      j1 = area.x1 < op.width ? part_of(area.x1, op.width, op.grid_w) : cell_j;
    }
    float sums[MOST_ROWS][N][4] = {};
    for (int cells = 0; cells < (i1 - i0 + 1) * (j1 - j0 + 1); ++cells) {
      const int i = i0 + cells / (j1 - j0 + 1), j = j0 + cells % (j1 - j0 + 1);
      Area readable = op.image_border && !launch.gathers ? image_area(op) : cell_area(op, i, j);
      if (readable.x1 > area.x1 + 1) readable.x1 = area.x1 + 1;
      for (int channel = 0; channel < in_channels; channel += CHUNK) {
        const int chunk = in_channels - channel < CHUNK ? in_channels - channel : CHUNK;
        const int chunk_steps = (chunk + Math::STEP - 1) / Math::STEP;
        __syncthreads();  // the last chunk has been used
        load_window<T, Math::ROUND>(window, shared, source, n0, op.batch, area.y0 - 1, area.x0 - 1, readable, channel,
                                    chunk, chunk_steps * Math::STEP * sizeof(T), launch.vectors);
        __syncthreads();
        if (group >= all_groups) continue;
        const T* const filters =
            packed +
            (((i * op.grid_w + j) * all_groups + group) * steps + channel / Math::STEP) * (9 * Math::STEP * OUT);
        for (int step = 0; step < chunk_steps; ++step) {
          for (int column = 0; column < 3; ++column) {
            typename Math::Weights weights;
            weights.load(filters + (step * 3 + column) * (3 * Math::STEP * OUT), lane);
            int offset = column * window.stride + step * Math::STEP * static_cast<int>(sizeof(T));
            typename Math::Pixels pixels[2];  // a row is loaded while the one before is multiplied
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
      if (position >= positions || x >= area.columns() || n >= op.batch) continue;
      T* const to = static_cast<T*>(target.data) + n * target.stride.n + area.y0 * target.stride.y +
                    (area.x0 + x) * target.stride.x + out * target.stride.c;
#pragma unroll
      for (int row = 0; row < MOST_ROWS; ++row) {
        if (row >= area.rows()) break;
        struct alignas(2 * N * sizeof(T)) Neighbours {
          T values[2 * N];
        } results;
#pragma unroll
        for (int k = 0; k < 2 * N; ++k) {
          results.values[k] = narrow<T>(sums[row][k / 2][2 * half + k % 2] + biases[k]);
        }
        if (launch.wide_stores) {
          *reinterpret_cast<Neighbours*>(to + row * target.stride.y) = results;
        } else {
#pragma unroll
          for (int k = 0; k < 2 * N; ++k) {
            if (out + k < out_channels) to[row * target.stride.y + k * target.stride.c] = results.values[k];
          }
        }
      }
    }
  }
}

// Sums over positions of an input's channel times the gradient's: 16 input channels by 8N output channels a warp. A
// lane holds input channels g, g + 8 and output channels 8n + 2q, 8n + 2q + 1 of each block n, for each tap.
template <typename Math>
struct WeightSums;

template <typename T, int N>
struct WeightSums<MatrixUnits<T, N>> {
  static constexpr int POSITIONS = 32 / sizeof(T);  // of a product

  // Where a lane reads its part of a step's positions.
  template <typename Position>
  static __device__ void add(const unsigned char* input, const Window& window, const Position& input_at,
                             const unsigned char* grad, const Window& grads, const Position& grad_at, int rows,
                             int lane, float (&sums)[3][3][N][4]) {
    uint32_t gradients[3][N][2] = {};  // of this output row and the two above
    // Matrices: positions 0..7 or 8..15 of channels 0..7 or 8..15, for the input channel by channel, for the gradient
    // position by position. TensorFloat-32 values are read one by one.
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
    const auto word = [](const unsigned char* place) { return *reinterpret_cast<const uint32_t*>(place); };
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

  template <typename Position>
  static __device__ void add(const unsigned char* input, const Window& window, const Position& input_at,
                             const unsigned char* grad, const Window& grads, const Position& grad_at, int rows,
                             int lane, float (&sums)[3][3][N][4]) {
    struct alignas(8) Pair {
      float values[2];
    };
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
        const unsigned char* const place = from + (row * window.pitch + column) * window.stride;
        const float pixels[2] = {*reinterpret_cast<const float*>(place), *reinterpret_cast<const float*>(place + 32)};
#pragma unroll
        for (int k = 0; k < 3; ++k) {
          if (row < k || row - k >= rows) continue;
#pragma unroll
          for (int i = 0; i < 4 * N; ++i) {
            sums[k][column][i / 4][i % 4] += pixels[i % 4 / 2] * gradients[k][i / 4].values[i % 2];
          }
        }
      }
    }
  }
};

constexpr int WEIGHT_WARPS = 2 * MOST_POSITIONS / TILE;  // of a block, at most
constexpr int WEIGHT_REGISTERS = 168;                    // of a thread, at most

// How weight_gradient_kernel is launched. Channels come in tiles of 16 (input) and 8N (output), of which a block
// takes one each, or two of one and one of the other.
struct WeightGradient {
  RegionConv2d op;
  Tiling tiling;
  bool vectors, grad_vectors;
  int in_tiles, out_tiles;    // of a block
  int64_t in_sets, out_sets;  // blocks that it takes for all of them
  int64_t chunks;             // blocks that share the tiles of a cell
  int threads, shared_bytes;
  int stride, grad_stride;  // bytes of a position in shared memory

  JAA_EXT_INLINE int64_t pairs() const { return in_sets * in_tiles * out_sets * out_tiles; }
  JAA_EXT_INLINE int64_t biases(int out_tile) const { return out_sets * out_tiles * out_tile; }
  JAA_EXT_INLINE Window input(int rows) const { return input_window(tiling, rows, stride); }
  JAA_EXT_INLINE Window grad(int rows) const {
    return {rows, tiling.images, tiling.columns, tiling.warps * TILE, grad_stride};
  }
};

// partial: [chunk][cell][tile of input channels][tile of output channels][tap, block, sum][lane], then
// [chunk][cell][output channel] for the bias.
template <typename Math>
__global__ void __launch_bounds__(WEIGHT_WARPS* WARP, 2)
    weight_gradient_kernel(WeightGradient launch, Image grad_output, Image input, float* partial) {
  using T = typename Math::Element;
  constexpr int N = Math::BLOCKS, IN = 16, OUT = 8 * N, SUMS = 9 * N * 4;
  JAA_EXT_SHARED_MEMORY(shared);
  const RegionConv2d& op = launch.op;
  const Tiling& tiling = launch.tiling;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, position_warp = warp % tiling.warps;
  const int pair = warp / tiling.warps, in_tile = pair % launch.in_tiles, out_tile = pair / launch.in_tiles;
  const int in_channels = launch.in_tiles * IN, out_channels = launch.out_tiles * OUT;  // of the block
  const int positions = tiling.images * tiling.columns;
  const int64_t sets = launch.in_sets * launch.out_sets, cells = op.cells(), blocks = launch.chunks * cells * sets;
  // Of the bias, a thread sums every adders-th position of one channel.
  const int bias_channel = threadIdx.x % out_channels, adder = threadIdx.x / out_channels;
  const int adders = blockDim.x / out_channels;

  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t in_set = block % launch.in_sets, out_set = block / launch.in_sets % launch.out_sets;
    const int64_t cell = block / sets % cells, chunk = block / sets / cells;
    const int first_in = static_cast<int>(in_set) * in_channels, first_out = static_cast<int>(out_set) * out_channels;
    const Area cell_there = cell_area(op, static_cast<int>(cell / op.grid_w), static_cast<int>(cell % op.grid_w));
    const auto channels_of = [](int64_t all, int first, int most) {
      return all - first < most ? static_cast<int>(all) - first : most;
    };
    float sums[3][3][N][4] = {};
    float bias_sum = 0;
    for (int64_t tile = chunk * tiling.tiles() / launch.chunks; tile < (chunk + 1) * tiling.tiles() / launch.chunks;
         ++tile) {
      const Area area = tiling.area(cell_there, tile);
      const int64_t n0 = tiling.first_image(tile);
      const Window window = launch.input(area.rows()), grads = launch.grad(area.rows());
      unsigned char* const shared_grads = shared + window.bytes();
      Area readable = op.image_border ? image_area(op) : cell_there;
      if (readable.x1 > area.x1 + 1) readable.x1 = area.x1 + 1;
      __syncthreads();  // the last tile has been used
      load_window<T, Math::ROUND>(window, shared, input, n0, op.batch, area.y0 - 1, area.x0 - 1, readable, first_in,
                                  channels_of(op.in_channels, first_in, in_channels), in_channels * sizeof(T),
                                  launch.vectors);
      load_window<T, false>(grads, shared_grads, grad_output, n0, op.batch, area.y0, area.x0, area, first_out,
                            channels_of(op.out_channels, first_out, out_channels), out_channels * sizeof(T),
                            launch.grad_vectors);
      __syncthreads();
      for (int first = position_warp * TILE; first < (position_warp + 1) * TILE;
           first += WeightSums<Math>::POSITIONS) {
        if (first >= positions) break;
        const auto places = [&](const Window& in, bool filtered) {
          return [&in, filtered, first, positions, &tiling](int k) {
            const int position = first + k;
            if (!filtered) return position * in.stride;
            return (position < positions ? position / tiling.columns * in.columns + position % tiling.columns
                                         : in.images * in.columns) *
                   in.stride;
          };
        };
        WeightSums<Math>::add(shared + in_tile * IN * sizeof(T), window, places(window, true),
                              shared_grads + out_tile * OUT * sizeof(T), grads, places(grads, false), area.rows(),
                              lane, sums);
      }
      if (in_set == 0 && adder < adders) {
        for (int position = adder; position < grads.rows * grads.pitch; position += adders) {
          bias_sum += widen(reinterpret_cast<const T*>(shared_grads + position * grads.stride)[bias_channel]);
        }
      }
    }

    // The warps of other positions hand their sums to the first, one after the other.
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
      const int64_t in_at = in_set * launch.in_tiles + in_tile, out_at = out_set * launch.out_tiles + out_tile;
      const int64_t at =
          (chunk * cells + cell) * launch.pairs() + in_at * launch.out_sets * launch.out_tiles + out_at;
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

// Adds the chunks in order. Either result may be null. A thread takes the nine taps of two channels, or a bias.
template <typename Math>
__global__ void sum_weight_gradients_kernel(WeightGradient launch, const float* partial,
                                            typename Math::Element* grad_weight, typename Math::Element* grad_bias) {
  using T = typename Math::Element;
  constexpr int N = Math::BLOCKS, IN = 16, OUT = 8 * N, FILTERS = IN * OUT;
  const RegionConv2d& op = launch.op;
  const int64_t filters = op.cells() * launch.pairs() * FILTERS, biases = op.cells() * launch.biases(OUT);
  const int64_t out_tiles = launch.out_sets * launch.out_tiles;
  for (int64_t k = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; k < filters + biases;
       k += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    if (k >= filters) {
      const int64_t cell = (k - filters) / launch.biases(OUT), out = (k - filters) % launch.biases(OUT);
      if (grad_bias == nullptr || out >= op.out_channels) continue;
      const float* const from = partial + launch.chunks * filters * 9 + k - filters;
      float sum = 0;
      for (int64_t chunk = 0; chunk < launch.chunks; ++chunk) sum += from[chunk * biases];
      grad_bias[cell * op.out_channels + out] = narrow<T>(sum);
      continue;
    }
    const int index = static_cast<int>(k % FILTERS), lane = index % WARP, part = index / WARP % 4,
              n = index / WARP / 4;
    const int64_t tile = k / FILTERS, pair = tile % launch.pairs(), cell = tile / launch.pairs();
    const int64_t in = pair / out_tiles * IN + lane / 4 + part / 2 * 8;
    const int64_t out = pair % out_tiles * OUT + n * 8 + lane % 4 * 2 + part % 2;
    if (grad_weight == nullptr || in >= op.in_channels || out >= op.out_channels) continue;
    float sums[9] = {};
    for (int64_t chunk = 0; chunk < launch.chunks; ++chunk) {
      const float* const from = partial + (chunk * filters + tile * FILTERS) * 9 + index;
#pragma unroll
      for (int tap = 0; tap < 9; ++tap) sums[tap] += from[tap * FILTERS];
    }
    T* const to = grad_weight + cell * op.cell_weights() + (out * op.in_channels + in) * 9;
    for (int tap = 0; tap < 9; ++tap) to[tap] = narrow<T>(sums[tap]);
  }
}

}  // namespace
}  // namespace jaa_ext
