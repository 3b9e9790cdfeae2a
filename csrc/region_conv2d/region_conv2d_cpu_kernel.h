// The inner loops of the region convolution, in GCC vector types; included by ../common/for_each_cpu_level.h.
//
// Layouts, all in the compute type C:
//   tile     (row, channel block, column, BLOCK): an input with its padding; BLOCK channels lie together so that
//            the pixels of a row are a constant distance apart, which lets loads carry it as a displacement
//   staging  (row, column, lanes): outputs; lanes is the channel count rounded up to whole vectors
//   packed   (ky, channel block, kx, BLOCK, lanes): one cell's weights

template <typename C>
struct VectorOf {
  typedef C type __attribute__((vector_size(VECTOR_BYTES)));
  static constexpr int lanes = VECTOR_BYTES / sizeof(C);
};

template <typename T, typename C>
inline const T* pixel(const Image& image, int64_t n, int64_t c, int64_t y, int64_t x) {
  return static_cast<const T*>(image.data) + n * image.stride.n + c * image.stride.c + y * image.stride.y +
         x * image.stride.x;
}

template <typename C>
inline void fill_zero(C* data, int64_t count) {
  for (int64_t i = 0; i < count; ++i) data[i] = 0;
}

// Reads `area` of image n into a tile; what lies outside `clip` is zero.
template <typename T, typename C>
void load_tile(const Image& image, int64_t n, int64_t channels, Rect area, Rect clip, C* tile) {
  const int64_t blocks = (channels + BLOCK - 1) / BLOCK, columns = area.columns();
  const int64_t x0 = area.x0 > clip.x0 ? area.x0 : clip.x0, x1 = area.x1 < clip.x1 ? area.x1 : clip.x1;
  for (int64_t y = area.y0; y < area.y1; ++y) {
    for (int64_t block = 0; block < blocks; ++block, tile += columns * BLOCK) {
      if (y < clip.y0 || y >= clip.y1 || x0 >= x1) {
        fill_zero(tile, columns * BLOCK);
        continue;
      }
      const int64_t first = block * BLOCK;
      const int64_t filled = channels - first < BLOCK ? channels - first : BLOCK;
      fill_zero(tile, (x0 - area.x0) * BLOCK);
      fill_zero(tile + (x1 - area.x0) * BLOCK, (area.x1 - x1) * BLOCK);
      C* to = tile + (x0 - area.x0) * BLOCK;
      const T* from = pixel<T, C>(image, n, first, y, x0);
      if (image.stride.c == 1 && filled == BLOCK) {
        for (int64_t x = 0; x < x1 - x0; ++x) {
          for (int c = 0; c < BLOCK; ++c) to[x * BLOCK + c] = widen(from[x * image.stride.x + c]);
        }
      } else {
        if (filled < BLOCK) fill_zero(to, (x1 - x0) * BLOCK);
        for (int64_t c = 0; c < filled; ++c) {
          for (int64_t x = 0; x < x1 - x0; ++x) {
            to[x * BLOCK + c] = widen(from[c * image.stride.c + x * image.stride.x]);
          }
        }
      }
    }
  }
}

// Reads `area` of image n into a staging tile; lanes past the channels are zero.
template <typename T, typename C>
void load_staging(const Image& image, int64_t n, int64_t channels, int64_t lanes, Rect area, C* staging) {
  for (int64_t y = area.y0; y < area.y1; ++y) {
    const T* from = pixel<T, C>(image, n, 0, y, area.x0);
    for (int64_t x = 0; x < area.columns(); ++x, staging += lanes) {
      for (int64_t c = 0; c < channels; ++c) staging[c] = widen(from[x * image.stride.x + c * image.stride.c]);
      for (int64_t c = channels; c < lanes; ++c) staging[c] = 0;
    }
  }
}

// Writes a staging tile to `area` of image n.
template <typename T, typename C>
void store_staging(const C* staging, int64_t lanes, const Image& image, int64_t n, int64_t channels, Rect area) {
  for (int64_t y = area.y0; y < area.y1; ++y) {
    T* to = const_cast<T*>(pixel<T, C>(image, n, 0, y, area.x0));
    const int64_t columns = area.columns();
    if (image.stride.c == 1) {
      for (int64_t x = 0; x < columns; ++x) {
        for (int64_t c = 0; c < channels; ++c) to[x * image.stride.x + c] = narrow<T>(staging[x * lanes + c]);
      }
    } else {
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t x = 0; x < columns; ++x) {
          to[c * image.stride.c + x * image.stride.x] = narrow<T>(staging[x * lanes + c]);
        }
      }
    }
    staging += columns * lanes;
  }
}

