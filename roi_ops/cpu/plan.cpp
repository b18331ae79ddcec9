#include "plan.h"

#include <algorithm>
#include <new>

namespace roi {
namespace {

constexpr uint64_t UNUSABLE = ~uint64_t(0);

// Rows and columns of the map that share a place in the order: a fraction of a usual box.
constexpr int CELL = 16;

// Bits of a 16-bit number at the even places.
uint64_t spread(uint64_t x) {
  x = (x | x << 8) & 0x00ff00ff;
  x = (x | x << 4) & 0x0f0f0f0f;
  x = (x | x << 2) & 0x33333333;
  return (x | x << 1) & 0x55555555;
}

template <class A>
uint64_t cell(A low, A high, A scale, int length) {
  const A centre = (low + high) / 2 * scale;
  const A inside = centre > A(0) ? smaller(centre, A(length)) : A(0);
  return (uint64_t(inside) / CELL) & 0xffff;
}

// Place of a box on its map along a Z-shaped curve: neighbours in the order mostly overlap, and what one has
// read the next finds in the cache.
template <class A>
uint64_t place(const A* box, A scale, const Map& map) {
  return spread(cell(box[2], box[4], scale, map.height)) << 1 | spread(cell(box[1], box[3], scale, map.width));
}

}  // namespace

Plan::Plan(const Call& call) {
  const size_t rois = size_t(call.rois);
  order = new PlannedRoi[rois + 1];
  try {
    if (call.type == FLOAT64) {
      rank<double>(call);
    } else {
      rank<float>(call);
    }
    std::sort(order, order + rois, [](const PlannedRoi& a, const PlannedRoi& b) {
      return a.key != b.key ? a.key < b.key : a.roi < b.roi;
    });
    groups = new Group[size_t(std::min<int64_t>(call.rois, int64_t(call.levels) * call.images)) + 1];
  } catch (...) {
    delete[] order;
    throw;
  }
  while (usable < call.rois && order[usable].key != UNUSABLE) {
    const uint64_t map = order[usable].key >> 32;
    Group group{int(map >> 24), int(map & 0xffffff), usable, usable};
    while (group.end < call.rois && order[group.end].key >> 32 == map) ++group.end;
    usable = group.end;
    groups[group_count++] = group;
  }
}

Plan::~Plan() {
  delete[] order;
  delete[] groups;
}

template <class A>
void Plan::rank(const Call& call) {
  for (int64_t i = 0; i < call.rois; ++i) {
    const A* box = static_cast<const A*>(call.boxes) + 5 * i;
    order[i] = {UNUSABLE, i};
    bool finite = call.channels > 0;
    for (int side = 1; side < 5; ++side) finite = finite && is_finite(box[side]);
    if (!finite) continue;
    const int level = call.levels > 1 ? level_of(box + 1, call.k_min, call.k_max, A(call.canonical_scale),
                                                 A(call.canonical_level))
                                      : 0;
    if (level < 0) continue;
    const Map& map = call.features[level];
    if (map.height <= 0 || map.width <= 0) continue;
    const uint64_t image = uint64_t(box[0]);
    order[i].key = uint64_t(level) << 56 | image << 32 | place(box, A(call.scales[level]), map);
  }
}

int64_t first_bad_image(const void* boxes, int64_t rois, bool is_double, int images) {
  for (int64_t i = 0; i < rois; ++i) {
    const double image = is_double ? static_cast<const double*>(boxes)[5 * i]
                                   : double(static_cast<const float*>(boxes)[5 * i]);
    if (!(image > -1.0 && image < double(images))) return i;
  }
  return -1;
}

}  // namespace roi
