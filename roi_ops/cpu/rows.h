// Rows of a feature map with the channels innermost, whatever the strides of the map.
#pragma once

#include "tiles.h"

namespace roi {
namespace {

// Element (y, x, c) of the maps that the kernels read: data + y * stride_y + x * stride_x + c, with stride 1.
inline bool channels_innermost(const Call& call, const Map& map) {
  return map.tensor.stride[1] == 1 || call.channels == 1;
}

template <class T>
inline T* map_at(const Map& map, int image, int64_t channel, int64_t y, int64_t x) {
  const int64_t* s = map.tensor.stride;
  return static_cast<T*>(map.tensor.data) + image * s[0] + channel * s[1] + y * s[2] + x * s[3];
}

// Copies row y, pixels x0 <= x < x1, channels c0 <= c < c0 + count to `to`[x - x0][width], converted.
template <class T>
inline void stage_row(const Map& map, int image, int y, int x0, int x1, int64_t c0, int64_t count,
                      Arithmetic<T>* to, int64_t width) {
  const int64_t* s = map.tensor.stride;
  const T* from = map_at<T>(map, image, c0, y, x0);
  if (s[3] == 1) {
    transpose(from, s[1], to, width, int(count), x1 - x0);
    return;
  }
  for (int64_t x = 0; x < x1 - x0; ++x) {
    for (int64_t c = 0; c < count; ++c) to[x * width + c] = to_arithmetic(from[x * s[3] + c * s[1]]);
  }
}

// Asks for row y of the same pixels and channels, so that it is in the cache when stage_row wants it. Short rows
// of many planes are what the processor's own prefetching does not see coming.
template <class T>
inline void prefetch_row(const Map& map, int image, int y, int x0, int x1, int64_t c0, int64_t count) {
  const int64_t* s = map.tensor.stride;
  if (s[3] != 1) return;
  for (int64_t c = 0; c < count; ++c) {
    const char* from = reinterpret_cast<const char*>(map_at<T>(map, image, c0 + c, y, x0));
    const char* last = reinterpret_cast<const char*>(map_at<T>(map, image, c0 + c, y, x1 - 1));
    for (; from < last; from += 64) __builtin_prefetch(from, 0, 2);
    __builtin_prefetch(last, 0, 2);
  }
}

// The rows of one RoI's window for a block of channels, where channels are innermost: read in place.
template <class T>
struct InPlace {
  const T* base;
  int64_t stride_y, stride_x;
  static constexpr bool IN_PLACE = true;
  static constexpr int x0 = 0;

  const T* row(int y) { return base + y * stride_y; }
};

// The same where they are not: rows are copied when first asked for, and the last SLOTS of them kept.
template <class T>
struct Staged {
  using A = Arithmetic<T>;
  static constexpr bool IN_PLACE = false;
  static constexpr int SLOTS = 4;

  const Map& map;
  int image, x0, x1;
  int64_t c0, count, stride_x;
  A* memory;
  int held[SLOTS];

  const A* row(int y) {
    A* to = memory + (y % SLOTS) * (x1 - x0) * stride_x;
    if (held[y % SLOTS] != y) {
      stage_row<T>(map, image, y, x0, x1, c0, count, to, stride_x);
      held[y % SLOTS] = y;
    }
    return to;
  }
};

// Opens windows of maps; one object a thread.
template <class A>
class Window {
 public:
  // width: most channels of a block. False if there is no memory.
  template <class T>
  bool reserve(const Call& call, int64_t width) {
    int span = 0;
    for (int l = 0; l < call.levels; ++l) {
      if (!channels_innermost(call, call.features[l])) span = larger(span, call.features[l].width);
    }
    copies_ = span > 0;
    // Rows that are copied are copied for few channels, so that the copies stay in the first cache.
    staged_ = smaller<int64_t>(width, larger<int64_t>(Vec<A>::N, 16));
    return span == 0 || memory_.reserve(Staged<T>::SLOTS * span * staged_);
  }

  // Whether there are maps whose rows must be copied, and for how many channels at a time.
  bool copies() const { return copies_; }
  int64_t copied_width() const { return staged_; }

  // Channels of a block.
  int64_t step(const Call& call, const Map& map, int64_t width) const {
    return channels_innermost(call, map) ? width : staged_;
  }

  // Calls use(rows) with an InPlace or a Staged: pixel (y, x) of channel c0 + c is rows.row(y)[(x - rows.x0) *
  // rows.stride_x + c]. Lanes behind the last channel are there in a Staged, holding anything.
  template <class T, class Use>
  void open(const Call& call, const Map& map, int image, int x0, int x1, int64_t c0, int64_t count, Use use) {
    if (channels_innermost(call, map)) {
      InPlace<T> rows{map_at<T>(map, image, c0, 0, 0), map.tensor.stride[2], map.tensor.stride[3]};
      use(rows);
    } else {
      Staged<T> rows{map, image, x0, x1, c0, count, staged_, memory_.data, {-1, -1, -1, -1}};
      use(rows);
    }
  }

 private:
  Buffer<A> memory_;
  int64_t staged_ = 0;
  bool copies_ = false;
};

}  // namespace
}  // namespace roi
