// Which RoIs are pooled from which map, and in which order.
#pragma once

#include "call.h"

namespace roi {

struct PlannedRoi {
  uint64_t key;  // level, image, position: neighbours in the order are neighbours in memory
  int64_t roi;   // row of boxes

  int level() const { return int(key >> 56); }
  int image() const { return int(key >> 32 & 0xffffff); }
};

// RoIs begin <= i < end of the order share a map of an image.
struct Group {
  int level, image;
  int64_t begin, end;
};

// The order is a function of the boxes alone, so sums over RoIs round alike whatever the number of threads.
class Plan {
 public:
  // Throws std::bad_alloc.
  explicit Plan(const Call& call);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  int64_t usable = 0;          // RoIs [0, usable) of the order are pooled; the rest gives zeros
  int64_t group_count = 0;
  PlannedRoi* order = nullptr;
  Group* groups = nullptr;     // of the usable ones

 private:
  template <class A>
  void rank(const Call& call);
};

}  // namespace roi
