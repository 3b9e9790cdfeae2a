// The inner loops of the region convolution, in GCC vector types. Included by ../common/for_each_cpu_level.h.
//
// They multiply units, which have the size of the compute type C. A unit is one value, or a pair of bfloat16 values
// whose products one instruction adds: of two channels in a convolution, of two images in a weight gradient. Where
// the output channels fill at most half a vector, the vector has two lanes for each, which make a group: they take
// every other unit each, and are added at the end.
//
//   ring     (row, channel block, column, unit): the last few rows of an input, with padding. The units of a block of
//            channels are neighbours, so that the distance of pixels is a constant, a displacement in loads
//   packed   (ky, channel block, kx, unit / group, lane): one cell's weights
//   staging  (row, column, lane): outputs; lane = output channel * group + unit % group, in whole vectors

template <typename C>
struct VectorOf {
  typedef C type __attribute__((vector_size(VECTOR_BYTES), may_alias));
  static constexpr int lanes = VECTOR_BYTES / sizeof(C);
};

// How PAIR values of type T make a unit, and how units are multiplied.
template <typename T>
struct Unit {
  using C = typename Compute<T>::type;
  using Vector = typename VectorOf<C>::type;
  static constexpr int PAIR = 1;
  static C of(T value) { return widen(value); }
  static C one() { return 1; }
  static Vector multiply_add(Vector sum, Vector a, Vector b) { return sum + a * b; }
  static Vector multiply_add(Vector sum, const C* a, Vector b) { return sum + *a * b; }
};

