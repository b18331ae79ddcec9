// RoIs sorted by the image and level that they lie on, for the backward kernels: without atomics, order kept.
#pragma once

#include "boxes.cuh"

namespace roi {

// Pixels [first, last) that samples of bins from .. to - 1 can touch: a little more than those that they do.
template <class A>
ROI_DEVICE void reach(const Axis<A>& axis, int from, int to, int* first, int* last) {
  const A end = add(axis.start, mul(axis.bin, A(axis.bins)));
  const A epsilon = sizeof(A) == 4 ? A(1e-6) : A(1e-15);  // roundings of sample positions, generously
  const A slack = A(0.01) + epsilon * ((axis.start < A(0) ? -axis.start : axis.start) + (end < A(0) ? -end : end));
  const A a = add(axis.start, mul(axis.bin, A(from))), b = add(axis.start, mul(axis.bin, A(to)));
  const A low = smaller(a, b) - slack, high = larger(a, b) + slack, length = A(axis.length);
  if (low > length || high < A(-1)) {
    *first = *last = 0;
    return;
  }
  // A position touches the pixels below and above it; those up to a pixel outside touch the map's edge.
  *first = int(smaller(larger(floor(low), A(0)), length - A(1)));
  *last = int(smaller(larger(floor(high) + A(2), A(1)), length));
}

// Pixels [first, last) of an axis that can have a gradient.
template <class A>
ROI_DEVICE void touched(int kind, const Axis<A>& axis, int* first, int* last) {
  if (kind == POOL) {
    int ignored;
    pool_range(axis, 0, first, &ignored);
    pool_range(axis, axis.bins - 1, &ignored, last);
  } else {
    reach(axis, 0, axis.bins, first, last);
  }
}

// Thread: one RoI. Its key and its window.
template <class A>
ROI_DEVICE void key_boxes(const BackwardArguments& a) {
  const long long roi = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (roi >= a.call.rois) return;
  const Box<A> box = locate<A>(a.call, roi);
  int y0 = 0, y1 = 0, x0 = 0, x1 = 0;
  if (box.used) {
    touched(a.call.kind, box.y, &y0, &y1);
    touched(a.call.kind, box.x, &x0, &x1);
  }
  a.bins.key[roi] = y0 < y1 && x0 < x1 ? box.image * a.call.levels + box.level : -1;
  int* window = a.bins.window + 4 * roi;
  window[0] = y0;
  window[1] = y1;
  window[2] = x0;
  window[3] = x1;
}

// Block: one key. Writes the RoIs of that key behind those of lower keys, in their order.
ROI_DEVICE void sort_boxes(const BackwardArguments& a) {
  constexpr int RUN = 4;  // neighbouring RoIs of a thread
  __shared__ int shared[MAX_WARPS];
  const int key = blockIdx.x, rois = a.call.rois;
  int lower = 0, equal = 0;
  for (int i = threadIdx.x; i < rois; i += blockDim.x) {
    const int other = a.bins.key[i];
    lower += other >= 0 && other < key;
    equal += other == key;
  }
  lower = block_sum(lower, shared);
  equal = block_sum(equal, shared);
  if (threadIdx.x == 0) {
    a.bins.begin[key] = lower;
    a.bins.count[key] = equal;
  }
  if (equal == 0) return;
  int* order = a.bins.order + lower;
  for (long long base = 0; base < rois; base += RUN * blockDim.x) {
    const long long mine = base + RUN * threadIdx.x;
    int found = 0, total;
#pragma unroll
    for (int i = 0; i < RUN; ++i) found += mine + i < rois && a.bins.key[mine + i] == key;
    int at = block_scan(found, shared, &total);
#pragma unroll
    for (int i = 0; i < RUN; ++i) {
      if (mine + i < rois && a.bins.key[mine + i] == key) order[at++] = int(mine + i);
    }
    order += total;
  }
}

}  // namespace roi
