// What follows from where the maxima were: the pixels they were made of, values there, gradient of the boxes.
#pragma once

#include "linear_boxes.cuh"

namespace roi {

// One axis of a maximum: two pixels, their weights, and how these follow the start and the extent of the box.
template <class A>
struct Place {
  int low, high;
  A frac, slope, slope_extent;
};

// Sample j of bin p; false if it is not on the map.
template <class A>
ROI_DEVICE bool place_on(const Axis<A>& axis, int p, int j, Place<A>* place) {
  const A position = sample_position(axis, p, j);
  if (!(position >= A(-1) && position <= A(axis.length))) return false;
  const Neighbours<A> at = neighbours(position, axis.length);
  const A slope = at.slope ? A(1) : A(0);
  *place = {at.low, at.high, at.frac, slope, slope * sample_extent_slope(axis, p, j)};
  return true;
}

// Both axes of the maximum of bin (p, q), of which argmax tells the pixel (RoIPool) or the sample; false if there is
// none. An argmax that cannot be of this box is none, so that it leads nowhere outside the map.
template <class A>
ROI_DEVICE bool place_of(int kind, const Axis<A>& axis_y, const Axis<A>& axis_x, int p, int q, int argmax, Place<A>* y, Place<A>* x) {
  if (argmax < 0) return false;
  const int per_row = kind == POOL ? axis_x.length : larger(axis_x.samples, 1);
  const int row = argmax / per_row, column = argmax - row * per_row;
  if (kind == POOL) {
    *y = {row, row, A(0), A(0), A(0)};
    *x = {column, column, A(0), A(0), A(0)};
    return row < axis_y.length;
  }
  return row < axis_y.samples && place_on(axis_y, p, row, y) && place_on(axis_x, q, column, x);
}

// Value there, and its derivatives along y and x.
template <class S>
ROI_DEVICE Arithmetic<S> value_at(
    const S* from, const Level& map, const Place<Arithmetic<S>>& y, const Place<Arithmetic<S>>& x, Arithmetic<S>* along_y,
    Arithmetic<S>* along_x) {
  using A = Arithmetic<S>;
  const S* low = from + y.low * map.stride_y;
  const S* high = from + y.high * map.stride_y;
  const long long left = x.low * map.stride_x, right = x.high * map.stride_x;
  const A a = widen(__ldg(low + left)), b = widen(__ldg(low + right));
  const A c = widen(__ldg(high + left)), d = widen(__ldg(high + right));
  const A top = fused(x.frac, b, (A(1) - x.frac) * a), bottom = fused(x.frac, d, (A(1) - x.frac) * c);
  *along_y = bottom - top;
  *along_x = fused(y.frac, d - c, (A(1) - y.frac) * (b - a));
  return fused(y.frac, bottom, (A(1) - y.frac) * top);
}

// Element i of a RoI's [channels, bins], neighbours in memory for neighbouring i.
struct Element {
  int channel, bin;
};

ROI_DEVICE Element element_of(const Pooled& tensor, int i, int channels, int bins) {
  if (tensor.stride_c == 1) return {i % channels, i / channels};
  return {i / bins, i % bins};
}

// Values of the features at the maxima; `out` is contiguous. Block: RoI blockIdx.x / groups, its channels by slabs.
template <class S>
ROI_DEVICE void max_gather(const PointArguments& a) {
  using A = Arithmetic<S>;
  const Call& call = a.call;
  const int bins = call.pooled_h * call.pooled_w;
  const long long roi = blockIdx.x / a.plan.groups;
  const int group = blockIdx.x % a.plan.groups;

  __shared__ Box<A> box;
  if (threadIdx.x == 0) box = locate<A>(call, roi);
  __syncthreads();
  S* out = static_cast<S*>(a.out) + roi * call.channels * bins;
  const Level& map = call.level[box.level];
  for (int c = group * a.plan.slab; c < call.channels; c += a.plan.groups * a.plan.slab) {
    const int channels = smaller(a.plan.slab, call.channels - c);
    for (int i = threadIdx.x; i < channels * bins; i += blockDim.x) {
      const Element e = element_of(a.argmax, i, channels, bins);
      const int channel = c + e.channel, p = e.bin / call.pooled_w, q = e.bin - p * call.pooled_w;
      A value = A(0);
      const int at = box.used ? *pooled_at<const int>(a.argmax, roi, channel, e.bin) : -1;
      Place<A> y, x;
      if (place_of(call.kind, box.y, box.x, p, q, at, &y, &x)) {
        A along_y, along_x;
        const S* from = static_cast<const S*>(map.data) + box.image * map.stride_n + channel * map.stride_c;
        value = value_at<S>(from, map, y, x, &along_y, &along_x);
      }
      narrow(value, out + (long long)channel * bins + e.bin);
    }
  }
}

// Gradient with respect to the boxes of RoIAlign's maximum. Block: one RoI.
template <class S>
ROI_DEVICE void max_backward_boxes(const PointArguments& a) {
  using A = Arithmetic<S>;
  const Call& call = a.call;
  const int bins = call.pooled_h * call.pooled_w;
  const long long roi = blockIdx.x;
  A* out = static_cast<A*>(a.out) + 5 * roi;

  __shared__ Box<A> box;
  if (threadIdx.x == 0) box = locate<A>(call, roi);
  __syncthreads();
  if (!box.used) {
    if (threadIdx.x < 5) out[threadIdx.x] = A(0);
    return;
  }
  const Level& map = call.level[box.level];
  const S* image = static_cast<const S*>(map.data) + box.image * map.stride_n;
  AxisGradient<A> sum = {};
  for (int c = 0; c < call.channels; c += a.plan.slab) {
    const int channels = smaller(a.plan.slab, call.channels - c);
    for (int i = threadIdx.x; i < channels * bins; i += blockDim.x) {
      const Element e = element_of(a.argmax, i, channels, bins);
      const int channel = c + e.channel, p = e.bin / call.pooled_w, q = e.bin - p * call.pooled_w;
      const int at = *pooled_at<const int>(a.argmax, roi, channel, e.bin);
      Place<A> y, x;
      if (!place_of(call.kind, box.y, box.x, p, q, at, &y, &x)) continue;
      A along_y, along_x;
      value_at<S>(image + channel * map.stride_c, map, y, x, &along_y, &along_x);
      const A grad = widen(__ldg(pooled_at<const S>(a.grad, roi, channel, e.bin)));
      along_y *= grad;
      along_x *= grad;
      sum.y_start = fused(y.slope, along_y, sum.y_start);
      sum.y_extent = fused(y.slope_extent, along_y, sum.y_extent);
      sum.x_start = fused(x.slope, along_x, sum.x_start);
      sum.x_extent = fused(x.slope_extent, along_x, sum.x_extent);
    }
  }
  write_box_gradient(sum, box, A(map.scale), out);
}

}  // namespace roi
