// How the data of a batch norm is cut into tiles, how a block goes over one, and how sums are added up. The kernels
// are in region_batch_norm_cuda.cu.
//
// Lanes lie side by side in memory: they are the channels of a pixel (channels_last) or the columns of an image. An
// item is a cell with all its channels (channels_last), or else a row of cells in one channel. A position is a pixel
// of a cell (channels_last), or else a row of pixels of a row of cells, in one image of the batch. A tile is some
// lanes of an item at some of its positions; each block works on one. A thread keeps V lanes at many positions.
#pragma once

#include <algorithm>
#include <climits>
#include <cstdint>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "../common/cells.h"
#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "../common/vector.h"
#include "../common/warp.cuh"
#include "region_batch_norm.h"

namespace jaa_ext {
namespace {

constexpr int THREADS = 256;
constexpr int MOST_VECTORS = 64;  // side by side in a tile
constexpr int BLOCKS = 2048;      // about four rounds of a GPU with 132 multiprocessors
constexpr int MOST_LOADS = 64;    // of a thread: sums in float stay short

JAA_EXT_INLINE constexpr int loads_at_once(int vector) { return vector == 1 ? 8 : 4; }

struct Tiling {
  bool channels_last;
  int lanes;                // of an item
  uint32_t tiles_across;    // tiles of an item side by side, which share its lanes
  uint32_t chunks;          // tiles of an item one after the other, which share its positions
  uint32_t item_tiles;      // the number of items times tiles_across
  int tile_lanes, vectors;  // lanes of a tile, and vectors of them
  int abreast;              // positions that a block takes at once
  int positions;            // of a tile

  JAA_EXT_INLINE uint32_t tiles() const { return item_tiles * chunks; }
  // Partial sums of each cell and channel.
  JAA_EXT_INLINE int64_t slots() const { return channels_last ? chunks : int64_t{chunks} * tiles_across; }
};

bool fit_vectors(const Tiling& tiling, int vector, const std::vector<ImageView>& images) {
  return tiling.lanes % vector == 0 && std::all_of(images.begin(), images.end(), [&](const ImageView& image) {
           const ImageStrides& stride = image.stride;
           const int64_t along = tiling.channels_last ? stride.c : stride.x;
           const int64_t across = tiling.channels_last ? stride.x : stride.c;
           return along == 1 && (stride.n | stride.y | across) % vector == 0 &&
                  reinterpret_cast<uintptr_t>(image.data) % VECTOR_BYTES == 0;
         });
}

// Depends on sizes alone, so that the bits are the same on every GPU.
Tiling tiling_of(const RegionBatchNormParams& params, Tiling tiling, int vector) {
  const int64_t vectors = ceil_div(tiling.lanes, vector);
  tiling.tiles_across = static_cast<uint32_t>(ceil_div(vectors, MOST_VECTORS));
  tiling.vectors = static_cast<int>(ceil_div(vectors, tiling.tiles_across));
  tiling.tile_lanes = tiling.vectors * vector;
  tiling.abreast = THREADS / tiling.vectors;
  const int64_t items = tiling.channels_last ? params.cells() : params.grid_h * params.channels;
  const int64_t item_tiles = items * tiling.tiles_across;
  const int64_t positions =  // of the largest item
      params.batch * tallest_cell(params) * (tiling.channels_last ? widest_cell(params) : 1);
  const int64_t rounds = ceil_div(item_tiles * positions, int64_t{BLOCKS} * tiling.abreast * loads_at_once(vector));
  const int64_t loads = std::clamp<int64_t>(rounds, 1, MOST_LOADS / loads_at_once(vector)) * loads_at_once(vector);
  tiling.positions = static_cast<int>(loads) * tiling.abreast;
  const int64_t chunks = ceil_div(positions, tiling.positions);
  if (item_tiles * chunks > INT_MAX)
    throw std::runtime_error("jaa_ext: batch norm on a GPU takes no grid as large as this");
  tiling.item_tiles = static_cast<uint32_t>(item_tiles);
  tiling.chunks = static_cast<uint32_t>(chunks);
  return tiling;
}

// Calls body(params, tiling, a value of the element type, the length of its vectors). The first image must be dense.
template <typename Body>
void dispatch_tiling(RegionBatchNormParams params, const std::vector<ImageView>& images, const Body& body) {
  if (std::max({params.batch, params.channels, params.height * params.grid_h, params.width * params.grid_w}) >
      INT_MAX) {
    throw std::runtime_error("jaa_ext: batch norm on a GPU takes batches, channels and sides times cells up to 2^31");
  }
  Tiling tiling{};
  tiling.channels_last = params.channels > 1 && images[0].stride.c == 1;
  const auto rows_join = [&](const ImageView& image) { return image.stride.y == params.width * image.stride.x; };
  if (!tiling.channels_last && params.cells() == 1 && params.height * params.width <= INT_MAX &&
      std::all_of(images.begin(), images.end(), rows_join)) {
    params.width *= params.height;
    params.height = 1;
  }
  tiling.lanes = static_cast<int>(tiling.channels_last ? params.channels : params.width);
  dispatch(params.scalar_type, [&](auto zero) {
    constexpr int V = VECTOR_BYTES / sizeof(zero);
    if (fit_vectors(tiling, V, images)) {
      body(params, tiling_of(params, tiling, V), zero, std::integral_constant<int, V>());
    } else {
      body(params, tiling_of(params, tiling, 1), zero, std::integral_constant<int, 1>());
    }
  });
}

// The row or column at which a cell begins, in 32 bits, which GPUs divide faster; dispatch_tiling excludes overflow.
__device__ int cell_begin(uint32_t cell, int64_t size, int64_t cells) {
  return static_cast<int>(part_begin<uint32_t>(cell, size, cells));
}

struct Position {
  uint32_t n, y, x;  // image, row and column, the latter two from the item's first ones
};

struct Tile {
  const RegionBatchNormParams& params;
  bool channels_last;
  int i;     // row of cells
  int j, c;  // cell in that row (channels_last), or else channel
  int first_lane, y0, x0, rows, columns, lanes, positions;
  int64_t slot;   // of its partial sums
  int64_t begin;  // its first position, counted in the item

