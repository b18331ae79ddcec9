// Forward of the linear operators: out = A_y F A_x^T for each RoI and channel.
#pragma once

#include "plan.h"
#include "rows.h"
#include "tables.h"

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

struct PlannedJob {
  const Call& call;
  const Plan& plan;
};

// One row of the map, y: adds its share to the tile for U vectors of channels (of the last one `lanes` only).
template <int U, bool Part, class A, class Element>
inline void forward_row(const AxisTable<A>& ty, const AxisTable<A>& tx, int column, const Element* row,
                        int64_t stride_x, int x0, A* tile, int64_t width, int bins_x, int lanes) {
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
    ready_ = y_.reserve(call_, 0) && x_.reserve(call_, 1) && tile_.reserve(bins * width_) &&
             staging_.reserve(group_of<T>() * bins) && window_.template reserve<T>(call_, width_);
    stream_ = call_.rois * call_.channels * bins * int64_t(sizeof(T)) >= STREAM_BYTES;
  }

  bool ready() const { return ready_; }

  // Work is shared out in runs of RoIs.
  static int64_t units(const Call& call) { return (call.rois + RUN - 1) / RUN; }

  void run(int64_t unit) {
    for (int64_t i = unit * RUN; i < smaller((unit + 1) * RUN, call_.rois); ++i) {
      const PlannedRoi& planned = plan_.order[i];
      if (i < plan_.usable) {
        pool(make_roi<A>(call_, planned.roi, planned.level(), planned.image()));
      } else {
        write_zeros(planned.roi);
      }
    }
  }

 private:
  static constexpr int RUN = 4;

  void pool(const Roi<A>& roi) {
    y_.build(call_, roi.y, false);
    x_.build(call_, roi.x, false);
    if (y_.table.columns == 0 || x_.table.columns == 0) {
      write_zeros(roi.index);
      return;
    }
    const Map& map = call_.features[roi.level];
    const int64_t step = window_.step(call_, map, width_);
    for (int64_t c = 0; c < call_.channels; c += step) {
      const int64_t count = smaller(step, call_.channels - c);
      window_.template open<T>(call_, map, roi.image, x_.table.first, x_.table.last, c, count,
                               [&](auto& rows) { fill(rows, count); });
      write(roi.index, c, count);
    }
  }

  // The tile, for `count` channels.
  template <class Rows>
  void fill(Rows& rows, int64_t count) {
    const AxisTable<A>&ty = y_.table, &tx = x_.table;
    const int bins = call_.pooled_w;
    for (int p = 0; p < call_.pooled_h; ++p) {
      if (ty.bin_begin[p] == ty.bin_begin[p + 1]) clear(int64_t(p) * bins, int64_t(p + 1) * bins);
    }
    for (int column = 0; column < ty.columns; ++column) {
      const auto* row = rows.row(ty.column[column]);
      in_blocks<F>(count, [&](auto block, int64_t c, int lanes) {
        using B = decltype(block);
        forward_row<B::VECTORS, B::PART>(ty, tx, column, row + c, rows.stride_x, rows.x0, tile_.data + c, width_, bins,
                                         lanes);
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
  AxisStorage<A> y_, x_;
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
