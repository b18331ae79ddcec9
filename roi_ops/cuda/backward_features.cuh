// Gradient with respect to the features: a block owns a tile of a map and a slab of channels, goes through the
// RoIs that touch it in their order and writes each cell once. No atomics, nothing is zeroed before.
//
// RoIs come in lists by image and level (bins.cuh). The block picks those whose window meets its tile, 256 at a
// time, stages the gradients of a few of them in shared memory and adds them up: linear kinds in registers,
// A_y^T G A_x restricted to the tile; maxima in shared memory, each cell by one thread. Crowded tiles are summed in
// parts by several blocks (tiles.cuh), and the parts added in order.
#pragma once

#include "max_points.cuh"
#include "tiles.cuh"

namespace roi {

constexpr int STRIP_CHANNELS = 4;  // linear kinds: a thread sums this many channels ...
template <class A>
constexpr int STRIP = TILE_H<A> * TILE_W * TILE_CHANNELS / STRIP_CHANNELS / TILE_THREADS;  // ... of so many pixels
constexpr int PITCH = TILE_CHANNELS + 1;  // of the finished tile: neither of its two readings meets a bank twice
template <class A>
constexpr int PIXELS = TILE_H<A> * TILE_W;

// A chunk of bins of one RoI on one tile, in shared memory.
template <class A>
struct Slot {
  A* grad;         // [chunk_bins, TILE_CHANNELS]
  A* weight_y;     // [pooled_h, TILE_H]; linear kinds
  A* weight_x;     // [pooled_w, TILE_W]
  int* argmax;     // [chunk_bins, TILE_CHANNELS]; maxima
  int* span_y;     // [pooled_h, 2]: first and last row of the tile that bin row p touches, first > last: none
  int* span_x;     // [pooled_w, 2]
};

// See slot_bytes in plan.py.
template <class A, bool IS_MAX>
ROI_DEVICE Slot<A> slot_at(const BackwardArguments& a, unsigned char* memory, int slot) {
  const int h = a.call.pooled_h, w = a.call.pooled_w, elements = a.chunk_bins * TILE_CHANNELS;
  const int numbers = IS_MAX ? elements : elements + h * TILE_H<A> + w * TILE_W;
  const int integers = (IS_MAX ? elements : 0) + 2 * (h + w);
  const int bytes = (numbers * int(sizeof(A)) + integers * 4 + 15) / 16 * 16;
  Slot<A> s;
  s.grad = reinterpret_cast<A*>(memory + slot * bytes);
  s.weight_y = s.grad + elements;
  s.weight_x = s.weight_y + h * TILE_H<A>;
  s.argmax = reinterpret_cast<int*>(s.grad + numbers);
  s.span_y = s.argmax + (IS_MAX ? elements : 0);
  s.span_x = s.span_y + 2 * h;
  return s;
}

// Bins of one chunk: whole rows of bins, or a part of one row.
struct Chunk {
  int p0, p1, q0, q1;
};

ROI_DEVICE int chunk_count(const BackwardArguments& a) {
  const int h = a.call.pooled_h, w = a.call.pooled_w;
  if (a.chunk_bins < w) return h * ((w + a.chunk_bins - 1) / a.chunk_bins);
  const int rows = a.chunk_bins / w;
  return (h + rows - 1) / rows;
}

ROI_DEVICE Chunk chunk_of(const BackwardArguments& a, int i) {
  const int h = a.call.pooled_h, w = a.call.pooled_w;
  if (a.chunk_bins < w) {
    const int across = (w + a.chunk_bins - 1) / a.chunk_bins, q0 = i % across * a.chunk_bins;
    return {i / across, i / across + 1, q0, smaller(q0 + a.chunk_bins, w)};
  }
  const int rows = a.chunk_bins / w;
  return {i * rows, smaller((i + 1) * rows, h), 0, w};
}

// Row p of one axis on pixels origin .. origin + size - 1: its weights there (linear kinds) and its span.
template <class A, bool IS_MAX>
ROI_DEVICE void stage_row(int kind, const Axis<A>& axis, int p, int origin, int size, A* weight, int* span) {
  int first = size, last = -1;
  if (IS_MAX) {
    int from = 0, to = 0;
    if (kind == POOL) {
      pool_range(axis, p, &from, &to);
    } else {
      valid_samples(axis, p, &from, &to);
      if (from < to) {
        const int a = neighbours(sample_position(axis, p, from), axis.length).low;
        const int b = neighbours(sample_position(axis, p, to - 1), axis.length).low;
        from = smaller(a, b);
        to = larger(a, b) + 2;
      }
    }
    if (from < to) {
      first = larger(from - origin, 0);
      last = smaller(to - 1 - origin, size - 1);
    }
  } else {
    for (int i = 0; i < size; ++i) weight[i] = A(0);
    matrix_row(kind, axis, p, [&](int pixel, const Weight<A>& w) {
      const int at = pixel - origin;
      if (at >= 0 && at < size) {
        weight[at] = w.value;
        first = smaller(first, at);
        last = larger(last, at);
      }
    });
  }
  span[0] = first;
  span[1] = last;
}

// Copy a chunk of a RoI's gradient (or argmax) to [bins, TILE_CHANNELS], neighbours in memory by neighbours.
template <class A, class T>
ROI_DEVICE void stage_values(const Pooled& from, long long roi, int first_bin, int bins, const Tile& tile, A* to) {
  const T* data = pooled_at<const T>(from, roi, tile.first_channel, first_bin);
  if (from.stride_c == 1) {
    const int channel = threadIdx.x % TILE_CHANNELS;
    for (int bin = threadIdx.x / TILE_CHANNELS; bin < bins; bin += TILE_THREADS / TILE_CHANNELS) {
      if (channel < tile.channels) to[bin * TILE_CHANNELS + channel] = A(widen(data[channel + bin * from.stride_bin]));
    }
  } else {
    const int step_channel = TILE_THREADS / bins, step_bin = TILE_THREADS % bins;
    int channel = threadIdx.x / bins, bin = threadIdx.x % bins;
    while (channel < tile.channels) {
      to[bin * TILE_CHANNELS + channel] = A(widen(data[channel * from.stride_c + bin * from.stride_bin]));
      channel += step_channel;
      bin += step_bin;
      if (bin >= bins) {
        bin -= bins;
        ++channel;
      }
    }
  }
}

template <class S, bool IS_MAX>
ROI_DEVICE void stage(const BackwardArguments& a, const Tile& tile, long long roi, const Chunk& chunk, const Slot<Arithmetic<S>>& slot) {
  using A = Arithmetic<S>;
  const A* corner = corners<A>(a.call, roi);
  const Call& call = a.call;
  for_rows(call.pooled_h, call.pooled_w, [&](bool is_y, int p) {
    const Axis<A> axis = is_y ? axis_y(call, corner, tile.level) : axis_x(call, corner, tile.level);
    A* weight = is_y ? slot.weight_y + p * TILE_H<A> : slot.weight_x + p * TILE_W;
    int* span = (is_y ? slot.span_y : slot.span_x) + 2 * p;
    stage_row<A, IS_MAX>(call.kind, axis, p, is_y ? tile.y0 : tile.x0, is_y ? TILE_H<A> : TILE_W, weight, span);
  });
  const int first_bin = chunk.p0 * call.pooled_w + chunk.q0, bins = (chunk.p1 - chunk.p0) * (chunk.q1 - chunk.q0);
  stage_values<A, S>(a.grad, roi, first_bin, bins, tile, slot.grad);
  if (IS_MAX) stage_values<int, int>(a.argmax, roi, first_bin, bins, tile, slot.argmax);
}

// The thread's strip of the tile: STRIP pixels of one row, STRIP_CHANNELS channels.
template <class A>
struct Strip {
  A sum[STRIP<A>][STRIP_CHANNELS];
};

template <class A>
ROI_DEVICE void add_linear(const BackwardArguments& a, const Slot<A>& slot, const Chunk& chunk, Strip<A>* strip) {
  constexpr int LANES = TILE_CHANNELS / STRIP_CHANNELS;
  const int lane = threadIdx.x % LANES * STRIP_CHANNELS, worker = threadIdx.x / LANES;
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
      const A* from = slot.grad + ((p - chunk.p0) * across + q - chunk.q0) * TILE_CHANNELS + lane;
#pragma unroll
      for (int v = 0; v < STRIP_CHANNELS; ++v) grad[v] = fused(weight, from[v], grad[v]);
    }
#pragma unroll
    for (int x = 0; x < STRIP<A>; ++x) {
      const A weight = slot.weight_x[q * TILE_W + x0 + x];
      if (weight != A(0)) {
#pragma unroll
        for (int v = 0; v < STRIP_CHANNELS; ++v) strip->sum[x][v] = fused(weight, grad[v], strip->sum[x][v]);
      }
    }
  }
}

