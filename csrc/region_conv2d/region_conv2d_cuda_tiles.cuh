// How cells are cut into tiles, one for a block, and the window of an image that a tile has in shared memory.
#pragma once

#include "../common/cells.h"
#include "../common/vector.h"
#include "../common/warp.cuh"
#include "region_conv2d.h"

namespace jaa_ext {
namespace {

constexpr int WARP_POSITIONS = 16;  // of a warp, along a row
constexpr int MOST_ROWS = 11;       // of a tile: as many as a warp's registers have room for sums
constexpr int MOST_POSITIONS = 48;  // of a tile, along a row

// A Rect in 32 bits, which takes fewer registers.
struct Area {
  int y0, y1, x0, x1;

  JAA_EXT_INLINE int rows() const { return y1 - y0; }
  JAA_EXT_INLINE int columns() const { return x1 - x0; }
  JAA_EXT_INLINE bool contains(int64_t y, int64_t x) const { return y >= y0 && y < y1 && x >= x0 && x < x1; }
};

JAA_EXT_INLINE Area area_of(const Rect& rect) {
  return {static_cast<int>(rect.y0), static_cast<int>(rect.y1), static_cast<int>(rect.x0), static_cast<int>(rect.x1)};
}
JAA_EXT_INLINE Area cell_area(const RegionConv2dParams& params, int i, int j) {
  return area_of(cell_rect(params, i, j));
}

// The part of the image that the outputs of a cell may read.
JAA_EXT_INLINE Area readable_area(const RegionConv2dParams& params, int i, int j) {
  return params.border == Border::image ? area_of(image_rect(params)) : cell_area(params, i, j);
}

// How each cell is cut into tiles: a band of its rows and a strip of its columns in some images. The tiling is the
// same for all cells and made for the largest one. A position is a column of a tile in one image.
struct Tiling {
  int images, rows, columns;  // of a tile, at most
  int bands, strips;          // of a cell
  int warps;                  // that the positions of a tile take
  int64_t batches;            // tiles of a cell along the batch

  JAA_EXT_INLINE int64_t tiles() const { return bands * strips * batches; }  // of a cell

  // The rows and columns of a tile. Tiles are counted with the images running fastest.
  JAA_EXT_INLINE Area area(const Area& cell, int64_t tile) const {
    const int64_t strip = tile / batches % strips, band = tile / batches / strips;
    const int64_t rows = cell.rows(), columns = cell.columns();
    return area_of({cell.y0 + part_begin<int64_t>(band, rows, bands),
                    cell.y0 + part_begin<int64_t>(band + 1, rows, bands),
                    cell.x0 + part_begin<int64_t>(strip, columns, strips),
                    cell.x0 + part_begin<int64_t>(strip + 1, columns, strips)});
  }
  JAA_EXT_INLINE int64_t first_image(int64_t tile) const { return tile % batches * images; }
};

// A part of some images in shared memory: `rows` rows of `pitch` pixels of `stride` bytes. A row has `columns` pixels
// of the first image, then of the next one, and so on, and zeros in the rest of the pitch.
struct Window {
  int rows, images, columns, pitch, stride;

  JAA_EXT_INLINE int bytes() const { return rows * pitch * stride; }
};

// The window that a tile's 3x3 filters read. Positions past the tile's last one read the zeros at the end of a row.
JAA_EXT_INLINE Window input_window(const Tiling& tiling, int rows, int stride) {
  return {rows + 2, tiling.images, tiling.columns + 2, tiling.images * (tiling.columns + 2) + 3, stride};
}

// Calls body(from, to) for every Unit of a window, 16 bytes or an element of T: `from` is its address in the image,
// or null for zeros, and `to` its address in shared memory. The window begins at (y0, x0) of image n0. Outside
// `readable` there are zeros.
template <typename Unit, typename T, typename Body>
__device__ void for_each_unit(const Window& window, unsigned char* shared, const ImageView& image, int64_t n0,
                              int64_t batch, int y0, int x0, const Area& readable, int first_channel, int channels,
                              int units, const Body& body) {
  constexpr int PER_UNIT = sizeof(Unit) / sizeof(T);  // channels
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
  const bool channels_last = image.stride.c == 1;
  const int there = channels / PER_UNIT;  // units that come from the image
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

// Fills a window with `channels` channels, and zeros up to `bytes` a pixel; with `vectors` 16 bytes at a time. Each
// thread waits only for what it has copied itself: a barrier must follow.
template <typename T, bool ROUND>
__device__ void load_window(const Window& window, unsigned char* shared, const ImageView& image, int64_t n0,
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
