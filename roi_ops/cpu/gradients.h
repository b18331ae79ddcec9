// Gradients of feature maps: who owns which part, where it is summed, how it gets into the result.
#pragma once

#include "rows.h"

namespace roi {
namespace {

// The part of one gradient map that one unit of work owns: rows y0 <= y < y1, channels c0 <= c < c0 + count. All
// RoIs that touch it are added by one thread in the plan's order: nothing is atomic and sums round alike always.
struct Region {
  int level, image, y0, y1;
  int64_t c0, count;
  int64_t first, last;  // RoIs of this map, positions in the plan's order
};

// How the maps are cut into regions.
template <class T>
class Regions {
 public:
  using A = Arithmetic<T>;
  static constexpr int64_t MOST_CHANNELS = 256;  // of a region

  // in_place says of a map whether sums may go straight into the result.
  Regions(const Call& call, const Plan& plan, bool (*in_place)(const Call&, const Map&))
      : call_(call), plan_(plan), in_place_(in_place) {
    // Few and wide regions, but enough of them for the threads to share evenly.
    const int64_t narrowest = 32;
    for (in_place_width_ = MOST_CHANNELS;; in_place_width_ = larger(in_place_width_ / 2, narrowest)) {
      units_ = 0;
      for (int level = 0; level < call.levels; ++level) units_ += unit_count(level);
      if (units_ >= 4 * int64_t(call.threads) || in_place_width_ <= narrowest) break;
    }
  }

  int64_t units() const { return units_; }

  bool sums_in_place(int level) const { return in_place_(call_, call_.gradients[level]); }

  // Elements that a region which is not summed in place may need.
  int64_t scratch() const {
    int64_t most = 0;
    for (int level = 0; level < call_.levels; ++level) {
      if (sums_in_place(level)) continue;
      const Map& map = call_.gradients[level];
      most = larger(most, int64_t(rows(level)) * map.width * round_up(width(level), Vec<A>::N));
    }
    return most;
  }

  Region region(int64_t unit) const {
    int level = 0;
    for (int64_t here; unit >= (here = unit_count(level)); ++level) unit -= here;
    const Map& map = call_.gradients[level];
    const int step = rows(level);
    const int64_t bands = (map.height + step - 1) / step, w = width(level), blocks = (call_.channels + w - 1) / w;
    Region r;
    r.level = level;
    r.image = int(unit / (bands * blocks));
    r.y0 = int(unit / blocks % bands) * step;
    r.y1 = smaller(r.y0 + step, map.height);
    r.c0 = unit % blocks * w;
    r.count = smaller(w, call_.channels - r.c0);
    find_group(r);
    return r;
  }

 private:
  static constexpr int64_t SCRATCH_BYTES = 1 << 20;

  // Channels of a region: whole cache lines of the result where they are innermost.
  int64_t width(int level) const {
    const int64_t w = sums_in_place(level) ? in_place_width_
                      : channels_innermost(call_, call_.gradients[level]) ? 64 / int64_t(sizeof(T)) : 16;
    return smaller(w, int64_t(call_.channels));
  }

  int rows(int level) const {
    const Map& map = call_.gradients[level];
    if (sums_in_place(level)) return larger(map.height, 1);
    const int64_t row = round_up(width(level), Vec<A>::N) * map.width * int64_t(sizeof(A));
    return int(larger<int64_t>(smaller<int64_t>(SCRATCH_BYTES / larger<int64_t>(row, 1), map.height), 1));
  }

  int64_t unit_count(int level) const {
    const int step = rows(level);
    const int64_t w = larger<int64_t>(width(level), 1);
    return int64_t(call_.images) * ((call_.gradients[level].height + step - 1) / step) *
           ((call_.channels + w - 1) / w);
  }

  void find_group(Region& r) const {
    int64_t low = 0, high = plan_.group_count;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      const Group& g = plan_.groups[middle];
      if (g.level != r.level ? g.level < r.level : g.image < r.image) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    const bool found =
        low < plan_.group_count && plan_.groups[low].level == r.level && plan_.groups[low].image == r.image;
    r.first = found ? plan_.groups[low].begin : 0;
    r.last = found ? plan_.groups[low].end : 0;
  }

  const Call& call_;
  const Plan& plan_;
  bool (*in_place_)(const Call&, const Map&);
  int64_t units_ = 0, in_place_width_;
};

// Whether a box lies clearly outside the rows [y0, y1).
template <class A>
inline bool misses(const Axis<A>& y, int y0, int y1) {
  const A end = y.start + y.bin * A(y.bins);
  return smaller(y.start, end) > A(y1 + 2) || larger(y.start, end) < A(y0 - 3);
}

// Sets a region of a gradient map in place to zero.
template <class T>
inline void clear_region(const Map& map, const Region& r) {
  const int64_t* s = map.tensor.stride;
  for (int y = r.y0; y < r.y1; ++y) {
    if (s[1] == 1) {
      for (int x = 0; x < map.width; ++x) std::memset(map_at<T>(map, r.image, r.c0, y, x), 0, size_t(r.count) * sizeof(T));
    } else {
      for (int64_t c = 0; c < r.count; ++c) {
        std::memset(map_at<T>(map, r.image, r.c0 + c, y, 0), 0, size_t(map.width) * sizeof(T));
      }
    }
  }
}

// Copies sums [y1 - y0, map.width, width] to the region's place in the result, converted. row: memory for
// width * map.width elements.
template <class T>
inline void write_region(const Call& call, const Map& map, const Region& r, const Arithmetic<T>* sums, int64_t width,
                         Arithmetic<T>* row) {
  const bool innermost = channels_innermost(call, map);
  for (int y = r.y0; y < r.y1; ++y) {
    const Arithmetic<T>* from = sums + int64_t(y - r.y0) * map.width * width;
    if (innermost) {
      for (int x = 0; x < map.width; ++x) emit(map_at<T>(map, r.image, r.c0, y, x), from + x * width, r.count, false);
      continue;
    }
    transpose(from, width, row, map.width, map.width, int(r.count));
    for (int64_t c = 0; c < r.count; ++c) {
      emit(map_at<T>(map, r.image, r.c0 + c, y, 0), row + c * map.width, map.width, false);
    }
  }
}

template <class T>
struct BackwardJob {
  const Call& call;
  const Plan& plan;
  const Regions<T>& regions;
};

inline int backward_threads(const Call& call) {
  int64_t elements = 0;
  for (int l = 0; l < call.levels; ++l) elements += int64_t(call.gradients[l].height) * call.gradients[l].width;
  elements *= int64_t(call.images) * call.channels;
  const int for_clearing = int(smaller<int64_t>(call.threads, 1 + elements / WORK_PER_THREAD));
  return larger(useful_threads(call), for_clearing);
}

}  // namespace
}  // namespace roi
