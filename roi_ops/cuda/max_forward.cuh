// Largest value of each bin and where it is: RoIPool, and RoIAlign with mode="max".
#pragma once

#include "slabs.cuh"

namespace roi {

template <class A, int V>
struct Largest {
  A value[V];
  int at[V];  // -1: none yet
};

// Of equal values the first counts, in whatever order they come; a NaN never wins.
template <class A, int V>
ROI_DEVICE void consider(Largest<A, V>* best, int v, A value, int at, A lowest) {
  const bool wins = value > best->value[v] || (value == best->value[v] && value > lowest && at < best->at[v]);
  best->value[v] = wins ? value : best->value[v];
  best->at[v] = wins ? at : best->at[v];
}

template <class S, int V>
ROI_DEVICE void largest_pixel(
    const S* from, const Level& map, int y_first, int y_last, int x_first, int x_last, Largest<Arithmetic<S>, V>* best) {
  using A = Arithmetic<S>;
  const A lowest = Lowest<S>::get();
  for (int y = y_first; y < y_last; ++y) {
    const S* row = from + y * map.stride_y;
#pragma unroll 4
    for (int x = x_first; x < x_last; ++x) {
      A pixel[V];
      load<V>(row + x * map.stride_x, pixel);
#pragma unroll
      for (int v = 0; v < V; ++v) consider(best, v, pixel[v], y * map.width + x, lowest);
    }
  }
}

template <class S, int V>
ROI_DEVICE void largest_sample(
    const S* from, const Level& map, const Table<Arithmetic<S>, 1>& y, const Table<Arithmetic<S>, 1>& x, int p, int q,
    int per_row, Largest<Arithmetic<S>, V>* best) {
  using A = Arithmetic<S>;
  const A lowest = Lowest<S>::get();
  for (int i = y.begin[p]; i < y.end[p]; ++i) {
    const S* row = from + y.pixel[i] * map.stride_y;
    const S* next = from + smaller(y.pixel[i] + 1, map.height - 1) * map.stride_y;
    const A fy = y.value[i];
    const int number = (y.first[p] + i - y.begin[p]) * per_row + x.first[q] - x.begin[q];
    for (int j = x.begin[q]; j < x.end[q]; ++j) {
      const long long low = x.pixel[j] * map.stride_x;
      const long long high = smaller(x.pixel[j] + 1, map.width - 1) * map.stride_x;
      const A fx = x.value[j];
      A corner[V], value[V];
      // The order and roundings of the reference, so that equal samples are equal here.
      load<V>(row + low, value);
#pragma unroll
      for (int v = 0; v < V; ++v) value[v] = mul(value[v], mul(A(1) - fy, A(1) - fx));
      load<V>(row + high, corner);
#pragma unroll
      for (int v = 0; v < V; ++v) value[v] = add(value[v], mul(corner[v], mul(A(1) - fy, fx)));
      load<V>(next + low, corner);
#pragma unroll
      for (int v = 0; v < V; ++v) value[v] = add(value[v], mul(corner[v], mul(fy, A(1) - fx)));
      load<V>(next + high, corner);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        value[v] = add(value[v], mul(corner[v], mul(fy, fx)));
        consider(best, v, value[v], number + j, lowest);
      }
    }
  }
}

// Void samples count as zeros: the first of them may be the first maximum. Without samples the bin is 0.
template <class A, int V>
ROI_DEVICE void consider_void(const Box<A>& box, int void_y, int void_x, Largest<A, V>* best) {
  const bool empty = box.y.samples <= 0 || box.x.samples <= 0;
  // Rows before void_y are on the map: there the first void sample is number void_x of row 0.
  int at = -1;
  if (void_y >= 0) at = void_y * box.x.samples;
  if (void_x >= 0) at = at < 0 ? void_x : smaller(at, void_x);
  const bool some = void_y >= 0 || void_x >= 0;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const bool wins = some && (best->value[v] < A(0) || (best->value[v] == A(0) && best->at[v] > at));
    if (wins || empty) {
      best->value[v] = A(0);
      best->at[v] = -1;
    }
  }
}