  __device__ Tile(const RegionBatchNormParams& params, const Tiling& tiling, uint32_t index)
      : params(params), channels_last(tiling.channels_last) {
    const uint32_t chunk = index / tiling.item_tiles, item_tile = index % tiling.item_tiles;
    const uint32_t item = item_tile / tiling.tiles_across, across = item_tile % tiling.tiles_across;
    const uint32_t along = static_cast<uint32_t>(channels_last ? params.grid_w : params.grid_h);
    slot = channels_last ? chunk : int64_t{chunk} * tiling.tiles_across + across;
    i = channels_last ? item / along : item % along;
    j = channels_last ? item % along : 0;
    c = channels_last ? 0 : item / along;
    first_lane = across * tiling.tile_lanes;
    lanes = tiling.lanes - first_lane < tiling.tile_lanes ? tiling.lanes - first_lane : tiling.tile_lanes;
    y0 = cell_begin(i, params.height, params.grid_h);
    rows = cell_begin(i + 1, params.height, params.grid_h) - y0;
    x0 = channels_last ? cell_begin(j, params.width, params.grid_w) : 0;
    columns = channels_last ? cell_begin(j + 1, params.width, params.grid_w) - x0 : 1;
    begin = int64_t{chunk} * tiling.positions;
    const int64_t left = params.batch * rows * columns - begin;
    positions = left < 0 ? 0 : left < tiling.positions ? static_cast<int>(left) : tiling.positions;
  }

  // The column of a lane's cell, the index of its cell and channel in RegionBatchNormTensors, and the number of
  // values that these have.
  __device__ int cell_column(int lane) const {
    return channels_last ? j : static_cast<int>(part_of<uint32_t>(first_lane + lane, params.width, params.grid_w));
  }
  __device__ int64_t cell_channel(int lane) const {
    return (int64_t{i} * params.grid_w + cell_column(lane)) * params.channels +
           (channels_last ? first_lane + lane : c);
  }

  __device__ int64_t values(int lane) const {
    const int cell = cell_column(lane);
    return params.batch * rows *
           (cell_begin(cell + 1, params.width, params.grid_w) - cell_begin(cell, params.width, params.grid_w));
  }

