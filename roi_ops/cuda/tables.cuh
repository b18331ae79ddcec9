// The rows of A_y and A_x of one RoI in shared memory, built once a block.
//
// A row has as many entries as its bin touches pixels (linear kinds) or has samples on the map (maximum of
// RoIAlign). If all rows of an axis fit their table, it is filled once. Else (a huge box on a huge map with
// adaptive sampling) the axis is cut into chunks that do fit, and the block goes through the chunks.
#pragma once

#include "boxes.cuh"

namespace roi {

// Entries of one axis. VALUES numbers an entry: weight, or weight and its derivatives, or `frac`.
template <class A, int VALUES>
struct Table {
  A* value;    // [VALUES][capacity]
  int* pixel;  // [capacity]
  int* begin;  // [bins]; row p is begin[p] <= i < end[p]
  int* end;
  int* number;   // [bins]; entries of a row, if they were counted
  int* first;    // [bins]; samples only: number of the first one in the table
  int* void_at;  // [bins]; samples only: number of the first one that is not on the map, -1 if all are
  int capacity;

  // The table's part of shared memory, see table_bytes in plan.py.
  ROI_DEVICE unsigned char* place(Table* table, unsigned char* memory, int capacity, int bins) {
    table->capacity = capacity;
    table->value = reinterpret_cast<A*>(memory);
    table->pixel = reinterpret_cast<int*>(table->value + VALUES * capacity);
    table->begin = table->pixel + capacity;
    table->end = table->begin + bins;
    table->number = table->end + bins;
    table->first = table->number + bins;
    table->void_at = table->first + bins;
    const long long used = reinterpret_cast<unsigned char*>(table->void_at + bins) - memory;
    return memory + (used + 15) / 16 * 16;
  }
};

// Row p of a linear kind: entries are pixels. Parts of it are cut out by pixel.
struct LinearRows {
  static constexpr bool SAMPLES = false;
  template <class A>
  ROI_DEVICE int domain(int, const Axis<A>& axis) {
    return axis.length;
  }
  template <class A>
  ROI_DEVICE int longest(int kind, const Axis<A>& axis) {
    return kind == PRROI ? axis.length : smaller(2 * axis.samples, axis.length);
  }
  template <class A, class Emit>
  ROI_DEVICE int each(int kind, const Axis<A>& axis, int p, int from, int to, Emit&& emit) {
    int count = 0;
    matrix_row(kind, axis, p, [&](int pixel, const Weight<A>& weight) {
      if (pixel >= from && pixel < to) emit(count++, pixel, weight);
    });
    return count;
  }
};

// Samples of bin p that lie on the map: an entry is the lower pixel and the weight of the higher one.
struct SampleRows {
  static constexpr bool SAMPLES = true;
  template <class A>
  ROI_DEVICE int domain(int, const Axis<A>& axis) {
    return larger(axis.samples, 1);
  }
  template <class A>
  ROI_DEVICE int longest(int, const Axis<A>& axis) {
    return axis.samples;
  }
  template <class A, class Emit>
  ROI_DEVICE int each(int, const Axis<A>& axis, int p, int from, int to, Emit&& emit) {
    int first, last;
    valid_samples(axis, p, &first, &last);
    first = larger(first, from);
    last = smaller(last, to);
    for (int j = first; j < last; ++j) {
      const Neighbours<A> at = neighbours(sample_position(axis, p, j), axis.length);
      emit(j - first, at.low, Weight<A>{at.frac, A(0), A(0)});
    }
    return larger(last - first, 0);
  }
};

// How one axis goes into its table.
struct Cut {
  int chunks;  // 1: all of it at once
  int window;  // pixels or samples of a chunk
  int stride;  // slots of a row; 0: rows are packed, by the numbers counted
};

template <class Rows, class A, int VALUES>
ROI_DEVICE void count_row(int kind, const Axis<A>& axis, const Table<A, VALUES>& table, int p) {
  table.number[p] = Rows::each(kind, axis, p, 0, 1 << 30, [](int, int, const Weight<A>&) {});
}

template <class Rows, class A, int VALUES>
ROI_DEVICE Cut cut_axis(int kind, const Axis<A>& axis, const Table<A, VALUES>& table, bool counted) {
  const int domain = Rows::domain(kind, axis);
  if (!counted) return {1, 1 << 30, Rows::longest(kind, axis)};
  int total = 0;
  for (int p = 0; p < axis.bins; ++p) total = smaller(total + table.number[p], 1 << 30);
  if (total <= table.capacity) return {1, 1 << 30, 0};
  const int window = table.capacity / axis.bins;  // a row has no entry twice, so this always fits
  return {(domain + window - 1) / window, window, window};
}

// Rows of the two axes go to threads of different warps: they take different turns.
template <class Work>
ROI_DEVICE void for_rows(int bins_y, int bins_x, Work&& work) {
  const int x_begin = (bins_y + WARP - 1) / WARP * WARP;
  for (int i = threadIdx.x; i < x_begin + bins_x; i += blockDim.x) {
    if (i < bins_y) work(true, i);
    if (i >= x_begin) work(false, i - x_begin);
  }
}

template <class Rows, class A, int VALUES>
struct Tables {
  Table<A, VALUES> y, x;
  Cut cut_y, cut_x;

