// Gradient of the linear operators for the features: A_y^T G A_x, summed over the RoIs of a map.
#pragma once

#include "gradients.h"
#include "linear.h"

namespace roi {
namespace {

// The gradient of one row of the map, from the gradients of the bins that use it: first A_y^T G for this row, a
// vector for each bin column in `line` [bins_x, U vectors], then the pixels of A_x.
template <int U, bool Part, class A>
inline void backward_row(const AxisTable<A>& ty, const AxisTable<A>& tx, int column, A* row, int64_t stride_x, int x0,
                         const A* tile, int64_t width, int bins_x, A* line, int lanes) {
  using F = Vec<A>;
  using V = typename F::V;
  const int begin = ty.column_begin[column], end = ty.column_begin[column + 1];
  for (int q = 0; q < bins_x; ++q) {
    V sum[U];
    for (int i = begin; i < end; ++i) {
      const A* from = tile + (int64_t(ty.column_bin[i]) * bins_x + q) * width;
      const V weight = F::set1(ty.column_weight[i]);
#pragma GCC unroll 16
      for (int u = 0; u < U; ++u) {
        const V g = F::load(from + u * F::N);
        sum[u] = i == begin ? F::mul(weight, g) : F::fma(weight, g, sum[u]);
      }
    }
#pragma GCC unroll 16
    for (int u = 0; u < U; ++u) F::store(line + (q * U + u) * F::N, sum[u]);
  }
  for (int j = 0; j < tx.columns; ++j) {
    A* pixel = row + int64_t(tx.column[j] - x0) * stride_x;
    V sum[U];
#pragma GCC unroll 16
    for (int u = 0; u < U; ++u) sum[u] = Part ? F::load(pixel + u * F::N, lanes) : F::load(pixel + u * F::N);
    for (int i = tx.column_begin[j]; i < tx.column_begin[j + 1]; ++i) {
      const A* from = line + int64_t(tx.column_bin[i]) * U * F::N;
      const V weight = F::set1(tx.column_weight[i]);
#pragma GCC unroll 16
      for (int u = 0; u < U; ++u) sum[u] = F::fma(weight, F::load(from + u * F::N), sum[u]);
    }
#pragma GCC unroll 16
    for (int u = 0; u < U; ++u) {
      if (Part) {
        F::store(pixel + u * F::N, sum[u], lanes);
      } else {
        F::store(pixel + u * F::N, sum[u]);
      }
    }
  }
}

template <class T>
bool sums_in_place(const Call& call, const Map& map) {
  return sizeof(T) == sizeof(Arithmetic<T>) && channels_innermost(call, map);
}

template <class T>
class LinearBackward {
 public:
  using A = Arithmetic<T>;
  using F = Vec<A>;

  explicit LinearBackward(const BackwardJob<T>& job) : call_(job.call), plan_(job.plan), regions_(job.regions) {
    const int64_t bins = int64_t(call_.pooled_h) * call_.pooled_w;
    width_ = round_up(smaller<int64_t>(call_.channels, Regions<T>::MOST_CHANNELS), F::N);
    int span = 1;
    for (int l = 0; l < call_.levels; ++l) span = larger(span, call_.gradients[l].width);
    const int64_t scratch = regions_.scratch();
    ready_ = y_.reserve(call_, 0) && x_.reserve(call_, 1) && tile_.reserve(bins * width_) &&
             line_.reserve(call_.pooled_w * F::UNROLL * F::N);
    if (scratch > 0) ready_ = ready_ && sums_.reserve(scratch) && row_.reserve(span * 64);
  }

  bool ready() const { return ready_; }

  void run(int64_t unit) {
    const Region region = regions_.region(unit);
    const Map& map = call_.gradients[region.level];
    if (regions_.sums_in_place(region.level)) {
      if (!map.zeroed) clear_region<T>(map, region);
      A* base = map_at<A>(map, region.image, region.c0, 0, 0);
      add_rois(region, base, 0, map.tensor.stride[2], map.tensor.stride[3], region.count);
    } else {
      const int64_t width = round_up(region.count, F::N), row = width * map.width;
      std::memset(sums_.data, 0, size_t((region.y1 - region.y0) * row) * sizeof(A));
      add_rois(region, sums_.data, region.y0, row, width, width);
      write_region<T>(call_, map, region, sums_.data, width, row_.data);
    }
  }

 private:
  // sums: element (y, x, c) at (y - origin) * stride_y + x * stride_x + c.
  void add_rois(const Region& region, A* sums, int origin, int64_t stride_y, int64_t stride_x, int64_t count) {
    for (int64_t i = region.first; i < region.last; ++i) {
      const Roi<A> roi = make_roi<A>(call_, plan_.order[i].roi, region.level, region.image);
      if (misses(roi.y, region.y0, region.y1)) continue;
      y_.build(call_, roi.y, false);
      const AxisTable<A>& ty = y_.table;
      if (ty.first >= region.y1 || ty.last <= region.y0) continue;
      x_.build(call_, roi.x, false);
      read_tile<T>(call_, call_.grad, roi.index, region.c0, region.count, tile_.data, width_);
      for (int column = 0; column < ty.columns; ++column) {
        const int y = ty.column[column];
        if (y < region.y0 || y >= region.y1) continue;
        A* row = sums + (y - origin) * stride_y;
        in_blocks<F>(count, [&](auto block, int64_t c, int lanes) {
          using B = decltype(block);
          backward_row<B::VECTORS, B::PART>(ty, x_.table, column, row + c, stride_x, 0, tile_.data + c, width_,
                                            call_.pooled_w, line_.data, lanes);
        });
      }
    }
  }

  const Call& call_;
  const Plan& plan_;
  const Regions<T>& regions_;
  AxisStorage<A> y_, x_;
  Buffer<A> tile_, line_, sums_, row_;
  int64_t width_;
  bool ready_;
};

template <class T>
Status linear_backward_features(const Call& call) {
  const Plan plan(call);
  const Regions<T> regions(call, plan, sums_in_place<T>);
  const BackwardJob<T> job{call, plan, regions};
  return for_units<LinearBackward<T>>(job, regions.units(), backward_threads(call));
}

}  // namespace
}  // namespace roi
