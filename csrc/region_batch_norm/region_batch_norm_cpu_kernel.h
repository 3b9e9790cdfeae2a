// The passes of the batch norm over runs of memory. Included by ../common/for_each_cpu_level.h.

// A vector of C, or C itself for one lane, so that one expression serves vectors and single values.
template <typename C, int LANES>
struct VectorOf {
  typedef C type __attribute__((vector_size(LANES * sizeof(C))));
};
template <typename C>
struct VectorOf<C, 1> {
  typedef C type;
};

template <typename V>
inline V load(const double* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <typename V>
inline V load(const float* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}

template <typename V>
inline V load(const BFloat16* from) {
  constexpr int LANES = sizeof(V) / sizeof(float);
  if constexpr (LANES == 1) {
    return widen(*from);
  } else {
    typename VectorOf<uint16_t, LANES>::type bits;
    __builtin_memcpy(&bits, from, sizeof(bits));
    return (V)(__builtin_convertvector(bits, typename VectorOf<uint32_t, LANES>::type) << 16);
  }
}

template <typename V>
inline V load(const Half* from) {
  constexpr int LANES = sizeof(V) / sizeof(float);
#if VECTOR_BYTES == 64
  if constexpr (LANES == 16) return (V)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#endif
#if VECTOR_BYTES >= 32
  if constexpr (LANES == 8) return (V)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#endif
  if constexpr (LANES == 1) {
    return widen(*from);
  } else {
    V v;
    for (int lane = 0; lane < LANES; ++lane) v[lane] = widen(from[lane]);
    return v;
  }
}

template <typename V>
inline void store(double* to, V v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

template <typename V>
inline void store(float* to, V v) {
  __builtin_memcpy(to, &v, sizeof(v));
}

// narrow<BFloat16> on vectors, except that the processor's own conversion takes denormal numbers for 0.
template <typename V>
inline void store(BFloat16* to, V v) {
  constexpr int LANES = sizeof(V) / sizeof(float);
#ifdef CPU_HAS_BF16
  if constexpr (LANES == 16) return _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh((__m512)v));
#endif
  if constexpr (LANES == 1) {
    *to = narrow<BFloat16>(v);
  } else {
    typedef typename VectorOf<uint32_t, LANES>::type Bits;
    const Bits bits = (Bits)v, high = bits >> 16;
    const Bits rounded = (bits + 0x7fff + (high & 1)) >> 16;
    const auto half =
        __builtin_convertvector(v != v ? high | 0x40 : rounded, typename VectorOf<uint16_t, LANES>::type);
    __builtin_memcpy(to, &half, sizeof(half));
  }
}

template <typename V>
inline void store(Half* to, V v) {
  constexpr int LANES = sizeof(V) / sizeof(float);
#if VECTOR_BYTES == 64
  if constexpr (LANES == 16) {
    return _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT));
  }
#endif
#if VECTOR_BYTES >= 32
  if constexpr (LANES == 8) {
    return _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  if constexpr (LANES == 1) {
    *to = narrow<Half>(v);
  } else {
    for (int lane = 0; lane < LANES; ++lane) to[lane] = narrow<Half>(v[lane]);
  }
}

// A pass has a function at<V>(i, j), which works on one vector V of elements, from element i on; the tables have
// their channels from entry j on.
template <int LANES, typename Pass>
inline void rest_of_run(const Pass& pass, int64_t i, int64_t j, int64_t length) {
  if (i + LANES <= length) {
    pass.template at<typename VectorOf<typename Pass::C, LANES>::type>(i, j);
    i += LANES;
    j += LANES;
  }
  if constexpr (LANES > 1) rest_of_run<LANES / 2>(pass, i, j, length);
}

template <typename Pass>
inline void over_run(const Pass& pass, int64_t length, int64_t period) {
  constexpr int LANES = VECTOR_BYTES / sizeof(typename Pass::C);
  using V = typename VectorOf<typename Pass::C, LANES>::type;
  int64_t i = 0, j = 0;
  for (; i + period <= length; i += period) {
#pragma GCC unroll 4
    for (int64_t k = 0; k < period; k += LANES) pass.template at<V>(i + k, k);
  }
  for (; i + LANES <= length; i += LANES, j += LANES) pass.template at<V>(i, j);
  rest_of_run<LANES / 2>(pass, i, j, length);
}

