// What every kernel needs from the machine: number types, vector loads, shared memory.
//
// Compiled by NVRTC for the GPU, and by g++ under tests/cuda_emulator/cuda_runtime_emulator.h, which defines
// ROI_EMULATOR and the CUDA built-ins that are used here. No other header is needed but the two of the half
// types, which a program includes before this one if its features are stored in them.
#pragma once

#include "roi_axis.h"

#define ROI_DEVICE static __device__ __forceinline__

#if defined(ROI_EMULATOR)
#define ROI_DYNAMIC_SHARED emulator::dynamic_shared()
#else
extern __shared__ __align__(16) unsigned char roi_dynamic_shared[];
#define ROI_DYNAMIC_SHARED roi_dynamic_shared
#endif

namespace roi {

// ---------------------------------------------------------------------------------------------- numbers
// Features are stored as S and computed with as Arithmetic<S>.
template <class S>
struct ArithmeticOf {
  using type = float;
};
template <>
struct ArithmeticOf<double> {
  using type = double;
};
template <class S>
using Arithmetic = typename ArithmeticOf<S>::type;

ROI_DEVICE float widen(float x) { return x; }
ROI_DEVICE double widen(double x) { return x; }
ROI_DEVICE int widen(int x) { return x; }
ROI_DEVICE void narrow(float x, float* to) { *to = x; }
ROI_DEVICE void narrow(double x, double* to) { *to = x; }
#if defined(__CUDA_FP16_TYPES_EXIST__)
ROI_DEVICE float widen(__half x) { return __half2float(x); }
ROI_DEVICE void narrow(float x, __half* to) { *to = __float2half_rn(x); }
#endif
#if defined(__CUDA_BF16_TYPES_EXIST__)
ROI_DEVICE float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
ROI_DEVICE void narrow(float x, __nv_bfloat16* to) { *to = __float2bfloat16_rn(x); }
#endif

// Smallest finite number of a storage type: where the search for a maximum starts.
template <class S>
struct Lowest;
template <>
struct Lowest<float> {
  ROI_DEVICE float get() { return -3.4028234663852886e38f; }
};
template <>
struct Lowest<double> {
  ROI_DEVICE double get() { return -1.7976931348623157e308; }
};
#if defined(__CUDA_FP16_TYPES_EXIST__)
template <>
struct Lowest<__half> {
  ROI_DEVICE float get() { return -65504.0f; }
};
#endif
#if defined(__CUDA_BF16_TYPES_EXIST__)
template <>
struct Lowest<__nv_bfloat16> {
  ROI_DEVICE float get() { return -3.3895313892515355e38f; }
};
#endif

// Sums are fused on purpose, coordinates (roi_axis.h) never: so the compiler is told --fmad=false.
ROI_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
ROI_DEVICE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }

// ------------------------------------------------------------------------------------------------ loads
// N neighbouring elements, one or 16 bytes of them (then `from` is aligned to 16).
template <int N, class S>
ROI_DEVICE void load(const S* from, Arithmetic<S> (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = widen(__ldg(from));
  } else {
    static_assert(N * sizeof(S) == sizeof(uint4), "vector loads are 16 bytes");
    const uint4 raw = __ldg(reinterpret_cast<const uint4*>(from));
    const S* parts = reinterpret_cast<const S*>(&raw);
#pragma unroll
    for (int v = 0; v < N; ++v) to[v] = widen(parts[v]);
  }
}

template <int N, class S>
ROI_DEVICE void store(const Arithmetic<S> (&from)[N], S* to) {
  if constexpr (N == 1) {
    narrow(from[0], to);
  } else {
    static_assert(N * sizeof(S) == sizeof(uint4), "vector stores are 16 bytes");
    uint4 raw;
    S* parts = reinterpret_cast<S*>(&raw);
#pragma unroll
    for (int v = 0; v < N; ++v) narrow(from[v], parts + v);
    *reinterpret_cast<uint4*>(to) = raw;
  }
}

// ------------------------------------------------------------------------------------------------ blocks
constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int MAX_WARPS = 8;  // kernels are compiled for blocks of at most 256 threads

// Sum over the threads of the block, in an order that depends on nothing but the size of the block. Every
// thread gets it. `shared` holds MAX_WARPS numbers and may be used again at once.
template <class T>
ROI_DEVICE T block_sum(T value, T* shared) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
  if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = value;
  __syncthreads();
  T total = 0;
  for (int w = 0; w < int(blockDim.x) / WARP; ++w) total += shared[w];
  __syncthreads();
  return total;
}

// Sum over the threads before this one; `*total` is that over all. `shared` as in block_sum.
ROI_DEVICE int block_scan(int value, int* shared, int* total) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  int inclusive = value;
#pragma unroll
  for (int distance = 1; distance < WARP; distance *= 2) {
    const int before = __shfl_up_sync(ALL_LANES, inclusive, distance);
    if (lane >= distance) inclusive += before;
  }
  if (lane == WARP - 1) shared[warp] = inclusive;
  __syncthreads();
  int offset = 0;
  *total = 0;
  for (int w = 0; w < int(blockDim.x) / WARP; ++w) {
    if (w < warp) offset += shared[w];
    *total += shared[w];
  }
  __syncthreads();
  return offset + inclusive - value;
}

}  // namespace roi
