// Sixteen floats at a time, as GCC vectors: one AVX-512 register, or two of AVX2. The lanes and the order of every sum
// are the same on both, and do not depend on how many rows a call has. Use fma() for sums of products: if the
// compiler may contract a * b + c, it does so in one loop and not in the next (GCC avoids chains of FMA on some CPUs),
// and two paths that must give the same bits do not.
#pragma once

#include <immintrin.h>

#include <cstring>
#include <type_traits>

#include "core/dtype.h"

namespace dapo::cpu {

/// Of every function that takes or returns vectors of more bits than a register: GCC 12 with AVX2 passes them on the stack,
/// which in loops of an OpenMP region it does not give back.
#define DAPO_ALWAYS_INLINE [[gnu::always_inline]] inline

using f32x16 = float __attribute__((vector_size(64)));
using i32x16 = int32_t __attribute__((vector_size(64)));
using u32x16 = uint32_t __attribute__((vector_size(64)));
using u16x16 = uint16_t __attribute__((vector_size(32)));

inline constexpr int kLanes = 16;

DAPO_ALWAYS_INLINE f32x16 splat(float x) {
  return f32x16{} + x;
}

/// a * b + c, rounded once.
DAPO_ALWAYS_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
#ifdef __AVX512F__
  return reinterpret_cast<f32x16>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#else
  __m256 x[2], y[2], z[2];
  std::memcpy(x, &a, sizeof a), std::memcpy(y, &b, sizeof b), std::memcpy(z, &c, sizeof c);
  for (int i = 0; i < 2; ++i) z[i] = _mm256_fmadd_ps(x[i], y[i], z[i]);
  std::memcpy(&c, z, sizeof c);
  return c;
#endif
}
DAPO_ALWAYS_INLINE f32x16 fma(f32x16 a, float b, f32x16 c) {
  return fma(a, splat(b), c);
}

DAPO_ALWAYS_INLINE f32x16 load(const float* p) {
  f32x16 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
DAPO_ALWAYS_INLINE f32x16 load(const bf16* p) {
  u16x16 h;
  std::memcpy(&h, p, sizeof h);
  return reinterpret_cast<f32x16>(__builtin_convertvector(h, u32x16) << 16);
}
DAPO_ALWAYS_INLINE void store(float* p, f32x16 v) {
  std::memcpy(p, &v, sizeof v);
}
DAPO_ALWAYS_INLINE void store(bf16* p, f32x16 v) {
  const u32x16 u = reinterpret_cast<u32x16>(v);
  const u32x16 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const u32x16 is_nan = reinterpret_cast<u32x16>((u & 0x7fffffffu) > 0x7f800000u);
  const u16x16 h = __builtin_convertvector((rounded & ~is_nan) | (((u >> 16) | 0x40u) & is_nan), u16x16);
  std::memcpy(p, &h, sizeof h);
}
/// The first n < 16 elements; the other lanes are `fill`, and are not stored.
template <class T>
DAPO_ALWAYS_INLINE f32x16 load_part(const T* p, int64_t n, float fill = 0.0f) {
  float tmp[kLanes];
  for (int i = 0; i < kLanes; ++i) tmp[i] = fill;
  for (int64_t i = 0; i < n; ++i) tmp[i] = to_float(p[i]);
  return load(tmp);
}
template <class T>
DAPO_ALWAYS_INLINE void store_part(T* p, f32x16 v, int64_t n) {
  T tmp[kLanes];
  store(tmp, v);
  std::memcpy(p, tmp, n * sizeof(T));
}

/// Calls part(c, n) for columns [c, c + n) of a row of `width`: n is Whole, a constant, except for what is left at the
/// end.
using Whole = std::integral_constant<int64_t, kLanes>;
template <class T>
DAPO_ALWAYS_INLINE f32x16 load_part(const T* p, Whole) {
  return load(p);
}
template <class T>
DAPO_ALWAYS_INLINE void store_part(T* p, f32x16 v, Whole) {
  store(p, v);
}
template <class Part>
inline void each_part(int64_t width, Part part) {
  int64_t c = 0;
  for (; c + kLanes <= width; c += kLanes) part(c, Whole{});
  if (c < width) part(c, width - c);
}

DAPO_ALWAYS_INLINE f32x16 select(i32x16 mask, f32x16 a, f32x16 b) {
  return mask ? a : b;
}
DAPO_ALWAYS_INLINE f32x16 vmax(f32x16 a, f32x16 b) {
  return a > b ? a : b;
}
DAPO_ALWAYS_INLINE f32x16 vmin(f32x16 a, f32x16 b) {
  return a < b ? a : b;
}

DAPO_ALWAYS_INLINE f32x16 vsqrt(f32x16 x) {
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

/// Sum of the lanes, pairwise: the one order in which lanes are ever added.
DAPO_ALWAYS_INLINE float sum_lanes(f32x16 v) {
  float t[kLanes];
  store(t, v);
  for (int w = kLanes / 2; w > 0; w /= 2)
    for (int i = 0; i < w; ++i) t[i] += t[i + w];
  return t[0];
}
DAPO_ALWAYS_INLINE float max_lanes(f32x16 v) {
  float t[kLanes];
  store(t, v);
  for (int w = kLanes / 2; w > 0; w /= 2)
    for (int i = 0; i < w; ++i) t[i] = t[i] > t[i + w] ? t[i] : t[i + w];
  return t[0];
}

/// e^x to about 1 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, a degree-6 polynomial in r, n into the exponent. Below -87
/// it is 0 (so that exp(-inf) is 0), above 88 it is inf; NaN stays NaN.
DAPO_ALWAYS_INLINE f32x16 vexp(f32x16 x) {
  const f32x16 clamped = vmax(vmin(x, splat(88.7f)), splat(-87.3f));
  const f32x16 shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const f32x16 t = fma(clamped, 1.44269504088896341f, shifter);
  const f32x16 n = t - shifter;
  f32x16 r = fma(n, -0.693359375f, clamped);
  r = fma(n, 2.12194440e-4f, r);
  f32x16 p = fma(splat(1.9875691500e-4f), r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  const i32x16 e = (reinterpret_cast<i32x16>(t) - 0x4b400000) << 23;
  const f32x16 y = reinterpret_cast<f32x16>(reinterpret_cast<i32x16>(p) + e);
  const f32x16 low = select(x < splat(-87.3f), splat(0.0f), y);
  const f32x16 high = select(x > splat(88.7f), splat(__builtin_inff()), low);
  return select(x == x, high, x);
}

}  // namespace dapo::cpu