#ifdef CPU_HAS_BF16
template <>
struct Unit<BFloat16> {
  using C = float;
  using Vector = VectorOf<float>::type;
  static constexpr int PAIR = 2;
  static C of(BFloat16 first, BFloat16 second) {
    return detail::bit_cast<float>(first.bits | static_cast<uint32_t>(second.bits) << 16);
  }
  static C one() { return detail::bit_cast<float>(uint32_t{0x3f803f80}); }
  static Vector multiply_add(Vector sum, Vector a, Vector b) {
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
  static Vector multiply_add(Vector sum, const C* a, Vector b) {
    typedef uint32_t Bits __attribute__((may_alias));
    typedef uint32_t BitVector __attribute__((vector_size(VECTOR_BYTES)));
    return multiply_add(sum, (Vector)(BitVector{} + *(const Bits*)a), b);
  }
};
#endif

// Adds the products of b with a group of units, which is repeated over the lanes.
template <typename T, int GROUP>
inline typename Unit<T>::Vector multiply_add(typename Unit<T>::Vector sum, const typename Unit<T>::C* group,
                                             typename Unit<T>::Vector b) {
  if constexpr (GROUP == 1) {
    return Unit<T>::multiply_add(sum, group, b);
  } else {
    static_assert(GROUP * sizeof(*group) == sizeof(uint64_t), "a group is repeated as one integer");
    typedef uint64_t Bits __attribute__((may_alias, aligned(4)));
    typedef uint64_t BitVector __attribute__((vector_size(VECTOR_BYTES)));
    return Unit<T>::multiply_add(sum, (typename Unit<T>::Vector)(BitVector{} + *(const Bits*)group), b);
  }
}

template <typename T>
inline T* pixel(const ImageView& image, int64_t n, int64_t c, int64_t y, int64_t x) {
  return static_cast<T*>(image.data) + n * image.stride.n + c * image.stride.c + y * image.stride.y +
         x * image.stride.x;
}

template <typename C>
inline void fill_zero(C* data, int64_t count) {
  for (int64_t i = 0; i < count; ++i) data[i] = 0;
}

#include "../common/transpose_rows.h"

// Makes a row of `count` units from `first` and, where they are pairs, `second`. A null pointer stands for zeros.
template <typename T>
inline void read_units(const T* first, const T* second, int64_t stride, int64_t count, typename Unit<T>::C* to) {
  if (first == nullptr) return fill_zero(to, count);
  if constexpr (Unit<T>::PAIR == 1) {
    if (stride == 1) {
      for (int64_t i = 0; i < count; ++i) to[i] = Unit<T>::of(first[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = Unit<T>::of(first[i * stride]);
    }
  } else if (second == nullptr) {
    for (int64_t i = 0; i < count; ++i) to[i] = Unit<T>::of(first[i * stride], T{});
  } else if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) to[i] = Unit<T>::of(first[i], second[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = Unit<T>::of(first[i * stride], second[i * stride]);
  }
}

// Prefetches a row of an image that is needed soon. It must be inlined by force: GCC 12 holds that a function which
// only prefetches does nothing, and drops the calls of it.
template <typename T, int FOR_WRITING>
__attribute__((always_inline)) inline void prefetch_row(const ImageView& image, int64_t n, int64_t channels,
                                                        int64_t y, int64_t x0, int64_t x1) {
  constexpr int64_t CACHE_LINE = 64;
  const bool together = image.stride.c == 1;
  const int64_t values = together ? channels : 1;  // of a pixel, side by side
  if (image.stride.x > 4 * channels) return;       // pixels lie apart: cache lines would hold little of use
  const int64_t bytes = ((x1 - x0 - 1) * image.stride.x + values) * int64_t{sizeof(T)};
  for (int64_t c = 0; c < (together ? 1 : channels); ++c) {
    const char* start = (const char*)pixel<T>(image, n, c, y, x0);
    for (int64_t byte = 0; byte < bytes; byte += CACHE_LINE) __builtin_prefetch(start + byte, FOR_WRITING, 3);
  }
}

// Reads columns x0 .. x1 - 1 of a row of the source into a row of a ring, with zeros outside the clip. `rows` has
// room for four rows of units.
template <typename T>
void load_row(const Source& source, int64_t y, int64_t x0, int64_t x1, typename Unit<T>::C* rows,
              typename Unit<T>::C* to) {
  using C = typename Unit<T>::C;
  const ImageView& image = source.image;
  const Rect& clip = source.clip;
  const bool pairs_images = source.images > 0;
  const int64_t channels_per_unit = pairs_images ? 1 : Unit<T>::PAIR, units = CHANNEL_BLOCK / channels_per_unit;
  const int64_t columns = x1 - x0, begin = x0 > clip.x0 ? x0 : clip.x0, end = x1 < clip.x1 ? x1 : clip.x1;
  const int64_t count = end - begin;
  if (y < clip.y0 || y >= clip.y1 || count <= 0) return fill_zero(to, blocks_of(source.channels) * columns * units);
  if (y + 1 < clip.y1) prefetch_row<T, 0>(image, source.n, source.channels, y + 1, begin, end);

  for (int64_t first = 0; first < source.channels; first += CHANNEL_BLOCK, to += columns * units) {
    fill_zero(to, (begin - x0) * units);
    fill_zero(to + (end - x0) * units, (x1 - end) * units);
    C* inside = to + (begin - x0) * units;
    const T* from = pixel<T>(image, source.n, first, y, begin);
    const T* next_image = source.images > 1 ? from + image.stride.n : nullptr;
    if (image.stride.c == 1 && first + CHANNEL_BLOCK <= source.channels) {
      if (!pairs_images && sizeof(C) == Unit<T>::PAIR * sizeof(T)) {
        const int64_t step = image.stride.x;
        for (int64_t x = 0; x < count; ++x) {
          __builtin_memcpy(inside + x * units, from + x * step, CHANNEL_BLOCK * sizeof(T));
        }
      } else {
        for (int64_t x = 0; x < count; ++x) {
          const int64_t step = x * image.stride.x;
          read_units<T>(from + step, next_image == nullptr ? nullptr : next_image + step, 1, CHANNEL_BLOCK,
                        inside + x * units);
        }
      }
      continue;
    }
    const auto channel = [&](const T* base, int64_t c) -> const T* {
      return base != nullptr && first + c < source.channels ? base + c * image.stride.c : nullptr;
    };
    for (int64_t unit = 0; unit < units; unit += 4) {
      if constexpr (sizeof(T) == sizeof(C)) {
        if (image.stride.x == 1 && first + unit + 4 <= source.channels) {
          transpose_rows((const C*)channel(from, unit), image.stride.c, count, inside + unit, units);
          continue;
        }
      }
      for (int64_t row = 0; row < 4; ++row) {
        const int64_t c = (unit + row) * channels_per_unit;
        read_units<T>(channel(from, c), pairs_images ? channel(next_image, c) : channel(from, c + 1), image.stride.x,
                      count, rows + row * count);
      }
      transpose_rows<C>(rows, count, count, inside + unit, units);
    }
  }
}

// Reads columns x0 .. x1 - 1 of a row into staging, each unit `group` times side by side, with zeros in the lanes
// past the channels. Units pair images.
template <typename T>
void load_staging(const Source& source, Lanes lanes, int64_t y, int64_t x0, int64_t x1, typename Unit<T>::C* rows,
                  typename Unit<T>::C* staging) {
  const ImageView& image = source.image;
  const int64_t columns = x1 - x0, channels = source.channels;
  const T* from = pixel<T>(image, source.n, 0, y, x0);
  const T* next_image = source.images > 1 ? from + image.stride.n : nullptr;
  if (y + 1 < source.clip.y1) prefetch_row<T, 0>(image, source.n, channels, y + 1, x0, x1);
  if (image.stride.c == 1 && lanes.group == 1) {
    for (int64_t x = 0; x < columns; ++x, staging += lanes.count) {
      const int64_t step = x * image.stride.x;
      read_units<T>(from + step, next_image == nullptr ? nullptr : next_image + step, 1, channels, staging);
      fill_zero(staging + channels, lanes.count - channels);
    }
    return;
  }
  if (image.stride.c == 1 && channels * lanes.group == lanes.count) {
    for (int64_t x = 0; x < columns; ++x) {
      const int64_t step = x * image.stride.x;
      read_units<T>(from + step, next_image == nullptr ? nullptr : next_image + step, 1, channels,
                    rows + x * channels);
    }
    for (int64_t i = 0; i < columns * channels; ++i) staging[2 * i] = staging[2 * i + 1] = rows[i];
    return;
  }
  for (int64_t lane = 0; lane < lanes.count; lane += 4) {
    for (int64_t row = 0; row < 4; ++row) {
      const int64_t c = (lane + row) / lanes.group;
      const T* channel = c < channels ? from + c * image.stride.c : nullptr;
      const T* other = c < channels && next_image != nullptr ? next_image + c * image.stride.c : nullptr;
      read_units<T>(channel, other, image.stride.x, columns, rows + row * columns);
    }
    transpose_rows(rows, columns, columns, staging + lane, lanes.count);
  }
}

// Writes a row of staging to row y of image n, from column x0 on. `rows` has room for a row of all channels.
template <typename T>
void store_row(typename Unit<T>::C* staging, Lanes lanes, const ImageView& image, int64_t n, int64_t channels,
               int64_t y, int64_t x0, int64_t columns, typename Unit<T>::C* rows) {
  using C = typename Unit<T>::C;
  T* to = pixel<T>(image, n, 0, y, x0);
  const int64_t stride = lanes.count / lanes.group;
  if (lanes.group == 2) {
    C* __restrict folded = rows + channels * columns;
    for (int64_t i = 0; i < columns * stride; ++i) folded[i] = staging[2 * i] + staging[2 * i + 1];
    staging = folded;
  }
  if (image.stride.c == 1 && image.stride.x == channels && channels == stride) {
    for (int64_t i = 0; i < columns * channels; ++i) to[i] = narrow<T>(staging[i]);
    return;
  }
  if (image.stride.c == 1) {
    for (int64_t x = 0; x < columns; ++x) {
      for (int64_t c = 0; c < channels; ++c) to[x * image.stride.x + c] = narrow<T>(staging[x * stride + c]);
    }
    return;
  }
  int64_t x = 0;
  if constexpr (sizeof(T) == sizeof(C)) {
    if (image.stride.x == 1) {
      for (; x + 4 <= columns; x += 4) {
        transpose_rows(staging + x * stride, stride, channels, (C*)to + x, image.stride.c);
      }
    }
  } else {
    for (; x + 4 <= columns; x += 4) {
      transpose_rows(staging + x * stride, stride, channels, rows + x, columns);
    }
    for (int64_t c = 0; c < channels; ++c) {
      T* channel = to + c * image.stride.c;
      if (image.stride.x == 1) {
        for (int64_t i = 0; i < x; ++i) channel[i] = narrow<T>(rows[c * columns + i]);
      } else {
        for (int64_t i = 0; i < x; ++i) channel[i * image.stride.x] = narrow<T>(rows[c * columns + i]);
      }
    }
  }
  for (; x < columns; ++x) {
    for (int64_t c = 0; c < channels; ++c) {
      to[c * image.stride.c + x * image.stride.x] = narrow<T>(staging[x * stride + c]);
    }
  }
}

// Packs one cell's weights. The convolution sums over view.in: for the input gradient the two kinds of channels are
// exchanged, and both axes of the filters run backwards. `rows` has room for eight rows of weights.
template <typename T>
void pack_weight(const T* weight, const WeightView& view, Lanes lanes, typename Unit<T>::C* rows,
                 typename Unit<T>::C* packed) {
  using C = typename Unit<T>::C;
  constexpr int PAIR = Unit<T>::PAIR;
  const int64_t taps = view.kernel_h * view.kernel_w, step = PAIR * lanes.group, blocks = blocks_of(view.in);
  const int64_t groups = CHANNEL_BLOCK / step, columns = blocks * groups * taps;
  C* const transposed = rows + 4 * columns;
  for (int64_t lane = 0; lane < lanes.count; lane += 4) {
    for (int64_t row = 0; row < 4; ++row) {
      const int64_t o = (lane + row) / lanes.group, first = (lane + row) % lanes.group * PAIR;
      C* to = rows + row * columns;
      for (int64_t i = first; i < blocks * CHANNEL_BLOCK; i += step, to += taps) {
        const T* from = weight + view.start + i * view.stride_in + o * view.stride_out;
        const bool here = o < view.out && i < view.in;
        if constexpr (PAIR == 1) {
          read_units<T>(here ? from : nullptr, nullptr, view.stride_tap, taps, to);
        } else {
          read_units<T>(here ? from : nullptr, here && i + 1 < view.in ? from + view.stride_in : nullptr,
                        view.stride_tap, taps, to);
        }
      }
    }
    transpose_rows<C>(rows, columns, columns, transposed, 4);
    const C* from = transposed;
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t group = 0; group < groups; ++group) {
        for (int64_t ky = 0; ky < view.kernel_h; ++ky) {
          for (int64_t kx = 0; kx < view.kernel_w; ++kx, from += 4) {
            const int64_t to = ((ky * blocks + block) * view.kernel_w + kx) * groups + group;
            __builtin_memcpy(packed + to * lanes.count + lane, from, 4 * sizeof(C));
          }
        }
      }
    }
  }
}

// Unpacks the sums of one cell's weight gradient to (out, in, kernel_h, kernel_w).
template <typename T>
void unpack_weight(const typename Unit<T>::C* sums, const WeightView& view, Lanes lanes, typename Unit<T>::C* rows,
                   T* grad_weight) {
  using C = typename Unit<T>::C;
  const int64_t taps = view.kernel_h * view.kernel_w, blocks = blocks_of(view.in), filter = view.in * taps;
  const int64_t columns = (filter + 3) / 4 * 4;
  C* const transposed = rows + 4 * columns;
  for (int64_t lane = 0; lane < lanes.count; lane += 4) {
    C* to = transposed;
    for (int64_t i = 0; i < view.in; ++i) {
      const int64_t unit = i % CHANNEL_BLOCK;
      for (int64_t ky = 0; ky < view.kernel_h; ++ky) {
        for (int64_t kx = 0; kx < view.kernel_w; ++kx, to += 4) {
          const int64_t tap = (ky * blocks + i / CHANNEL_BLOCK) * view.kernel_w + kx;
          const int64_t from = (tap * CHANNEL_BLOCK + unit) / lanes.group * lanes.count + lane;
          __builtin_memcpy(to, sums + from, 4 * sizeof(C));
        }
      }
    }
    for (int64_t k = 0; k < columns; k += 4) transpose_rows<C>(transposed + 4 * k, 4, 4, rows + k, columns);
    // Each lane of a group has every other channel.
    for (int64_t row = 0; row < 4; ++row) {
      const int64_t o = (lane + row) / lanes.group, first = (lane + row) % lanes.group;
      if (o >= view.out) continue;
      for (int64_t i = first; i < view.in; i += lanes.group) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          grad_weight[o * filter + i * taps + tap] = narrow<T>(rows[row * columns + i * taps + tap]);
        }
      }
    }
  }
}

