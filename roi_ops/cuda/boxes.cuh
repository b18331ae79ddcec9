// Where a box lies: its image, its level, its two axes on the map.
#pragma once

#include "arguments.cuh"
#include "platform.cuh"

namespace roi {

template <class A>
struct Box {
  Axis<A> y, x;
  int level, image;
  bool used;  // false: it pools to zero
};

template <class A>
ROI_DEVICE const A* corners(const Call& call, long long roi) {
  return static_cast<const A*>(call.boxes) + 5 * roi + 1;
}

template <class A>
ROI_DEVICE Axis<A> axis_y(const Call& call, const A* corner, int level) {
  const Level& map = call.level[level];
  return make_axis(call.kind, corner[1], corner[3], A(map.scale), call.pooled_h, map.height, call.sampling_ratio);
}

template <class A>
ROI_DEVICE Axis<A> axis_x(const Call& call, const A* corner, int level) {
  const Level& map = call.level[level];
  return make_axis(call.kind, corner[0], corner[2], A(map.scale), call.pooled_w, map.width, call.sampling_ratio);
}

// Unused: a coordinate that is not finite, an image that does not exist, a box without a level, an empty map.
template <class A>
ROI_DEVICE Box<A> locate(const Call& call, long long roi) {
  Box<A> box;
  box.level = box.image = 0;
  const A* corner = corners<A>(call, roi);
  const A image = corner[-1];
  box.used = image > A(-1) && image < A(call.images);
  for (int i = 0; i < 4; ++i) box.used = box.used && is_finite(corner[i]);
  if (box.used) {
    box.image = int(image);
    if (call.levels > 1) {
      box.level = level_of(corner, call.k_min, call.k_max, A(call.canonical_scale), A(call.canonical_level));
      box.used = box.level >= 0 && box.level < call.levels;
      if (!box.used) box.level = 0;
    }
  }
  box.y = axis_y(call, corner, box.level);
  box.x = axis_x(call, corner, box.level);
  box.used = box.used && box.y.defined && box.x.defined && box.y.length > 0 && box.x.length > 0;
  return box;
}

}  // namespace roi
