// Forward of the operators that keep a bin's largest value and where it was: RoIPool, and RoIAlign mode "max".
#pragma once

#include "linear.h"

namespace roi {
namespace {

// The largest values so far of U vectors of channels, and their positions. A NaN is greater than nothing.
template <int U, class A>
struct Best {
  using F = Vec<A>;
  using V = typename F::V;
  V value[U], position[U];

  void clear(A lowest) {
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      value[u] = F::set1(lowest);
      position[u] = F::index(-1);
    }
  }
  void load(const A* values, const A* positions) {
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      value[u] = F::load(values + u * F::N);
      position[u] = F::load(positions + u * F::N);
    }
  }
  void store(A* values, A* positions) const {
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) {
      F::store(values + u * F::N, value[u]);
      F::store(positions + u * F::N, position[u]);
    }
  }
  void offer(int u, V candidate, V its_position) {
    const auto better = F::greater(candidate, value[u]);
    value[u] = F::select(better, candidate, value[u]);
    position[u] = F::select(better, its_position, position[u]);
  }
  // Of any number of void samples in a row only the first can win: with value 0 and no position.
  void offer_void() {
    const V zero = F::zero(), nowhere = F::index(-1);
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) offer(u, zero, nowhere);
  }
};

template <class T>
class MaxForward {
 public:
  using A = Arithmetic<T>;
  using F = Vec<A>;
  static constexpr int MOST = F::UNROLL / 2;

  explicit MaxForward(const PlannedJob& job) : call_(job.call), plan_(job.plan) {
    bins_ = int64_t(call_.pooled_h) * call_.pooled_w;
    width_ = tile_width<A>(call_, MOST * F::N, 64 << 10);
    ready_ = y_.reserve(call_, 0) && x_.reserve(call_, 1) && values_.reserve(bins_ * width_) &&
             positions_.reserve(bins_ * width_) && staging_.reserve(larger<int64_t>(group_of<T>(), 16) * bins_) &&
             window_.template reserve<T>(call_, width_);
    stream_ = call_.rois * call_.channels * bins_ * int64_t(sizeof(T) + sizeof(int32_t)) >= STREAM_BYTES;
  }

  bool ready() const { return ready_; }

  static int64_t units(const Call& call) { return (call.rois + RUN - 1) / RUN; }

  void run(int64_t unit) {
    for (int64_t i = unit * RUN; i < smaller((unit + 1) * RUN, call_.rois); ++i) {
      const PlannedRoi& planned = plan_.order[i];
      if (i < plan_.usable) {
        pool(make_roi<A>(call_, planned.roi, planned.level(), planned.image()));
      } else {
        for (int64_t bin = 0; bin < bins_; ++bin) clear_bin(bin);
        for (int64_t c = 0; c < call_.channels; c += width_) {
          write(planned.roi, c, smaller(width_, call_.channels - c));
        }
      }
    }
  }

 private:
  static constexpr int RUN = 4;

  void pool(const Roi<A>& roi) {
    int x0 = 0, x1 = 0;  // columns of the window
    if (call_.kind == POOL) {
      y_.build_ranges(roi.y);
      x_.build_ranges(roi.x);
      x0 = x_.ranges.first[0];
      x1 = x_.ranges.last[roi.x.bins - 1];
    } else {
      y_.build_samples(roi.y);
      x_.build_samples(roi.x);
      const int samples = x_.samples.bin_begin[roi.x.bins];
      x0 = roi.x.length;
      for (int i = 0; i < samples; ++i) {
        x0 = smaller(x0, x_.samples.at[i].low);
        x1 = larger(x1, x_.samples.at[i].high + 1);
      }
      x0 = smaller(x0, x1);
    }
    const Map& map = call_.features[roi.level];
    const int64_t step = window_.step(call_, map, width_);
    for (int64_t c = 0; c < call_.channels; c += step) {
      const int64_t count = smaller(step, call_.channels - c);
      window_.template open<T>(call_, map, roi.image, x0, larger(x0, x1), c, count, [&](auto& rows) {
        for (int p = 0; p < call_.pooled_h; ++p) {
          if (call_.kind == POOL) {
            pool_bins(rows, p, map.width, count);
          } else {
            align_bins(rows, roi, p, count);
          }
        }
      });
      write(roi.index, c, count);
    }
  }

  // ------------------------------------------------------------------------------------------- RoIPool
  // Row p of bins. Rows that are read in place are read bin by bin, copied ones in order.
  template <class Rows>
  void pool_bins(Rows& rows, int p, int map_width, int64_t count) {
    const int y0 = y_.ranges.first[p], y1 = y_.ranges.last[p], bins_x = call_.pooled_w;
    for (int q = 0; q < bins_x; ++q) {
      if (y0 >= y1 || x_.ranges.first[q] >= x_.ranges.last[q]) clear_bin(int64_t(p) * bins_x + q);
    }
    const int step = Rows::IN_PLACE ? y1 - y0 : 1;
    for (int y = y0; y < y1; y += step) {
      if (!Rows::IN_PLACE) rows.row(y);
      for (int q = 0; q < bins_x; ++q) {
        const int x0 = x_.ranges.first[q], x1 = x_.ranges.last[q];
        if (x0 >= x1) continue;
        in_blocks<F, MOST>(count, [&](auto block, int64_t c, int lanes) {
          using B = decltype(block);
          pool_block<B::VECTORS, B::PART>(rows, (int64_t(p) * bins_x + q) * width_ + c, y == y0, y, y + step, x0, x1,
                                          map_width, c, lanes);
        });
      }
    }
  }