// Adds the convolution to PIXELS neighbouring outputs of a row, VECTORS vectors of lanes each, in registers.
template <typename T, int GROUP, int VECTORS, int PIXELS>
void convolve_pixels(const Ring<typename Unit<T>::C>& ring, int64_t x, const typename Unit<T>::C* packed,
                     int64_t lanes, typename Unit<T>::C* staging) {
  using C = typename Unit<T>::C;
  using Vector = typename VectorOf<C>::type;
  constexpr int LANES = VectorOf<C>::lanes, UNITS = CHANNEL_BLOCK / Unit<T>::PAIR;
  Vector sum[PIXELS][VECTORS];
#pragma GCC unroll 32
  for (int p = 0; p < PIXELS; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) sum[p][v] = *(const Vector*)(staging + p * lanes + v * LANES);
  }
  for (int64_t ky = 0; ky < ring.kernel_h; ++ky) {
    for (int64_t block = 0; block < ring.blocks; ++block) {
      const C* in = ring.row(ky) + block * ring.block_size + x * UNITS;
      for (int64_t kx = 0; kx < ring.kernel_w; ++kx, in += UNITS) {
        // Hides from GCC that the next tap reads these inputs again. GCC would keep them in registers, of which none
        // is left, and spill a third of the loop to the stack.
        asm("" : "+r"(in));
#pragma GCC unroll 8
        for (int unit = 0; unit < UNITS; unit += GROUP, packed += lanes) {
          Vector weight[VECTORS];
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v) weight[v] = *(const Vector*)(packed + v * LANES);
#pragma GCC unroll 32
          for (int p = 0; p < PIXELS; ++p) {
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; ++v) {
              sum[p][v] = multiply_add<T, GROUP>(sum[p][v], in + p * UNITS + unit, weight[v]);
            }
          }
        }
      }
    }
  }
