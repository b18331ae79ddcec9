// out = A_y F A_x^T for each RoI and channel: forward of the linear operators.
#pragma once

#include "slabs.cuh"

namespace roi {

template <class S, int V>
ROI_DEVICE void pool_bin(
    const S* from, const Level& map, const Table<Arithmetic<S>, 1>& y, const Table<Arithmetic<S>, 1>& x, int p, int q,
    Arithmetic<S> (&sum)[V]) {
  using A = Arithmetic<S>;
  const int x_begin = x.begin[q], x_end = x.end[q];
  for (int i = y.begin[p]; i < y.end[p]; ++i) {
    const S* row = from + y.pixel[i] * map.stride_y;
    A line[V] = {};
#pragma unroll 4
    for (int j = x_begin; j < x_end; ++j) {
      A pixel[V];
      load<V>(row + x.pixel[j] * map.stride_x, pixel);
      const A weight = x.value[j];
#pragma unroll
      for (int v = 0; v < V; ++v) line[v] = fused(weight, pixel[v], line[v]);
    }
    const A weight = y.value[i];
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = fused(weight, line[v], sum[v]);
  }
}

// Block: RoI blockIdx.x / groups, slabs blockIdx.x % groups, + groups, ...
template <class S, int LAYOUT>
ROI_DEVICE void linear_forward(const ForwardArguments& a) {
  using A = Arithmetic<S>;
  constexpr int V = CHANNELS_A_THREAD<S, LAYOUT>;
  const Call& call = a.call;
  const int bins = call.pooled_h * call.pooled_w;
  const long long roi = blockIdx.x / a.plan.groups;
  const int first_slab = (blockIdx.x % a.plan.groups) * a.plan.slab, slab_step = a.plan.groups * a.plan.slab;

  using Rows = Tables<LinearRows, A, 1>;
  __shared__ Rows tables;
  Rows::build(&tables, call, a.plan, roi, ROI_DYNAMIC_SHARED);
  if (!tables.box.used) {
    S zero;
    narrow(A(0), &zero);
    for (int c = first_slab; c < call.channels; c += slab_step) {
      fill_pooled(zero, a.out, roi, c, smaller(a.plan.slab, call.channels - c), bins);
    }
    return;
  }
  S* tile = reinterpret_cast<S*>(ROI_DYNAMIC_SHARED + a.plan.tile);
  const bool direct = LAYOUT != PLANAR && a.out.stride_c == 1;
  const Level& map = call.level[tables.box.level];
  const S* image = static_cast<const S*>(map.data) + tables.box.image * map.stride_n;
  const int chunks = Rows::chunks(tables);

  for (int c = first_slab; c < call.channels; c += slab_step) {
    const int channels = smaller(a.plan.slab, call.channels - c);
    for (int first_bin = 0; first_bin < bins; first_bin += a.plan.bins) {
      const int here = smaller(a.plan.bins, bins - first_bin);
      const int items = item_count<LAYOUT>(a.plan, channels, here);
      for (int base = 0; base < items; base += blockDim.x) {  // all threads take every turn: turn_to has barriers
        const Item item = item_of<LAYOUT, V>(a.plan, base + threadIdx.x, channels, here);
        const int bin = first_bin + item.bin, p = bin / call.pooled_w, q = bin - p * call.pooled_w;
        const S* from = image + (c + item.channel) * map.stride_c;
        A sum[V] = {};
        for (int chunk = 0; chunk < chunks; ++chunk) {
          Rows::turn_to(&tables, chunk);
          if (item.active) pool_bin<S, V>(from, map, tables.y, tables.x, p, q, sum);
        }
        if (item.active && direct) {
          store<V>(sum, pooled_at<S>(a.out, roi, c + item.channel, bin));
        } else if (item.active) {
#pragma unroll
          for (int v = 0; v < V; ++v) narrow(sum[v], tile + (item.channel + v) * here + item.bin);
        }
      }
      if (!direct) {
        __syncthreads();
        copy_tile(tile, a.out, roi, c, channels, first_bin, here);
        __syncthreads();
      }
    }
  }
}

}  // namespace roi
