// For kernel files, which include it inside the namespace of an instruction set. No include guard.

#ifdef __clang__
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, decltype(a == b){i, j, k, l})
#endif

// to[x * to_stride + row] = from[row * from_stride + x] for four rows.
template <typename C>
inline void transpose_rows(const C* from, int64_t from_stride, int64_t columns, C* to, int64_t to_stride) {
  typedef C Four __attribute__((vector_size(4 * sizeof(C)), may_alias, aligned(sizeof(C))));
  int64_t x = 0;
  for (; x + 4 <= columns; x += 4) {
    const Four a = *(const Four*)(from + x), b = *(const Four*)(from + from_stride + x);
    const Four c = *(const Four*)(from + 2 * from_stride + x), d = *(const Four*)(from + 3 * from_stride + x);
    const Four ab = SHUFFLE(a, b, 0, 4, 1, 5), ab2 = SHUFFLE(a, b, 2, 6, 3, 7);
    const Four cd = SHUFFLE(c, d, 0, 4, 1, 5), cd2 = SHUFFLE(c, d, 2, 6, 3, 7);
    *(Four*)(to + x * to_stride) = SHUFFLE(ab, cd, 0, 1, 4, 5);
    *(Four*)(to + (x + 1) * to_stride) = SHUFFLE(ab, cd, 2, 3, 6, 7);
    *(Four*)(to + (x + 2) * to_stride) = SHUFFLE(ab2, cd2, 0, 1, 4, 5);
    *(Four*)(to + (x + 3) * to_stride) = SHUFFLE(ab2, cd2, 2, 3, 6, 7);
  }
  for (; x < columns; ++x) {
    for (int row = 0; row < 4; ++row) to[x * to_stride + row] = from[row * from_stride + x];
  }
}
#undef SHUFFLE