#pragma GCC unroll 32
  for (int p = 0; p < PIXELS; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) *(Vector*)(staging + p * lanes + v * LANES) = sum[p][v];
  }
}

template <typename T, int GROUP, int VECTORS, int MOST>
decltype(&convolve_pixels<T, GROUP, VECTORS, 1>) convolve_pixels_for(int64_t pixels) {
  if constexpr (MOST > 1) {
    if (pixels < MOST) return convolve_pixels_for<T, GROUP, VECTORS, MOST - 1>(pixels);
  }
  return &convolve_pixels<T, GROUP, VECTORS, MOST>;
}

template <typename T, int GROUP, int VECTORS>
void convolve_lanes(const Ring<typename Unit<T>::C>& ring, const typename Unit<T>::C* packed, int64_t lanes,
                    int64_t columns, typename Unit<T>::C* staging) {
  // As many pixels as registers have room for beside the weights; a row is cut into near-equal strips.
  constexpr int MOST = VECTOR_REGISTERS >= 32 ? (VECTORS == 1 ? 22 : 14) : VECTOR_REGISTERS / VECTORS - 2;
  const int64_t strips = (columns + MOST - 1) / MOST;
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t begin = strip * columns / strips, end = (strip + 1) * columns / strips;
    convolve_pixels_for<T, GROUP, VECTORS, MOST>(end - begin)(ring, begin, packed, lanes, staging + begin * lanes);
  }
}

