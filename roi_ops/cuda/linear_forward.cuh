// out = A_y F A_x^T for each RoI and channel: forward of the linear operators.
#pragma once

#include "slabs.cuh"

namespace roi {

// Add ROWS rows of pixels, those of entries i .. of the table of y. Pixels are read two by two along the rows, so that
// 2 * ROWS independent loads are under way.
template <class S, int V, class Stride, int ROWS>
ROI_DEVICE void add_rows(
    const S* from, Stride stride_y, Stride stride_x, const Table<Arithmetic<S>, 1>& y, const Table<Arithmetic<S>, 1>& x,
    int i, int x_begin, int x_end, Arithmetic<S> (&sum)[V]) {
  using A = Arithmetic<S>;
  const S* row[ROWS];
  A line[ROWS][V] = {};
#pragma unroll
  for (int r = 0; r < ROWS; ++r) row[r] = from + (long long)y.pixel[i + r] * stride_y;
  int j = x_begin;
  for (; j + 2 <= x_end; j += 2) {
    A pixel[2][ROWS][V];
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const long long offset = (long long)x.pixel[j + k] * stride_x;
#pragma unroll
      for (int r = 0; r < ROWS; ++r) load<V>(row[r] + offset, pixel[k][r]);
    }
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const A weight = x.value[j + k];
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
#pragma unroll
        for (int v = 0; v < V; ++v) line[r][v] = fused(weight, pixel[k][r][v], line[r][v]);
      }
    }
  }
  if (j < x_end) {
    const long long offset = (long long)x.pixel[j] * stride_x;
    const A weight = x.value[j];
    A pixel[ROWS][V];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) load<V>(row[r] + offset, pixel[r]);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
#pragma unroll
      for (int v = 0; v < V; ++v) line[r][v] = fused(weight, pixel[r][v], line[r][v]);
    }
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    const A weight = y.value[i + r];
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = fused(weight, line[r][v], sum[v]);
  }
}

template <class S, int V, class Stride>
ROI_DEVICE void pool_bin(
    const S* from, Stride stride_y, Stride stride_x, const Table<Arithmetic<S>, 1>& y, const Table<Arithmetic<S>, 1>& x,
    int p, int q, Arithmetic<S> (&sum)[V]) {
  const int x_begin = x.begin[q], x_end = x.end[q], y_end = y.end[p];
  int i = y.begin[p];
  constexpr int ROWS = V > 4 ? 1 : 2;  // eight channels fill the registers with one row
  for (; i + ROWS <= y_end; i += ROWS) add_rows<S, V, Stride, ROWS>(from, stride_y, stride_x, y, x, i, x_begin, x_end, sum);
  if (ROWS > 1 && i < y_end) add_rows<S, V, Stride, 1>(from, stride_y, stride_x, y, x, i, x_begin, x_end, sum);
}

// Block: RoI blockIdx.x / groups, slabs blockIdx.x % groups, + groups, ...
template <class S, int LAYOUT>
ROI_DEVICE void linear_forward(const ForwardArguments& a) {
  using A = Arithmetic<S>;
  using Stride = PixelStride<LAYOUT>;
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
  const auto stride_y = Stride(map.stride_y), stride_x = Stride(map.stride_x);
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
          if (item.active) pool_bin<S, V>(from, stride_y, stride_x, tables.y, tables.x, p, q, sum);
        }
        if (item.active && direct) {
          store<V>(sum, pooled_at<S>(a.out, roi, c + item.channel, bin));
        } else if (item.active) {
          put(sum, tile, item.channel, item.bin, here);
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
