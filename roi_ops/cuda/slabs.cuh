// How the threads of a block share channels and bins, and how its results reach memory.
//
// A block works on a slab of channels of one RoI. Its results pass through a tile in shared memory, so that
// neighbouring threads may read neighbouring channels and yet write neighbouring bins.
#pragma once

#include "tables.cuh"

namespace roi {

// How features are read. VECTOR and SCALAR: channels are innermost and strides of pixels and rows fit an int; threads
// are side by side along the channels, 16 bytes or one element each. PLANAR: any strides, threads side by side along
// the bins.
enum Layout : int { VECTOR = 0, SCALAR = 1, PLANAR = 2 };

template <class S, int LAYOUT>
constexpr int CHANNELS_A_THREAD = LAYOUT == VECTOR ? 16 / int(sizeof(S)) : 1;

// Strides from pixel to pixel and row to row: int where plan.py has made sure of it, as a product of two of them is
// one instruction.
template <bool IS_LONG>
struct StrideOf {
  using type = int;
};
template <>
struct StrideOf<true> {
  using type = long long;
};
template <int LAYOUT>
using PixelStride = typename StrideOf<LAYOUT == PLANAR>::type;

// One thread's piece of work in a round: `channel` (of CHANNELS_A_THREAD) and `bin`, counted from the slab's and
// the chunk's first.
struct Item {
  int channel, bin;
  bool active;
};

template <int LAYOUT, int V>
ROI_DEVICE Item item_of(const Plan& plan, int i, int channels, int bins) {
  Item item;
  if (LAYOUT == PLANAR) {
    item.channel = i / bins;
    item.bin = i - item.channel * bins;
  } else {  // plan.lanes is a power of two that divides the block
    item.channel = (i & (plan.lanes - 1)) * V;
    item.bin = i / plan.lanes;
  }
  item.active = item.channel < channels && item.bin < bins;
  return item;
}

template <int LAYOUT>
ROI_DEVICE int item_count(const Plan& plan, int channels, int bins) {
  return (LAYOUT == PLANAR ? channels : plan.lanes) * bins;
}

template <class T>
ROI_DEVICE T* pooled_at(const Pooled& tensor, long long roi, int channel, int bin) {
  return static_cast<T*>(tensor.data) + roi * tensor.stride_k + channel * tensor.stride_c + bin * tensor.stride_bin;
}

// x[v] becomes x[(v + by) % V]; V is a power of two.
template <int V, class T>
ROI_DEVICE void rotate(T (&x)[V], int by) {
#pragma unroll
  for (int step = 1; step < V; step *= 2) {
    T turned[V];
#pragma unroll
    for (int v = 0; v < V; ++v) turned[v] = by & step ? x[(v + step) % V] : x[v];
#pragma unroll
    for (int v = 0; v < V; ++v) x[v] = turned[v];
  }
}

// Put a thread's channels of one bin into the tile [channels, bins]. Eight neighbouring threads write to banks four
// apart, the next eight to the same: those begin with another of their channels.
template <int V, class T, class S>
ROI_DEVICE void put(T (&values)[V], S* tile, int channel, int bin, int bins) {
  const int by = V < 4 ? 0 : channel / (8 * V) % 4 * (V / 4);
  rotate(values, by);
#pragma unroll
  for (int v = 0; v < V; ++v) narrow(values[v], tile + (channel + (v + by) % V) * bins + bin);
}

// Copy the tile [channels, bins] to bins first_bin .. of the RoI's channels from first_channel on.
template <class T>
ROI_DEVICE void copy_tile(const T* tile, const Pooled& to, long long roi, int first_channel, int channels, int first_bin, int bins) {
  T* out = pooled_at<T>(to, roi, first_channel, first_bin);
  const int total = channels * bins;
  if (to.stride_bin == 1 && to.stride_c == bins) {  // one run of memory
    constexpr int PACK = 16 / int(sizeof(T));
    if (reinterpret_cast<unsigned long long>(out) % 16 == 0 && total % PACK == 0) {
      const uint4* from = reinterpret_cast<const uint4*>(tile);
      for (int i = threadIdx.x; i < total / PACK; i += blockDim.x) reinterpret_cast<uint4*>(out)[i] = from[i];
    } else {
      for (int i = threadIdx.x; i < total; i += blockDim.x) out[i] = tile[i];
    }
  } else if (to.stride_c == 1) {
    for (int i = threadIdx.x; i < total; i += blockDim.x) {
      const int bin = i / channels, channel = i - bin * channels;
      out[bin * to.stride_bin + channel] = tile[channel * bins + bin];
    }
  } else {
    for (int i = threadIdx.x; i < total; i += blockDim.x) {
      const int channel = i / bins, bin = i - channel * bins;
      out[channel * to.stride_c + bin * to.stride_bin] = tile[i];
    }
  }
}

// The same value for all bins of the RoI's channels from first_channel on.
template <class T>
ROI_DEVICE void fill_pooled(T value, const Pooled& to, long long roi, int first_channel, int channels, int bins) {
  const bool channels_innermost = to.stride_c == 1;
  T* out = pooled_at<T>(to, roi, first_channel, 0);
  for (int i = threadIdx.x; i < channels * bins; i += blockDim.x) {
    const int channel = channels_innermost ? i % channels : i / bins;
    const int bin = channels_innermost ? i / channels : i % bins;
    out[channel * to.stride_c + bin * to.stride_bin] = value;
  }
}

}  // namespace roi
