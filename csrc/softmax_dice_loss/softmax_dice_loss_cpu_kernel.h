// The loops of the softmax and Dice losses, in GCC vector types. Included by ../common/for_each_cpu_level.h. A vector
// holds consecutive AUs of one sample.

template <typename C>
struct VectorOf {
  typedef C type __attribute__((vector_size(VECTOR_BYTES)));
  static constexpr int lanes = VECTOR_BYTES / sizeof(C);
};

typedef VectorOf<float>::type Floats;
typedef VectorOf<double>::type Doubles;
typedef VectorOf<uint32_t>::type Words;

// e^x for x <= 0, as 2^k e^r with |r| <= log(2) / 2. Below -87 it stays at e^-87, about the least normal number.
inline Floats exp_of_negative(Floats x) {
  constexpr float ROUNDING = 12582912;  // 1.5 * 2^23: a sum with it is rounded to an integer, in its lowest bits
  x = x < -87 ? Floats{} - 87 : x;      // NaN stays NaN
  const Floats shifted = x * 1.44269504f + ROUNDING, k = shifted - ROUNDING;
  const Floats r = x - k * 0.693359375f + k * 2.12194440e-4f;  // log(2) in two parts, k times the first one exact
  const Floats curved = (((r * 1.38145e-3f + 8.36875e-3f) * r + 4.166839e-2f) * r + 0.1666652f) * r + 0.49999993f;
  const Floats power_of_two = (Floats)(((Words)shifted << 23) + 0x3f800000);
  return (curved * r * r + r + 1) * power_of_two;
}

// log(1 + x) for 0 <= x <= 1, as 2 artanh(t) with t = x / (2 + x).
inline Floats log1p_up_to_one(Floats x) {
  const Floats t = x / (x + 2), square = t * t;
  const Floats curved = ((square * 0.28024459f + 0.27999141f) * square + 0.40021699f) * square + 0.66666413f;
  return curved * square * t + 2 * t;
}

inline Doubles exp_of_negative(Doubles x) {
  for (int i = 0; i < VectorOf<double>::lanes; ++i) x[i] = exp(x[i]);
  return x;
}

inline Doubles log1p_up_to_one(Doubles x) {
  for (int i = 0; i < VectorOf<double>::lanes; ++i) x[i] = log1p(x[i]);
  return x;
}

template <typename C>
inline C converted(int64_t x) {
  return static_cast<C>(x);
}
template <typename C, typename T>
inline C converted(T x) {
  return widen(x);
}

// Loads `count` values, `stride` apart, of an array that ends at `end`. The other lanes hold the values that follow,
// or 0: reading these is much quicker than leaving them out.
template <typename C, typename T, typename V = typename VectorOf<C>::type>
inline V load(const T* from, int64_t stride, int count, const T* end) {
  constexpr int LANES = VectorOf<C>::lanes;
  alignas(VECTOR_BYTES) C lanes[LANES] = {};
  if (stride == 1 && end - from >= LANES) {
    for (int i = 0; i < LANES; ++i) lanes[i] = converted<C>(from[i]);
  } else {
    for (int i = 0; i < count; ++i) lanes[i] = converted<C>(from[i * stride]);
  }
  V value;
  __builtin_memcpy(&value, lanes, sizeof(value));
  return value;
}

template <typename T, typename V>
inline void store(V value, int count, T* to) {
  for (int i = 0; i < count; ++i) to[i] = narrow<T>(value[i]);
}

// Labels and logits of consecutive AUs. p is the label, margin the difference of the two logits. A missing label has
// valid = p = margin = 0, and a wrong one has p = NaN.
template <typename V>
struct Labels {
  V valid, p, margin;
};

template <typename T, typename C = typename Compute<T>::type, typename V = typename VectorOf<C>::type>
inline Labels<V> load_labels(const SoftmaxDiceLossParams& params, int64_t n, int64_t au, int count) {
  const auto load_target = [&](const auto* target) {
    return load<C>(target + n * params.aus + au, 1, count, target + params.samples * params.aus);
  };
  const V p = params.target_is_probability ? load_target(static_cast<const C*>(params.target))
                                           : load_target(static_cast<const int64_t*>(params.target));
  const auto load_class = [&](int64_t index) {
    const T* logits = static_cast<const T*>(params.logits);
    const T* last = logits + (params.samples - 1) * params.logits_stride_n + params.logits_stride_class +
                    (params.aus - 1) * params.logits_stride_au;
    return load<C>(
        logits + n * params.logits_stride_n + index * params.logits_stride_class + au * params.logits_stride_au,
        params.logits_stride_au, count, last + 1);
  };
  const V absent = load_class(0), present = load_class(1);
  // The softmax of an infinite logit is NaN, but that of -inf is 0.
  const V margin = (present == static_cast<C>(INFINITY)) | (absent == static_cast<C>(INFINITY))
                       ? V{} + static_cast<C>(NAN)
                       : present - absent;
  const auto valid = p != static_cast<C>(params.ignore_index);
  const V checked = (p >= 0) & (p <= 1) ? p : V{} + static_cast<C>(NAN);
  return {valid ? V{} + 1 : V{}, valid ? checked : V{}, valid ? margin : V{}};
}

