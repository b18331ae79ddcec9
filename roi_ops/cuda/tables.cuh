// The rows of A_y and A_x of one RoI in shared memory, built once a block.
//
// A row has as many entries as its bin touches pixels (linear kinds) or has samples on the map (maximum of
// RoIAlign). If all rows of an axis fit their table, it is filled once. Else (many bins, many samples of
// a maximum, or a large map) the axis is cut into chunks that do fit, and the block goes through the chunks.
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
  int* void_at;  // [bins]; samples only: number of the row's first sample that is not on the map, -1 if all are on it
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

// Row p of a linear kind: entries are pixels. `each` emits the entries from .. to - 1 and returns their number.
struct LinearRows {
  static constexpr bool SAMPLES = false;
  template <class A>
  ROI_DEVICE int longest(int kind, const Axis<A>& axis) {
    return kind == PRROI ? axis.length : smaller(2 * axis.samples, axis.length);
  }
  template <class A, class Emit>
  ROI_DEVICE int each(int kind, const Axis<A>& axis, int p, int from, int to, Emit&& emit) {
    int count = 0;
    matrix_row(kind, axis, p, [&](int pixel, const Weight<A>& weight) {
      if (count >= from && count < to) emit(count - from, pixel, weight);
      ++count;
    });
    return larger(smaller(count, to) - from, 0);
  }
};

// Samples of bin p that lie on the map: an entry is the lower pixel and the weight of the higher one.
struct SampleRows {
  static constexpr bool SAMPLES = true;
  template <class A>
  ROI_DEVICE int longest(int, const Axis<A>& axis) {
    return axis.samples;
  }
  template <class A, class Emit>
  ROI_DEVICE int each(int, const Axis<A>& axis, int p, int from, int to, Emit&& emit) {
    int first, last;
    valid_samples(axis, p, &first, &last);
    last = first + smaller(last - first, to);
    first += from;
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
  int window;  // entries of a row in a chunk
  int stride;  // slots of a row; 0: rows are packed, by the numbers counted
};

template <class Rows, class A, int VALUES>
ROI_DEVICE Cut cut_axis(int kind, const Axis<A>& axis, const Table<A, VALUES>& table, bool counted) {
  if (!counted) return {1, 1 << 30, Rows::longest(kind, axis)};
  int total = 0, most = 0;
  for (int p = 0; p < axis.bins; ++p) {
    total = smaller(total + table.number[p], 1 << 30);
    most = larger(most, table.number[p]);
  }
  if (total <= table.capacity) return {1, 1 << 30, 0};
  const int window = table.capacity / axis.bins;
  return {(most + window - 1) / window, window, window};
}

// work(is_y, p) for each row of both axes. Rows of y and of x go to different warps, which take different turns.
template <class Work>
ROI_DEVICE void for_rows(int bins_y, int bins_x, Work&& work) {
  const int x_begin = (bins_y + WARP - 1) / WARP * WARP;
  for (int i = threadIdx.x; i < x_begin + bins_x; i += blockDim.x) {
    const bool is_y = i < x_begin;
    if (!is_y || i < bins_y) work(is_y, is_y ? i : i - x_begin);
  }
}

// A RoI and its two tables. Lives in shared memory: threads keep none of it in registers.
template <class Rows, class A, int VALUES>
struct Tables {
  Box<A> box;
  Table<A, VALUES> y, x;
  Cut cut_y, cut_x;
  int kind;
  bool counted_y, counted_x;

  // Locate the RoI and, if it is used, fill its tables (their first chunks). Every thread of the block calls it.
  ROI_DEVICE void build(Tables* t, const Call& call, const Plan& plan, long long roi, unsigned char* memory) {
    if (threadIdx.x == 0) {
      t->box = locate<A>(call, roi);
      t->kind = call.kind;
      memory = Table<A, VALUES>::place(&t->y, memory, plan.capacity_y, call.pooled_h);
      Table<A, VALUES>::place(&t->x, memory, plan.capacity_x, call.pooled_w);
      t->counted_y = (long long)Rows::longest(call.kind, t->box.y) * call.pooled_h > plan.capacity_y;
      t->counted_x = (long long)Rows::longest(call.kind, t->box.x) * call.pooled_w > plan.capacity_x;
      if (!t->counted_y) t->cut_y = cut_axis<Rows>(call.kind, t->box.y, t->y, false);
      if (!t->counted_x) t->cut_x = cut_axis<Rows>(call.kind, t->box.x, t->x, false);
    }
    __syncthreads();
    if (!t->box.used) return;
    if (t->counted_y || t->counted_x) {
      fill(t, 0, 0, true);
      __syncthreads();
      if (threadIdx.x == 0) {
        if (t->counted_y) t->cut_y = cut_axis<Rows>(call.kind, t->box.y, t->y, true);
        if (t->counted_x) t->cut_x = cut_axis<Rows>(call.kind, t->box.x, t->x, true);
      }
      __syncthreads();
    }
    fill(t, 0, 0, false);
    __syncthreads();
  }

  // How many pairs of chunks the block goes through.
  ROI_DEVICE int chunks(const Tables& t) { return t.cut_y.chunks * t.cut_x.chunks; }

  // Go to a pair of chunks. Every thread of the block calls it.
  ROI_DEVICE void turn_to(Tables* t, int chunk) {
    if (chunks(*t) == 1) return;
    __syncthreads();
    fill(t, chunk / t->cut_x.chunks, chunk % t->cut_x.chunks, false);
    __syncthreads();
  }

  // Not inlined: the code of a row is long, and its registers are not the business of the loops over channels.
  static __device__ __noinline__ void fill(Tables* t, int chunk_y, int chunk_x, bool counting) {
    for_rows(t->box.y.bins, t->box.x.bins, [&](bool is_y, int p) {
      fill_row(is_y ? t->y : t->x, is_y ? t->cut_y : t->cut_x, t->kind, is_y ? t->box.y : t->box.x, p,
               is_y ? chunk_y : chunk_x, counting);
    });
  }

  ROI_DEVICE void fill_row(
      const Table<A, VALUES>& table, const Cut& cut, int kind, const Axis<A>& axis, int p, int chunk, bool counting) {
    int begin = 0, from = 0, to = 1 << 30;
    if (!counting) {
      begin = p * cut.stride;
      if (cut.stride == 0) {
        for (int before = 0; before < p; ++before) begin += table.number[before];
      }
      if (cut.chunks > 1) {
        from = chunk * cut.window;
        to = from + cut.window;
      }
    }
    const int count = Rows::each(kind, axis, p, from, to, [&](int i, int pixel, const Weight<A>& weight) {
      if (counting) return;
      table.pixel[begin + i] = pixel;
      table.value[begin + i] = weight.value;
      if (VALUES == 3) {
        table.value[table.capacity + begin + i] = weight.d_start;
        table.value[2 * table.capacity + begin + i] = weight.d_extent;
      }
    });
    if (counting) {
      table.number[p] = count;
      return;
    }
    table.begin[p] = begin;
    table.end[p] = begin + count;
    if (Rows::SAMPLES) {
      int first, last;
      valid_samples(axis, p, &first, &last);
      table.first[p] = first + from;
      table.void_at[p] = first >= last || first > 0 ? 0 : last < axis.samples ? last : -1;
    }
  }
};

}  // namespace roi