// IS_POOL tells RoIPool from the maximum of RoIAlign. Blocks as in linear_forward.
template <class S, int LAYOUT, bool IS_POOL>
ROI_DEVICE void max_forward(const ForwardArguments& a) {
  using A = Arithmetic<S>;
  constexpr int V = CHANNELS_A_THREAD<S, LAYOUT>;
  const Call& call = a.call;
  const int bins = call.pooled_h * call.pooled_w;
  const long long roi = blockIdx.x / a.plan.groups;
  const int first_slab = (blockIdx.x % a.plan.groups) * a.plan.slab, slab_step = a.plan.groups * a.plan.slab;

  using Rows = Tables<SampleRows, A, 1>;
  __shared__ Rows tables;
  if (IS_POOL) {
    if (threadIdx.x == 0) tables.box = locate<A>(call, roi);
    __syncthreads();
  } else {
    Rows::build(&tables, call, a.plan, roi, ROI_DYNAMIC_SHARED);
  }
  const Box<A>& box = tables.box;
  if (!box.used) {
    S zero;
    narrow(A(0), &zero);
    for (int c = first_slab; c < call.channels; c += slab_step) {
      fill_pooled(zero, a.out, roi, c, smaller(a.plan.slab, call.channels - c), bins);
      fill_pooled(-1, a.argmax, roi, c, smaller(a.plan.slab, call.channels - c), bins);
    }
    return;
  }
  int* argmax_tile = reinterpret_cast<int*>(ROI_DYNAMIC_SHARED + a.plan.tile);
  S* tile = reinterpret_cast<S*>(argmax_tile + (a.plan.slab * a.plan.bins + 3) / 4 * 4);
  const bool direct = LAYOUT != PLANAR && a.out.stride_c == 1;
  const Level& map = call.level[box.level];
  const S* image = static_cast<const S*>(map.data) + box.image * map.stride_n;
  const A lowest = Lowest<S>::get();
  const int chunks = IS_POOL ? 1 : Rows::chunks(tables);

  for (int c = first_slab; c < call.channels; c += slab_step) {
    const int channels = smaller(a.plan.slab, call.channels - c);
    for (int first_bin = 0; first_bin < bins; first_bin += a.plan.bins) {
      const int here = smaller(a.plan.bins, bins - first_bin);
      const int items = item_count<LAYOUT>(a.plan, channels, here);
      for (int base = 0; base < items; base += blockDim.x) {
        const Item item = item_of<LAYOUT, V>(a.plan, base + threadIdx.x, channels, here);
        const int bin = first_bin + item.bin, p = bin / call.pooled_w, q = bin - p * call.pooled_w;
        const S* from = image + (c + item.channel) * map.stride_c;
        Largest<A, V> best;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          best.value[v] = lowest;
          best.at[v] = -1;
        }
        if (IS_POOL && item.active) {
          int y_first, y_last, x_first, x_last;
          pool_range(box.y, p, &y_first, &y_last);
          pool_range(box.x, q, &x_first, &x_last);
          largest_pixel<S, V>(from, map, y_first, y_last, x_first, x_last, &best);
          if (y_first >= y_last || x_first >= x_last) {
#pragma unroll
            for (int v = 0; v < V; ++v) best.value[v] = A(0);
          }
        }
        if (!IS_POOL) {
          for (int chunk = 0; chunk < chunks; ++chunk) {
            Rows::turn_to(&tables, chunk);
            if (item.active) largest_sample<S, V>(from, map, tables.y, tables.x, p, q, box.x.samples, &best);
          }
          if (item.active) consider_void(box, tables.y.void_at[p], tables.x.void_at[q], &best);
        }
        if (item.active && direct) {
          store<V>(best.value, pooled_at<S>(a.out, roi, c + item.channel, bin));
          int* at = pooled_at<int>(a.argmax, roi, c + item.channel, bin);
#pragma unroll
          for (int v = 0; v < V; ++v) at[v] = best.at[v];
        } else if (item.active) {
#pragma unroll
          for (int v = 0; v < V; ++v) {
            narrow(best.value[v], tile + (item.channel + v) * here + item.bin);
            argmax_tile[(item.channel + v) * here + item.bin] = best.at[v];
          }
        }
      }
      if (!direct) {
        __syncthreads();
        copy_tile(tile, a.out, roi, c, channels, first_bin, here);
        copy_tile(argmax_tile, a.argmax, roi, c, channels, first_bin, here);
        __syncthreads();
      }
    }
  }
}

}  // namespace roi