// Adds one output row to a row of staging.
template <typename T>
void convolve_row(const Ring<typename Unit<T>::C>& ring, const typename Unit<T>::C* packed, Lanes lanes,
                  int64_t columns, typename Unit<T>::C* staging) {
  using C = typename Unit<T>::C;
  constexpr int LANES = VectorOf<C>::lanes;
  if constexpr (2 * sizeof(C) == sizeof(uint64_t)) {
    if (lanes.group == 2) return convolve_lanes<T, 2, 1>(ring, packed, lanes.count, columns, staging);
  }
  int64_t lane = 0;
  for (; lane + 2 * LANES <= lanes.count; lane += 2 * LANES) {
    convolve_lanes<T, 1, 2>(ring, packed + lane, lanes.count, columns, staging + lane);
  }
  for (; lane < lanes.count; lane += LANES) {
    convolve_lanes<T, 1, 1>(ring, packed + lane, lanes.count, columns, staging + lane);
  }
}

// Sets every pixel of a row of staging to the bias, or to zero.
template <typename T>
void start_row(const T* bias, int64_t channels, Lanes lanes, int64_t columns, typename Unit<T>::C* staging) {
  using Vector = typename VectorOf<typename Unit<T>::C>::type;
  fill_zero(staging, lanes.count);
  if (bias != nullptr) {
    for (int64_t o = 0; o < channels; ++o) staging[o * lanes.group] = widen(bias[o]);
  }
  for (int64_t lane = 0; lane < lanes.count; lane += VectorOf<typename Unit<T>::C>::lanes) {
    const Vector start = *(const Vector*)(staging + lane);
    for (int64_t x = 1; x < columns; ++x) *(Vector*)(staging + x * lanes.count + lane) = start;
  }
}

