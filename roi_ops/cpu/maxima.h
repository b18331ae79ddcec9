// From the positions that max_forward gives back to the pixels they stand for.
#pragma once

#include "work.h"

namespace roi {
namespace {

// A maximum of one bin: the pixels it was interpolated from. For RoIPool one pixel.
template <class A>
struct Maximum {
  Neighbours<A> y, x;
  A d_extent_y, d_extent_x;
};

// A rectangle of a map, whose pixels are counted row by row.
struct Frame {
  int y0, y1, x0, x1;

  int64_t width() const { return x1 - x0; }
  int64_t pixels() const { return (y1 - y0) * width(); }
};

// A maximum as four pixels of a frame and their weights; the first pixel is -1 if it is nowhere.
template <class A>
struct Taps {
  int64_t pixel[4];
  A weight[4];
};

// Finds maxima again from their positions; one object a thread. A position that max_forward cannot have given
// counts as "nowhere": wrong input must not lead to wild stores.
template <class A>
class Maxima {
 public:
  bool reserve(const Call& call) {
    call_ = &call;
    return call.kind == POOL || (y_.reserve(call, 0) && x_.reserve(call, 1) && table_.reserve(TABLE));
  }

  void open(const Roi<A>& roi) {
    width_ = roi.x.length;
    pixels_ = int64_t(roi.y.length) * roi.x.length;
    samples_x_ = larger(roi.x.samples, 1);
    if (call_->kind != POOL) {
      y_.build_samples(roi.y);
      x_.build_samples(roi.x);
    }
    per_bin_ = 0;
  }

  // The smallest frame that holds all maxima of a RoI of RoIAlign.
  Frame window(const Roi<A>& roi) const {
    Frame f{roi.y.length, 0, roi.x.length, 0};
    span(y_.samples, roi.y.bins, &f.y0, &f.y1);
    span(x_.samples, roi.x.bins, &f.x0, &f.x1);
    f.y1 = larger(f.y0, f.y1);
    f.x1 = larger(f.x0, f.x1);
    return f;
  }

  // Pixels are counted in this frame from now on. The taps of every sample of every bin are tabulated if that pays
  // for `channels` channels: usually a bin has four samples.
  void use(const Frame& frame, const Roi<A>& roi, int64_t channels) {
    frame_ = frame;
    const int64_t samples = int64_t(larger(roi.y.samples, 0)) * larger(roi.x.samples, 0);
    const int64_t bins = int64_t(call_->pooled_h) * call_->pooled_w;
    if (call_->kind == POOL || samples > channels || samples * bins > TABLE) return;
    per_bin_ = int(samples);
    for (int64_t bin = 0; bin < bins; ++bin) {
      for (int s = 0; s < per_bin_; ++s) {
        table_.data[bin * samples + s] = make_taps(s, int(bin / call_->pooled_w), int(bin % call_->pooled_w));
      }
    }
  }

  // Of a maximum of RoIAlign, of bin (p, q). Pixels outside [0, frame.pixels()) are not in the frame.
  Taps<A> taps(int32_t position, int p, int q) const {
    if (per_bin_ == 0) return make_taps(position, p, q);
    if (position < 0 || position >= per_bin_) return {{-1, -1, -1, -1}, {}};
    return table_.data[(int64_t(p) * call_->pooled_w + q) * per_bin_ + position];
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
  static constexpr int64_t TABLE = 1024;

  Taps<A> make_taps(int32_t position, int p, int q) const {
    Maximum<A> m;
    if (!find(position, p, q, &m)) return {{-1, -1, -1, -1}, {}};
    const int64_t low = (m.y.low - frame_.y0) * frame_.width(), high = (m.y.high - frame_.y0) * frame_.width();
    const int left = m.x.low - frame_.x0, right = m.x.high - frame_.x0;
    const A wy = A(1) - m.y.frac, wx = A(1) - m.x.frac;
    return {{low + left, low + right, high + left, high + right},
            {wy * wx, wy * m.x.frac, m.y.frac * wx, m.y.frac * m.x.frac}};
  }

  static int64_t at(const SampleTable<A>& samples, int bin, int number) {
    const int64_t i = int64_t(samples.bin_begin[bin]) + number - samples.first_number[bin];
    return i >= samples.bin_begin[bin] && i < samples.bin_begin[bin + 1] ? i : -1;
  }

  static void span(const SampleTable<A>& samples, int bins, int* first, int* last) {
    for (int i = 0; i < samples.bin_begin[bins]; ++i) {
      *first = smaller(*first, samples.at[i].low);
      *last = larger(*last, samples.at[i].high + 1);
    }
  }

  const Call* call_ = nullptr;
  AxisStorage<A> y_, x_;
  Buffer<Taps<A>> table_;
  int width_ = 0, samples_x_ = 1, per_bin_ = 0;
  int64_t pixels_ = 0;
  Frame frame_{};
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

}  // namespace
}  // namespace roi
