// The operators that use vectors, for one instruction set. CMakeLists.txt compiles this file once for each: with ROI_AVX512 or
// ROI_AVX2 and the options that allow these instructions, and once plain.
#include "linear_backward.h"
#include "linear_boxes.h"
#include "maximum.h"

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

Status forward(const Call& call) { ROI_BY_TYPE(linear_forward, call); }
Status backward_features(const Call& call) { ROI_BY_TYPE(linear_backward_features, call); }
Status backward_boxes(const Call& call) { ROI_BY_TYPE(linear_backward_boxes, call); }
Status forward_max(const Call& call) { ROI_BY_TYPE(max_forward, call); }

}  // namespace

extern const Kernels ROI_KERNELS;
const Kernels ROI_KERNELS = {ROI_NAME, forward, backward_features, backward_boxes, forward_max};

}  // namespace roi