// Sets every pixel of a staging tile to the bias, or to zero.
template <typename T, typename C>
void start_staging(const T* bias, int64_t channels, int64_t lanes, int64_t pixels, C* staging) {
  for (int64_t c = 0; c < lanes; ++c) staging[c] = bias != nullptr && c < channels ? widen(bias[c]) : C(0);
  for (int64_t i = lanes; i < pixels * lanes; ++i) staging[i] = staging[i - lanes];
}

// Packs one cell's weights; `in` is what is summed over: for the input gradient the two channel kinds change
// places and both kernel axes run backwards.
template <typename T, typename C>
void pack_weight(const T* weight, const WeightView& view, int64_t lanes, C* packed) {
  const int64_t blocks = (view.in + BLOCK - 1) / BLOCK;
  for (int64_t ky = 0; ky < view.kernel_h; ++ky) {
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t kx = 0; kx < view.kernel_w; ++kx) {
        for (int64_t i = block * BLOCK; i < (block + 1) * BLOCK; ++i, packed += lanes) {
          const T* from = weight + view.start + ky * view.stride_ky + kx * view.stride_kx + i * view.stride_in;
          for (int64_t o = 0; o < lanes; ++o) {
            packed[o] = i < view.in && o < view.out ? widen(from[o * view.stride_out]) : C(0);
          }
        }
      }
    }
  }
}

// Adds to PIXELS neighbouring outputs of a row, VECTORS vectors of channels each, held in registers.
template <typename C, int PIXELS, int VECTORS>
void convolve_pixels(const C* tile, int64_t row_stride, int64_t block_stride, int64_t blocks, int64_t kernel_h,
                     int64_t kernel_w, const C* packed, int64_t lanes, C* staging) {
  using Vector = typename VectorOf<C>::type;
  constexpr int LANES = VectorOf<C>::lanes;
  Vector sum[PIXELS][VECTORS];
#pragma GCC unroll 16
  for (int p = 0; p < PIXELS; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) sum[p][v] = *(const Vector*)(staging + p * lanes + v * LANES);
  }
  for (int64_t ky = 0; ky < kernel_h; ++ky) {
    for (int64_t block = 0; block < blocks; ++block) {
      const C* x = tile + ky * row_stride + block * block_stride;
      for (int64_t kx = 0; kx < kernel_w; ++kx, x += BLOCK) {
        // Hides that the next tap reads these inputs again: GCC would carry them over in registers, of which there
        // are none left, and spill a third of the loop to the stack.
        asm("" : "+r"(x));
#pragma GCC unroll 8
        for (int c = 0; c < BLOCK; ++c, packed += lanes) {
          Vector weight[VECTORS];
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v) weight[v] = *(const Vector*)(packed + v * LANES);
#pragma GCC unroll 16
          for (int p = 0; p < PIXELS; ++p) {
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; ++v) sum[p][v] += x[p * BLOCK + c] * weight[v];
          }
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < PIXELS; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) *(Vector*)(staging + p * lanes + v * LANES) = sum[p][v];
  }
}

template <typename C, int VECTORS>
using ConvolvePixels = decltype(&convolve_pixels<C, 1, VECTORS>);

template <typename C, int VECTORS, int MOST>
ConvolvePixels<C, VECTORS> convolve_pixels_for(int64_t pixels) {
  if constexpr (MOST > 1) {
    if (pixels < MOST) return convolve_pixels_for<C, VECTORS, MOST - 1>(pixels);
  }
  return &convolve_pixels<C, MOST, VECTORS>;
}

template <typename C, int VECTORS>
void convolve_row(const C* tile, int64_t row_stride, int64_t block_stride, int64_t blocks, int64_t kernel_h,
                  int64_t kernel_w, const C* packed, int64_t lanes, C* staging, int64_t columns) {
  // As many sums as registers hold beside the weights; a row is cut into near-equal pieces.
  constexpr int MOST = VECTOR_REGISTERS / VECTORS - 2 < 12 ? VECTOR_REGISTERS / VECTORS - 2 : 12;
  const int64_t pieces = (columns + MOST - 1) / MOST;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t begin = piece * columns / pieces, end = (piece + 1) * columns / pieces;
    convolve_pixels_for<C, VECTORS, MOST>(end - begin)(tile + begin * BLOCK, row_stride, block_stride, blocks,
                                                       kernel_h, kernel_w, packed, lanes, staging + begin * lanes);
  }
}

