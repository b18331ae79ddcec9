// Arguments of the kernels. Each kernel takes one struct by value; roi_ops/cuda/arguments.py is the same in
// ctypes, field by field. Strides count elements.
#pragma once

namespace roi {

constexpr int MAX_LEVELS = 8;

struct Level {
  void* data;  // features read, or gradient written
  long long stride_n, stride_c, stride_y, stride_x;
  double scale;  // map size over image size
  int height, width;
};

// What is pooled: the arguments all operators share.
struct Call {
  Level level[MAX_LEVELS];
  const void* boxes;  // [rois, 5] in the arithmetic type
  double canonical_scale, canonical_level;
  int levels, images, channels, rois;
  int kind, pooled_h, pooled_w, sampling_ratio, k_min, k_max;
};

// A tensor [rois, channels, bins].
struct Pooled {
  void* data;
  long long stride_k, stride_c, stride_bin;
};

// How a call is cut into blocks and what they keep in shared memory; see roi_ops/cuda/plan.py.
struct Plan {
  int slab;           // channels a block works on at a time
  int groups;         // blocks of one RoI: block g takes the slabs g, g + groups, ...
  int lanes;          // threads side by side along the channels
  int bins;           // bins a block holds at a time
  int capacity_y, capacity_x;  // entries of the tables of the two axes
};

struct ForwardArguments {
  Call call;
  Pooled out;
  Pooled argmax;  // only of the maximum kinds
  Plan plan;
};

// Gradient with respect to boxes, and values at the maxima.
struct PointArguments {
  Call call;
  Pooled grad;
  Pooled argmax;
  void* out;  // [rois, 5], or pooled and contiguous
  Plan plan;
};

// RoIs sorted by (image, level): key = image * levels + level, keys = images * levels.
struct Bins {
  int* key;     // [rois], -1: pools nothing
  int* window;  // [rois, 4]: rows and columns [y0, y1) x [x0, x1) outside which there is no gradient
  int* order;   // [rois], RoIs by key, ascending within a key
  int* begin;   // [keys], first of each key in `order`
  int* count;   // [keys]
};

struct BinArguments {
  Call call;
  Bins bins;
};

struct BackwardArguments {
  Call call;  // its levels are the gradients to write
  Pooled grad;
  Pooled argmax;
  Bins bins;
  int tile_begin[MAX_LEVELS + 1];  // first tile of each level; tiles of a level: image, row, column
  int slabs;
  int chunk_bins;  // bins of a RoI that are staged at a time: whole rows, or a part of one
  int slots;       // RoIs that are staged at a time
};

}  // namespace roi