  __device__ Position position(int index) const {
    const int64_t at = begin + index, row = at / columns;
    return {static_cast<uint32_t>(row / rows), static_cast<uint32_t>(row % rows),
            static_cast<uint32_t>(at % columns)};
  }
  // The address of a lane at the item's first position.
  template <typename T>
  __device__ T* lane_of(const ImageView& image, int64_t lane) const {
    return static_cast<T*>(image.data) + y0 * image.stride.y + (channels_last ? lane : c) * image.stride.c +
           (channels_last ? x0 : lane) * image.stride.x;
  }
};

__device__ int64_t offset(const ImageStrides& stride, const Position& at) {
  return at.n * stride.n + at.y * stride.y + at.x * stride.x;
}

// Runs body(tile) on this block's tiles. Backwards, the second pass finds in the cache what the first one read last.
template <typename Body>
__device__ void for_each_tile(const RegionBatchNormParams& params, const Tiling& tiling, bool backwards,
                              const Body& body) {
  for (uint32_t index = blockIdx.x; index < tiling.tiles(); index += gridDim.x) {
    body(Tile(params, tiling, backwards ? tiling.tiles() - 1 - index : index));
    __syncthreads();  // before shared memory is written anew
  }
}

// Works out once, in shared memory, what each lane of the tile needs.
template <typename Entry, typename EntryOf>
__device__ void fill(Entry* table, const Tile& tile, const EntryOf& entry_of) {
#pragma unroll 1
  for (int lane = threadIdx.x; lane < tile.lanes; lane += THREADS) table[lane] = entry_of(lane);
  __syncthreads();
}

// Copies the entries of this thread's lanes into registers.
template <typename Entry, int V>
__device__ void take_own(const Tiling& tiling, const Entry* table, Entry (&own)[V]) {
  for (int v = 0; v < V; ++v) own[v] = table[threadIdx.x % tiling.vectors * V + v];
}

// Runs body(vectors, to) at each position of this thread: the vectors of its lanes in the first INPUTS images, and
// the address of its lanes in the last image.
template <typename T, int V, int INPUTS, int IMAGES, typename Body>
__device__ void for_each_vector(const Tiling& tiling, const Tile& tile, const ImageView (&images)[IMAGES],
                                const Body& body) {
  const int first = threadIdx.x / tiling.vectors, lane = threadIdx.x % tiling.vectors * V;
  if (first >= tiling.abreast || first >= tile.positions || lane >= tile.lanes) return;
  T* lanes[IMAGES];
  for (int k = 0; k < IMAGES; ++k) lanes[k] = tile.lane_of<T>(images[k], tile.first_lane + lane);
  Position at = tile.position(first);
  const uint32_t columns = tile.columns, rows = tile.rows, abreast = tiling.abreast;
  const Position step = {abreast / columns / rows, abreast / columns % rows, abreast % columns};
  const auto advance = [&] {  // without dividing
    at.x += step.x;
    at.y += step.y;
    at.n += step.n;
    if (at.x >= columns) {
      at.x -= columns;
      at.y += 1;
    }
    if (at.y >= rows) {
      at.y -= rows;
      at.n += 1;
    }
  };
  const auto take = [&](auto count) {
    constexpr int POSITIONS = decltype(count)::value;
    Vector<T, V> vectors[POSITIONS][INPUTS];
    T* last[POSITIONS];
    for (int p = 0; p < POSITIONS; ++p) {
      for (int k = 0; k < INPUTS; ++k) {
        vectors[p][k] = *reinterpret_cast<const Vector<T, V>*>(lanes[k] + offset(images[k].stride, at));
      }
      last[p] = lanes[IMAGES - 1] + offset(images[IMAGES - 1].stride, at);
      advance();
    }
    for (int p = 0; p < POSITIONS; ++p) body(vectors[p], last[p]);
  };
  constexpr int AT_ONCE = loads_at_once(V) / INPUTS;
  int left = (tile.positions - first + tiling.abreast - 1) / tiling.abreast;
  for (; left >= AT_ONCE; left -= AT_ONCE) take(std::integral_constant<int, AT_ONCE>());
  for (; left > 0; --left) take(std::integral_constant<int, 1>());
}

// The partial sums of a cell and channel, over one tile.
template <typename C>
struct alignas(16) Partial {
  C count, shift;
  C sum, product;  // of value - shift and its square, or of gradients and their product with input - mean
};

// Adds up, as a tree, what the block's threads have summed, and writes the partial sums of each cell and channel.
template <int V, typename C, typename ShiftOf>
__device__ void write_partials(const Tiling& tiling, const Tile& tile, const C (&sum)[V], const C (&product)[V],
                               const ShiftOf& shift_of, Partial<C>* partials) {
  __shared__ C sums[V][THREADS], products[V][THREADS];
  const int self = threadIdx.x, row = self / tiling.vectors;
  for (int v = 0; v < V; ++v) {
    sums[v][self] = sum[v];
    products[v][self] = product[v];
  }
  for (int rows = tiling.abreast, half; rows > 1; rows = half) {
    __syncthreads();
    half = (rows + 1) / 2;
    if (row + half >= rows) continue;
    for (int v = 0; v < V; ++v) {
      sums[v][self] += sums[v][self + half * tiling.vectors];
      products[v][self] += products[v][self + half * tiling.vectors];
    }
  }
  __syncthreads();
  const RegionBatchNormParams& params = tile.params;
  Partial<C>* const slot = partials + tile.slot * params.cell_channels();
  if (tile.channels_last) {
    for (int lane = self; lane < tile.lanes; lane += THREADS) {
      slot[tile.cell_channel(lane)] = {static_cast<C>(tile.positions), shift_of(lane), sums[lane % V][lane / V],
                                       products[lane % V][lane / V]};
    }
    return;
  }
  const auto lane_at = [&](int64_t j) {  // where cell j begins
    const int lane = cell_begin(j, params.width, params.grid_w) - tile.first_lane;
    return lane < 0 ? 0 : lane < tile.lanes ? lane : tile.lanes;
  };
  for (int64_t j = self / WARP; j < params.grid_w; j += THREADS / WARP) {
    const int begin = lane_at(j), end = lane_at(j + 1);
    C cell_sum = 0, cell_product = 0;
    for (int lane = begin + self % WARP; lane < end; lane += WARP) {
      cell_sum += sums[lane % V][lane / V];
      cell_product += products[lane % V][lane / V];
    }
    cell_sum = warp_sum(cell_sum);
    cell_product = warp_sum(cell_product);
    if (self % WARP != 0) continue;
    const C count = static_cast<C>(tile.positions) * static_cast<C>(end - begin);
    slot[(tile.i * params.grid_w + j) * params.channels + tile.c] = {count, count == 0 ? C(0) : shift_of(begin),
                                                                     cell_sum, cell_product};
  }
}

// The number of values of a cell and channel.
__device__ int64_t values_of(const RegionBatchNormParams& params, int64_t cell_channel) {
  const int64_t cell = cell_channel / params.channels, i = cell / params.grid_w, j = cell % params.grid_w;
  return params.batch *
         (cell_begin(i + 1, params.height, params.grid_h) - cell_begin(i, params.height, params.grid_h)) *
         (cell_begin(j + 1, params.width, params.grid_w) - cell_begin(j, params.width, params.grid_w));
}

constexpr int KEYS = 4, SLICES = THREADS / KEYS;  // cells and channels of a block that merges, and threads for each

// Adds the slots of each cell and channel in a fixed order and in double, about one shift. Runs finish(cell and
// channel, number of values, shift, sum, product) with the results.
template <typename C, typename Finish>
__device__ void merge(const RegionBatchNormParams& params, const Partial<C>* partials, int64_t slots,
                      const Finish& finish) {
  __shared__ double sums[SLICES][KEYS], products[SLICES][KEYS];
  const int key = threadIdx.x % KEYS, slice = threadIdx.x / KEYS;
  const int64_t cell_channels = params.cell_channels();
  for (int64_t first = blockIdx.x * KEYS; first < cell_channels; first += gridDim.x * KEYS) {
    const int64_t k = first + key;
    const Partial<C>* const of_key = partials + k;
    double shift = 0, sum = 0, product = 0;
    if (k < cell_channels) {
      int64_t start = 0;
      while (start + 1 < slots && of_key[start * cell_channels].count == 0) ++start;
      if (start < slots) shift = of_key[start * cell_channels].shift;
#pragma unroll 8
      for (int64_t slot = slice; slot < slots; slot += SLICES) {
        const Partial<C> partial = of_key[slot * cell_channels];
        const double count = partial.count, away = partial.shift - shift;
        sum += partial.sum + count * away;
        product += partial.product + away * (2 * static_cast<double>(partial.sum) + count * away);
      }
    }
    sums[slice][key] = sum;
    products[slice][key] = product;
    __syncthreads();
    if (slice == 0 && k < cell_channels) {
      for (int other = 1; other < SLICES; ++other) {
        sum += sums[other][key];
        product += products[other][key];
      }
      finish(k, values_of(params, k), shift, sum, product);
    }
    __syncthreads();
  }
}

}  // namespace
}  // namespace jaa_ext