// Adds the convolution of a tile to the outputs of `target`, a rectangle of a staging tile staging_columns wide.
// The tile holds just the inputs that target needs.
template <typename C>
void convolve(const C* tile, int64_t in_channels, int64_t kernel_h, int64_t kernel_w, const C* packed, int64_t lanes,
              Rect target, int64_t staging_columns, C* staging) {
  constexpr int LANES = VectorOf<C>::lanes;
  const int64_t blocks = (in_channels + BLOCK - 1) / BLOCK, columns = target.columns();
  const int64_t block_stride = (columns + kernel_w - 1) * BLOCK, row_stride = blocks * block_stride;
  for (int64_t y = 0; y < target.rows(); ++y) {
    C* out = staging + ((target.y0 + y) * staging_columns + target.x0) * lanes;
    const C* in = tile + y * row_stride;
    int64_t lane = 0;
    for (; lane + 2 * LANES <= lanes; lane += 2 * LANES) {
      convolve_row<C, 2>(in, row_stride, block_stride, blocks, kernel_h, kernel_w, packed + lane, lanes, out + lane,
                         columns);
    }
    if (lane < lanes) {
      convolve_row<C, 1>(in, row_stride, block_stride, blocks, kernel_h, kernel_w, packed + lane, lanes, out + lane,
                         columns);
    }
  }
}

// Adds one kernel tap's gradient for BLOCK input channels and VECTORS vectors of output channels.
template <typename C, int VECTORS>
void accumulate_tap(const C* tile, int64_t row_stride, const C* grad, int64_t lanes, int64_t rows, int64_t columns,
                    C* sums) {
  using Vector = typename VectorOf<C>::type;
  constexpr int LANES = VectorOf<C>::lanes;
  Vector sum[BLOCK][VECTORS] = {};
  for (int64_t y = 0; y < rows; ++y) {
    const C* x = tile + y * row_stride;
    const C* g = grad + y * columns * lanes;
    for (int64_t column = 0; column < columns; ++column, x += BLOCK, g += lanes) {
      Vector out[VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) out[v] = *(const Vector*)(g + v * LANES);
#pragma GCC unroll 8
      for (int c = 0; c < BLOCK; ++c) {
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) sum[c][v] += x[c] * out[v];
      }
    }
  }
  for (int c = 0; c < BLOCK; ++c) {
    for (int v = 0; v < VECTORS; ++v) *(Vector*)(sums + c * lanes + v * LANES) += sum[c][v];
  }
}

// Adds a tile's share to the gradients of one cell's weights, laid out as packed, and of its bias, (lanes).
template <typename C>
void accumulate_weight(const C* tile, int64_t in_channels, int64_t kernel_h, int64_t kernel_w, const C* grad,
                       int64_t lanes, int64_t rows, int64_t columns, C* weight_sums, C* bias_sums) {
  constexpr int LANES = VectorOf<C>::lanes;
  const int64_t blocks = (in_channels + BLOCK - 1) / BLOCK;
  const int64_t block_stride = (columns + kernel_w - 1) * BLOCK, row_stride = blocks * block_stride;
  for (int64_t ky = 0; ky < kernel_h; ++ky) {
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t kx = 0; kx < kernel_w; ++kx, weight_sums += BLOCK * lanes) {
        const C* x = tile + ky * row_stride + block * block_stride + kx * BLOCK;
        int64_t lane = 0;
        if constexpr (VECTOR_REGISTERS >= 32) {
          for (; lane + 2 * LANES <= lanes; lane += 2 * LANES) {
            accumulate_tap<C, 2>(x, row_stride, grad + lane, lanes, rows, columns, weight_sums + lane);
          }
        }
        for (; lane < lanes; lane += LANES) {
          accumulate_tap<C, 1>(x, row_stride, grad + lane, lanes, rows, columns, weight_sums + lane);
        }
      }
    }
  }
  for (int64_t i = 0; i < rows * columns; ++i) {
    for (int64_t o = 0; o < lanes; ++o) bias_sums[o] += grad[i * lanes + o];
  }
}

template <typename T>
Kernels<T> kernels() {
  using C = typename Compute<T>::type;
  return {VectorOf<C>::lanes,   &load_tile<T, C>,   &load_staging<T, C>, &store_staging<T, C>,
          &start_staging<T, C>, &pack_weight<T, C>, &convolve<C>,        &accumulate_weight<C>};
}
