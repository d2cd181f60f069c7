// What kernels may call: barriers, shuffles, votes, atomics, arithmetic. Names and meaning of the CUDA C++ guide.
#pragma once

#include <math.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "running.h"

inline constexpr int warpSize = 32;

namespace sim {
using Where = std::source_location;

int sync_block(const char* what, int predicate, Where where);
void sync_warp(unsigned mask, Where where);
/// Value of lane `from` (0..31 of the warp); from < 0: the lane's own.
std::uint64_t shuffle(const char* what, unsigned mask, std::uint64_t value, int from, Where where);
/// Folds one word of each lane; every lane receives the result.
enum class Fold { ballot, all, any, add, min, max, umin, umax, bit_and, bit_or, bit_xor, match_any };
unsigned fold(Fold op, unsigned mask, unsigned value, Where where);
unsigned active_lanes();
void yield();
[[noreturn]] void trap(Where where);

template <class T>
std::uint64_t to_bits(T v) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof v);
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  T v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
unsigned lane_id();

/// Applies f to *p until nobody came between; returns the value before.
template <class T, class F>
T atomic_update(T* p, F f) {
  using Bits = std::conditional_t<sizeof(T) == 8, unsigned long long,
                                  std::conditional_t<sizeof(T) == 4, unsigned, unsigned short>>;
  auto* bits = reinterpret_cast<Bits*>(p);
  Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  for (;;) {
    const T before = std::bit_cast<T>(old);
    if (__atomic_compare_exchange_n(bits, &old, std::bit_cast<Bits>(static_cast<T>(f(before))), false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED))
      return before;
  }
}
}  // namespace sim

// ---- barriers

inline void __syncthreads(sim::Where w = sim::Where::current()) {
  sim::sync_block("__syncthreads", 0, w);
}
inline int __syncthreads_count(int p, sim::Where w = sim::Where::current()) {
  return sim::sync_block("__syncthreads_count", p, w);
}
inline int __syncthreads_and(int p, sim::Where w = sim::Where::current()) {
  return sim::sync_block("__syncthreads_and", p, w);
}
inline int __syncthreads_or(int p, sim::Where w = sim::Where::current()) {
  return sim::sync_block("__syncthreads_or", p, w);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, sim::Where w = sim::Where::current()) {
  sim::sync_warp(mask, w);
}
inline void __threadfence() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
inline void __threadfence_block() {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}
inline void __threadfence_system() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
/// Lets the other threads of the block run.
inline void __nanosleep(unsigned) {
  sim::yield();
}
[[noreturn]] inline void __trap(sim::Where w = sim::Where::current()) {
  sim::trap(w);
}
inline unsigned __activemask() {
  return sim::active_lanes();
}

// ---- shuffles and votes

