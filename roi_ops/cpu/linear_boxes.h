// Gradient of the linear operators for the boxes: <G, dA_y F A_x^T> and <G, A_y F dA_x^T>, in closed form.
#pragma once

#include "linear.h"

namespace roi {
namespace {

// Sums over lanes, kept as vectors until a RoI is done.
template <class A>
struct BoxSums {
  using V = typename Vec<A>::V;
  V y_start, y_extent, x_start, x_extent;

  void clear() { y_start = y_extent = x_start = x_extent = Vec<A>::zero(); }
};

template <class A>
inline A sum_lanes(typename Vec<A>::V v) {
  A lanes[Vec<A>::N], sum = 0;
  Vec<A>::store(lanes, v);
  for (A lane : lanes) sum += lane;
  return sum;
}

// What one row of the map contributes, for U vectors of channels.
template <int U, bool Part, class A, class Element>
inline void boxes_row(const AxisTable<A>& ty, const AxisTable<A>& tx, int column, const Element* row, int64_t stride_x,
                      int x0, const A* tile, int64_t width, int bins_x, int lanes, BoxSums<A>& sums) {
  using F = Vec<A>;
  using V = typename F::V;
  for (int q = 0; q < bins_x; ++q) {
    V value[U], by_start[U], by_extent[U];  // F A_x^T and its derivatives
    for (int u = 0; u < U; ++u) value[u] = by_start[u] = by_extent[u] = F::zero();
    for (int i = tx.bin_begin[q]; i < tx.bin_begin[q + 1]; ++i) {
      const Element* pixel = row + int64_t(tx.pixel[i] - x0) * stride_x;
      const V w = F::set1(tx.weight[i]), ws = F::set1(tx.d_start[i]), we = F::set1(tx.d_extent[i]);
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) {
        const V f = Part ? F::load(pixel + u * F::N, lanes) : F::load(pixel + u * F::N);
        value[u] = F::fma(w, f, value[u]);
        by_start[u] = F::fma(ws, f, by_start[u]);
        by_extent[u] = F::fma(we, f, by_extent[u]);
      }
    }
    for (int i = ty.column_begin[column]; i < ty.column_begin[column + 1]; ++i) {
      const A* from = tile + (int64_t(ty.column_bin[i]) * bins_x + q) * width;
      const V w = F::set1(ty.column_weight[i]), ws = F::set1(ty.column_d_start[i]);
      const V we = F::set1(ty.column_d_extent[i]);
#pragma GCC unroll 4
      for (int u = 0; u < U; ++u) {
        const V g = Part ? F::load(from + u * F::N, lanes) : F::load(from + u * F::N);
        const V gv = F::mul(g, value[u]);
        sums.y_start = F::fma(ws, gv, sums.y_start);
        sums.y_extent = F::fma(we, gv, sums.y_extent);
        const V gw = F::mul(w, g);
        sums.x_start = F::fma(gw, by_start[u], sums.x_start);
        sums.x_extent = F::fma(gw, by_extent[u], sums.x_extent);
      }
    }
  }
}

template <class T>
class LinearBoxes {
 public:
  using A = Arithmetic<T>;
  using F = Vec<A>;

  explicit LinearBoxes(const PlannedJob& job) : call_(job.call), plan_(job.plan) {
    const int64_t bins = int64_t(call_.pooled_h) * call_.pooled_w;
    width_ = tile_width<A>(call_, 256, 32 << 10);
    ready_ = y_.reserve(call_, 0) && x_.reserve(call_, 1) && tile_.reserve(bins * width_) &&
             window_.template reserve<T>(call_, width_);
  }

  bool ready() const { return ready_; }

  static int64_t units(const Call& call) { return call.rois; }

  void run(int64_t unit) {
    const PlannedRoi& planned = plan_.order[unit];
    A* to = static_cast<A*>(call_.out) + 5 * planned.roi;
    for (int side = 0; side < 5; ++side) to[side] = 0;
    if (unit >= plan_.usable) return;
    const Roi<A> roi = make_roi<A>(call_, planned.roi, planned.level(), planned.image());
    y_.build(call_, roi.y, true);
    x_.build(call_, roi.x, true);
    BoxSums<A> sums;
    sums.clear();
    const Map& map = call_.features[roi.level];
    const int64_t step = window_.step(call_, map, width_);
    for (int64_t c = 0; c < call_.channels; c += step) {
      const int64_t count = smaller(step, call_.channels - c);
      read_tile<T>(call_, call_.grad, roi.index, c, count, tile_.data, width_);
      window_.template open<T>(call_, map, roi.image, x_.table.first, x_.table.last, c, count,
                               [&](auto& rows) { add(rows, count, sums); });
    }
    store_box_gradient(to, roi, A(call_.scales[roi.level]), sum_lanes<A>(sums.y_start), sum_lanes<A>(sums.y_extent),
                       sum_lanes<A>(sums.x_start), sum_lanes<A>(sums.x_extent));
  }

 private:
  template <class Rows>
  void add(Rows& rows, int64_t count, BoxSums<A>& sums) {
    const AxisTable<A>&ty = y_.table, &tx = x_.table;
    for (int column = 0; column < ty.columns; ++column) {
      const auto* row = rows.row(ty.column[column]);
      in_blocks<F, 4>(count, [&](auto block, int64_t c, int lanes) {
        using B = decltype(block);
        boxes_row<B::VECTORS, B::PART>(ty, tx, column, row + c, rows.stride_x, rows.x0, tile_.data + c, width_,
                                       call_.pooled_w, lanes, sums);
      });
    }
  }

  const Call& call_;
  const Plan& plan_;
  AxisStorage<A> y_, x_;
  Buffer<A> tile_;
  Window<A> window_;
  int64_t width_;
  bool ready_;
};

template <class T>
Status linear_backward_boxes(const Call& call) {
  const Plan plan(call);
  const PlannedJob job{call, plan};
  return for_units<LinearBoxes<T>>(job, LinearBoxes<T>::units(call), useful_threads(call));
}

}  // namespace
}  // namespace roi