  // Needs a barrier before (the box is in shared memory) and leaves with the first chunks filled, after a barrier.
  ROI_DEVICE unsigned char* build(Tables* t, const Call& call, const Plan& plan, const Box<A>& box, unsigned char* memory) {
    memory = Table<A, VALUES>::place(&t->y, memory, plan.capacity_y, call.pooled_h);
    memory = Table<A, VALUES>::place(&t->x, memory, plan.capacity_x, call.pooled_w);
    const int kind = call.kind;
    const bool count_y = (long long)Rows::longest(kind, box.y) * box.y.bins > t->y.capacity;
    const bool count_x = (long long)Rows::longest(kind, box.x) * box.x.bins > t->x.capacity;
    if (count_y || count_x) {
      for_rows(box.y.bins, box.x.bins, [&](bool is_y, int p) {
        if (is_y && count_y) count_row<Rows>(kind, box.y, t->y, p);
        if (!is_y && count_x) count_row<Rows>(kind, box.x, t->x, p);
      });
      __syncthreads();
    }
    t->cut_y = cut_axis<Rows>(kind, box.y, t->y, count_y);
    t->cut_x = cut_axis<Rows>(kind, box.x, t->x, count_x);
    fill(*t, kind, box, 0, 0);
    __syncthreads();
    return memory;
  }

  ROI_DEVICE bool chunked(const Tables& t) { return t.cut_y.chunks > 1 || t.cut_x.chunks > 1; }

  // Go to another chunk. Every thread of the block calls it.
  ROI_DEVICE void refill(const Tables& t, int kind, const Box<A>& box, int chunk_y, int chunk_x) {
    __syncthreads();
    fill(t, kind, box, chunk_y, chunk_x);
    __syncthreads();
  }

  ROI_DEVICE void fill(const Tables& t, int kind, const Box<A>& box, int chunk_y, int chunk_x) {
    for_rows(box.y.bins, box.x.bins, [&](bool is_y, int p) {
      if (is_y) {
        fill_row(t.y, t.cut_y, kind, box.y, p, chunk_y);
      } else {
        fill_row(t.x, t.cut_x, kind, box.x, p, chunk_x);
      }
    });
  }

  ROI_DEVICE void fill_row(const Table<A, VALUES>& table, const Cut& cut, int kind, const Axis<A>& axis, int p, int chunk) {
    int begin = p * cut.stride;
    if (cut.stride == 0) {
      for (int before = 0; before < p; ++before) begin += table.number[before];
    }
    const int from = cut.chunks > 1 ? chunk * cut.window : 0;
    const int to = cut.chunks > 1 ? from + cut.window : 1 << 30;
    const int count = Rows::each(kind, axis, p, from, to, [&](int i, int pixel, const Weight<A>& weight) {
      table.pixel[begin + i] = pixel;
      table.value[begin + i] = weight.value;
      if (VALUES == 3) {
        table.value[table.capacity + begin + i] = weight.d_start;
        table.value[2 * table.capacity + begin + i] = weight.d_extent;
      }
    });
    table.begin[p] = begin;
    table.end[p] = begin + count;
    if (Rows::SAMPLES) {
      int first, last;
      valid_samples(axis, p, &first, &last);
      table.first[p] = larger(first, from);
      table.void_at[p] = first >= last || first > 0 ? 0 : last < axis.samples ? last : -1;
    }
  }
};

}  // namespace roi
