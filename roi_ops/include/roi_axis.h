// One-dimensional geometry of the RoI operators: levels, bins, samples, and the rows of the pooling matrices.
//
// Every linear operator is out = A_y F A_x^T for each RoI and channel, and the operators differ only in how
// row p of A follows from the box. This header is that difference, for C++17 and for CUDA (NVRTC included: it
// needs no other header there). The Python twin is roi_ops/reference/axis.py.
//
// `A` is the arithmetic type, float or double. Coordinates are computed with every operation rounded by
// itself, in torchvision's order: whether a sample on the border of the map counts must not depend on fused
// multiply-adds. Host code is therefore compiled with -ffp-contract=off.
#pragma once

#if !defined(__CUDACC__)
#include <cmath>
#endif

#if !defined(ROI_FN)
#if defined(__CUDACC__)
#define ROI_FN static __host__ __device__ __forceinline__
#else
// Internal linkage: the CPU kernels compile this header several times with different instruction sets.
#define ROI_FN static inline
#endif
#endif

namespace roi {

#if !defined(__CUDACC__)
using std::ceil;
using std::fabs;
using std::floor;
using std::log2;
using std::round;
using std::sqrt;
#endif

enum Kind : int { ALIGN = 0, ALIGN_ALIGNED = 1, PRROI = 2, POOL = 3, ALIGN_MAX = 4, ALIGN_ALIGNED_MAX = 5 };

// Adaptive sampling takes no more samples than this a bin and axis (roi_ops/geometry.py).
constexpr int MAX_SAMPLES = 32768;

#if defined(__CUDA_ARCH__)
ROI_FN float mul(float a, float b) { return __fmul_rn(a, b); }
ROI_FN float add(float a, float b) { return __fadd_rn(a, b); }
ROI_FN double mul(double a, double b) { return __dmul_rn(a, b); }
ROI_FN double add(double a, double b) { return __dadd_rn(a, b); }
#else
ROI_FN float mul(float a, float b) { return a * b; }
ROI_FN float add(float a, float b) { return a + b; }
ROI_FN double mul(double a, double b) { return a * b; }
ROI_FN double add(double a, double b) { return a + b; }
#endif

template <class T>
ROI_FN T smaller(T a, T b) {
  return b < a ? b : a;
}

template <class T>
ROI_FN T larger(T a, T b) {
  return a < b ? b : a;
}

template <class A>
ROI_FN bool is_finite(A x) {
  return x - x == A(0);
}

// ---------------------------------------------------------------------------------------------- levels

// The logarithm is rounded from double, which is what a good float logarithm gives, torch's included.
ROI_FN float log2_rounded(float x) { return float(log2(double(x))); }
ROI_FN double log2_rounded(double x) { return log2(x); }

// Index of the feature map a box (x1, y1, x2, y2, image pixels, finite) is pooled from, 0 .. k_max - k_min; -1
// for a box inverted in one axis, whose area has no square root.
template <class A>
ROI_FN int level_of(const A* box, int k_min, int k_max, A canonical_scale, A canonical_level) {
  const A side = sqrt(mul(add(box[2], -box[0]), add(box[3], -box[1])));
  const A level = floor(add(add(canonical_level, log2_rounded(side / canonical_scale)), A(1e-6)));
  if (!(level == level)) return -1;
  return int(smaller(larger(level, A(k_min)), A(k_max))) - k_min;
}

// ------------------------------------------------------------------------------------------------ axes

// One axis of one box on one map.
template <class A>
struct Axis {
  A start;      // first coordinate of the box on the map, pixels; for POOL a whole number
  A bin;        // size of a bin, pixels
  int bins;     // P
  int length;   // L, pixels of the map
  int samples;  // g, samples per bin (of the align kinds); 0: none
  bool free;    // the extent follows the box: it was not clamped
  bool defined; // false: coordinates overflowed, nothing is pooled
};

ROI_FN bool is_aligned(int kind) { return kind == ALIGN_ALIGNED || kind == ALIGN_ALIGNED_MAX; }

// low, high: coordinates of the box in image pixels; scale: map size over image size; sampling_ratio: samples per bin,
// or <= 0: adaptive, ceil(extent / bins).
template <class A>
ROI_FN Axis<A> make_axis(int kind, A low, A high, A scale, int bins, int length, int sampling_ratio) {
  Axis<A> axis{mul(low, scale), A(0), bins, length, 0, true, true};
  A end = mul(high, scale);
  if (kind == POOL) {
    axis.start = round(axis.start);
    end = round(end);
    axis.bin = larger(add(add(end, -axis.start), A(1)), A(1)) / A(bins);
  } else {
    if (is_aligned(kind)) {
      axis.start = add(axis.start, A(-0.5));
      end = add(end, A(-0.5));
    }
    A extent = add(end, -axis.start);
    if (!is_aligned(kind)) {
      const A least = kind == PRROI ? A(0) : A(1);
      axis.free = extent > least;
      extent = larger(extent, least);
    }
    axis.bin = extent / A(bins);
    if (sampling_ratio > 0) {
      axis.samples = sampling_ratio;
    } else if (is_finite(axis.bin)) {
      axis.samples = int(larger(smaller(ceil(axis.bin), A(MAX_SAMPLES)), A(0)));
    }
  }
  axis.defined = is_finite(axis.start) && is_finite(axis.bin);
  return axis;
}

// -------------------------------------------------------------------------------------- RoIAlign samples

// Position of sample j of bin p.
template <class A>
ROI_FN A sample_position(const Axis<A>& axis, int p, int j) {
  const A origin = add(axis.start, mul(A(p), axis.bin));
  return add(origin, mul(add(A(j), A(0.5)), axis.bin) / A(larger(axis.samples, 1)));
}

// Derivative of that position with respect to the extent of the box; that to the start is 1.
template <class A>
ROI_FN A sample_extent_slope(const Axis<A>& axis, int p, int j) {
  return (A(p) + (A(j) + A(0.5)) / A(larger(axis.samples, 1))) / A(axis.bins);
}

// The two pixels a position lies between.
template <class A>
struct Neighbours {
  int low, high;  // equal at the far edge of the map
  A frac;         // weight of high; low has 1 - frac
  bool slope;     // frac follows the position
};

// position: in [-1, length].
template <class A>
ROI_FN Neighbours<A> neighbours(A position, int length) {
  const A inside = larger(position, A(0));
  const int low = int(inside);
  if (low >= length - 1) return {length - 1, length - 1, A(0), false};
  return {low, low + 1, inside - A(low), position > A(0)};
}

// Samples first <= j < last of bin p lie on the map, [-1, L]; the others are void and count as zeros.
// Positions are monotonous in j, so a bisection finds both ends: a huge box costs no more than the map.
template <class A>
ROI_FN void valid_samples(const Axis<A>& axis, int p, int* first, int* last) {
  const A near = A(-1), far = A(axis.length);
  const bool backward = axis.bin < A(0);
  int low = 0, high = axis.samples;
  if (high > 0) {  // most bins are inside
    const A y = sample_position(axis, p, 0), z = sample_position(axis, p, high - 1);
    if (y >= near && y <= far && z >= near && z <= far) {
      *first = 0;
      *last = high;
      return;
    }
  }
  while (low < high) {  // first sample that is not before the map
    const int middle = low + (high - low) / 2;
    const A y = sample_position(axis, p, middle);
    if (backward ? y > far : y < near) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  *first = low;
  high = axis.samples;
  while (low < high) {  // first sample that is behind it
    const int middle = low + (high - low) / 2;
    const A y = sample_position(axis, p, middle);
    if (backward ? y >= near : y <= far) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  *last = low;
}

// ------------------------------------------------------------------------------------- rows of matrix A

// An entry of a row: the weight of a pixel, and its derivatives with respect to start and extent of the box.
template <class A>
struct Weight {
  A value, d_start, d_extent;
};

// Row p of RoIAlign (He et al., Mask R-CNN, 2017): the mean of the bilinear hats at the bin's samples. Calls
// emit(pixel, Weight) for each pixel once, in ascending order.
template <class A, class Emit>
ROI_FN void align_row(const Axis<A>& axis, int p, Emit&& emit) {
  int first, last;
  valid_samples(axis, p, &first, &last);
  const A share = A(1) / A(larger(axis.samples, 1));
  int pixel = -2;  // weights of `pixel` and `pixel + 1` are being summed
  Weight<A> here{}, next{};
  bool has_next = false;
  for (int i = first; i < last; ++i) {
    const int j = axis.bin < A(0) ? first + last - 1 - i : i;
    const Neighbours<A> at = neighbours(sample_position(axis, p, j), axis.length);
    if (at.low != pixel) {
      if (pixel >= 0) emit(pixel, here);
      if (has_next && at.low != pixel + 1) emit(pixel + 1, next);
      here = has_next && at.low == pixel + 1 ? next : Weight<A>{};
      next = Weight<A>{};
      has_next = false;
      pixel = at.low;
    }
    const A slope = at.slope ? share : A(0);
    const A slope_extent = slope * sample_extent_slope(axis, p, j);
    here.value += (A(1) - at.frac) * share;
    here.d_start -= slope;
    here.d_extent -= slope_extent;
    if (at.high != at.low) {
      next.value += at.frac * share;
      next.d_start += slope;
      next.d_extent += slope_extent;
      has_next = true;
    }
  }
  if (pixel >= 0) emit(pixel, here);
  if (has_next) emit(pixel + 1, next);
}

template <class A>
ROI_FN A hat(A x) {
  return larger(A(1) - (x < A(0) ? -x : x), A(0));
}

// Integral of the hat over [low, high] within [left, right], where the hat is linear: a trapezoid is exact.
template <class A>
ROI_FN A hat_integral(A low, A high, A left, A right) {
  const A a = smaller(larger(low, left), right), b = smaller(larger(high, left), right);
  return (b - a) * (hat(a) + hat(b)) / A(2);
}

// Row p of PrRoIPool (Jiang et al., IoU-Net, 2018): the mean of each pixel's hat over the bin. As align_row.
template <class A, class Emit>
ROI_FN void prroi_row(const Axis<A>& axis, int p, Emit&& emit) {
  if (!(axis.bin > A(0))) return;
  const A from = add(axis.start, mul(A(p), axis.bin)), to = add(axis.start, mul(A(p + 1), axis.bin));
  const A edge = A(axis.length - 1);
  const int begin = int(smaller(larger(floor(from), A(0)), edge + A(1)));
  const int end = int(smaller(larger(ceil(to), A(-1)), edge)) + 1;
  for (int pixel = begin; pixel < end; ++pixel) {
    const A low = add(from, -A(pixel)), high = add(to, -A(pixel));
    Weight<A> w;
    w.value = (hat_integral(low, high, A(-1), A(0)) + hat_integral(low, high, A(0), A(1))) / axis.bin;
    w.d_start = (hat(high) - hat(low)) / axis.bin;
    w.d_extent = (hat(high) * A(p + 1) - hat(low) * A(p) - w.value) / (axis.bin * A(axis.bins));
    emit(pixel, w);
  }
}

template <class A, class Emit>
ROI_FN void matrix_row(int kind, const Axis<A>& axis, int p, Emit&& emit) {
  if (!axis.defined || axis.length <= 0) return;
  if (kind == PRROI) {
    prroi_row(axis, p, emit);
  } else {
    align_row(axis, p, emit);
  }
}

// RoIPool (Girshick, Fast R-CNN, 2015): bin p is the pixels first <= i < last; empty if there are none.
template <class A>
ROI_FN void pool_range(const Axis<A>& axis, int p, int* first, int* last) {
  if (!axis.defined) {
    *first = *last = 0;
    return;
  }
  const A low = add(floor(mul(A(p), axis.bin)), axis.start);
  const A high = add(ceil(mul(A(p + 1), axis.bin)), axis.start);
  const A length = A(axis.length);
  *first = int(smaller(larger(low, A(0)), length));
  *last = int(smaller(larger(high, A(0)), length));
}

}  // namespace roi
