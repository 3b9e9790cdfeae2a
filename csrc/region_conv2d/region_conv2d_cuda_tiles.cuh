// How cells are cut into tiles for thread blocks, and a tile's window of an image in shared memory.
#pragma once

#include "../common/vector.h"
#include "../common/warp.cuh"
#include "region_conv2d.h"

namespace jaa_ext {
namespace {

constexpr int TILE = 16;            // positions of a warp
constexpr int MOST_ROWS = 11;       // of a tile: what the sums of a warp leave room for in registers
constexpr int MOST_POSITIONS = 48;  // of a block

struct Area {
  int y0, y1, x0, x1;

  JAA_EXT_INLINE int rows() const { return y1 - y0; }
  JAA_EXT_INLINE int columns() const { return x1 - x0; }
  JAA_EXT_INLINE bool contains(int64_t y, int64_t x) const { return y >= y0 && y < y1 && x >= x0 && x < x1; }
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

// What the outputs of a cell may read.
JAA_EXT_INLINE Area readable_area(const RegionConv2d& op, int i, int j) {
  return op.image_border ? image_area(op) : cell_area(op, i, j);
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

using Bytes16 = Vector<uint32_t, 4>;

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

}  // namespace
}  // namespace jaa_ext
