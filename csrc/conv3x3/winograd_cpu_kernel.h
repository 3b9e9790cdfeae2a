// The inner loops of Winograd's algorithm, in GCC vector types. Included by ../common/for_each_cpu_level.h.
//
// Lanes are channels. A block of tiles goes through three steps, in memory that stays in the second-level cache:
//
//   inputs    (position, channel vector, tile, lane): B^T d B
//   products  (position, tile, lane): inputs times filters, for two vectors of output channels
//   outputs   A^T products A, with bias, ReLU and pooling, written to the image
//
// A position is one of the 36 elements of a transformed tile. Filters lie as (block of output channels, position,
// input channel, lane). Positions of inputs and products are one vector further apart than they need be, so that the
// 36 positions of a tile fall into different sets of the first-level cache.

typedef float Vector __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef float UnalignedVector __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(4)));

constexpr int LANES = VECTOR_BYTES / sizeof(float);
// The number of tiles whose products are summed in registers, beside two vectors of filters and one of inputs.
constexpr int MOST_ROWS = VECTOR_REGISTERS >= 32 ? 14 : 6;
constexpr int64_t RUN_CHANNELS = 32, RUN_TILES = 16;  // that are summed before they are added to the others
constexpr float ROOT_HALF = 0.70710678118654752f, ROOT_2 = 1.41421356237309505f;

#include "../common/transpose_rows.h"

inline Vector load(const float* from) { return *(const UnalignedVector*)from; }
inline void store(float* to, Vector value) { *(UnalignedVector*)to = value; }

// B^T d: from six values to six, which are written `to_step` apart.
inline void input_column(const Vector d0, const Vector d1, const Vector d2, const Vector d3, const Vector d4,
                         const Vector d5, Vector* to, int to_step) {
  const Vector even_a = d4 - 2.f * d2, odd_a = d3 - 2.f * d1, even_b = d4 - 0.5f * d2, odd_b = d3 - 0.5f * d1;
  to[0] = d0 + d4 - 2.5f * d2;
  to[to_step] = even_a + ROOT_HALF * odd_a;
  to[2 * to_step] = even_a - ROOT_HALF * odd_a;
  to[3 * to_step] = even_b + ROOT_2 * odd_b;
  to[4 * to_step] = even_b - ROOT_2 * odd_b;
  to[5 * to_step] = d1 + d5 - 2.5f * d3;
}

// B^T d B of 6 x 6 pixels; pixel(y, x, v) is vector v of the channels of one.
template <typename Pixel>
inline void transform_pixels(const Pixel& pixel, int64_t vectors, float* inputs, int64_t position_stride,
                             int64_t vector_stride) {
  for (int64_t v = 0; v < vectors; ++v, inputs += vector_stride) {
    Vector columns[6][6];
#pragma GCC unroll 6
    for (int x = 0; x < 6; ++x) {
      input_column(pixel(0, x, v), pixel(1, x, v), pixel(2, x, v), pixel(3, x, v), pixel(4, x, v), pixel(5, x, v),
                   &columns[0][x], 6);
    }
#pragma GCC unroll 6
    for (int y = 0; y < 6; ++y) {
      Vector row[6];
      input_column(columns[y][0], columns[y][1], columns[y][2], columns[y][3], columns[y][4], columns[y][5], row, 1);
#pragma GCC unroll 6
      for (int x = 0; x < 6; ++x) *(Vector*)(inputs + (6 * y + x) * position_stride) = row[x];
    }
  }
}

// Transforms pixels that all lie in the image.
void transform_input(const float* patch, int64_t stride_y, int64_t stride_x, int64_t vectors, float* inputs,
                     int64_t position_stride, int64_t vector_stride) {
  transform_pixels([&](int y, int x, int64_t v) { return load(patch + y * stride_y + x * stride_x + v * LANES); },
                   vectors, inputs, position_stride, vector_stride);
}

// Transforms pixels at any addresses, each multiplied by its scale where there are scales.
void transform_scattered_input(const float* const* pixels, const float* scales, int64_t vectors, float* inputs,
                               int64_t position_stride, int64_t vector_stride) {
  if (scales == nullptr) {
    transform_pixels([&](int y, int x, int64_t v) { return load(pixels[6 * y + x] + v * LANES); }, vectors, inputs,
                     position_stride, vector_stride);
  } else {
    transform_pixels([&](int y, int x, int64_t v) { return scales[6 * y + x] * load(pixels[6 * y + x] + v * LANES); },
                     vectors, inputs, position_stride, vector_stride);
  }
}

