// What follows from the positions of the maxima: gradients for features and boxes, and the values there.
//
// Each maximum is somewhere else, so there is little for vectors to do: compiled once, for any processor.
#include "gradients.h"
#include "maxima.h"

namespace roi {
namespace {

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
    if (call_.kind != POOL) ready_ = ready_ && local_.reserve(LOCAL_PIXELS * LOCAL_CHANNELS);
    if (scratch > 0) ready_ = ready_ && sums_.reserve(scratch) && row_.reserve(span * 64);
  }

  bool ready() const { return ready_; }

  void run(int64_t unit) {
    const Region region = regions_.region(unit);
    const Map& map = call_.gradients[region.level];
    const Frame frame{region.y0, region.y1, 0, map.width};
    if (regions_.sums_in_place(region.level)) {
      if (!map.zeroed) clear_region<T>(map, region);
      const int64_t* s = map.tensor.stride;
      A* base = map_at<A>(map, region.image, region.c0, 0, 0);
      for_rois(region, [&](const Roi<A>& roi) {
        const Frame window = local_.data ? maxima_.window(roi) : Frame{};
        // (Not a question of the region's channels: how sums round must not depend on the number of threads.)
        if (local_.data && s[1] == 1 && call_.channels > 1 && window.pixels() <= LOCAL_PIXELS) {
          add_by_window(region, roi, window, base, s[2], s[3]);
        } else {
          add(region, roi, frame, region.c0, region.count, base, s[3], s[1]);
        }
      });
    } else {
      const int64_t width = round_up(region.count, Vec<A>::N);
      std::memset(sums_.data, 0, size_t(frame.pixels() * width) * sizeof(A));
      for_rois(region, [&](const Roi<A>& roi) { add(region, roi, frame, region.c0, region.count, sums_.data, width, 1); });
      write_region<T>(call_, map, region, sums_.data, width, row_.data);
    }
  }

 private:
  static constexpr int64_t LOCAL_PIXELS = 2048, LOCAL_CHANNELS = 16;

  template <class Use>
  void for_rois(const Region& region, Use use) {
    for (int64_t i = region.first; i < region.last; ++i) {
      const Roi<A> roi = make_roi<A>(call_, plan_.order[i].roi, region.level, region.image);
      if (misses(roi.y, region.y0, region.y1)) continue;
      maxima_.open(roi);
      use(roi);
    }
  }

  // Sums the window of one RoI for a few channels at a time before they are added to the map, whose pixels lie so
  // far apart, and at such even distances, that they displace one another from the cache.
  void add_by_window(const Region& region, const Roi<A>& roi, const Frame& window, A* base, int64_t stride_y,
                     int64_t stride_x) {
    using F = Vec<A>;
    for (int64_t c = 0; c < region.count; c += LOCAL_CHANNELS) {
      const int64_t count = smaller(LOCAL_CHANNELS, region.count - c);
      std::memset(local_.data, 0, size_t(window.pixels() * LOCAL_CHANNELS) * sizeof(A));
      add(region, roi, window, region.c0 + c, count, local_.data, LOCAL_CHANNELS, 1);
      const A* from = local_.data;
      for (int y = window.y0; y < window.y1; ++y) {
        A* to = base + y * stride_y + window.x0 * stride_x + c;
        for (int x = window.x0; x < window.x1; ++x, to += stride_x, from += LOCAL_CHANNELS) {
          int64_t i = 0;
          for (; i + F::N <= count; i += F::N) F::store(to + i, F::add(F::load(to + i), F::load(from + i)));
          for (; i < count; ++i) to[i] += from[i];
        }
      }
    }
  }

  // Channels c0 <= c < c0 + count of one RoI. sums: channel c of pixel i of the frame at i * stride_pixel + (c - c0)
  // * stride_c; what lies outside the frame is left to others.
  void add(const Region& region, const Roi<A>& roi, const Frame& frame, int64_t c0, int64_t count, A* sums,
           int64_t stride_pixel, int64_t stride_c) {
    if (c0 == region.c0) maxima_.use(frame, roi, region.count);
    const uint64_t pixels = uint64_t(frame.pixels());
    const int64_t before = int64_t(frame.y0) * frame.width();  // a frame of RoIPool is as wide as the map
    for (int64_t c = 0; c < count; ++c, sums += stride_c) {
      if (call_.kind == POOL) {
        each_bin(roi.index, c0 + c, [&](int32_t position, T g, int, int) {
          const int64_t pixel = position - before;
          if (uint64_t(pixel) < pixels) sums[pixel * stride_pixel] += to_arithmetic(g);
        });
        continue;
      }
      each_bin(roi.index, c0 + c, [&](int32_t position, T g, int p, int q) {
        const Taps<A> taps = maxima_.taps(position, p, q);
        for (int i = 0; i < 4; ++i) {
          if (uint64_t(taps.pixel[i]) < pixels) sums[taps.pixel[i] * stride_pixel] += taps.weight[i] * to_arithmetic(g);
        }
      });
    }
  }

  // Calls use(position, gradient, p, q) for each bin of a RoI and channel.
  template <class Use>
  void each_bin(int64_t roi, int64_t c, Use use) const {
    const int32_t* argmax = roi_channel<int32_t>(call_.argmax, roi, c);
    const T* grad = roi_channel<T>(call_.grad, roi, c);
    const int ph = call_.pooled_h, pw = call_.pooled_w;
    if (bins_adjacent(call_.grad, pw) && bins_adjacent(call_.argmax, pw)) {
      for (int p = 0, bin = 0; p < ph; ++p) {
        for (int q = 0; q < pw; ++q, ++bin) use(argmax[bin], grad[bin], p, q);
      }
      return;
    }
    for (int p = 0; p < ph; ++p) {
      for (int q = 0; q < pw; ++q) use(argmax[bin_offset(call_.argmax, p, q)], grad[bin_offset(call_.grad, p, q)], p, q);
    }
  }

  const Call& call_;
  const Plan& plan_;
  const Regions<T>& regions_;
  Maxima<A> maxima_;
  Buffer<A> sums_, row_, local_;
  bool ready_;
};

template <class T>
Status backward_features(const Call& call) {
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
Status backward_boxes(const Call& call) {
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
Status gather(const Call& call) {
  const Plan plan(call);
  const PlannedJob job{call, plan};
  return for_units<MaxGather<T>>(job, call.rois, useful_threads(call));
}

}  // namespace

Status max_backward_features(const Call& call) { ROI_BY_TYPE(backward_features, call); }
Status max_backward_boxes(const Call& call) { ROI_BY_TYPE(backward_boxes, call); }
Status max_gather(const Call& call) { ROI_BY_TYPE(gather, call); }

}  // namespace roi
