// How the data of a batch norm is cut among blocks, gone over, and its sums added up. The kernels are in
// region_batch_norm_cuda.cu.
#pragma once

#include <algorithm>
#include <climits>
#include <cstdint>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "../common/vector.h"
#include "../common/warp.cuh"
#include "region_batch_norm.h"

namespace jaa_ext {
namespace {

constexpr int THREADS = 256;
constexpr int MOST_VECTORS = 64;  // side by side in a block
constexpr int BLOCKS = 2048;      // about four rounds of a GPU with 132 multiprocessors
constexpr int MOST_LOADS = 64;    // of a thread: sums in float stay short

JAA_EXT_INLINE constexpr int loads_at_once(int vector) { return vector == 1 ? 8 : 4; }

// How the work is cut. Lanes are what lies side by side in memory: the channels of a pixel, or the columns of an
// image. A thread keeps V lanes and goes from place to place: through the pixels of a cell, or down the rows of a row
// of cells in one channel.
struct Plan {
  bool channels_last;
  int lanes;
  uint32_t tiles;     // blocks beside each other
  int tile, vectors;  // lanes of a block, and vectors of them
  int abreast;        // places that a block takes at once
  int places;         // of a block
  uint32_t items;     // cells or rows of cells in one channel, by tiles
  uint32_t chunks;    // blocks after each other

  JAA_EXT_INLINE uint32_t blocks() const { return items * chunks; }
  JAA_EXT_INLINE int64_t slots() const { return channels_last ? chunks : int64_t{chunks} * tiles; }
};

bool fit_vectors(const Plan& plan, int vector, const std::vector<Image>& images) {
  return plan.lanes % vector == 0 && std::all_of(images.begin(), images.end(), [&](const Image& image) {
           const ImageStrides& stride = image.stride;
           const int64_t along = plan.channels_last ? stride.c : stride.x;
           const int64_t across = plan.channels_last ? stride.x : stride.c;
           return along == 1 && (stride.n | stride.y | across) % vector == 0 &&
                  reinterpret_cast<uintptr_t>(image.data) % VECTOR_BYTES == 0;
         });
}

// By sizes alone, so that the bits are the same on every GPU.
Plan cut(const RegionBatchNorm& op, Plan plan, int vector) {
  const int64_t vectors = ceil_div(plan.lanes, vector);
  plan.tiles = static_cast<uint32_t>(ceil_div(vectors, MOST_VECTORS));
  plan.vectors = static_cast<int>(ceil_div(vectors, plan.tiles));
  plan.tile = plan.vectors * vector;
  plan.abreast = THREADS / plan.vectors;
  const int64_t items = (plan.channels_last ? op.cells() : op.grid_h * op.channels) * plan.tiles;
  const int64_t places =  // of the largest item
      op.batch * ceil_div(op.height, op.grid_h) * (plan.channels_last ? ceil_div(op.width, op.grid_w) : 1);
  const int64_t rounds = ceil_div(items * places, int64_t{BLOCKS} * plan.abreast * loads_at_once(vector));
  const int64_t loads = std::clamp<int64_t>(rounds, 1, MOST_LOADS / loads_at_once(vector)) * loads_at_once(vector);
  plan.places = static_cast<int>(loads) * plan.abreast;
  const int64_t chunks = ceil_div(places, plan.places);
  if (items * chunks > INT_MAX)
    throw std::runtime_error("jaa_ext: batch norm on a GPU takes no grid as large as this");
  plan.items = static_cast<uint32_t>(items);
  plan.chunks = static_cast<uint32_t>(chunks);
  return plan;
}

// Calls body(op, plan, value of the element type, length of its vectors). The first image lies densely.
template <typename Body>
void dispatch_plan(RegionBatchNorm op, const std::vector<Image>& images, const Body& body) {
  if (std::max({op.batch, op.channels, op.height * op.grid_h, op.width * op.grid_w}) > INT_MAX) {
    throw std::runtime_error("jaa_ext: batch norm on a GPU takes batches, channels and sides times cells up to 2^31");
  }
  Plan plan{};
  plan.channels_last = op.channels > 1 && images[0].stride.c == 1;
  const auto rows_join = [&](const Image& image) { return image.stride.y == op.width * image.stride.x; };
  if (!plan.channels_last && op.cells() == 1 && op.height * op.width <= INT_MAX &&
      std::all_of(images.begin(), images.end(), rows_join)) {
    op.width *= op.height;
    op.height = 1;
  }
  plan.lanes = static_cast<int>(plan.channels_last ? op.channels : op.width);
  dispatch(op.scalar, [&](auto zero) {
    constexpr int V = VECTOR_BYTES / sizeof(zero);
    if (fit_vectors(plan, V, images)) {
      body(op, cut(op, plan, V), zero, std::integral_constant<int, V>());
    } else {
      body(op, cut(op, plan, 1), zero, std::integral_constant<int, 1>());
    }
  });
}

// Where a cell begins, and the cell that a row or column lies in; the products stay below 2^31 (see dispatch_plan).
__device__ int edge(uint32_t cell, int64_t size, int64_t cells) {
  return static_cast<int>(cell * static_cast<uint32_t>(size) / static_cast<uint32_t>(cells));
}
__device__ int cell_of(uint32_t place, int64_t size, int64_t cells) {
  return static_cast<int>(((place + 1) * static_cast<uint32_t>(cells) - 1) / static_cast<uint32_t>(size));
}

struct Place {
  uint32_t n, y, x;  // from the first row and column of a piece
};

// The part of the data that a block works on.
struct Piece {
  const RegionBatchNorm& op;
  bool channels_last;
  int i, j, c;  // row of cells; cell of it, or channel
  int first_lane, y0, x0, rows, columns, lanes, places;
  int64_t slot;  // where its sums go
  int64_t begin;