// Sums the products of ROWS tiles with VECTORS vectors of output channels over the input channels: first over those
// of a run and then over the runs, which halves the rounding errors.
template <int VECTORS, int ROWS>
void multiply_rows(const float* inputs, int64_t vector_stride, int64_t channels, const float* filters,
                   float* products) {
  for (int64_t run = 0; run < channels; run += RUN_CHANNELS) {
    const int64_t end = channels - run < RUN_CHANNELS ? channels : run + RUN_CHANNELS;
    Vector sum[ROWS][VECTORS] = {};
    for (int64_t first = run; first < end; first += LANES, inputs += vector_stride) {
      const int64_t count = end - first < LANES ? end - first : LANES;
      const float* in = inputs;
#pragma GCC unroll 4
      for (int64_t k = 0; k < count; ++k, ++in, filters += 2 * LANES) {
        Vector filter[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) filter[v] = *(const Vector*)(filters + v * LANES);
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; ++row) {
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v) sum[row][v] += in[row * LANES] * filter[v];
        }
      }
    }
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; ++row) {
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) {
        Vector* to = (Vector*)(products + (2 * row + v) * LANES);
        *to = run == 0 ? sum[row][v] : *to + sum[row][v];
      }
    }
  }
}

template <int VECTORS, int MOST>
decltype(&multiply_rows<VECTORS, 1>) multiply_rows_for(int64_t rows) {
  if constexpr (MOST > 1) {
    if (rows < MOST) return multiply_rows_for<VECTORS, MOST - 1>(rows);
  }
  return &multiply_rows<VECTORS, MOST>;
}

template <int VECTORS>
void multiply_block(const float* inputs, int64_t position_stride, int64_t vector_stride, int64_t channels,
                    int64_t tiles, const float* filters, float* products, int64_t products_stride) {
  const int64_t pieces = (tiles + MOST_ROWS - 1) / MOST_ROWS;  // near-equal
  for (int64_t position = 0; position < 36; ++position) {
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t begin = piece * tiles / pieces, end = (piece + 1) * tiles / pieces;
      multiply_rows_for<VECTORS, MOST_ROWS>(end - begin)(inputs + position * position_stride + begin * LANES,
                                                         vector_stride, channels, filters,
                                                         products + begin * 2 * LANES);
    }
    filters += channels * 2 * LANES;
    products += products_stride;
  }
}

// Computes the products of a block of tiles with one block of output channels, which has `vectors` vectors.
void multiply(const float* inputs, int64_t position_stride, int64_t vector_stride, int64_t channels, int64_t tiles,
              int64_t vectors, const float* filters, float* products, int64_t products_stride) {
  (vectors == 2 ? multiply_block<2> : multiply_block<1>)(inputs, position_stride, vector_stride, channels, tiles,
                                                         filters, products, products_stride);
}

// A^T m: from six values to four.
inline void output_column(const Vector* m, int step, Vector* to, int to_step) {
  const Vector sum_a = m[step] + m[2 * step], difference_a = m[step] - m[2 * step];
  const Vector sum_b = m[3 * step] + m[4 * step], difference_b = m[3 * step] - m[4 * step];
  to[0] = m[0] + sum_a + sum_b;
  to[to_step] = ROOT_HALF * difference_a + ROOT_2 * difference_b;
  to[2 * to_step] = 0.5f * sum_a + 2.f * sum_b;
  to[3 * to_step] = m[5 * step] + 0.5f * ROOT_HALF * difference_a + 2.f * ROOT_2 * difference_b;
}

inline Vector larger(Vector a, Vector b) {
  // A NaN wins, as in torch.
  return a > b || a != a ? a : b;
}