// Calls body(y, ring) for every row y of `area`. The ring then has the input rows of y and of the `outputs` - 1 rows
// before it.
template <typename T, typename Body>
inline void for_each_row(const Source& source, const WeightView& view, Rect area, int64_t outputs,
                         const Scratches<T>& scratch, const Body& body) {
  const int64_t reach_y = view.kernel_h / 2, reach_x = view.kernel_w / 2;
  Ring<typename Unit<T>::C> ring(scratch.ring, view, source.images > 0 ? 1 : Unit<T>::PAIR, area.columns(), outputs);
  for (int64_t y = area.y0 - reach_y; y < area.y1 + reach_y; ++y) {
    load_row<T>(source, y, area.x0 - reach_x, area.x1 + reach_x, scratch.rows, ring.newest());
    ring.turn();
    if (y >= area.y0 + reach_y) body(y - reach_y, ring);
  }
}

// Writes the convolution of the source to `area` of an image.
template <typename T>
void convolve(const Source& source, const WeightView& view, const typename Unit<T>::C* packed, Lanes lanes,
              const T* bias, const ImageView& image, Rect area, const Scratches<T>& scratch) {
  const int64_t columns = area.columns();
  auto* const staging = scratch.staging;
  for_each_row<T>(source, view, area, 1, scratch, [&](int64_t y, const auto& ring) {
    prefetch_row<T, 1>(image, source.n, view.out, y, area.x0, area.x1);
    start_row(bias, view.out, lanes, columns, staging);
    convolve_row<T>(ring, packed, lanes, columns, staging);
    store_row<T>(staging, lanes, image, source.n, view.out, y, area.x0, columns, scratch.rows);
  });
}

// Adds the convolution of the source to the part `target` of a staging rectangle that begins at (y0, x0) and is
// `columns` wide.
template <typename T>
void convolve_add(const Source& source, const WeightView& view, const typename Unit<T>::C* packed, Lanes lanes,
                  Rect target, int64_t y0, int64_t x0, int64_t columns, const Scratches<T>& scratch) {
  for_each_row<T>(source, view, target, 1, scratch, [&](int64_t y, const auto& ring) {
    convolve_row<T>(ring, packed, lanes, target.columns(),
                    scratch.staging + ((y - y0) * columns + target.x0 - x0) * lanes.count);
  });
}

// Adds to the gradients of TAPS neighbouring taps, for a block of input channels and VECTORS vectors of lanes.
template <typename T, int GROUP, int VECTORS, int TAPS>
void accumulate_taps(const Ring<typename Unit<T>::C>& ring, int64_t ky, int64_t block, int64_t kx,
                     const typename Unit<T>::C* grad, int64_t lanes, int64_t rows, int64_t columns,
                     typename Unit<T>::C* sums) {
  using C = typename Unit<T>::C;
  using Vector = typename VectorOf<C>::type;
  constexpr int LANES = VectorOf<C>::lanes, GROUPS = CHANNEL_BLOCK / GROUP;
  Vector sum[TAPS][GROUPS][VECTORS] = {};
  for (int64_t y = 0; y < rows; ++y) {
    const C* x = ring.row(y + ky) + block * ring.block_size + kx * CHANNEL_BLOCK;
    for (int64_t column = 0; column < columns; ++column, x += CHANNEL_BLOCK, grad += lanes) {
      Vector out[VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) out[v] = *(const Vector*)(grad + v * LANES);
#pragma GCC unroll 3
      for (int tap = 0; tap < TAPS; ++tap) {
#pragma GCC unroll 8
        for (int c = 0; c < GROUPS; ++c) {
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v) {
            sum[tap][c][v] = multiply_add<T, GROUP>(sum[tap][c][v], x + tap * CHANNEL_BLOCK + c * GROUP, out[v]);
          }
        }
      }
    }
  }
#pragma GCC unroll 3
  for (int tap = 0; tap < TAPS; ++tap) {
#pragma GCC unroll 8
    for (int c = 0; c < GROUPS; ++c, sums += lanes) {
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) *(Vector*)(sums + v * LANES) += sum[tap][c][v];
    }
  }
}

