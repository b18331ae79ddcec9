// Between the layouts of tensors and the tiles that kernels work on.
//
// A tile is [bins, width] of arithmetic type: all bins of one RoI for a block of channels, channels innermost.
#pragma once

#include "work.h"

namespace roi {
namespace {

// to[c][r] = from[r][c] for r < rows, c < columns, both at most Vec::N.
template <class T>
inline void transpose_block(const T* from, int64_t from_stride, Arithmetic<T>* to, int64_t to_stride, int rows,
                            int columns) {
  for (int c = 0; c < columns; ++c) {
    for (int r = 0; r < rows; ++r) to[c * to_stride + r] = to_arithmetic(from[r * from_stride + c]);
  }
}

#if defined(ROI_AVX512)

template <class T>
inline __m512 load_row(const T* from, int64_t stride, int row, int rows, int columns) {
  if (row >= rows) return _mm512_setzero_ps();
  return columns == 16 ? F32::load(from + row * stride) : F32::load(from + row * stride, columns);
}

template <class T>
inline void transpose_16(const T* from, int64_t from_stride, float* to, int64_t to_stride, int rows, int columns) {
  __m512 a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = load_row(from, from_stride, i, rows, columns);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + j + 2]);
      a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  // a[4 g + k], 128-bit lane l: rows 4 g .. 4 g + 3 of column 4 l + k.
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m512 even01 = _mm512_shuffle_f32x4(a[k], a[4 + k], 0x88), odd01 = _mm512_shuffle_f32x4(a[k], a[4 + k], 0xdd);
    const __m512 even23 = _mm512_shuffle_f32x4(a[8 + k], a[12 + k], 0x88);
    const __m512 odd23 = _mm512_shuffle_f32x4(a[8 + k], a[12 + k], 0xdd);
    b[k] = _mm512_shuffle_f32x4(even01, even23, 0x88);
    b[8 + k] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
    b[4 + k] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
    b[12 + k] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    if (i >= columns) break;
    if (rows == 16) {
      F32::store(to + i * to_stride, b[i]);
    } else {
      F32::store(to + i * to_stride, b[i], rows);
    }
  }
}

// All 16 x 16 of float: the first two stages are done by loading quarters of rows.
inline void transpose_full(const float* from, int64_t fs, float* to, int64_t ts) {
#pragma GCC unroll 4
  for (int k = 0; k < 16; k += 4) {
    __m512 a[4];  // 128-bit lane l of a[i]: columns k .. k + 3 of row 4 l + i
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* p = from + i * fs + k;
      a[i] = _mm512_castps128_ps512(_mm_loadu_ps(p));
      a[i] = _mm512_insertf32x4(a[i], _mm_loadu_ps(p + 4 * fs), 1);
      a[i] = _mm512_insertf32x4(a[i], _mm_loadu_ps(p + 8 * fs), 2);
      a[i] = _mm512_insertf32x4(a[i], _mm_loadu_ps(p + 12 * fs), 3);
    }
    const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(a[0], a[1]));
    const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(a[0], a[1]));
    const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(a[2], a[3]));
    const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(a[2], a[3]));
    F32::store(to + k * ts, _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23)));
    F32::store(to + (k + 1) * ts, _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23)));
    F32::store(to + (k + 2) * ts, _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23)));
    F32::store(to + (k + 3) * ts, _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23)));
  }
}

inline void transpose_block(const float* from, int64_t fs, float* to, int64_t ts, int rows, int columns) {
  if (rows == 16 && columns == 16) {
    transpose_full(from, fs, to, ts);
  } else {
    transpose_16(from, fs, to, ts, rows, columns);
  }
}
inline void transpose_block(const Half* from, int64_t fs, float* to, int64_t ts, int rows, int columns) {
  transpose_16(from, fs, to, ts, rows, columns);
}
inline void transpose_block(const BFloat* from, int64_t fs, float* to, int64_t ts, int rows, int columns) {
  transpose_16(from, fs, to, ts, rows, columns);
}

#elif defined(ROI_AVX2)

inline void transpose_block(const float* from, int64_t fs, float* to, int64_t ts, int rows, int columns) {
  if (rows < 8 || columns < 8) {
    transpose_block<float>(from, fs, to, ts, rows, columns);
    return;
  }
#pragma GCC unroll 2
  for (int k = 0; k < 8; k += 4) {
    __m256 a[4];  // 128-bit lane l of a[i]: columns k .. k + 3 of row 4 l + i
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* p = from + i * fs + k;
      a[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * fs), 1);
    }
    const __m256 low01 = _mm256_unpacklo_ps(a[0], a[1]), high01 = _mm256_unpackhi_ps(a[0], a[1]);
    const __m256 low23 = _mm256_unpacklo_ps(a[2], a[3]), high23 = _mm256_unpackhi_ps(a[2], a[3]);
    _mm256_storeu_ps(to + k * ts, _mm256_shuffle_ps(low01, low23, 0x44));
    _mm256_storeu_ps(to + (k + 1) * ts, _mm256_shuffle_ps(low01, low23, 0xee));
    _mm256_storeu_ps(to + (k + 2) * ts, _mm256_shuffle_ps(high01, high23, 0x44));
    _mm256_storeu_ps(to + (k + 3) * ts, _mm256_shuffle_ps(high01, high23, 0xee));
  }
}