// Writes the outputs of a tile for one vector of channels, of which tile.channels are written.
void transform_output(const float* products, int64_t products_stride, const float* bias, bool relu, bool pool,
                      const OutputTile& tile) {
  Vector m[36], columns[4][6], y[4][4];
  for (int i = 0; i < 36; ++i) m[i] = *(const Vector*)(products + i * products_stride);
#pragma GCC unroll 6
  for (int x = 0; x < 6; ++x) output_column(m + x, 6, &columns[0][x], 6);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) output_column(columns[i], 1, y[i], 1);
  const Vector shift = *(const Vector*)bias, zero = {};
  int64_t side = 4;
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    const Vector value = (&y[0][0])[i] + shift;
    (&y[0][0])[i] = relu ? (value < zero ? zero : value) : value;
  }
  if (pool) {
    side = 2;
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 2; ++j) {
        y[i][j] = larger(larger(y[2 * i][2 * j], y[2 * i][2 * j + 1]),
                         larger(y[2 * i + 1][2 * j], y[2 * i + 1][2 * j + 1]));
      }
    }
  }
  const int64_t rows = tile.rows < side ? tile.rows : side, columns_ = tile.columns < side ? tile.columns : side;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns_; ++j) {
      float* to = tile.data + i * tile.stride_y + j * tile.stride_x;
      if (tile.channels >= LANES) {
        store(to, y[i][j]);
      } else {
        for (int64_t c = 0; c < tile.channels; ++c) to[c] = y[i][j][c];
      }
    }
  }
}

// G g: from three values to six.
inline void filter_column(const Vector* g, int step, Vector* to, int to_step) {
  const Vector even_a = (-2.f / 3) * (g[0] + 0.5f * g[2 * step]), odd_a = (-2.f / 3 * ROOT_HALF) * g[step];
  const Vector even_b = (1.f / 6) * (g[0] + 2.f * g[2 * step]), odd_b = (ROOT_2 / 6) * g[step];
  to[0] = g[0];
  to[to_step] = even_a + odd_a;
  to[2 * to_step] = even_a - odd_a;
  to[3 * to_step] = even_b + odd_b;
  to[4 * to_step] = even_b - odd_b;
  to[5 * to_step] = g[2 * step];
}

// Transforms the filters of one input channel and `count` output channels, in up to two vectors; the rest is zeros.
void transform_filter(const float* from, int64_t stride_out, int64_t stride_tap, int64_t count, float* filters,
                      int64_t position_stride) {
  alignas(VECTOR_BYTES) float taps[9 * 2 * LANES] = {};
  int64_t o = 0;
  if (stride_tap == 1 || stride_tap == -1) {
    for (; o + 4 <= count; o += 4) {
      if (stride_tap == 1) {
        transpose_rows(from + o * stride_out, stride_out, 9, taps + o, 2 * LANES);
      } else {
        transpose_rows(from + o * stride_out - 8, stride_out, 9, taps + o + 8 * 2 * LANES, -2 * LANES);
      }
    }
  }
  for (; o < count; ++o) {
    for (int tap = 0; tap < 9; ++tap) taps[tap * 2 * LANES + o] = from[o * stride_out + tap * stride_tap];
  }
  for (int v = 0; v * LANES < count; ++v) {
    Vector g[9], rows[6][3], all[6][6];
    for (int i = 0; i < 9; ++i) g[i] = *(const Vector*)(taps + (2 * i + v) * LANES);
    for (int x = 0; x < 3; ++x) filter_column(g + x, 3, &rows[0][x], 3);
    for (int y = 0; y < 6; ++y) filter_column(rows[y], 1, all[y], 1);
    for (int i = 0; i < 36; ++i) *(Vector*)(filters + i * position_stride + v * LANES) = (&all[0][0])[i];
  }
}

// In the gradient of the weights, a tile of 4 x 4 gradients is the filter and the 3 x 3 taps are the outputs.
inline void gradient_column(const Vector* g, int step, Vector* to, int to_step) {
  const Vector even_a = (-2.f / 3) * (g[0] + 0.5f * g[2 * step]);
  const Vector odd_a = (-2.f / 3 * ROOT_HALF) * (g[step] + 0.5f * g[3 * step]);
  const Vector even_b = (1.f / 6) * (g[0] + 2.f * g[2 * step]), odd_b = (ROOT_2 / 6) * (g[step] + 2.f * g[3 * step]);
  to[0] = g[0];
  to[to_step] = even_a + odd_a;
  to[2 * to_step] = even_a - odd_a;
  to[3 * to_step] = even_b + odd_b;
  to[4 * to_step] = even_b - odd_b;
  to[5 * to_step] = g[3 * step];
}

