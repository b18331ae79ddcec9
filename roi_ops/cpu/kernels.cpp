// All operators for one instruction set. CMakeLists.txt compiles this file once for each: with ROI_AVX512 or
// ROI_AVX2 and the options that allow these instructions, and once plain.
#include "linear_backward.h"
#include "linear_boxes.h"
#include "maximum.h"
#include "maximum_backward.h"

#if defined(ROI_AVX512)
#define ROI_KERNELS avx512_kernels
#define ROI_NAME "avx512"
#elif defined(ROI_AVX2)
#define ROI_KERNELS avx2_kernels
#define ROI_NAME "avx2"
#else
#define ROI_KERNELS baseline_kernels
#define ROI_NAME "baseline"
#endif

namespace roi {
namespace {

#define ROI_BY_TYPE(name)                             \
  Status name##_any(const Call& call) {               \
    switch (call.type) {                              \
      case FLOAT64: return name<double>(call);        \
      case FLOAT16: return name<Half>(call);          \
      case BFLOAT16: return name<BFloat>(call);       \
      default: return name<float>(call);              \
    }                                                 \
  }

ROI_BY_TYPE(linear_forward)
ROI_BY_TYPE(linear_backward_features)
ROI_BY_TYPE(linear_backward_boxes)
ROI_BY_TYPE(max_forward)
ROI_BY_TYPE(max_gather)
ROI_BY_TYPE(max_backward_features)
ROI_BY_TYPE(max_backward_boxes)

}  // namespace

extern const Kernels ROI_KERNELS;
const Kernels ROI_KERNELS = {ROI_NAME,
                             linear_forward_any,
                             linear_backward_features_any,
                             linear_backward_boxes_any,
                             max_forward_any,
                             max_gather_any,
                             max_backward_features_any,
                             max_backward_boxes_any};

}  // namespace roi
