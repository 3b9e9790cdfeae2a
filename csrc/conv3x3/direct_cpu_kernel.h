// The inner loops of a direct 3 x 3 convolution of few channels, in GCC vector types. Included by
// ../common/for_each_cpu_level.h. Lanes are output channels, or input channels where these are more.

typedef float Vector __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef float UnalignedVector __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(4)));

constexpr int LANES = VECTOR_BYTES / sizeof(float);
constexpr int MOST_PIXELS = VECTOR_REGISTERS >= 32 ? 14 : 6;

// Computes PIXELS neighbouring outputs of two vectors of output channels. `rows` are three input rows, (channel,
// column), `filters` (ky, input channel, kx, two vectors).
template <int PIXELS>
void convolve_pixels(const float* const* rows, int64_t row_length, int64_t in_channels, int64_t x,
                     const float* filters, const float* bias, bool relu, float* output, int64_t stride_x,
                     int64_t out_channels) {
  Vector sum[PIXELS][2];
#pragma GCC unroll 16
  for (int p = 0; p < PIXELS; ++p) {
    sum[p][0] = *(const Vector*)bias;
    sum[p][1] = *(const Vector*)(bias + LANES);
  }
  for (int ky = 0; ky < 3; ++ky) {
    for (int64_t c = 0; c < in_channels; ++c) {
      const float* in = rows[ky] + c * row_length + x;
      for (int kx = 0; kx < 3; ++kx, ++in, filters += 2 * LANES) {
        const Vector first = *(const Vector*)filters, second = *(const Vector*)(filters + LANES);
#pragma GCC unroll 16
        for (int p = 0; p < PIXELS; ++p) {
          sum[p][0] += in[p] * first;
          sum[p][1] += in[p] * second;
        }
      }
    }
  }
  const Vector zero = {};
#pragma GCC unroll 16
  for (int p = 0; p < PIXELS; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const Vector value = relu ? (sum[p][v] < zero ? zero : sum[p][v]) : sum[p][v];
      float* to = output + p * stride_x + v * LANES;
      const int64_t count = out_channels - v * LANES;
      if (count >= LANES) {
        *(UnalignedVector*)to = value;
      } else {
        for (int64_t c = 0; c < count; ++c) to[c] = value[c];
      }
    }
  }
}

template <int MOST>
decltype(&convolve_pixels<1>) convolve_pixels_for(int64_t pixels) {
  if constexpr (MOST > 1) {
    if (pixels < MOST) return convolve_pixels_for<MOST - 1>(pixels);
  }
  return &convolve_pixels<MOST>;
}

void convolve_row(const float* const* rows, int64_t row_length, int64_t in_channels, int64_t columns,
                  const float* filters, const float* bias, bool relu, float* output, int64_t stride_x,
                  int64_t out_channels) {
  const int64_t strips = (columns + MOST_PIXELS - 1) / MOST_PIXELS;  // near-equal
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t begin = strip * columns / strips, end = (strip + 1) * columns / strips;
    convolve_pixels_for<MOST_PIXELS>(end - begin)(rows, row_length, in_channels, begin, filters, bias, relu,
                                                  output + begin * stride_x, stride_x, out_channels);
  }
}

// Computes PIXELS neighbouring outputs of one channel. `rows` are three input rows, (column, input channel), with
// whole vectors of channels, `filter` (ky, kx, input channel).
template <int PIXELS>
void dot_pixels(const float* const* rows, int64_t channels, int64_t x, const float* filter, float bias, bool relu,
                float* output, int64_t stride_x) {
  Vector sum[PIXELS] = {};
  for (int ky = 0; ky < 3; ++ky) {
    const float* in = rows[ky] + x * channels;
    for (int64_t i = 0; i < 3 * channels; i += LANES, in += LANES, filter += LANES) {
      const Vector f = *(const Vector*)filter;
#pragma GCC unroll 4
      for (int p = 0; p < PIXELS; ++p) sum[p] += *(const UnalignedVector*)(in + p * channels) * f;
    }
  }
  for (int p = 0; p < PIXELS; ++p) {
    float lanes[LANES];
    *(UnalignedVector*)lanes = sum[p];
    for (int half = LANES / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    }
    const float value = lanes[0] + bias;
    output[p * stride_x] = relu && value < 0 ? 0 : value;
  }
}

void dot_row(const float* const* rows, int64_t channels, int64_t columns, const float* filter, float bias, bool relu,
             float* output, int64_t stride_x) {
  int64_t x = 0;
  for (; x + 4 <= columns; x += 4) {
    dot_pixels<4>(rows, channels, x, filter, bias, relu, output + x * stride_x, stride_x);
  }
  for (; x < columns; ++x) dot_pixels<1>(rows, channels, x, filter, bias, relu, output + x * stride_x, stride_x);
}

Kernels kernels() { return {LANES, &convolve_row, &dot_row}; }