template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32, sim::Where w = sim::Where::current()) {
  const int base = static_cast<int>(sim::lane_id()) & ~(width - 1);
  return sim::from_bits<T>(sim::shuffle("__shfl_sync", mask, sim::to_bits(v), base + (source & (width - 1)), w));
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, sim::Where w = sim::Where::current()) {
  const int lane = static_cast<int>(sim::lane_id()), from = lane - static_cast<int>(delta);
  const int base = lane & ~(width - 1);
  return sim::from_bits<T>(sim::shuffle("__shfl_up_sync", mask, sim::to_bits(v), from < base ? -1 : from, w));
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, sim::Where w = sim::Where::current()) {
  const int lane = static_cast<int>(sim::lane_id()), from = lane + static_cast<int>(delta);
  const int end = (lane & ~(width - 1)) + width;
  return sim::from_bits<T>(sim::shuffle("__shfl_down_sync", mask, sim::to_bits(v), from >= end ? -1 : from, w));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32, sim::Where w = sim::Where::current()) {
  const int lane = static_cast<int>(sim::lane_id()), from = lane ^ lanes;
  const int end = (lane & ~(width - 1)) + width;
  return sim::from_bits<T>(sim::shuffle("__shfl_xor_sync", mask, sim::to_bits(v), from >= end ? -1 : from, w));
}
inline unsigned __ballot_sync(unsigned mask, int p, sim::Where w = sim::Where::current()) {
  return sim::fold(sim::Fold::ballot, mask, p != 0, w);
}
inline int __all_sync(unsigned mask, int p, sim::Where w = sim::Where::current()) {
  return static_cast<int>(sim::fold(sim::Fold::all, mask, p != 0, w));
}
inline int __any_sync(unsigned mask, int p, sim::Where w = sim::Where::current()) {
  return static_cast<int>(sim::fold(sim::Fold::any, mask, p != 0, w));
}
inline unsigned __match_any_sync(unsigned mask, unsigned v, sim::Where w = sim::Where::current()) {
  return sim::fold(sim::Fold::match_any, mask, v, w);
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned v, sim::Where w = sim::Where::current()) {
  return sim::fold(sim::Fold::add, mask, v, w);
}
inline int __reduce_add_sync(unsigned mask, int v, sim::Where w = sim::Where::current()) {
  return static_cast<int>(sim::fold(sim::Fold::add, mask, static_cast<unsigned>(v), w));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned v, sim::Where w = sim::Where::current()) {
  return sim::fold(sim::Fold::umin, mask, v, w);
}
inline int __reduce_min_sync(unsigned mask, int v, sim::Where w = sim::Where::current()) {
  return static_cast<int>(sim::fold(sim::Fold::min, mask, static_cast<unsigned>(v), w));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned v, sim::Where w = sim::Where::current()) {
  return sim::fold(sim::Fold::umax, mask, v, w);
}
inline int __reduce_max_sync(unsigned mask, int v, sim::Where w = sim::Where::current()) {
  return static_cast<int>(sim::fold(sim::Fold::max, mask, static_cast<unsigned>(v), w));
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned v, sim::Where w = sim::Where::current()) {
  return sim::fold(sim::Fold::bit_and, mask, v, w);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned v, sim::Where w = sim::Where::current()) {
  return sim::fold(sim::Fold::bit_or, mask, v, w);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned v, sim::Where w = sim::Where::current()) {
  return sim::fold(sim::Fold::bit_xor, mask, v, w);
}

// ---- atomics

