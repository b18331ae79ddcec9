// Forward of the linear operators: out = A_y F A_x^T for each RoI and channel.
#pragma once

#include "rows.h"

namespace roi {
namespace {

// Channels of a tile: as many as leave it in the nearest caches, a multiple of the vector's lanes.
template <class A>
inline int64_t tile_width(const Call& call, int64_t most, int64_t bytes) {
  const int64_t n = Vec<A>::N;
  const int64_t fits = bytes / int64_t(sizeof(A)) / (int64_t(call.pooled_h) * call.pooled_w) / n * n;
  return smaller(smaller(larger(fits, n), most), round_up(call.channels, n));
}

// Results of this size are not wanted in the caches: they are written past them.
constexpr int64_t STREAM_BYTES = 8 << 20;

// One row of the map, y: adds its share to the tile for U vectors of channels (of the last one `lanes` only).
// ahead: elements from this row to the next that will be read, to be fetched from memory meanwhile; 0: none.
template <int U, bool Part, class A, class Element>
inline void forward_row(const AxisTable<A>& ty, const AxisTable<A>& tx, int column, const Element* row,
                        int64_t stride_x, int x0, A* tile, int64_t width, int bins_x, int lanes, int64_t ahead) {
  using F = Vec<A>;
  using V = typename F::V;
  const int y = ty.column[column];
  for (int q = 0; q < bins_x; ++q) {
    V sum[U];
#pragma GCC unroll 16
    for (int u = 0; u < U; ++u) sum[u] = F::zero();
    for (int i = tx.bin_begin[q]; i < tx.bin_begin[q + 1]; ++i) {
      const Element* pixel = row + int64_t(tx.pixel[i] - x0) * stride_x;
      const V weight = F::set1(tx.weight[i]);
      if (ahead != 0) {
#pragma GCC unroll 16
        for (int u = 0; u < U; ++u) __builtin_prefetch(pixel + ahead + u * F::N, 0, 2);
      }
#pragma GCC unroll 16
      for (int u = 0; u < U; ++u) {
        sum[u] = F::fma(weight, Part ? F::load(pixel + u * F::N, lanes) : F::load(pixel + u * F::N), sum[u]);
      }
    }
    for (int i = ty.column_begin[column]; i < ty.column_begin[column + 1]; ++i) {
      const int p = ty.column_bin[i];
      const V weight = F::set1(ty.column_weight[i]);
      A* to = tile + (int64_t(p) * bins_x + q) * width;
      if (ty.pixel[ty.bin_begin[p]] == y) {  // the first row of this bin
#pragma GCC unroll 16
        for (int u = 0; u < U; ++u) F::store(to + u * F::N, F::mul(weight, sum[u]));
      } else {
#pragma GCC unroll 16
        for (int u = 0; u < U; ++u) F::store(to + u * F::N, F::fma(weight, sum[u], F::load(to + u * F::N)));
      }
    }
  }
}

template <class T>
class LinearForward {
 public:
  using A = Arithmetic<T>;
  using F = Vec<A>;

  explicit LinearForward(const PlannedJob& job) : call_(job.call), plan_(job.plan) {
    const int64_t bins = int64_t(call_.pooled_h) * call_.pooled_w;
    width_ = tile_width<A>(call_, F::UNROLL * F::N, 64 << 10);
    ready_ = tile_.reserve(bins * width_) && staging_.reserve(group_of<T>() * bins) &&
             window_.template reserve<T>(call_, width_);
    const int tables = window_.copies() ? COPIED_RUN : 1;
    for (int i = 0; i < tables && ready_; ++i) ready_ = y_[i].reserve(call_, 0) && x_[i].reserve(call_, 1);
    stream_ = call_.rois * call_.channels * bins * int64_t(sizeof(T)) >= STREAM_BYTES;
  }

  bool ready() const { return ready_; }

