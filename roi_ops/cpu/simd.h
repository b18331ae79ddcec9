// Vectors of the widest kind of the instruction set this file is compiled for, behind one interface.
//
// F32 and F64 are vectors of float and double. `N` is their number of lanes; `load` and `store` convert from
// and to any storage type, and take a number of lanes n < N where a row ends; `stream` stores past the caches to
// an address that is a multiple of the vector's size. Everything has internal linkage:
// the kernels are compiled several times, and the linker must not mix the copies.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace roi {

// IEEE half precision and bfloat16, as stored.
struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

namespace {

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// Arithmetic type of a storage type, and its lowest finite value.
template <class T>
struct Storage {
  using A = float;
};
template <>
struct Storage<double> {
  using A = double;
};
template <class T>
using Arithmetic = typename Storage<T>::A;

inline float lowest(const float*) { return -3.402823466e+38f; }
inline double lowest(const double*) { return -1.7976931348623157e+308; }
inline float lowest(const Half*) { return -65504.0f; }
inline float lowest(const BFloat*) { return bits_as<float>(0xff7f0000u); }

// ---------------------------------------------------------------------------------------------- scalars
inline float to_arithmetic(float x) { return x; }
inline double to_arithmetic(double x) { return x; }
inline float to_arithmetic(BFloat x) { return bits_as<float>(uint32_t(x.bits) << 16); }

inline float to_arithmetic(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
  if (rest >= 0x7c00) return bits_as<float>(sign | 0x7f800000u | (rest & 0x3ff) << 13 | (rest > 0x7c00 ? 1u << 22 : 0));
  // 2^-112 moves the exponent from half's bias to float's, subnormals included.
  return bits_as<float>(sign | bits_as<uint32_t>(bits_as<float>(rest << 13) * 0x1p112f));
}

inline void store_one(float* to, float x) { *to = x; }
inline void store_one(double* to, double x) { *to = x; }

inline void store_one(BFloat* to, float x) {
  const uint32_t bits = bits_as<uint32_t>(x);
  to->bits = x != x ? 0x7fc0 : uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline void store_one(Half* to, float x) {
  const uint32_t bits = bits_as<uint32_t>(x);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  const float size = bits_as<float>(bits & 0x7fffffff);
  if (x != x) {
    to->bits = uint16_t(sign | 0x7e00);
  } else if (size >= 65520.0f) {
    to->bits = uint16_t(sign | 0x7c00);
  } else if (size < 0x1p-14f) {  // subnormal: multiples of 2^-24; the addition rounds to even
    to->bits = uint16_t(sign | (bits_as<uint32_t>(size + 0.5f) - bits_as<uint32_t>(0.5f)));
  } else {
    const uint32_t magnitude = bits & 0x7fffffff;
    to->bits = uint16_t(sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13));
  }
}

// --------------------------------------------------------------------------------------------- AVX-512
#if defined(ROI_AVX512)

struct F32 {
  using A = float;
  using V = __m512;
  using M = __mmask16;
  static constexpr int N = 16;
  static constexpr int UNROLL = 16;  // vectors of sums held in registers

