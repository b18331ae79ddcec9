// What follows from the positions of the maxima: gradients for features and boxes, and the values there.
#pragma once

#include "gradients.h"
#include "linear_boxes.h"

namespace roi {
namespace {

// A maximum of one bin: the pixels it was interpolated from. For RoIPool one pixel.
template <class A>
struct Maximum {
  Neighbours<A> y, x;
  A d_extent_y, d_extent_x;
};

// Finds maxima again from their positions; one object a thread. A position that max_forward cannot have given
// counts as "nowhere": wrong input must not lead to wild stores.
template <class A>
class Maxima {
 public:
  bool reserve(const Call& call) {
    call_ = &call;
    return call.kind == POOL || (y_.reserve(call, 0) && x_.reserve(call, 1));
  }

  void open(const Roi<A>& roi) {
    width_ = roi.x.length;
    pixels_ = int64_t(roi.y.length) * roi.x.length;
    samples_x_ = larger(roi.x.samples, 1);
    if (call_->kind != POOL) {
      y_.build_samples(roi.y);
      x_.build_samples(roi.x);
    }
  }

  // False if position, of bin (p, q), is nowhere.
  bool find(int32_t position, int p, int q, Maximum<A>* to) const {
    if (position < 0) return false;
    if (call_->kind == POOL) {
      if (position >= pixels_) return false;
      const int y = position / width_, x = position - y * width_;
      *to = {{y, y, A(0), false}, {x, x, A(0), false}, A(0), A(0)};
      return true;
    }
    const int number_y = position / samples_x_, number_x = position - number_y * samples_x_;
    const int64_t i = at(y_.samples, p, number_y), j = at(x_.samples, q, number_x);
    if (i < 0 || j < 0) return false;
    *to = {y_.samples.at[i], x_.samples.at[j], y_.samples.d_extent[i], x_.samples.d_extent[j]};
    return true;
  }

 private:
  static int64_t at(const SampleTable<A>& samples, int bin, int number) {
    const int64_t i = int64_t(samples.bin_begin[bin]) + number - samples.first_number[bin];
    return i >= samples.bin_begin[bin] && i < samples.bin_begin[bin + 1] ? i : -1;
  }

  const Call* call_ = nullptr;
  AxisStorage<A> y_, x_;
  int width_ = 0, samples_x_ = 1;
  int64_t pixels_ = 0;
};

// Where the bins of one RoI and channel lie in a tensor [rois, channels, pooled_h, pooled_w], in elements.
inline int64_t bin_offset(const Tensor& tensor, int p, int q) { return p * tensor.stride[2] + q * tensor.stride[3]; }

inline bool bins_adjacent(const Tensor& tensor, int pooled_w) {
  return tensor.stride[3] == 1 && tensor.stride[2] == pooled_w;
}

template <class T>
inline const T* roi_channel(const Tensor& tensor, int64_t roi, int64_t channel) {
  return static_cast<const T*>(tensor.data) + roi * tensor.stride[0] + channel * tensor.stride[1];
}

// -------------------------------------------------------------------------------------------- features
template <class T>
bool scatters_in_place(const Call&, const Map&) {
  return sizeof(T) == sizeof(Arithmetic<T>);
}

template <class T>
class MaxBackward {
 public:
  using A = Arithmetic<T>;

  explicit MaxBackward(const BackwardJob<T>& job) : call_(job.call), plan_(job.plan), regions_(job.regions) {
    int span = 1;
    for (int l = 0; l < call_.levels; ++l) span = larger(span, call_.gradients[l].width);
    const int64_t scratch = regions_.scratch();
    ready_ = maxima_.reserve(call_);
    if (scratch > 0) ready_ = ready_ && sums_.reserve(scratch) && row_.reserve(span * 64);
  }

  bool ready() const { return ready_; }

  void run(int64_t unit) {
    const Region region = regions_.region(unit);
    const Map& map = call_.gradients[region.level];
    if (regions_.sums_in_place(region.level)) {
      if (!map.zeroed) clear_region<T>(map, region);
      const int64_t* s = map.tensor.stride;
      add_rois(region, map_at<A>(map, region.image, region.c0, 0, 0), s[3], s[1]);
    } else {
      const int64_t width = round_up(region.count, Vec<A>::N);
      std::memset(sums_.data, 0, size_t((region.y1 - region.y0) * width * map.width) * sizeof(A));
      add_rois(region, sums_.data, width, 1);
      write_region<T>(call_, map, region, sums_.data, width, row_.data);
    }
  }