  __device__ Piece(const RegionBatchNorm& op, const Plan& plan, uint32_t block)
      : op(op), channels_last(plan.channels_last) {
    const uint32_t chunk = block / plan.items, item_and_tile = block % plan.items;
    const uint32_t item = item_and_tile / plan.tiles, tile = item_and_tile % plan.tiles;
    const uint32_t along = static_cast<uint32_t>(channels_last ? op.grid_w : op.grid_h);
    slot = channels_last ? chunk : int64_t{chunk} * plan.tiles + tile;
    i = channels_last ? item / along : item % along;
    j = channels_last ? item % along : 0;
    c = channels_last ? 0 : item / along;
    first_lane = tile * plan.tile;
    lanes = plan.lanes - first_lane < plan.tile ? plan.lanes - first_lane : plan.tile;
    y0 = edge(i, op.height, op.grid_h);
    rows = edge(i + 1, op.height, op.grid_h) - y0;
    x0 = channels_last ? edge(j, op.width, op.grid_w) : 0;
    columns = channels_last ? edge(j + 1, op.width, op.grid_w) - x0 : 1;
    begin = int64_t{chunk} * plan.places;
    const int64_t left = op.batch * rows * columns - begin;
    places = left < 0 ? 0 : left < plan.places ? static_cast<int>(left) : plan.places;
  }

  // Of a lane of this block: the column of its cell, the place of its parameters, and the number of its values.
  __device__ int cell_column(int lane) const {
    return channels_last ? j : cell_of(first_lane + lane, op.width, op.grid_w);
  }
  __device__ int64_t parameter(int lane) const {
    return (int64_t{i} * op.grid_w + cell_column(lane)) * op.channels + (channels_last ? first_lane + lane : c);
  }

  __device__ int64_t values(int lane) const {
    const int cell = cell_column(lane);
    return op.batch * rows * (edge(cell + 1, op.width, op.grid_w) - edge(cell, op.width, op.grid_w));
  }