  static V zero() { return _mm512_setzero_ps(); }
  static V set1(float x) { return _mm512_set1_ps(x); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static M greater(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
  static V select(M m, V a, V b) { return _mm512_mask_blend_ps(m, b, a); }
  static V index(int i) { return _mm512_castsi512_ps(_mm512_set1_epi32(i)); }
  static int to_index(float x) { return bits_as<int>(x); }

  static __mmask16 lanes(int n) { return __mmask16((1u << n) - 1); }
  static V from(__m256i bits, const Half*) { return _mm512_cvtph_ps(bits); }
  static V from(__m256i bits, const BFloat*) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static __m256i to(V v, const Half*) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static __m256i to(V v, const BFloat*) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(
        _mm512_mask_blend_epi32(nan, _mm512_srli_epi32(up, 16), _mm512_set1_epi32(0x7fc0)));
  }

  static V load(const float* p) { return _mm512_loadu_ps(p); }
  static V load(const float* p, int n) { return _mm512_maskz_loadu_ps(lanes(n), p); }
  template <class T>
  static V load(const T* p) {
    return from(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), p);
  }
  template <class T>
  static V load(const T* p, int n) {
    return from(_mm256_maskz_loadu_epi16(lanes(n), p), p);
  }
  static void store(float* p, V v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, V v, int n) { _mm512_mask_storeu_ps(p, lanes(n), v); }
  static void stream(float* p, V v) { _mm512_stream_ps(p, v); }
  template <class T>
  static void store(T* p, V v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to(v, p));
  }
  template <class T>
  static void store(T* p, V v, int n) {
    _mm256_mask_storeu_epi16(p, lanes(n), to(v, p));
  }
  template <class T>
  static void stream(T* p, V v) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), to(v, p));
  }
};

struct F64 {
  using A = double;
  using V = __m512d;
  using M = __mmask8;
  static constexpr int N = 8;
  static constexpr int UNROLL = 16;

  static V zero() { return _mm512_setzero_pd(); }
  static V set1(double x) { return _mm512_set1_pd(x); }
  static V add(V a, V b) { return _mm512_add_pd(a, b); }
  static V mul(V a, V b) { return _mm512_mul_pd(a, b); }
  static V fma(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
  static M greater(V a, V b) { return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ); }
  static V select(M m, V a, V b) { return _mm512_mask_blend_pd(m, b, a); }
  static V index(int i) { return _mm512_set1_pd(i); }
  static int to_index(double x) { return int(x); }

  static __mmask8 lanes(int n) { return __mmask8((1u << n) - 1); }
  static V load(const double* p) { return _mm512_loadu_pd(p); }
  static V load(const double* p, int n) { return _mm512_maskz_loadu_pd(lanes(n), p); }
  static void store(double* p, V v) { _mm512_storeu_pd(p, v); }
  static void store(double* p, V v, int n) { _mm512_mask_storeu_pd(p, lanes(n), v); }
  static void stream(double* p, V v) { _mm512_stream_pd(p, v); }
};

// ------------------------------------------------------------------------------------------------ AVX2
#elif defined(ROI_AVX2)

struct F32 {
  using A = float;
  using V = __m256;
  using M = __m256;
  static constexpr int N = 8;
  static constexpr int UNROLL = 8;

  static V zero() { return _mm256_setzero_ps(); }
  static V set1(float x) { return _mm256_set1_ps(x); }
  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V mul(V a, V b) { return _mm256_mul_ps(a, b); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static M greater(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
  static V select(M m, V a, V b) { return _mm256_blendv_ps(b, a, m); }
  static V index(int i) { return _mm256_castsi256_ps(_mm256_set1_epi32(i)); }
  static int to_index(float x) { return bits_as<int>(x); }

  static V from(__m128i bits, const Half*) { return _mm256_cvtph_ps(bits); }
  static V from(__m128i bits, const BFloat*) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static __m128i to(V v, const Half*) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static __m128i to(V v, const BFloat*) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i wide = _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), _mm256_set1_epi32(0x7fc0), nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  }

  static V load(const float* p) { return _mm256_loadu_ps(p); }
  template <class T>
  static V load(const T* p) {
    return from(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), p);
  }
  template <class T>
  static V load(const T* p, int n) {
    T part[N] = {};
    std::memcpy(part, p, size_t(n) * sizeof(T));
    return load(part);
  }
  static void store(float* p, V v) { _mm256_storeu_ps(p, v); }
  static void stream(float* p, V v) { _mm256_stream_ps(p, v); }
  template <class T>
  static void store(T* p, V v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to(v, p));
  }
  template <class T>
  static void store(T* p, V v, int n) {
    T part[N];
    store(part, v);
    std::memcpy(p, part, size_t(n) * sizeof(T));
  }
  template <class T>
  static void stream(T* p, V v) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), to(v, p));
  }
};