 private:
  // sums: channel c of pixel i, counted through the rows from region.y0 on, at i * stride_pixel + c * stride_c.
  void add_rois(const Region& region, A* sums, int64_t stride_pixel, int64_t stride_c) {
    const int width = call_.gradients[region.level].width;
    for (int64_t i = region.first; i < region.last; ++i) {
      const Roi<A> roi = make_roi<A>(call_, plan_.order[i].roi, region.level, region.image);
      if (misses(roi.y, region.y0, region.y1)) continue;
      maxima_.open(roi);
      for (int64_t c = 0; c < region.count; ++c) {
        if (call_.kind == POOL) {
          add_pixels(region, roi.index, c, sums + c * stride_c, stride_pixel, width);
        } else {
          add_samples(region, roi.index, c, sums + c * stride_c, stride_pixel, width);
        }
      }
    }
  }

  void add_pixels(const Region& region, int64_t roi, int64_t c, A* sums, int64_t stride_pixel, int width) {
    const int32_t* argmax = roi_channel<int32_t>(call_.argmax, roi, region.c0 + c);
    const T* grad = roi_channel<T>(call_.grad, roi, region.c0 + c);
    const int64_t begin = int64_t(region.y0) * width, pixels = int64_t(region.y1 - region.y0) * width;
    const auto add = [&](int32_t position, T g) {
      const int64_t pixel = position - begin;
      if (uint64_t(pixel) < uint64_t(pixels)) sums[pixel * stride_pixel] += to_arithmetic(g);
    };
    const int pw = call_.pooled_w;
    if (bins_adjacent(call_.grad, pw) && bins_adjacent(call_.argmax, pw)) {
      for (int bin = 0; bin < call_.pooled_h * pw; ++bin) add(argmax[bin], grad[bin]);
      return;
    }
    for (int p = 0; p < call_.pooled_h; ++p) {
      for (int q = 0; q < pw; ++q) add(argmax[bin_offset(call_.argmax, p, q)], grad[bin_offset(call_.grad, p, q)]);
    }
  }

  void add_samples(const Region& region, int64_t roi, int64_t c, A* sums, int64_t stride_pixel, int width) {
    const int32_t* argmax = roi_channel<int32_t>(call_.argmax, roi, region.c0 + c);
    const T* grad = roi_channel<T>(call_.grad, roi, region.c0 + c);
    for (int p = 0; p < call_.pooled_h; ++p) {
      for (int q = 0; q < call_.pooled_w; ++q) {
        Maximum<A> m;
        if (!maxima_.find(argmax[bin_offset(call_.argmax, p, q)], p, q, &m)) continue;
        const A g = to_arithmetic(grad[bin_offset(call_.grad, p, q)]);
        add_row(region, m.y.low, (A(1) - m.y.frac) * g, m.x, sums, stride_pixel, width);
        if (m.y.high != m.y.low) add_row(region, m.y.high, m.y.frac * g, m.x, sums, stride_pixel, width);
      }
    }
  }

  static void add_row(const Region& region, int y, A g, const Neighbours<A>& x, A* sums, int64_t stride_pixel,
                      int width) {
    if (y < region.y0 || y >= region.y1) return;
    A* row = sums + int64_t(y - region.y0) * width * stride_pixel;
    row[x.low * stride_pixel] += (A(1) - x.frac) * g;
    if (x.high != x.low) row[x.high * stride_pixel] += x.frac * g;
  }

  const Call& call_;
  const Plan& plan_;
  const Regions<T>& regions_;
  Maxima<A> maxima_;
  Buffer<A> sums_, row_;
  bool ready_;
};

template <class T>
Status max_backward_features(const Call& call) {
  const Plan plan(call);
  const Regions<T> regions(call, plan, scatters_in_place<T>);
  const BackwardJob<T> job{call, plan, regions};
  return for_units<MaxBackward<T>>(job, regions.units(), backward_threads(call));
}

// ---------------------------------------------------------------------------------------- boxes, values
// The four pixels of a maximum.
template <class T>
struct Pixels {
  Arithmetic<T> low_low, low_high, high_low, high_high;  // y, x

  Pixels(const Map& map, int image, int64_t channel, const Maximum<Arithmetic<T>>& m)
      : low_low(to_arithmetic(*map_at<T>(map, image, channel, m.y.low, m.x.low))),
        low_high(to_arithmetic(*map_at<T>(map, image, channel, m.y.low, m.x.high))),
        high_low(to_arithmetic(*map_at<T>(map, image, channel, m.y.high, m.x.low))),
        high_high(to_arithmetic(*map_at<T>(map, image, channel, m.y.high, m.x.high))) {}
};

template <class T>
class MaxBoxes {
 public:
  using A = Arithmetic<T>;