#endif

// to[c][r] = from[r][c] for r < rows, c < columns.
template <class T>
inline void transpose(const T* from, int64_t from_stride, Arithmetic<T>* to, int64_t to_stride, int rows, int columns) {
  constexpr int N = Vec<Arithmetic<T>>::N;
  for (int r = 0; r < rows; r += N) {
    // Ahead of a short last block there is a full one: redo some of its rows rather than go by halves.
    const int r0 = rows >= N ? smaller(r, rows - N) : r;
    for (int c = 0; c < columns; c += N) {
      const int c0 = columns >= N ? smaller(c, columns - N) : c;
      transpose_block(from + r0 * from_stride + c0, from_stride, to + c0 * to_stride + r0, to_stride,
                      smaller(rows - r0, N), smaller(columns - c0, N));
    }
  }
}

// to[i] = from[i], converted; past the caches if `stream`.
template <class T>
inline void emit(T* to, const Arithmetic<T>* from, int64_t count, bool stream) {
  using F = Vec<Arithmetic<T>>;
  int64_t i = 0;
  if (stream && reinterpret_cast<uintptr_t>(to) % (F::N * sizeof(T)) == 0) {
    for (; i + F::N <= count; i += F::N) F::stream(to + i, F::load(from + i));
  }
  for (; i + F::N <= count; i += F::N) F::store(to + i, F::load(from + i));
  if (i < count) F::store(to + i, F::load(from + i, int(count - i)), int(count - i));
}

// The same for positions as Vec::index makes them.
inline void emit_indices(int32_t* to, const float* from, int64_t count, bool stream) {
  emit(reinterpret_cast<float*>(to), from, count, stream);  // they are integers already, bit for bit
}
inline void emit_indices(int32_t* to, const double* from, int64_t count, bool) {
  for (int64_t i = 0; i < count; ++i) to[i] = F64::to_index(from[i]);
}

// Channels that are transposed at a time on the way to a contiguous result: their bins fill whole cache lines.
template <class T>
constexpr int64_t group_of() {
  return 64 / int64_t(sizeof(T));
}

// The result [bins, width] of one RoI for channels c0 <= c < c0 + count to out [rois, channels, bins] or, if
// channels_last, [rois, bins, channels]. convert(T* to, const A* from, count) writes a run of the result.
template <class T, class A, class Convert>
inline void write_tile(const Call& call, T* out, int64_t roi, int64_t c0, int64_t count, const A* tile, int64_t width,
                       A* staging, Convert convert) {
  const int64_t bins = int64_t(call.pooled_h) * call.pooled_w;
  T* base = out + roi * call.channels * bins;
  if (call.channels_last || bins == 1) {
    for (int64_t bin = 0; bin < bins; ++bin) convert(base + bin * call.channels + c0, tile + bin * width, count);
    return;
  }
  for (int64_t c = 0; c < count; c += group_of<T>()) {
    const int64_t some = smaller(group_of<T>(), count - c);
    transpose(tile + c, width, staging, bins, int(bins), int(some));
    convert(base + (c0 + c) * bins, staging, some * bins);
  }
}

// Channels c0 <= c < c0 + count of one RoI of a tensor [rois, channels, pooled_h, pooled_w] to a tile.
template <class T>
inline void read_tile(const Call& call, const Tensor& tensor, int64_t roi, int64_t c0, int64_t count,
                      Arithmetic<T>* tile, int64_t width) {
  using F = Vec<Arithmetic<T>>;
  const int64_t* s = tensor.stride;
  const int ph = call.pooled_h, pw = call.pooled_w;
  const T* base = static_cast<const T*>(tensor.data) + roi * s[0] + c0 * s[1];
  if ((s[3] == 1 || pw == 1) && (s[2] == pw || ph == 1) && s[1] != 1) {
    transpose(base, s[1], tile, width, int(count), ph * pw);
    return;
  }
  for (int y = 0; y < ph; ++y) {
    for (int x = 0; x < pw; ++x) {
      const T* from = base + y * s[2] + x * s[3];
      Arithmetic<T>* to = tile + (int64_t(y) * pw + x) * width;
      int64_t c = 0;
      if (s[1] == 1) {
        for (; c + F::N <= count; c += F::N) F::store(to + c, F::load(from + c));
      }
      for (; c < count; ++c) to[c] = to_arithmetic(from[c * s[1]]);
    }
  }
}

}  // namespace
}  // namespace roi
