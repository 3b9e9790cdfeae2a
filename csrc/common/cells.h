// The geometry of cells. `Params` is any struct with the height and width of an image and its grid_h x grid_w cells.
//
// The parts into which the kernels cut their work are called:
//
//   band   some rows of a cell, or of a row of cells
//   strip  some columns of a cell
//   tile   what a block of a GPU's threads, or an inner loop of the CPU, works on at a time
//   unit   of work, what a thread of the CPU gets from `Parallel`
//   chunk  what is summed by itself, before the sums of all chunks are added in order
#pragma once

#include <cstdint>

#include "parts.h"
#include "scalar.h"

namespace jaa_ext {

// Rows y0 .. y1 - 1 and columns x0 .. x1 - 1.
struct Rect {
  int64_t y0, y1, x0, x1;

  JAA_EXT_INLINE int64_t rows() const { return y1 - y0; }
  JAA_EXT_INLINE int64_t columns() const { return x1 - x0; }
  JAA_EXT_INLINE int64_t pixels() const { return rows() * columns(); }
  JAA_EXT_INLINE bool contains(int64_t y, int64_t x) const { return y >= y0 && y < y1 && x >= x0 && x < x1; }
};

template <typename Params>
JAA_EXT_INLINE Rect image_rect(const Params& params) {
  return {0, params.height, 0, params.width};
}

// Cell (i, j): rows floor(i * height / grid_h) .. floor((i + 1) * height / grid_h) - 1, columns likewise.
template <typename Params>
JAA_EXT_INLINE Rect cell_rect(const Params& params, int64_t i, int64_t j) {
  return {part_begin(i, params.height, params.grid_h), part_begin(i + 1, params.height, params.grid_h),
          part_begin(j, params.width, params.grid_w), part_begin(j + 1, params.width, params.grid_w)};
}

// Cell `cell`, counted row by row.
template <typename Params>
JAA_EXT_INLINE Rect cell_rect(const Params& params, int64_t cell) {
  return cell_rect(params, cell / params.grid_w, cell % params.grid_w);
}

// The rows of the tallest cell, and the columns of the widest.
template <typename Params>
JAA_EXT_INLINE int64_t tallest_cell(const Params& params) {
  return ceil_div(params.height, params.grid_h);
}
template <typename Params>
JAA_EXT_INLINE int64_t widest_cell(const Params& params) {
  return ceil_div(params.width, params.grid_w);
}

}  // namespace jaa_ext