  explicit MaxBoxes(const PlannedJob& job) : call_(job.call), plan_(job.plan), ready_(maxima_.reserve(call_)) {}

  bool ready() const { return ready_; }

  void run(int64_t unit) {
    const PlannedRoi& planned = plan_.order[unit];
    A* to = static_cast<A*>(call_.out) + 5 * planned.roi;
    for (int side = 0; side < 5; ++side) to[side] = 0;
    if (unit >= plan_.usable) return;
    const Roi<A> roi = make_roi<A>(call_, planned.roi, planned.level(), planned.image());
    maxima_.open(roi);
    A y_start = 0, y_extent = 0, x_start = 0, x_extent = 0;
    for (int64_t c = 0; c < call_.channels; ++c) {
      const int32_t* argmax = roi_channel<int32_t>(call_.argmax, roi.index, c);
      const T* grad = roi_channel<T>(call_.grad, roi.index, c);
      for (int p = 0; p < call_.pooled_h; ++p) {
        for (int q = 0; q < call_.pooled_w; ++q) {
          Maximum<A> m;
          if (!maxima_.find(argmax[bin_offset(call_.argmax, p, q)], p, q, &m)) continue;
          const A g = to_arithmetic(grad[bin_offset(call_.grad, p, q)]);
          const Pixels<T> f(call_.features[roi.level], roi.image, c, m);
          if (m.y.slope) {
            const A d = g * ((f.high_low - f.low_low) * (1 - m.x.frac) + (f.high_high - f.low_high) * m.x.frac);
            y_start += d;
            y_extent += d * m.d_extent_y;
          }
          if (m.x.slope) {
            const A d = g * ((f.low_high - f.low_low) * (1 - m.y.frac) + (f.high_high - f.high_low) * m.y.frac);
            x_start += d;
            x_extent += d * m.d_extent_x;
          }
        }
      }
    }
    store_box_gradient(to, roi, A(call_.scales[roi.level]), y_start, y_extent, x_start, x_extent);
  }

 private:
  const Call& call_;
  const Plan& plan_;
  Maxima<A> maxima_;
  bool ready_;
};

template <class T>
Status max_backward_boxes(const Call& call) {
  const Plan plan(call);
  const PlannedJob job{call, plan};
  return for_units<MaxBoxes<T>>(job, call.rois, useful_threads(call));
}

// Values of the features at the maxima: contiguous [rois, channels, pooled_h, pooled_w].
template <class T>
class MaxGather {
 public:
  using A = Arithmetic<T>;

  explicit MaxGather(const PlannedJob& job) : call_(job.call), plan_(job.plan), ready_(maxima_.reserve(call_)) {}

  bool ready() const { return ready_; }

  void run(int64_t unit) {
    const PlannedRoi& planned = plan_.order[unit];
    const int64_t bins = int64_t(call_.pooled_h) * call_.pooled_w;
    T* to = static_cast<T*>(call_.out) + planned.roi * call_.channels * bins;
    if (unit >= plan_.usable) {
      std::memset(to, 0, size_t(call_.channels * bins) * sizeof(T));
      return;
    }
    const Roi<A> roi = make_roi<A>(call_, planned.roi, planned.level(), planned.image());
    maxima_.open(roi);
    for (int64_t c = 0; c < call_.channels; ++c) {
      const int32_t* argmax = roi_channel<int32_t>(call_.argmax, roi.index, c);
      for (int p = 0; p < call_.pooled_h; ++p) {
        for (int q = 0; q < call_.pooled_w; ++q, ++to) {
          Maximum<A> m;
          A value = 0;
          if (maxima_.find(argmax[bin_offset(call_.argmax, p, q)], p, q, &m)) {
            const Pixels<T> f(call_.features[roi.level], roi.image, c, m);
            value = f.low_low * ((1 - m.y.frac) * (1 - m.x.frac)) + f.low_high * ((1 - m.y.frac) * m.x.frac) +
                    f.high_low * (m.y.frac * (1 - m.x.frac)) + f.high_high * (m.y.frac * m.x.frac);
          }
          store_one(to, value);
        }
      }
    }
  }

 private:
  const Call& call_;
  const Plan& plan_;
  Maxima<A> maxima_;
  bool ready_;
};

template <class T>
Status max_gather(const Call& call) {
  const Plan plan(call);
  const PlannedJob job{call, plan};
  return for_units<MaxGather<T>>(job, call.rois, useful_threads(call));
}

}  // namespace
}  // namespace roi
