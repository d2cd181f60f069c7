// Stands in for the toolkit's cuda_bf16.h. Arithmetic is done in fp32 and rounded once, to nearest even.
#pragma once

#include <math.h>

#include <bit>
#include <cstdint>

#include "cuda_runtime.h"

struct __nv_bfloat16_raw {
  unsigned short x;
};
struct alignas(4) __nv_bfloat162_raw {
  unsigned short x, y;
};

namespace sim {
constexpr unsigned short to_bf16(float f) {
  const auto bits = std::bit_cast<std::uint32_t>(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // the NaN of the hardware
  return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
constexpr float from_bf16(unsigned short x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16);
}
}  // namespace sim

struct __nv_bfloat16 {
  unsigned short __x;

  __nv_bfloat16() = default;
  constexpr __nv_bfloat16(__nv_bfloat16_raw r) : __x(r.x) {}
  constexpr __nv_bfloat16(float f) : __x(sim::to_bf16(f)) {}
  constexpr __nv_bfloat16(double f) : __x(sim::to_bf16(static_cast<float>(f))) {}
  constexpr __nv_bfloat16(int i) : __x(sim::to_bf16(static_cast<float>(i))) {}
  constexpr operator float() const { return sim::from_bf16(__x); }
  constexpr operator __nv_bfloat16_raw() const { return {__x}; }
  constexpr __nv_bfloat16& operator=(float f) { return __x = sim::to_bf16(f), *this; }
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;

  __nv_bfloat162() = default;
  constexpr __nv_bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) : x(a), y(b) {}
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

constexpr __nv_bfloat16 __float2bfloat16(float f) {
  return __nv_bfloat16(f);
}
constexpr __nv_bfloat16 __float2bfloat16_rn(float f) {
  return __nv_bfloat16(f);
}
inline __nv_bfloat16 __float2bfloat16_rz(float f) {
  return __nv_bfloat16_raw{static_cast<unsigned short>(f != f ? 0x7fff : std::bit_cast<std::uint32_t>(f) >> 16)};
}
constexpr __nv_bfloat16 __double2bfloat16(double f) {
  return __nv_bfloat16(f);
}
constexpr float __bfloat162float(__nv_bfloat16 v) {
  return static_cast<float>(v);
}
constexpr float __low2float(__nv_bfloat162 v) {
  return static_cast<float>(v.x);
}
constexpr float __high2float(__nv_bfloat162 v) {
  return static_cast<float>(v.y);
}
constexpr __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v) {
  return v.x;
}
constexpr __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v) {
  return v.y;
}
constexpr __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
  return {__nv_bfloat16(a), __nv_bfloat16(b)};
}
constexpr __nv_bfloat162 __float22bfloat162_rn(float2 v) {
  return {__nv_bfloat16(v.x), __nv_bfloat16(v.y)};
}
constexpr __nv_bfloat162 __float2bfloat162_rn(float f) {
  return {__nv_bfloat16(f), __nv_bfloat16(f)};
}
constexpr float2 __bfloat1622float2(__nv_bfloat162 v) {
  return {static_cast<float>(v.x), static_cast<float>(v.y)};
}
constexpr __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 v) {
  return {v, v};
}
constexpr __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) {
  return {a, b};
}
constexpr __nv_bfloat162 make_bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) {
  return {a, b};
}
constexpr unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) {
  return v.__x;
}
constexpr short __bfloat16_as_short(__nv_bfloat16 v) {
  return static_cast<short>(v.__x);
}
constexpr __nv_bfloat16 __ushort_as_bfloat16(unsigned short v) {
  return __nv_bfloat16_raw{v};
}
constexpr __nv_bfloat16 __short_as_bfloat16(short v) {
  return __nv_bfloat16_raw{static_cast<unsigned short>(v)};
}

inline __nv_bfloat16 __hadd(__nv_bfloat16 a, __nv_bfloat16 b) {
  return float(a) + float(b);
}
inline __nv_bfloat16 __hsub(__nv_bfloat16 a, __nv_bfloat16 b) {
  return float(a) - float(b);
}
inline __nv_bfloat16 __hmul(__nv_bfloat16 a, __nv_bfloat16 b) {
  return float(a) * float(b);
}
inline __nv_bfloat16 __hdiv(__nv_bfloat16 a, __nv_bfloat16 b) {
  return float(a) / float(b);
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return fmaf(a, b, c);
}
inline __nv_bfloat16 __hneg(__nv_bfloat16 a) {
  return -float(a);
}
inline __nv_bfloat16 __habs(__nv_bfloat16 a) {
  return fabsf(a);
}
inline __nv_bfloat16 __hmax(__nv_bfloat16 a, __nv_bfloat16 b) {
  return fmaxf(a, b);
}
inline __nv_bfloat16 __hmin(__nv_bfloat16 a, __nv_bfloat16 b) {
  return fminf(a, b);
}
inline bool __hisnan(__nv_bfloat16 a) {
  return float(a) != float(a);
}
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {__hadd(a.x, b.x), __hadd(a.y, b.y)};
}
inline __nv_bfloat162 __hsub2(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {__hsub(a.x, b.x), __hsub(a.y, b.y)};
}
inline __nv_bfloat162 __hmul2(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {__hmul(a.x, b.x), __hmul(a.y, b.y)};
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
inline __nv_bfloat162 __hmax2(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {__hmax(a.x, b.x), __hmax(a.y, b.y)};
}

#define SIM_BF16_OPERATOR(op)                                               \
  inline __nv_bfloat16 operator op(__nv_bfloat16 a, __nv_bfloat16 b) {      \
    return float(a) op float(b);                                            \
  }                                                                         \
  inline __nv_bfloat16& operator op##=(__nv_bfloat16& a, __nv_bfloat16 b) { \
    return a = float(a) op float(b);                                        \
  }
SIM_BF16_OPERATOR(+)
SIM_BF16_OPERATOR(-)
SIM_BF16_OPERATOR(*)
SIM_BF16_OPERATOR(/)
#undef SIM_BF16_OPERATOR
constexpr bool operator==(__nv_bfloat16 a, __nv_bfloat16 b) {
  return float(a) == float(b);
}
constexpr bool operator!=(__nv_bfloat16 a, __nv_bfloat16 b) {
  return float(a) != float(b);
}
constexpr bool operator<(__nv_bfloat16 a, __nv_bfloat16 b) {
  return float(a) < float(b);
}
constexpr bool operator>(__nv_bfloat16 a, __nv_bfloat16 b) {
  return float(a) > float(b);
}
constexpr bool operator<=(__nv_bfloat16 a, __nv_bfloat16 b) {
  return float(a) <= float(b);
}
constexpr bool operator>=(__nv_bfloat16 a, __nv_bfloat16 b) {
  return float(a) >= float(b);
}