  __device__ Place place(int index) const {
    const int64_t at = begin + index, row = at / columns;
    return {static_cast<uint32_t>(row / rows), static_cast<uint32_t>(row % rows),
            static_cast<uint32_t>(at % columns)};
  }
  // A lane of the image, at the first place of all.
  template <typename T>
  __device__ T* lane_of(const Image& image, int64_t lane) const {
    return static_cast<T*>(image.data) + y0 * image.stride.y + (channels_last ? lane : c) * image.stride.c +
           (channels_last ? x0 : lane) * image.stride.x;
  }
};

__device__ int64_t offset(const ImageStrides& stride, const Place& place) {
  return place.n * stride.n + place.y * stride.y + place.x * stride.x;
}

// Blocks go backwards through the data in the second pass: what the first one read last is still in the cache.
template <typename Body>
__device__ void for_each_piece(const RegionBatchNorm& op, const Plan& plan, bool backwards, const Body& body) {
  for (uint32_t block = blockIdx.x; block < plan.blocks(); block += gridDim.x) {
    body(Piece(op, plan, backwards ? plan.blocks() - 1 - block : block));
    __syncthreads();  // before shared memory is written anew
  }
}

// What a block's lanes need, worked out once.
template <typename Entry, typename EntryOf>
__device__ void fill(Entry* table, const Piece& piece, const EntryOf& entry_of) {
#pragma unroll 1
  for (int lane = threadIdx.x; lane < piece.lanes; lane += THREADS) table[lane] = entry_of(lane);
  __syncthreads();
}

// The entries of this thread's lanes.
template <typename Entry, int V>
__device__ void take_own(const Plan& plan, const Entry* table, Entry (&own)[V]) {
  for (int v = 0; v < V; ++v) own[v] = table[threadIdx.x % plan.vectors * V + v];
}

// Runs body(vectors of the first INPUTS images, place in the last one) on each vector of this thread's lanes.
template <typename T, int V, int INPUTS, int IMAGES, typename Body>
__device__ void over_places(const Plan& plan, const Piece& piece, const Image (&images)[IMAGES], const Body& body) {
  const int first = threadIdx.x / plan.vectors, lane = threadIdx.x % plan.vectors * V;
  if (first >= plan.abreast || first >= piece.places || lane >= piece.lanes) return;
  T* lanes[IMAGES];
  for (int k = 0; k < IMAGES; ++k) lanes[k] = piece.lane_of<T>(images[k], piece.first_lane + lane);
  Place place = piece.place(first);
  const uint32_t columns = piece.columns, rows = piece.rows, abreast = plan.abreast;
  const Place step = {abreast / columns / rows, abreast / columns % rows, abreast % columns};
  const auto advance = [&] {  // without dividing
    place.x += step.x;
    place.y += step.y;
    place.n += step.n;
    if (place.x >= columns) {
      place.x -= columns;
      place.y += 1;
    }
    if (place.y >= rows) {
      place.y -= rows;
      place.n += 1;
    }
  };
  const auto round = [&](auto count) {
    constexpr int PLACES = decltype(count)::value;
    Vector<T, V> vectors[PLACES][INPUTS];
    T* last[PLACES];
    for (int p = 0; p < PLACES; ++p) {
      for (int k = 0; k < INPUTS; ++k) {
        vectors[p][k] = *reinterpret_cast<const Vector<T, V>*>(lanes[k] + offset(images[k].stride, place));
      }
      last[p] = lanes[IMAGES - 1] + offset(images[IMAGES - 1].stride, place);
      advance();
    }
    for (int p = 0; p < PLACES; ++p) body(vectors[p], last[p]);
  };
  constexpr int AT_ONCE = loads_at_once(V) / INPUTS;
  int left = (piece.places - first + plan.abreast - 1) / plan.abreast;
  for (; left >= AT_ONCE; left -= AT_ONCE) round(std::integral_constant<int, AT_ONCE>());
  for (; left > 0; --left) round(std::integral_constant<int, 1>());
}

// Of one channel of a cell, over some of its values.
template <typename C>
struct alignas(16) Partial {
  C count, shift;
  C sum, product;  // of value - shift and its square, or of gradients and their product with input - mean
};

// Adds up what the block's threads have summed, as a tree, and writes it down by cell and channel.
template <int V, typename C, typename ShiftOf>
__device__ void write_partials(const Plan& plan, const Piece& piece, const C (&sum)[V], const C (&product)[V],
                               const ShiftOf& shift_of, Partial<C>* partials) {
  __shared__ C sums[V][THREADS], products[V][THREADS];
  const int self = threadIdx.x, row = self / plan.vectors;
  for (int v = 0; v < V; ++v) {
    sums[v][self] = sum[v];
    products[v][self] = product[v];
  }
  for (int rows = plan.abreast, half; rows > 1; rows = half) {
    __syncthreads();
    half = (rows + 1) / 2;
    if (row + half >= rows) continue;
    for (int v = 0; v < V; ++v) {
      sums[v][self] += sums[v][self + half * plan.vectors];
      products[v][self] += products[v][self + half * plan.vectors];
    }
  }
  __syncthreads();
  const RegionBatchNorm& op = piece.op;
  Partial<C>* const slot = partials + piece.slot * op.parameters();
  if (piece.channels_last) {
    for (int lane = self; lane < piece.lanes; lane += THREADS) {
      slot[piece.parameter(lane)] = {static_cast<C>(piece.places), shift_of(lane), sums[lane % V][lane / V],
                                     products[lane % V][lane / V]};
    }
    return;
  }
  const auto lane_at = [&](int64_t j) {  // where cell j begins
    const int lane = edge(j, op.width, op.grid_w) - piece.first_lane;
    return lane < 0 ? 0 : lane < piece.lanes ? lane : piece.lanes;
  };
  for (int64_t j = self / WARP; j < op.grid_w; j += THREADS / WARP) {
    const int begin = lane_at(j), end = lane_at(j + 1);
    C cell_sum = 0, cell_product = 0;
    for (int lane = begin + self % WARP; lane < end; lane += WARP) {
      cell_sum += sums[lane % V][lane / V];
      cell_product += products[lane % V][lane / V];
    }
    cell_sum = warp_sum(cell_sum);
    cell_product = warp_sum(cell_product);
    if (self % WARP != 0) continue;
    const C count = static_cast<C>(piece.places) * static_cast<C>(end - begin);
    slot[(piece.i * op.grid_w + j) * op.channels + piece.c] = {count, count == 0 ? C(0) : shift_of(begin), cell_sum,
                                                               cell_product};
  }
}

__device__ int64_t values_of(const RegionBatchNorm& op, int64_t parameter) {
  const int64_t cell = parameter / op.channels, i = cell / op.grid_w, j = cell % op.grid_w;
  return op.batch * (edge(i + 1, op.height, op.grid_h) - edge(i, op.height, op.grid_h)) *
         (edge(j + 1, op.width, op.grid_w) - edge(j, op.width, op.grid_w));
}

constexpr int KEYS = 4, SLICES = THREADS / KEYS;  // of a block that merges: parameters, and threads of each

// Runs finish(parameter, its number of values, shift, sum, product) with the sums of all slots, about one shift and
// in double.
template <typename C, typename Finish>
__device__ void merge(const RegionBatchNorm& op, const Partial<C>* partials, int64_t slots, const Finish& finish) {
  __shared__ double sums[SLICES][KEYS], products[SLICES][KEYS];
  const int key = threadIdx.x % KEYS, slice = threadIdx.x / KEYS;
  const int64_t parameters = op.parameters();
  for (int64_t first = blockIdx.x * KEYS; first < parameters; first += gridDim.x * KEYS) {
    const int64_t k = first + key;
    const Partial<C>* const of_key = partials + k;
    double shift = 0, sum = 0, product = 0;
    if (k < parameters) {
      int64_t start = 0;
      while (start + 1 < slots && of_key[start * parameters].count == 0) ++start;
      if (start < slots) shift = of_key[start * parameters].shift;
#pragma unroll 8
      for (int64_t slot = slice; slot < slots; slot += SLICES) {
        const Partial<C> partial = of_key[slot * parameters];
        const double count = partial.count, away = partial.shift - shift;
        sum += partial.sum + count * away;
        product += partial.product + away * (2 * static_cast<double>(partial.sum) + count * away);
      }
    }
    sums[slice][key] = sum;
    products[slice][key] = product;
    __syncthreads();
    if (slice == 0 && k < parameters) {
      for (int other = 1; other < SLICES; ++other) {
        sum += sums[other][key];
        product += products[other][key];
      }
      finish(k, values_of(op, k), shift, sum, product);
    }
    __syncthreads();
  }
}

}  // namespace
}  // namespace jaa_ext