void transform_gradient(const float* const* pixels, int64_t vectors, float* gradients, int64_t position_stride,
                        int64_t vector_stride) {
  for (int64_t v = 0; v < vectors; ++v, gradients += vector_stride) {
    Vector g[16], columns[6][4], all[6][6];
    for (int i = 0; i < 16; ++i) g[i] = load(pixels[i] + v * LANES);
    for (int x = 0; x < 4; ++x) gradient_column(g + x, 4, &columns[0][x], 4);
    for (int y = 0; y < 6; ++y) gradient_column(columns[y], 1, all[y], 1);
    for (int i = 0; i < 36; ++i) *(Vector*)(gradients + i * position_stride) = (&all[0][0])[i];
  }
}

// Sums the products of inputs and gradients over the tiles, in runs, for one position and one vector of input
// channels: (input channel, vector of output channels, lane). `add` adds them to the sums of earlier tiles.
template <int VECTORS>
void accumulate_vectors(const float* inputs, const float* gradients, int64_t gradient_stride, int64_t tiles, bool add,
                        float* sums, int64_t sums_stride) {
  constexpr int ROWS = VECTOR_REGISTERS >= 32 ? 8 : 4;
  for (int first = 0; first < LANES; first += ROWS) {
    Vector total[ROWS][VECTORS] = {};
    const float *in = inputs + first, *gradient = gradients;
    for (int64_t run = 0; run < tiles; run += RUN_TILES) {
      const int64_t end = tiles - run < RUN_TILES ? tiles : run + RUN_TILES;
      Vector sum[ROWS][VECTORS] = {};
      for (int64_t tile = run; tile < end; ++tile, in += LANES, gradient += LANES) {
        Vector g[VECTORS];
#pragma GCC unroll 3
        for (int v = 0; v < VECTORS; ++v) g[v] = *(const Vector*)(gradient + v * gradient_stride);
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; ++row) {
#pragma GCC unroll 3
          for (int v = 0; v < VECTORS; ++v) sum[row][v] += in[row] * g[v];
        }
      }
#pragma GCC unroll 8
      for (int row = 0; row < ROWS; ++row) {
#pragma GCC unroll 3
        for (int v = 0; v < VECTORS; ++v) total[row][v] += sum[row][v];
      }
    }
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; ++row) {
#pragma GCC unroll 3
      for (int v = 0; v < VECTORS; ++v) {
        Vector* to = (Vector*)(sums + (first + row) * sums_stride + v * LANES);
        *to = add ? *to + total[row][v] : total[row][v];
      }
    }
  }
}

void accumulate(const float* inputs, const float* gradients, int64_t gradient_stride, int64_t tiles, int64_t vectors,
                bool add, float* sums) {
  const int64_t pieces = (vectors + 2) / 3;  // near-equal
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t begin = piece * vectors / pieces, count = (piece + 1) * vectors / pieces - begin;
    (count == 3   ? accumulate_vectors<3>
     : count == 2 ? accumulate_vectors<2>
                  : accumulate_vectors<1>)(inputs, gradients + begin * gradient_stride, gradient_stride, tiles, add,
                                           sums + begin * LANES, vectors * LANES);
  }
}

inline void tap_column(const Vector* m, int step, Vector* to, int to_step) {
  const Vector sum_a = m[step] + m[2 * step], difference_a = m[step] - m[2 * step];
  const Vector sum_b = m[3 * step] + m[4 * step], difference_b = m[3 * step] - m[4 * step];
  to[0] = m[0] + sum_a + sum_b;
  to[to_step] = ROOT_HALF * difference_a + ROOT_2 * difference_b;
  to[2 * to_step] = m[5 * step] + 0.5f * sum_a + 2.f * sum_b;
}

// From the sums of 36 positions to the taps, (tap, lane).
void transform_taps(const float* sums, int64_t position_stride, float* taps) {
  Vector m[36], columns[3][6], all[3][3];
  for (int i = 0; i < 36; ++i) m[i] = *(const Vector*)(sums + i * position_stride);
  for (int x = 0; x < 6; ++x) tap_column(m + x, 6, &columns[0][x], 6);
  for (int y = 0; y < 3; ++y) tap_column(columns[y], 1, all[y], 1);
  for (int i = 0; i < 9; ++i) *(Vector*)(taps + i * LANES) = (&all[0][0])[i];
}

Kernels kernels() {
  return {LANES,       MOST_ROWS,         &transform_input,  &transform_scattered_input,
          &multiply,   &transform_output, &transform_filter, &transform_gradient,
          &accumulate, &transform_taps};
}