  void run(int64_t unit) {
    const int64_t run = run_length(call_);
    const int64_t end = smaller((unit + 1) * run, call_.rois);
    Roi<A> copied[COPIED_RUN];
    int count = 0;
    for (int64_t i = unit * run; i < end; ++i) {
      const PlannedRoi& planned = plan_.order[i];
      if (i >= plan_.usable) {
        write_zeros(planned.roi);
        continue;
      }
      const Roi<A> roi = make_roi<A>(call_, planned.roi, planned.level(), planned.image());
      y_[count].build(call_, roi.y, false);
      x_[count].build(call_, roi.x, false);
      if (y_[count].table.columns == 0 || x_[count].table.columns == 0) {
        write_zeros(roi.index);
      } else if (channels_innermost(call_, call_.features[roi.level])) {
        for (int64_t c = 0; c < call_.channels; c += width_) pool(roi, count, c, width_);
      } else {
        copied[count++] = roi;
      }
    }
    // Where channels lie far apart, a few channels of all these neighbours, then the next few: the rows they
    // share come from memory once.
    const int64_t step = window_.copied_width();
    for (int64_t c = 0; count > 0 && c < call_.channels; c += step) {
      for (int i = 0; i < count; ++i) {
        const bool last = i + 1 == count;
        if (!last || c + step < call_.channels) prefetch(copied[last ? 0 : i + 1], last ? 0 : i + 1, last ? c + step : c, step);
        pool(copied[i], i, c, step);
      }
    }
  }

  // Work is shared out in runs of neighbours.
  static int64_t run_length(const Call& call) {
    return larger<int64_t>(1, smaller<int64_t>(COPIED_RUN, call.rois / (8 * int64_t(call.threads))));
  }
  static int64_t units(const Call& call) { return (call.rois + run_length(call) - 1) / run_length(call); }

 private:
  static constexpr int COPIED_RUN = 32;

  // Channels c0 <= c < c0 + step of one RoI, with the tables number t.
  void pool(const Roi<A>& roi, int t, int64_t c0, int64_t step) {
    const int64_t count = smaller(step, call_.channels - c0);
    const AxisTable<A>&ty = y_[t].table, &tx = x_[t].table;
    window_.template open<T>(call_, call_.features[roi.level], roi.image, tx.first, tx.last, c0, count,
                             [&](auto& rows) { fill(rows, ty, tx, count); });
    write(roi.index, c0, count);
  }

  void prefetch(const Roi<A>& roi, int t, int64_t c0, int64_t step) const {
    const AxisTable<A>&ty = y_[t].table, &tx = x_[t].table;
    for (int column = 0; column < ty.columns; ++column) {
      prefetch_row<T>(call_.features[roi.level], roi.image, ty.column[column], tx.first, tx.last, c0,
                      smaller(step, call_.channels - c0));
    }
  }

  // The tile, for `count` channels.
  template <class Rows>
  void fill(Rows& rows, const AxisTable<A>& ty, const AxisTable<A>& tx, int64_t count) {
    const int bins = call_.pooled_w;
    for (int p = 0; p < call_.pooled_h; ++p) {
      if (ty.bin_begin[p] == ty.bin_begin[p + 1]) clear(int64_t(p) * bins, int64_t(p + 1) * bins);
    }
    for (int column = 0; column < ty.columns; ++column) {
      const auto* row = rows.row(ty.column[column]);
      int64_t ahead = 0;
      if (Rows::IN_PLACE && column + 1 < ty.columns) ahead = rows.row(ty.column[column + 1]) - row;
      in_blocks<F>(count, [&](auto block, int64_t c, int lanes) {
        using B = decltype(block);
        forward_row<B::VECTORS, B::PART>(ty, tx, column, row + c, rows.stride_x, rows.x0, tile_.data + c, width_, bins,
                                         lanes, ahead);
      });
    }
  }

  void clear(int64_t first_bin, int64_t last_bin) {
    std::memset(tile_.data + first_bin * width_, 0, size_t((last_bin - first_bin) * width_) * sizeof(A));
  }

  void write_zeros(int64_t index) {
    clear(0, int64_t(call_.pooled_h) * call_.pooled_w);
    for (int64_t c = 0; c < call_.channels; c += width_) write(index, c, smaller(width_, call_.channels - c));
  }

  void write(int64_t index, int64_t c, int64_t count) {
    write_tile<T>(call_, static_cast<T*>(call_.out), index, c, count, tile_.data, width_, staging_.data,
                  [this](T* to, const A* from, int64_t n) { emit(to, from, n, stream_); });
  }

  const Call& call_;
  const Plan& plan_;
  AxisStorage<A> y_[COPIED_RUN], x_[COPIED_RUN];  // more than one only where rows are copied
  Buffer<A> tile_, staging_;
  Window<A> window_;
  int64_t width_;
  bool ready_, stream_;
};

template <class T>
Status linear_forward(const Call& call) {
  const Plan plan(call);
  const PlannedJob job{call, plan};
  return for_units<LinearForward<T>>(job, LinearForward<T>::units(call), useful_threads(call));
}

}  // namespace
}  // namespace roi