template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  if constexpr (std::is_integral_v<T>)
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
  else
    return sim::atomic_update(p, [v](T old) { return old + v; });
}
template <class T>
T atomicSub(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_sub(p, v, __ATOMIC_RELAXED);
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>, "CUDA has no atomicMax for floating point");
  return sim::atomic_update(p, [v](T old) { return old > v ? old : v; });
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>, "CUDA has no atomicMin for floating point");
  return sim::atomic_update(p, [v](T old) { return old < v ? old : v; });
}
template <class T>
T atomicAnd(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_and(p, v, __ATOMIC_RELAXED);
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_or(p, v, __ATOMIC_RELAXED);
}
template <class T>
T atomicXor(T* p, std::type_identity_t<T> v) {
  return __atomic_fetch_xor(p, v, __ATOMIC_RELAXED);
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return sim::atomic_update(p, [v](T) { return v; });
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return sim::atomic_update(p, [limit](unsigned old) { return old >= limit ? 0 : old + 1; });
}
inline unsigned atomicDec(unsigned* p, unsigned limit) {
  return sim::atomic_update(p, [limit](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}

// ---- loads and stores with a cache hint

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
T __ldca(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, std::type_identity_t<T> v) {
  *p = v;
}
template <class T>
void __stcg(T* p, std::type_identity_t<T> v) {
  *p = v;
}

// ---- bits

inline unsigned __float_as_uint(float v) {
  return std::bit_cast<unsigned>(v);
}
inline int __float_as_int(float v) {
  return std::bit_cast<int>(v);
}
inline float __uint_as_float(unsigned v) {
  return std::bit_cast<float>(v);
}
inline float __int_as_float(int v) {
  return std::bit_cast<float>(v);
}
inline long long __double_as_longlong(double v) {
  return std::bit_cast<long long>(v);
}
inline double __longlong_as_double(long long v) {
  return std::bit_cast<double>(v);
}
inline int __popc(unsigned v) {
  return std::popcount(v);
}
inline int __popcll(unsigned long long v) {
  return std::popcount(v);
}
inline int __clz(int v) {
  return std::countl_zero(static_cast<unsigned>(v));
}
inline int __clzll(long long v) {
  return std::countl_zero(static_cast<unsigned long long>(v));
}
inline int __ffs(int v) {
  return __builtin_ffs(v);
}
inline int __ffsll(long long v) {
  return __builtin_ffsll(v);
}
inline unsigned __brev(unsigned v) {
  v = (v >> 1 & 0x55555555u) | (v & 0x55555555u) << 1;
  v = (v >> 2 & 0x33333333u) | (v & 0x33333333u) << 2;
  v = (v >> 4 & 0x0f0f0f0fu) | (v & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(v);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
inline int __mulhi(int a, int b) {
  return static_cast<int>(std::int64_t{a} * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ typedef unsigned __int128 wide;
  return static_cast<unsigned long long>(static_cast<wide>(a) * b >> 64);
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t all = std::uint64_t{b} << 32 | a;
  unsigned r = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned s = selector >> (4 * i);
    unsigned byte = static_cast<unsigned>(all >> (8 * (s & 7))) & 0xff;
    if (s & 8) byte = byte & 0x80 ? 0xff : 0;
    r |= byte << (8 * i);
  }
  return r;
}
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
  return static_cast<unsigned>((std::uint64_t{hi} << 32 | lo) << (n & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
  return static_cast<unsigned>((std::uint64_t{hi} << 32 | lo) >> (n & 31));
}

// ---- arithmetic

inline float __expf(float x) {
  return expf(x);
}
inline float __exp10f(float x) {
  return powf(10.0f, x);
}
inline float __logf(float x) {
  return logf(x);
}
inline float __log2f(float x) {
  return log2f(x);
}
inline float __powf(float x, float y) {
  return powf(x, y);
}
inline float __sinf(float x) {
  return sinf(x);
}
inline float __cosf(float x) {
  return cosf(x);
}
inline void __sincosf(float x, float* s, float* c) {
  *s = sinf(x), *c = cosf(x);
}
inline void sincospif(float x, float* s, float* c) {
  *s = static_cast<float>(sin(3.14159265358979323846 * x)), *c = static_cast<float>(cos(3.14159265358979323846 * x));
}
inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
inline double rsqrt(double x) {
  return 1.0 / sqrt(x);
}
inline float __frsqrt_rn(float x) {
  return 1.0f / sqrtf(x);
}
inline float __frcp_rn(float x) {
  return 1.0f / x;
}
inline float __fsqrt_rn(float x) {
  return sqrtf(x);
}
inline float __fdividef(float x, float y) {
  return x / y;
}
inline float __fdiv_rn(float x, float y) {
  return x / y;
}
inline float __fmaf_rn(float a, float b, float c) {
  return fmaf(a, b, c);
}
inline float __saturatef(float x) {
  return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}
inline int __float2int_rn(float x) {
  return static_cast<int>(rintf(x));
}
inline int __float2int_rz(float x) {
  return static_cast<int>(x);
}
inline int __float2int_rd(float x) {
  return static_cast<int>(floorf(x));
}
inline int __float2int_ru(float x) {
  return static_cast<int>(ceilf(x));
}
inline unsigned __float2uint_rn(float x) {
  return static_cast<unsigned>(rintf(x));
}
inline unsigned __float2uint_rz(float x) {
  return static_cast<unsigned>(x);
}
inline float __int2float_rn(int x) {
  return static_cast<float>(x);
}
inline float __uint2float_rn(unsigned x) {
  return static_cast<float>(x);
}
inline float __double2float_rn(double x) {
  return static_cast<float>(x);
}

/// Rounded products and sums that no compiler may contract into an fma.
__attribute__((noinline)) float __fmul_rn(float a, float b);
__attribute__((noinline)) float __fadd_rn(float a, float b);
__attribute__((noinline)) float __fsub_rn(float a, float b);

#define SIM_MIN_MAX(T)        \
  constexpr T min(T a, T b) { \
    return b < a ? b : a;     \
  }                           \
  constexpr T max(T a, T b) { \
    return a < b ? b : a;     \
  }
SIM_MIN_MAX(int)
SIM_MIN_MAX(unsigned)
SIM_MIN_MAX(long)
SIM_MIN_MAX(unsigned long)
SIM_MIN_MAX(long long)
SIM_MIN_MAX(unsigned long long)
#undef SIM_MIN_MAX
constexpr unsigned min(int a, unsigned b) {
  return min(static_cast<unsigned>(a), b);
}
constexpr unsigned min(unsigned a, int b) {
  return min(a, static_cast<unsigned>(b));
}
constexpr unsigned max(int a, unsigned b) {
  return max(static_cast<unsigned>(a), b);
}
constexpr unsigned max(unsigned a, int b) {
  return max(a, static_cast<unsigned>(b));
}
inline float min(float a, float b) {
  return fminf(a, b);
}
inline float max(float a, float b) {
  return fmaxf(a, b);
}
inline double min(double a, double b) {
  return fmin(a, b);
}
inline double max(double a, double b) {
  return fmax(a, b);
}
