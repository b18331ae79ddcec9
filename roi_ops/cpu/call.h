// What one operator call computes: plain pointers, sizes and strides. No PyTorch here, nor anything that
// depends on the instruction set.
#pragma once

#include <cstdint>

#include "roi_axis.h"

namespace roi {

enum Type : int { FLOAT32 = 0, FLOAT64 = 1, FLOAT16 = 2, BFLOAT16 = 3 };

// A tensor of four dimensions; strides in elements.
struct Tensor {
  void* data;
  int64_t stride[4];
};

// A feature map or its gradient, [images, channels, height, width].
struct Map {
  Tensor tensor;
  int height, width;
  bool zeroed;  // of a gradient: it is known to hold zeros
};

// The arguments of all operators. Box tensors are contiguous [rois, 5] in the arithmetic type: float64 for
// float64 features, else float32. `grad`, `argmax` and `out` are [rois, channels, pooled_h, pooled_w].
struct Call {
  Kind kind;
  Type type;
  int images, channels, pooled_h, pooled_w, sampling_ratio;
  int64_t rois;
  int k_min, k_max;
  double canonical_scale, canonical_level;
  int levels;
  const double* scales;
  const Map* features;
  const void* boxes;
  int threads;

  Tensor grad;        // backward: gradient of the result, any strides
  Tensor argmax;      // int32, max kinds; any strides
  void* out;          // forward: the result, backward to boxes: [rois, 5]
  void* out_argmax;   // max forward
  bool channels_last; // memory format of out and out_argmax
  const Map* gradients;  // backward to features: of each map, dense, channels_last or contiguous
};

enum Status : int { OK = 0, OUT_OF_MEMORY = 1 };

// The operators that use vectors, as compiled for one instruction set.
struct Kernels {
  const char* name;
  Status (*linear_forward)(const Call&);
  Status (*linear_backward_features)(const Call&);
  Status (*linear_backward_boxes)(const Call&);
  Status (*max_forward)(const Call&);
};

// The others.
Status max_gather(const Call& call);
Status max_backward_features(const Call& call);
Status max_backward_boxes(const Call& call);

// Kernels of the best instruction set this processor has; or of the named one ("avx512", "avx2", "baseline"),
// null if there is no such or it cannot run here.
const Kernels* best_kernels();
const Kernels* named_kernels(const char* name);

// First box whose image index is not in [0, images), NaN included; -1 if all are.
int64_t first_bad_image(const void* boxes, int64_t rois, bool is_double, int images);

}  // namespace roi