// With small = e^-|margin| the probability of the likelier class is 1 / (1 + small) and that of the other one
// small / (1 + small): neither overflows.
template <typename V>
inline V small_of(V margin) {
  return exp_of_negative(margin < 0 ? margin : -margin);
}
template <typename V>
inline V p_hat_of(V margin, V small) {
  return (margin < 0 ? small : V{} + 1) / (small + 1);
}

// Adds the sums over samples begin..end to `sums`, one an AU.
template <typename T>
void sum_over_samples(const SoftmaxDiceLossParams& params, int64_t begin, int64_t end, AuSums* sums) {
  using C = typename Compute<T>::type;
  using V = typename VectorOf<C>::type;
  constexpr int LANES = VectorOf<C>::lanes;
  const C smooth = static_cast<C>(params.smooth);
  for (int64_t au = 0; au < params.aus; au += LANES) {
    const int count = static_cast<int>(params.aus - au < LANES ? params.aus - au : LANES);
    V softmax{}, dice{}, overlap{}, squares{}, labels{};
    for (int64_t n = begin; n < end; ++n) {
      const auto [valid, p, margin] = load_labels<T>(params, n, au, count);
      const V small = small_of(margin), p_hat = p_hat_of(margin, small);
      const V wrong = margin < 0 ? -p : 1 - p;  // the less likely class's label, with the margin's sign
      // A class whose label is 0 adds nothing, also where the margin is infinite.
      const V cross_entropy = log1p_up_to_one(small) + (wrong == 0 ? V{} : wrong * margin);
      const V square = p * p + p_hat * p_hat;
      softmax += valid * cross_entropy;
      dice += valid * (p - p_hat) * (p - p_hat) / (square + smooth);  // 1 - (2 p p_hat + smooth) / (square + smooth)
      overlap += p * p_hat;
      squares += valid * square;
      labels += valid;
    }
    for (int i = 0; i < count; ++i) {
      AuSums& sum = sums[au + i];
      sum.softmax += softmax[i];
      sum.dice += dice[i];
      sum.overlap += overlap[i];
      sum.squares += squares[i];
      sum.labels += static_cast<int64_t>(labels[i]);
    }
  }
}

// Writes the gradient of samples begin..end. of_aus (4, aus) has for each AU the gradients of a label's two terms
// and, for batch_dice, the sums overlap and squares.
template <typename T, typename C>
void differentiate(const SoftmaxDiceLossParams& params, int64_t begin, int64_t end, const C* of_aus, T* grad_logits) {
  using V = typename VectorOf<C>::type;
  constexpr int LANES = VectorOf<C>::lanes;
  const C smooth = static_cast<C>(params.smooth);
  for (int64_t au = 0; au < params.aus; au += LANES) {
    const int count = static_cast<int>(params.aus - au < LANES ? params.aus - au : LANES);
    const auto load_of_aus = [&](int64_t row) {
      return load<C>(of_aus + row * params.aus + au, 1, count, of_aus + 4 * params.aus);
    };
    const V grad_softmax = load_of_aus(0), grad_dice = load_of_aus(1);
    const V overlaps = load_of_aus(2), squares = load_of_aus(3);
    for (int64_t n = begin; n < end; ++n) {
      const auto [valid, p, margin] = load_labels<T>(params, n, au, count);
      const V p_hat = p_hat_of(margin, small_of(margin));
      const V overlap = params.batch_dice ? overlaps : p * p_hat;
      const V inverse = 1 / ((params.batch_dice ? squares : p * p + p_hat * p_hat) + smooth);
      const V dice_by_p_hat = 2 * ((2 * overlap + smooth) * inverse * p_hat - p) * inverse;
      const V gradient = grad_softmax * (p_hat - p) + grad_dice * dice_by_p_hat * p_hat * (1 - p_hat);
      const V by_margin = valid != 0 ? gradient : V{};
      T* absent = grad_logits + 2 * n * params.aus + au;
      store(-by_margin, count, absent);
      store(by_margin, count, absent + params.aus);
    }
  }
}

template <typename T>
Kernels<T> kernels() {
  return {sum_over_samples<T>, differentiate<T, typename Compute<T>::type>};
}