template <typename T>
struct MomentsPass {
  using C = typename Compute<T>::type;
  const T* x;
  const Sums<C> sums;

  template <typename V>
  inline void at(int64_t i, int64_t j) const {
    const V d = load<V>(x + i) - load<V>(sums.shift + j);
    store(sums.sum + j, load<V>(sums.sum + j) + d);
    store(sums.product + j, load<V>(sums.product + j) + d * d);
  }
};

template <typename T, bool RELU>
struct NormalisePass {
  using C = typename Compute<T>::type;
  const T* x;
  const Tables<C> tables;
  T* output;

  template <typename V>
  inline void at(int64_t i, int64_t j) const {
    const V d = load<V>(x + i) - load<V>(tables.mean + j);
    const V y = d * load<V>(tables.scale + j) + load<V>(tables.bias + j);
    if constexpr (RELU) {
      store(output + i, y < V{} ? V{} : y);  // in this order, so that a NaN stays
    } else {
      store(output + i, y);
    }
  }
};

// The gradient before ReLU. ReLU's argument is worked out by the same operations as in NormalisePass.
template <typename V, bool RELU, typename T, typename C>
inline V gradient_at(const T* grad, V d, const Tables<C>& tables, int64_t j) {
  const V g = load<V>(grad);
  if constexpr (RELU) {
    const V y = d * load<V>(tables.scale + j) + load<V>(tables.bias + j);
    return y <= V{} ? V{} : g;
  } else {
    return g;
  }
}

template <typename T, bool RELU>
struct GradientSumsPass {
  using C = typename Compute<T>::type;
  const T *grad, *x;
  const Tables<C> tables;
  const Sums<C> sums;

  template <typename V>
  inline void at(int64_t i, int64_t j) const {
    const V d = load<V>(x + i) - load<V>(tables.mean + j);
    const V g = gradient_at<V, RELU>(grad + i, d, tables, j);
    store(sums.sum + j, load<V>(sums.sum + j) + g);
    store(sums.product + j, load<V>(sums.product + j) + g * d);
  }
};

template <typename T, bool RELU>
struct GradientPass {
  using C = typename Compute<T>::type;
  const T *grad, *x;
  const Tables<C> tables;
  T* grad_x;

  template <typename V>
  inline void at(int64_t i, int64_t j) const {
    const V d = load<V>(x + i) - load<V>(tables.mean + j);
    const V g = gradient_at<V, RELU>(grad + i, d, tables, j);
    const V slope = load<V>(tables.slope + j);
    const V sloped = slope == 0 ? V{} : slope * d;  // 0 with running statistics, also where d is infinite
    store(grad_x + i, load<V>(tables.scale + j) * g - (sloped + load<V>(tables.offset + j)));
  }
};

template <typename T, typename C>
void add_moments(const T* x, int64_t length, Sums<C> sums) {
  over_run(MomentsPass<T>{x, sums}, length, sums.period);
}

template <typename T, bool RELU, typename C>
void normalise(const T* x, int64_t length, Tables<C> tables, T* output) {
  over_run(NormalisePass<T, RELU>{x, tables, output}, length, tables.period);
}

template <typename T, bool RELU, typename C>
void add_gradients(const T* grad, const T* x, int64_t length, Tables<C> tables, Sums<C> sums) {
  over_run(GradientSumsPass<T, RELU>{grad, x, tables, sums}, length, tables.period);
}

template <typename T, bool RELU, typename C>
void gradient(const T* grad, const T* x, int64_t length, Tables<C> tables, T* grad_x) {
  over_run(GradientPass<T, RELU>{grad, x, tables, grad_x}, length, tables.period);
}

template <typename T, bool RELU>
Kernels<T> kernels() {
  using C = typename Compute<T>::type;
  return {VECTOR_BYTES / sizeof(C), &add_moments<T, C>, &normalise<T, RELU, C>, &add_gradients<T, RELU, C>,
          &gradient<T, RELU, C>};
}
