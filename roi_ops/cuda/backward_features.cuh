// Gradient with respect to the features: a block owns a tile of a map and a slab of channels, goes through the
// RoIs that touch it in their order and writes each cell once. No atomics, nothing is zeroed before.
//
// RoIs come in lists by image and level (bins.cuh). The block picks those whose window meets its tile, 256 at a
// time, stages the gradients of a few of them in shared memory and adds them up: linear kinds in registers,
// A_y^T G A_x restricted to the tile; maxima in shared memory, each cell by one thread. Crowded tiles are summed in
// parts by several blocks (tiles.cuh), and the parts added in order.
#pragma once

#include "staging.cuh"

namespace roi {

constexpr int STRIP_CHANNELS = 4;  // linear kinds: a thread sums this many channels ...
template <class A>
constexpr int STRIP = TILE_H<A> * TILE_W * TILE_CHANNELS / STRIP_CHANNELS / TILE_THREADS;  // ... of so many pixels
constexpr int LANES = TILE_CHANNELS / STRIP_CHANNELS;  // threads side by side: channels lane, lane + LANES, ...

// The thread's strip of the tile: STRIP pixels of one row, STRIP_CHANNELS channels.
template <class A>
struct Strip {
  A sum[STRIP<A>][STRIP_CHANNELS];
};

template <class A>
ROI_DEVICE void add_linear(const BackwardArguments& a, const Slot<A>& slot, const Chunk& chunk, Strip<A>* strip) {
  const int lane = threadIdx.x % LANES, worker = threadIdx.x / LANES;
  const int y = worker / (TILE_W / STRIP<A>), x0 = worker % (TILE_W / STRIP<A>) * STRIP<A>;
  int p0 = chunk.p1, p1 = chunk.p0;  // rows of bins that touch this row of pixels
  for (int p = chunk.p0; p < chunk.p1; ++p) {
    if (slot.span_y[2 * p] <= y && y <= slot.span_y[2 * p + 1]) {
      p0 = smaller(p0, p);
      p1 = p + 1;
    }
  }
  if (p0 >= p1) return;
  const int across = chunk.q1 - chunk.q0;
  for (int q = chunk.q0; q < chunk.q1; ++q) {
    if (slot.span_x[2 * q] >= x0 + STRIP<A> || slot.span_x[2 * q + 1] < x0) continue;
    A grad[STRIP_CHANNELS] = {};
    for (int p = p0; p < p1; ++p) {
      const A weight = slot.weight_y[p * TILE_H<A> + y];
      if (weight == A(0)) continue;  // an infinite gradient stays with the pixels it belongs to
      const A* from = slot.grad + ((p - chunk.p0) * across + q - chunk.q0) * PITCH + lane;
#pragma unroll
      for (int v = 0; v < STRIP_CHANNELS; ++v) grad[v] = fused(weight, from[v * LANES], grad[v]);
    }
    constexpr int PACK = 16 / int(sizeof(A));
#pragma unroll
    for (int x = 0; x < STRIP<A>; x += PACK) {
      const uint4 raw = *reinterpret_cast<const uint4*>(slot.weight_x + q * TILE_W + x0 + x);
      const A* weight = reinterpret_cast<const A*>(&raw);
#pragma unroll
      for (int i = 0; i < PACK; ++i) {
        if (weight[i] == A(0)) continue;
#pragma unroll
        for (int v = 0; v < STRIP_CHANNELS; ++v) strip->sum[x + i][v] = fused(weight[i], grad[v], strip->sum[x + i][v]);
      }
    }
  }
}

template <class A>
ROI_DEVICE void finish_linear(const Strip<A>& strip, A* finished) {
  const int lane = threadIdx.x % LANES, worker = threadIdx.x / LANES;
#pragma unroll
  for (int x = 0; x < STRIP<A>; ++x) {
#pragma unroll
    for (int v = 0; v < STRIP_CHANNELS; ++v) finished[(worker * STRIP<A> + x) * PITCH + lane + v * LANES] = strip.sum[x][v];
  }
}

// Maxima: a thread adds what falls on its rows of the tile, of one channel.
template <class A>
ROI_DEVICE void add_maxima(
    const BackwardArguments& a, const Tile& tile, const Slot<A>& slot, const Chunk& chunk, A* sums) {
  constexpr int ROWS = TILE_H<A> / (TILE_THREADS / TILE_CHANNELS);
  const int channel = threadIdx.x % TILE_CHANNELS, y0 = threadIdx.x / TILE_CHANNELS * ROWS;
  if (channel >= tile.channels) return;
  const int across = chunk.q1 - chunk.q0;
  for (int p = chunk.p0; p < chunk.p1; ++p) {
    if (slot.span_y[2 * p] >= y0 + ROWS || slot.span_y[2 * p + 1] < y0) continue;
#pragma unroll 1
    for (int q = chunk.q0; q < chunk.q1; ++q) {
      if (slot.span_x[2 * q] > slot.span_x[2 * q + 1]) continue;
      const int element = ((p - chunk.p0) * across + q - chunk.q0) * PITCH + channel;
      Place<A> y, x;
      if (!place_of(a.call.kind, slot.axes[0], slot.axes[1], p, q, slot.argmax[element], &y, &x)) continue;
      const A grad = slot.grad[element];
#pragma unroll 1
      for (int i = 0; i < 4; ++i) {
        const int row = (i < 2 ? y.low : y.high) - tile.y0, column = (i % 2 == 0 ? x.low : x.high) - tile.x0;
        const A weight = (i < 2 ? A(1) - y.frac : y.frac) * (i % 2 == 0 ? A(1) - x.frac : x.frac);
        if (row >= y0 && row < y0 + ROWS && column >= 0 && column < TILE_W && weight != A(0)) {
          A* cell = sums + (row * TILE_W + column) * PITCH + channel;
          *cell = fused(weight, grad, *cell);
        }
      }
    }
  }
}

template <class S>
ROI_DEVICE void write_tile(const BackwardArguments& a, const Tile& tile, const Arithmetic<S>* finished) {
  using A = Arithmetic<S>;
  const Level& map = a.call.level[tile.level];
  S* to = static_cast<S*>(map.data) + tile.image * map.stride_n + tile.first_channel * map.stride_c + tile.y0 * map.stride_y + tile.x0 * map.stride_x;
#pragma unroll 1
  for (int i = threadIdx.x; i < PIXELS<A> * TILE_CHANNELS; i += TILE_THREADS) {
    const int channel = map.stride_c == 1 ? i % TILE_CHANNELS : i / PIXELS<A>;
    const int pixel = map.stride_c == 1 ? i / TILE_CHANNELS : i % PIXELS<A>;
    const int y = pixel / TILE_W, x = pixel % TILE_W;
    if (channel < tile.channels && tile.y0 + y < map.height && tile.x0 + x < map.width) {
      narrow(finished[pixel * PITCH + channel], to + channel * map.stride_c + y * map.stride_y + x * map.stride_x);
    }
  }
}

// Where part `part` of a slot's tile and slab is kept.
template <class A>
ROI_DEVICE A* partial_sums(const BackwardArguments& a, int slot, int part, int slab) {
  const long long at = ((long long)slot * PARTS + part) * a.slabs + slab;
  return static_cast<A*>(a.crowd.partial) + at * (PIXELS<A> * TILE_CHANNELS);
}

// Sum over the RoIs number from .. to - 1 of those that touch the tile, to `finished`.
template <class S, bool IS_MAX>
ROI_DEVICE void sum_tile(const BackwardArguments& a, const Tile& tile, int from, int to, Arithmetic<S>* finished) {
  using A = Arithmetic<S>;
  __shared__ int picked[TILE_THREADS], shared[MAX_WARPS];
  // Maxima are summed up in the finished tile, in front of the slots; linear sums go there when the slots are done.
  unsigned char* slots = reinterpret_cast<unsigned char*>(finished);
  if (IS_MAX) slots += (PIXELS<A> * PITCH * sizeof(A) + 15) / 16 * 16;
  Strip<A> strip = {};
  if (IS_MAX) {
    for (int i = threadIdx.x; i < PIXELS<A> * PITCH; i += TILE_THREADS) finished[i] = A(0);
  }
  const int key = tile.image * a.call.levels + tile.level;
  const int* list = a.bins.order + a.bins.begin[key];
  const int length = a.bins.count[key], chunks = chunk_count(a);
  int seen = 0;
  for (int segment = 0; segment < length && seen < to; segment += TILE_THREADS) {
    int roi = -1, total;
    if (segment + int(threadIdx.x) < length) {
      roi = list[segment + threadIdx.x];
      if (!touches<A>(a, roi, tile)) roi = -1;
    }
    const int number = seen + block_scan(roi >= 0, shared, &total);
    const int first = larger(seen, from), last = smaller(seen + total, to);
    if (roi >= 0 && number >= first && number < last) picked[number - first] = roi;
    seen += total;
    __syncthreads();
    const int works = larger(last - first, 0) * chunks;
    for (int begin = 0; begin < works; begin += a.staged) {
      const int here = smaller(a.staged, works - begin);
      stage<S, IS_MAX>(a, tile, {picked, chunks, begin, here, slots});
      __syncthreads();
#pragma unroll 1
      for (int s = 0; s < here; ++s) {
        const int work = begin + s;
        const Slot<A> slot = slot_at<A, IS_MAX>(a, slots, s);
        if (IS_MAX) {
          add_maxima(a, tile, slot, chunk_of(a, work % chunks), finished);
        } else {
          add_linear(a, slot, chunk_of(a, work % chunks), &strip);
        }
      }
      __syncthreads();
    }
  }
  if (!IS_MAX) finish_linear(strip, finished);
  __syncthreads();
}

// Block: a tile and a slab of channels; the first blocks are for the parts of split tiles, which take longest.
template <class S, bool IS_MAX>
ROI_DEVICE void backward_features(const BackwardArguments& a) {
  using A = Arithmetic<S>;
  A* finished = reinterpret_cast<A*>(ROI_DYNAMIC_SHARED);
  const int parts = a.call.images * a.crowd.slots * PARTS * a.slabs;
  // Of the other tiles those of coarse levels have the most RoIs: they go first, lest they finish last.
  const bool is_part = int(blockIdx.x) < parts;
  const int number = is_part ? int(blockIdx.x) : int(gridDim.x) - 1 - int(blockIdx.x);
  const int slab = number % a.slabs, part = number / a.slabs % PARTS;
  const int slot = is_part ? number / a.slabs / PARTS : -1;
  const int index = is_part ? a.crowd.tile[slot] : number / a.slabs;
  if (index < 0 || (!is_part && a.crowd.slots > 0 && a.crowd.slot[index] >= 0)) return;
  const Tile tile = tile_of<A>(a, index, slab);
  const long long touching = is_part ? a.crowd.count[index] : 0;
  const int from = is_part ? int(touching * part / PARTS) : 0;
  const int to = is_part ? int(touching * (part + 1) / PARTS) : 0x7fffffff;
  sum_tile<S, IS_MAX>(a, tile, from, to, finished);
  if (!is_part) {
    write_tile<S>(a, tile, finished);
    return;
  }
  A* sums = partial_sums<A>(a, slot, part, slab);
  for (int i = threadIdx.x; i < PIXELS<A> * TILE_CHANNELS; i += TILE_THREADS) {
    sums[i] = finished[i / TILE_CHANNELS * PITCH + i % TILE_CHANNELS];
  }
}

// Block: a slot and a slab. The parts of its tile, added in order.
template <class S>
ROI_DEVICE void add_parts(const BackwardArguments& a) {
  using A = Arithmetic<S>;
  A* finished = reinterpret_cast<A*>(ROI_DYNAMIC_SHARED);
  const int slot = blockIdx.x / a.slabs, slab = blockIdx.x % a.slabs;
  const int index = a.crowd.tile[slot];
  if (index < 0) return;
  for (int i = threadIdx.x; i < PIXELS<A> * TILE_CHANNELS; i += TILE_THREADS) {
    A sum = A(0);
#pragma unroll
    for (int part = 0; part < PARTS; ++part) sum += partial_sums<A>(a, slot, part, slab)[i];
    finished[i / TILE_CHANNELS * PITCH + i % TILE_CHANNELS] = sum;
  }
  __syncthreads();
  write_tile<S>(a, tile_of<A>(a, index, slab), finished);
}

}  // namespace roi