template <class A>
ROI_DEVICE void finish_linear(const Strip<A>& strip, A* finished) {
  constexpr int LANES = TILE_CHANNELS / STRIP_CHANNELS;
  const int lane = threadIdx.x % LANES * STRIP_CHANNELS, worker = threadIdx.x / LANES;
#pragma unroll
  for (int x = 0; x < STRIP<A>; ++x) {
#pragma unroll
    for (int v = 0; v < STRIP_CHANNELS; ++v) finished[(worker * STRIP<A> + x) * PITCH + lane + v] = strip.sum[x][v];
  }
}

// Maxima: a thread adds what falls on its rows of the tile, of one channel.
template <class A>
ROI_DEVICE void add_maxima(
    const BackwardArguments& a, const Tile& tile, const Box<A>& box, const Slot<A>& slot, const Chunk& chunk, A* sums) {
  constexpr int ROWS = TILE_H<A> / (TILE_THREADS / TILE_CHANNELS);
  const int channel = threadIdx.x % TILE_CHANNELS, y0 = threadIdx.x / TILE_CHANNELS * ROWS;
  if (channel >= tile.channels) return;
  const int across = chunk.q1 - chunk.q0;
  for (int p = chunk.p0; p < chunk.p1; ++p) {
    if (slot.span_y[2 * p] >= y0 + ROWS || slot.span_y[2 * p + 1] < y0) continue;
    for (int q = chunk.q0; q < chunk.q1; ++q) {
      if (slot.span_x[2 * q] > slot.span_x[2 * q + 1]) continue;
      const int element = ((p - chunk.p0) * across + q - chunk.q0) * TILE_CHANNELS + channel;
      const int at = slot.argmax[element];
      if (at < 0) continue;
      const A grad = slot.grad[element];
      Place<A> y, x;
      place_of(a.call.kind, box, p, q, at, &y, &x);
#pragma unroll
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
      for (int s = 0; s < here; ++s) {
        const int work = begin + s;
        stage<S, IS_MAX>(a, tile, picked[work / chunks], chunk_of(a, work % chunks), slot_at<A, IS_MAX>(a, slots, s));
      }
      __syncthreads();
      for (int s = 0; s < here; ++s) {
        const int work = begin + s;
        const Slot<A> slot = slot_at<A, IS_MAX>(a, slots, s);
        if (IS_MAX) {
          Box<A> box;
          const A* corner = corners<A>(a.call, picked[work / chunks]);
          box.y = axis_y(a.call, corner, tile.level);
          box.x = axis_x(a.call, corner, tile.level);
          add_maxima(a, tile, box, slot, chunk_of(a, work % chunks), finished);
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
