// What the backward kernels keep of RoIs in shared memory: gradients, and weights or axes, of a few at a time.
#pragma once

#include "max_points.cuh"
#include "tiles.cuh"

namespace roi {

// Numbers from one bin, or pixel, to the next in shared memory: one more than a warp's banks, so that neither threads
// along channels nor threads along bins meet in a bank.
constexpr int PITCH = TILE_CHANNELS + 1;
template <class A>
constexpr int PIXELS = TILE_H<A> * TILE_W;
constexpr int AXES_BYTES = 64;  // room for two axes
static_assert(2 * sizeof(Axis<double>) <= AXES_BYTES, "two axes take more room");

// A chunk of bins of one RoI on one tile, in shared memory.
template <class A>
struct Slot {
  A* weight_y;  // [pooled_h, TILE_H]; linear kinds
  A* weight_x;  // [pooled_w, TILE_W]; rows of both begin at multiples of 16 bytes
  A* grad;      // [chunk_bins, PITCH]
  Axis<A>* axes;  // of the box, y and x; maxima
  int* argmax;  // [chunk_bins, PITCH]; maxima
  int* span_y;  // [pooled_h, 2]: first and last row of the tile that bin row p touches, first > last: none
  int* span_x;  // [pooled_w, 2]
};

// See backward in plan.py.
template <class A, bool IS_MAX>
ROI_DEVICE Slot<A> slot_at(const BackwardArguments& a, unsigned char* memory, int slot) {
  const int h = a.call.pooled_h, w = a.call.pooled_w, elements = a.chunk_bins * PITCH;
  const int head = IS_MAX ? AXES_BYTES : (h * TILE_H<A> + w * TILE_W) * int(sizeof(A));
  const int integers = (IS_MAX ? elements : 0) + 2 * (h + w);
  memory += slot * ((head + elements * int(sizeof(A)) + integers * 4 + 15) / 16 * 16);
  Slot<A> s;
  s.axes = reinterpret_cast<Axis<A>*>(memory);
  s.weight_y = reinterpret_cast<A*>(memory);
  s.weight_x = s.weight_y + h * TILE_H<A>;
  s.grad = reinterpret_cast<A*>(memory + head);
  s.argmax = reinterpret_cast<int*>(s.grad + elements);
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
      reach(axis, p, p + 1, &from, &to);
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

// Copy a chunk of a RoI's gradient (or argmax) to [bins, PITCH], neighbours in memory by neighbours, several
// loads of a thread under way at a time.
template <class A, class T>
ROI_DEVICE void stage_values(const Pooled& from, long long roi, int first_bin, int bins, const Tile& tile, A* to) {
  constexpr int WARPS = TILE_THREADS / WARP;
  const T* data = pooled_at<const T>(from, roi, tile.first_channel, first_bin);
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  if (from.stride_c == 1) {
    if (lane >= tile.channels) return;
#pragma unroll 4
    for (int bin = warp; bin < bins; bin += WARPS) to[bin * PITCH + lane] = A(widen(__ldg(data + bin * from.stride_bin + lane)));
  } else {
#pragma unroll 1
    for (int bin = lane; bin < bins; bin += WARP) {
#pragma unroll
      for (int i = 0; i < TILE_CHANNELS / WARPS; ++i) {
        const int channel = warp + i * WARPS;
        if (channel < tile.channels) {
          to[bin * PITCH + channel] = A(widen(__ldg(data + channel * from.stride_c + bin * from.stride_bin)));
        }
      }
    }
  }
}

// The pieces of work of a turn: begin .. begin + count - 1, each a chunk of one of the picked RoIs.
struct Turn {
  const int* picked;
  int chunks, begin, count;
  unsigned char* slots;
};

// Rows of all slots side by side: each has warps of its own for y and for x.
template <class A, bool IS_MAX>
ROI_DEVICE void stage_rows(const BackwardArguments& a, const Tile& tile, const Turn& turn) {
  const Call& call = a.call;
  const int x_begin = (call.pooled_h + WARP - 1) / WARP * WARP;
  const int rows = x_begin + (call.pooled_w + WARP - 1) / WARP * WARP;
  for (int i = threadIdx.x; i < turn.count * rows; i += TILE_THREADS) {
    const int s = i / rows, row = i - s * rows;
    const bool is_y = row < x_begin;
    const int p = is_y ? row : row - x_begin;
    if (p >= (is_y ? call.pooled_h : call.pooled_w)) continue;
    const Slot<A> slot = slot_at<A, IS_MAX>(a, turn.slots, s);
    const A* corner = corners<A>(call, turn.picked[(turn.begin + s) / turn.chunks]);
    const Axis<A> axis = is_y ? axis_y(call, corner, tile.level) : axis_x(call, corner, tile.level);
    A* weight = is_y ? slot.weight_y + p * TILE_H<A> : slot.weight_x + p * TILE_W;
    int* span = (is_y ? slot.span_y : slot.span_x) + 2 * p;
    if (IS_MAX && p == 0) slot.axes[is_y ? 0 : 1] = axis;
    stage_row<A, IS_MAX>(call.kind, axis, p, is_y ? tile.y0 : tile.x0, is_y ? TILE_H<A> : TILE_W, weight, span);
  }
}

template <class S, bool IS_MAX>
ROI_DEVICE void stage(const BackwardArguments& a, const Tile& tile, const Turn& turn) {
  using A = Arithmetic<S>;
  stage_rows<A, IS_MAX>(a, tile, turn);
#pragma unroll 1
  for (int s = 0; s < turn.count; ++s) {
    const int work = turn.begin + s, roi = turn.picked[work / turn.chunks];
    const Chunk chunk = chunk_of(a, work % turn.chunks);
    const Slot<A> slot = slot_at<A, IS_MAX>(a, turn.slots, s);
    const int first_bin = chunk.p0 * a.call.pooled_w + chunk.q0, bins = (chunk.p1 - chunk.p0) * (chunk.q1 - chunk.q0);
    stage_values<A, S>(a.grad, roi, first_bin, bins, tile, slot.grad);
    if (IS_MAX) stage_values<int, int>(a.argmax, roi, first_bin, bins, tile, slot.argmax);
  }
}

}  // namespace roi