  template <int U, bool Part, class Rows>
  void pool_block(Rows& rows, int64_t at, bool first, int y0, int y1, int x0, int x1, int map_width, int64_t c,
                  int lanes) {
    Best<U, A> best;
    if (first) {
      best.clear(lowest(static_cast<const T*>(nullptr)));
    } else {
      best.load(values_.data + at, positions_.data + at);
    }
    for (int y = y0; y < y1; ++y) {
      const auto* pixel = rows.row(y) + int64_t(x0 - rows.x0) * rows.stride_x + c;
      for (int x = x0; x < x1; ++x, pixel += rows.stride_x) {
        const auto position = F::index(y * map_width + x);
#pragma GCC unroll 8
        for (int u = 0; u < U; ++u) {
          best.offer(u, Part ? F::load(pixel + u * F::N, lanes) : F::load(pixel + u * F::N), position);
        }
      }
    }
    best.store(values_.data + at, positions_.data + at);
  }

  // --------------------------------------------------------------------------------------- RoIAlign, max
  template <class Rows>
  void align_bins(Rows& rows, const Roi<A>& roi, int p, int64_t count) {
    const SampleTable<A>&sy = y_.samples, &sx = x_.samples;
    const int bins_x = call_.pooled_w, begin = sy.bin_begin[p], end = sy.bin_begin[p + 1];
    const bool void_after = sy.first_number[p] + (end - begin) < roi.y.samples;
    for (int q = 0; q < bins_x; ++q) {
      if (begin == end || sx.bin_begin[q] == sx.bin_begin[q + 1]) clear_bin(int64_t(p) * bins_x + q);
    }
    for (int i = begin; i < end; ++i) {
      const auto* low = rows.row(sy.at[i].low);
      const auto* high = rows.row(sy.at[i].high);
      const int number = (sy.first_number[p] + i - begin) * roi.x.samples;
      const A frac = sy.at[i].frac;
      const bool void_before = i == begin && sy.first_number[p] > 0;
      for (int q = 0; q < bins_x; ++q) {
        if (sx.bin_begin[q] == sx.bin_begin[q + 1]) continue;
        in_blocks<F, MOST>(count, [&](auto block, int64_t c, int lanes) {
          using B = decltype(block);
          const int64_t at = (int64_t(p) * bins_x + q) * width_ + c;
          Best<B::VECTORS, A> best;
          if (i == begin) {
            best.clear(lowest(static_cast<const T*>(nullptr)));
          } else {
            best.load(values_.data + at, positions_.data + at);
          }
          if (void_before) best.offer_void();
          align_block<B::PART>(low + c, high + c, rows.stride_x, rows.x0, frac, number, roi.x.samples, q, lanes, best);
          if (void_after && i == end - 1) best.offer_void();
          best.store(values_.data + at, positions_.data + at);
        });
      }
    }
  }

  // The samples of bin column q in one row of samples. The sums are rounded as the reference rounds them, so
  // that both agree on which of two samples of nearly the same value is the larger.
  template <bool Part, int U, class Element>
  void align_block(const Element* low, const Element* high, int64_t stride_x, int x0, A frac_y, int number,
                   int samples_x, int q, int lanes, Best<U, A>& best) const {
    const SampleTable<A>& sx = x_.samples;
    const int begin = sx.bin_begin[q], end = sx.bin_begin[q + 1], first = sx.first_number[q];
    if (first > 0) best.offer_void();
    for (int i = begin; i < end; ++i) {
      const Neighbours<A>& at = sx.at[i];
      const int64_t left = int64_t(at.low - x0) * stride_x, right = int64_t(at.high - x0) * stride_x;
      const auto w00 = F::set1((A(1) - frac_y) * (A(1) - at.frac)), w01 = F::set1((A(1) - frac_y) * at.frac);
      const auto w10 = F::set1(frac_y * (A(1) - at.frac)), w11 = F::set1(frac_y * at.frac);
      const auto position = F::index(number + first + i - begin);
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u) {
        const auto load = [&](const Element* from) {
          return Part ? F::load(from + u * F::N, lanes) : F::load(from + u * F::N);
        };
        auto sum = F::mul(load(low + left), w00);
        sum = F::add(sum, F::mul(load(low + right), w01));
        sum = F::add(sum, F::mul(load(high + left), w10));
        sum = F::add(sum, F::mul(load(high + right), w11));
        best.offer(u, sum, position);
      }
    }
    if (first + (end - begin) < samples_x) best.offer_void();
  }

  // -------------------------------------------------------------------------------------------- results
  void clear_bin(int64_t bin) {
    for (int64_t c = 0; c < width_; c += F::N) {
      F::store(values_.data + bin * width_ + c, F::zero());
      F::store(positions_.data + bin * width_ + c, F::index(-1));
    }
  }

  void write(int64_t index, int64_t c, int64_t count) {
    write_tile<T>(call_, static_cast<T*>(call_.out), index, c, count, values_.data, width_, staging_.data,
                  [this](T* to, const A* from, int64_t n) { emit(to, from, n, stream_); });
    write_tile<int32_t>(call_, static_cast<int32_t*>(call_.out_argmax), index, c, count, positions_.data, width_,
                        staging_.data,
                        [this](int32_t* to, const A* from, int64_t n) { emit_indices(to, from, n, stream_); });
  }

  const Call& call_;
  const Plan& plan_;
  AxisStorage<A> y_, x_;
  Buffer<A> values_, positions_, staging_;
  Window<A> window_;
  int64_t bins_, width_;
  bool ready_, stream_;
};

template <class T>
Status max_forward(const Call& call) {
  const Plan plan(call);
  const PlannedJob job{call, plan};
  return for_units<MaxForward<T>>(job, MaxForward<T>::units(call), useful_threads(call));
}

}  // namespace
}  // namespace roi