// Adds what a few rows contribute to the gradients of one cell: of its weights, which lie as packed weights of units
// without pairs do, and of its bias, (lanes).
template <typename T>
void accumulate_rows(const Ring<typename Unit<T>::C>& ring, const typename Unit<T>::C* grad, Lanes lanes,
                     int64_t rows, int64_t columns, typename Unit<T>::C* weight_sums,
                     typename Unit<T>::C* bias_sums) {
  using C = typename Unit<T>::C;
  using Vector = typename VectorOf<C>::type;
  constexpr int LANES = VectorOf<C>::lanes;
  constexpr bool MANY_REGISTERS = VECTOR_REGISTERS >= 32;
  const int64_t tap_size = CHANNEL_BLOCK / lanes.group * lanes.count;
  const int taps = MANY_REGISTERS && ring.kernel_w % 3 == 0 ? 3 : 1;
  for (int64_t ky = 0; ky < ring.kernel_h; ++ky) {
    for (int64_t block = 0; block < ring.blocks; ++block) {
      for (int64_t kx = 0; kx < ring.kernel_w; kx += taps, weight_sums += taps * tap_size) {
        if constexpr (2 * sizeof(C) == sizeof(uint64_t)) {
          if (lanes.group == 2) {
            (taps == 3 ? accumulate_taps<T, 2, 1, 3> : accumulate_taps<T, 2, 1, 1>)(ring, ky, block, kx, grad,
                                                                                    lanes.count, rows, columns,
                                                                                    weight_sums);
            continue;
          }
        }
        int64_t lane = 0;
        if constexpr (MANY_REGISTERS) {
          for (; lane + 2 * LANES <= lanes.count; lane += 2 * LANES) {
            for (int tap = 0; tap < taps; ++tap) {
              accumulate_taps<T, 1, 2, 1>(ring, ky, block, kx + tap, grad + lane, lanes.count, rows, columns,
                                          weight_sums + tap * tap_size + lane);
            }
          }
        }
        for (; lane < lanes.count; lane += LANES) {
          (taps == 3 ? accumulate_taps<T, 1, 1, 3> : accumulate_taps<T, 1, 1, 1>)(ring, ky, block, kx, grad + lane,
                                                                                  lanes.count, rows, columns,
                                                                                  weight_sums + lane);
        }
      }
    }
  }
  const C one = Unit<T>::one();
  for (int64_t lane = 0; lane < lanes.count; lane += LANES) {
    constexpr int SUMS = 8;  // independent of each other, since an addition takes several cycles
    Vector sum[SUMS] = {};
    for (int64_t i = 0; i < rows * columns; ++i) {
      const Vector g = *(const Vector*)(grad + i * lanes.count + lane);
      sum[i % SUMS] = Unit<T>::multiply_add(sum[i % SUMS], &one, g);
    }
    for (int i = 1; i < SUMS; ++i) sum[0] += sum[i];
    *(Vector*)(bias_sums + lane) += sum[0];
  }
}

// Adds what `area` of one image, or of a pair, contributes to the sums of one cell.
template <typename T>
void accumulate_weight(const Source& input, const Source& grad_output, const WeightView& view, Lanes lanes, Rect area,
                       const Scratches<T>& scratch, typename Unit<T>::C* weight_sums,
                       typename Unit<T>::C* bias_sums) {
  const int64_t columns = area.columns();
  int64_t filled = 0;  // output rows in staging
  for_each_row<T>(input, view, area, WEIGHT_ROWS, scratch, [&](int64_t y, auto& ring) {
    load_staging<T>(grad_output, lanes, y, area.x0, area.x1, scratch.rows,
                    scratch.staging + filled * columns * lanes.count);
    if (++filled < WEIGHT_ROWS && y + 1 < area.y1) return;
    ring.look_at(filled);
    accumulate_rows<T>(ring, scratch.staging, lanes, filled, columns, weight_sums, bias_sums);
    filled = 0;
  });
}

template <typename T>
Kernels<T> kernels() {
  return {VectorOf<typename Unit<T>::C>::lanes,
          Unit<T>::PAIR,
          &pack_weight<T>,
          &unpack_weight<T>,
          &convolve<T>,
          &convolve_add<T>,
          &store_row<T>,
          &accumulate_weight<T>};
}