struct F64 {
  using A = double;
  using V = __m256d;
  using M = __m256d;
  static constexpr int N = 4;
  static constexpr int UNROLL = 8;

  static V zero() { return _mm256_setzero_pd(); }
  static V set1(double x) { return _mm256_set1_pd(x); }
  static V add(V a, V b) { return _mm256_add_pd(a, b); }
  static V mul(V a, V b) { return _mm256_mul_pd(a, b); }
  static V fma(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
  static M greater(V a, V b) { return _mm256_cmp_pd(a, b, _CMP_GT_OQ); }
  static V select(M m, V a, V b) { return _mm256_blendv_pd(b, a, m); }
  static V index(int i) { return _mm256_set1_pd(i); }
  static int to_index(double x) { return int(x); }

  static V load(const double* p) { return _mm256_loadu_pd(p); }
  static V load(const double* p, int n) {
    double part[N] = {};
    std::memcpy(part, p, size_t(n) * sizeof(double));
    return load(part);
  }
  static void store(double* p, V v) { _mm256_storeu_pd(p, v); }
  static void stream(double* p, V v) { _mm256_stream_pd(p, v); }
  static void store(double* p, V v, int n) {
    double part[N];
    store(part, v);
    std::memcpy(p, part, size_t(n) * sizeof(double));
  }
};

// -------------------------------------------------------------------------------------------- baseline
#else

// Vectors of 16 bytes as GCC and Clang define them: SSE2 on x86-64, NEON on ARM.
template <class A_, class Int>
struct Generic {
  using A = A_;
  static constexpr int N = 16 / sizeof(A);
  static constexpr int UNROLL = 8;
  typedef A V __attribute__((vector_size(16)));
  typedef Int M __attribute__((vector_size(16)));

  static V zero() { return V{}; }
  // Without arithmetic: that would change numbers that are integers bit for bit, see index().
  static V set1(A x) {
    V v{};
    for (int i = 0; i < N; ++i) v[i] = x;
    return v;
  }
  static V add(V a, V b) { return a + b; }
  static V mul(V a, V b) { return a * b; }
  static V fma(V a, V b, V c) {
#if defined(__aarch64__)
    V result = c;
    for (int i = 0; i < N; ++i) result[i] = std::fma(a[i], b[i], c[i]);
    return result;
#else
    return a * b + c;
#endif
  }
  static M greater(V a, V b) { return M(a > b); }
  static V select(M m, V a, V b) { return V((m & M(a)) | (~m & M(b))); }

  static V load(const A* p) {
    V v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  template <class T>
  static V load(const T* p) {
    return load(p, N);
  }
  template <class T>
  static V load(const T* p, int n) {
    V v{};
    for (int i = 0; i < n; ++i) v[i] = to_arithmetic(p[i]);
    return v;
  }
  static void store(A* p, V v) { std::memcpy(p, &v, sizeof(v)); }
  template <class T>
  static void store(T* p, V v) {
    store(p, v, N);
  }
  template <class T>
  static void store(T* p, V v, int n) {
    for (int i = 0; i < n; ++i) store_one(p + i, A(v[i]));
  }
  template <class T>
  static void stream(T* p, V v) {
    store(p, v);
  }
};

struct F32 : Generic<float, int32_t> {
  static V index(int i) { return set1(bits_as<float>(i)); }
  static int to_index(float x) { return bits_as<int>(x); }
};

struct F64 : Generic<double, int64_t> {
  static V index(int i) { return set1(double(i)); }
  static int to_index(double x) { return int(x); }
};

#endif

template <class A>
struct VectorOf {
  using type = F32;
};
template <>
struct VectorOf<double> {
  using type = F64;
};
template <class A>
using Vec = typename VectorOf<A>::type;

}  // namespace
}  // namespace roi
