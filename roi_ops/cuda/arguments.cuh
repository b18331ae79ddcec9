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
  int tile;           // where in dynamic shared memory the tile of results begins, bytes
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

// Tiles that many RoIs touch are summed in parts by several blocks. Each image has the same number of slots for
// such tiles, so that no image's result depends on others; those that find no slot are summed by one block.
struct Crowd {
  int* count;       // [tiles], RoIs that touch each tile
  int* slot;        // [tiles], -1: summed by one block
  int* tile;        // [images * slots], the tile of each slot, -1: none
  void* partial;    // [images * slots, PARTS, slabs, pixels of a tile, TILE_CHANNELS] in the arithmetic type
  int slots;        // of an image; 0: no tile is split
};

struct BackwardArguments {
  Call call;  // its levels are the gradients to write
  Pooled grad;
  Pooled argmax;
  Bins bins;
  Crowd crowd;
  int tile_begin[MAX_LEVELS + 1];  // first tile of each level; tiles of a level: image, row, column
  int slabs;
  int chunk_bins;   // bins of a RoI that are staged at a time: whole rows, or a part of one
  int staged;       // RoIs that are staged at a time
};

}  // namespace roi
