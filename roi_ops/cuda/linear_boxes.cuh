// Gradient of the linear operators with respect to the boxes: the weights' derivatives are closed forms.
#pragma once

#include "slabs.cuh"

namespace roi {

// Gradient with respect to start and extent of the two axes.
template <class A>
struct AxisGradient {
  A y_start, y_extent, x_start, x_extent;
};

// The sum over the block as the gradient of the box; thread 0 writes it.
template <class A>
ROI_DEVICE void write_box_gradient(const AxisGradient<A>& part, const Box<A>& box, A scale, A* out) {
  __shared__ A shared[MAX_WARPS];
  const A y_start = block_sum(part.y_start, shared), x_start = block_sum(part.x_start, shared);
  A y_extent = block_sum(part.y_extent, shared), x_extent = block_sum(part.x_extent, shared);
  if (!box.y.free) y_extent = A(0);  // a size that was clamped does not follow the box
  if (!box.x.free) x_extent = A(0);
  if (threadIdx.x == 0) {
    out[0] = A(0);
    out[1] = (x_start - x_extent) * scale;
    out[2] = (y_start - y_extent) * scale;
    out[3] = x_extent * scale;
    out[4] = y_extent * scale;
  }
}

template <class S, int V>
ROI_DEVICE void box_gradient_of_bin(
    const S* from, const Level& map, const Table<Arithmetic<S>, 3>& y, const Table<Arithmetic<S>, 3>& x, int p, int q,
    const Arithmetic<S> (&grad)[V], AxisGradient<Arithmetic<S>>* sum) {
  using A = Arithmetic<S>;
  const int x_begin = x.begin[q], x_end = x.end[q];
  for (int i = y.begin[p]; i < y.end[p]; ++i) {
    const S* row = from + y.pixel[i] * map.stride_y;
    A line = A(0), line_start = A(0), line_extent = A(0);
#pragma unroll 2
    for (int j = x_begin; j < x_end; ++j) {
      A pixel[V];
      load<V>(row + x.pixel[j] * map.stride_x, pixel);
      A dot = A(0);
#pragma unroll
      for (int v = 0; v < V; ++v) dot = fused(grad[v], pixel[v], dot);
      line = fused(x.value[j], dot, line);
      line_start = fused(x.value[x.capacity + j], dot, line_start);
      line_extent = fused(x.value[2 * x.capacity + j], dot, line_extent);
    }
    sum->y_start = fused(y.value[y.capacity + i], line, sum->y_start);
    sum->y_extent = fused(y.value[2 * y.capacity + i], line, sum->y_extent);
    sum->x_start = fused(y.value[i], line_start, sum->x_start);
    sum->x_extent = fused(y.value[i], line_extent, sum->x_extent);
  }
}

// Block: one RoI, all its channels.
template <class S, int LAYOUT>
ROI_DEVICE void linear_backward_boxes(const PointArguments& a) {
  using A = Arithmetic<S>;
  constexpr int V = CHANNELS_A_THREAD<S, LAYOUT>;
  const Call& call = a.call;
  const int bins = call.pooled_h * call.pooled_w;
  const long long roi = blockIdx.x;
  A* out = static_cast<A*>(a.out) + 5 * roi;

  using Rows = Tables<LinearRows, A, 3>;
  __shared__ Rows tables;
  Rows::build(&tables, call, a.plan, roi, ROI_DYNAMIC_SHARED);
  if (!tables.box.used) {
    if (threadIdx.x < 5) out[threadIdx.x] = A(0);
    return;
  }
  const Level& map = call.level[tables.box.level];
  const S* image = static_cast<const S*>(map.data) + tables.box.image * map.stride_n;

  AxisGradient<A> sum = {};
  const int chunks = Rows::chunks(tables);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    Rows::turn_to(&tables, chunk);
    for (int c = 0; c < call.channels; c += a.plan.slab) {
      const int channels = smaller(a.plan.slab, call.channels - c);
      const int items = item_count<LAYOUT>(a.plan, channels, bins);
      for (int i = threadIdx.x; i < items; i += blockDim.x) {
        const Item item = item_of<LAYOUT, V>(a.plan, i, channels, bins);
        if (!item.active) continue;
        const int p = item.bin / call.pooled_w, q = item.bin - p * call.pooled_w;
        const int channel = c + item.channel;
        A grad[V];
#pragma unroll
        for (int v = 0; v < V; ++v) grad[v] = widen(__ldg(pooled_at<const S>(a.grad, roi, channel + v, item.bin)));
        box_gradient_of_bin<S, V>(image + channel * map.stride_c, map, tables.y, tables.x, p, q, grad, &sum);
      }
    }
  }
  write_box_gradient(sum, tables.box, A(map.scale), out);
}

}  // namespace roi
