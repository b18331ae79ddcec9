// The weights of one RoI along one axis, in the orders the kernels read them. Built once a RoI, used for all
// its channels.
#pragma once

#include "call.h"

namespace roi {

// One RoI with its geometry on its map.
template <class A>
struct Roi {
  int64_t index;  // row of boxes
  int level, image;
  Axis<A> y, x;
};

template <class A>
Roi<A> make_roi(const Call& call, int64_t index, int level, int image);

// A sparse matrix [bins, pixels] by rows and by columns.
template <class A>
struct AxisTable {
  int first, last;  // pixels [first, last) hold all that have a weight; first == last: none has
  // Entries bin_begin[p] <= i < bin_begin[p + 1] are those of bin p, pixels ascending.
  int* bin_begin;
  int* pixel;
  A *weight, *d_start, *d_extent;
  // Entries column_begin[q] <= i < column_begin[q + 1] are those of pixel column[q], bins ascending.
  int columns;
  int* column;
  int* column_begin;
  int* column_bin;
  A *column_weight, *column_d_start, *column_d_extent;
};

// Samples of RoIAlign that lie on the map, by bins.
template <class A>
struct SampleTable {
  int* bin_begin;     // as above
  int* first_number;  // number, within the bin, of the first of them
  Neighbours<A>* at;
  A* d_extent;  // derivative of the position with respect to the extent
};

// Pixels [first[p], last[p]) of each bin of RoIPool.
struct RangeTable {
  int *first, *last;
};

// Memory for the tables of one axis of any RoI of a call; one object a thread and axis.
template <class A>
class AxisStorage {
 public:
  AxisStorage() = default;
  ~AxisStorage();
  AxisStorage(const AxisStorage&) = delete;
  AxisStorage& operator=(const AxisStorage&) = delete;

  // axis: 0 for y, 1 for x. False if there is no memory.
  bool reserve(const Call& call, int axis);

  void build(const Call& call, const Axis<A>& axis, bool derivatives);  // fills `table`
  void build_samples(const Axis<A>& axis);                              // fills `samples`
  void build_ranges(const Axis<A>& axis);                               // fills `ranges`

  AxisTable<A> table{};
  SampleTable<A> samples{};
  RangeTable ranges{};

 private:
  void* memory_ = nullptr;
  int64_t capacity_ = 0;
};

}  // namespace roi
