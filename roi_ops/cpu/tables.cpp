#include "tables.h"

#include <algorithm>
#include <cstdlib>

namespace roi {

template <class A>
Roi<A> make_roi(const Call& call, int64_t index, int level, int image) {
  const A* box = static_cast<const A*>(call.boxes) + 5 * index;
  const Map& map = call.features[level];
  const A scale = A(call.scales[level]);
  return {index, level, image,
          make_axis(call.kind, box[2], box[4], scale, call.pooled_h, map.height, call.sampling_ratio),
          make_axis(call.kind, box[1], box[3], scale, call.pooled_w, map.width, call.sampling_ratio)};
}

template <class A>
AxisStorage<A>::~AxisStorage() {
  std::free(memory_);
}

template <class A>
bool AxisStorage<A>::reserve(const Call& call, int axis) {
  int64_t length = 0;
  for (int level = 0; level < call.levels; ++level) {
    const Map& map = call.features[level];
    length = std::max<int64_t>(length, axis == 0 ? map.height : map.width);
  }
  const int64_t bins = axis == 0 ? call.pooled_h : call.pooled_w;
  const bool max = call.kind >= POOL;
  // Adaptive samples are at least half a pixel apart, so no more than 2 L + 4 of a bin are on the map.
  int64_t entries = call.sampling_ratio > 0 ? call.sampling_ratio : 2 * length + 4;
  if (!max) entries = call.kind == PRROI ? length : std::min(2 * entries, length);
  if (call.kind == POOL) entries = 0;
  capacity_ = bins * entries;

  // The bounds may be generous: the system gives no pages for memory that is never touched.
  const size_t one = size_t(std::max<int64_t>(capacity_, 1)), b = size_t(bins) + 1, l = size_t(length) + 2;
  const size_t reals = max ? one : 6 * one;
  const size_t ints = max ? 2 * b : 2 * one + b + 2 * l;
  const size_t places = max ? one : 0;
  const size_t bytes = reals * sizeof(A) + places * sizeof(Neighbours<A>) + ints * sizeof(int);
  std::free(memory_);
  memory_ = std::malloc(bytes);
  if (!memory_) return false;

  char* at = static_cast<char*>(memory_);
  const auto take = [&at](auto*& pointer, size_t count) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(at);
    at += count * sizeof(*pointer);
  };
  if (max) {
    take(samples.d_extent, one);
    take(samples.at, one);
    take(samples.bin_begin, b);
    take(samples.first_number, b);
    ranges = {samples.bin_begin, samples.first_number};
  } else {
    for (A** part : {&table.weight, &table.d_start, &table.d_extent, &table.column_weight, &table.column_d_start,
                     &table.column_d_extent}) {
      take(*part, one);
    }
    take(table.pixel, one);
    take(table.column_bin, one);
    take(table.bin_begin, b);
    take(table.column, l);
    take(table.column_begin, l);
  }
  return true;
}

template <class A>
void AxisStorage<A>::build(const Call& call, const Axis<A>& axis, bool derivatives) {
  AxisTable<A>& t = table;
  int entries = 0;
  t.first = axis.length;
  t.last = 0;
  t.bin_begin[0] = 0;
  for (int p = 0; p < axis.bins; ++p) {
    matrix_row(call.kind, axis, p, [&](int pixel, const Weight<A>& w) {
      if (entries >= capacity_) return;  // cannot be; a wrong result is better than a wild store
      t.pixel[entries] = pixel;
      t.weight[entries] = w.value;
      if (derivatives) {
        t.d_start[entries] = w.d_start;
        t.d_extent[entries] = w.d_extent;
      }
      ++entries;
      t.first = smaller(t.first, pixel);
      t.last = larger(t.last, pixel + 1);
    });
    t.bin_begin[p + 1] = entries;
  }
  t.columns = 0;
  if (entries == 0) {
    t.first = t.last = 0;
    t.column_begin[0] = 0;
    return;
  }

  // By columns: a counting sort, with a counter for each pixel that may be touched.
  const int span = t.last - t.first;
  int* count = t.column_begin;
  std::fill(count, count + span + 1, 0);
  for (int i = 0; i < entries; ++i) ++count[t.pixel[i] - t.first + 1];
  for (int q = 0; q < span; ++q) count[q + 1] += count[q];
  for (int p = 0; p < axis.bins; ++p) {
    for (int i = t.bin_begin[p]; i < t.bin_begin[p + 1]; ++i) {
      const int to = count[t.pixel[i] - t.first]++;
      t.column_bin[to] = p;
      t.column_weight[to] = t.weight[i];
      if (derivatives) {
        t.column_d_start[to] = t.d_start[i];
        t.column_d_extent[to] = t.d_extent[i];
      }
    }
  }
  // Now count[q] is where pixel q ends. Leave out the pixels without an entry.
  int begin = 0;
  for (int q = 0; q < span; ++q) {
    const int end = count[q];
    if (end == begin) continue;
    t.column[t.columns] = t.first + q;
    t.column_begin[t.columns++] = begin;
    begin = end;
  }
  t.column_begin[t.columns] = entries;
}

template <class A>
void AxisStorage<A>::build_samples(const Axis<A>& axis) {
  int64_t entries = 0;
  samples.bin_begin[0] = 0;
  for (int p = 0; p < axis.bins; ++p) {
    int first = 0, last = 0;
    if (axis.defined && axis.length > 0) valid_samples(axis, p, &first, &last);
    samples.first_number[p] = first;
    for (int j = first; j < last && entries < capacity_; ++j, ++entries) {
      samples.at[entries] = neighbours(sample_position(axis, p, j), axis.length);
      samples.d_extent[entries] = sample_extent_slope(axis, p, j);
    }
    samples.bin_begin[p + 1] = int(entries);
  }
}

template <class A>
void AxisStorage<A>::build_ranges(const Axis<A>& axis) {
  for (int p = 0; p < axis.bins; ++p) pool_range(axis, p, &ranges.first[p], &ranges.last[p]);
}

template Roi<float> make_roi(const Call&, int64_t, int, int);
template Roi<double> make_roi(const Call&, int64_t, int, int);
template class AxisStorage<float>;
template class AxisStorage<double>;

}  // namespace roi
