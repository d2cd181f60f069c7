// What the threads of a kernel do together: barriers, shuffles, votes, atomics. Names and meaning of the CUDA C++
// guide.
#pragma once

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
/// Reduces one word of each lane; every lane receives the result.
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

/// Applies f to *p atomically; returns the old value.
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
  const int lane = sim::lane_id(), from = lane - static_cast<int>(delta);
  const int base = lane & ~(width - 1);
  return sim::from_bits<T>(sim::shuffle("__shfl_up_sync", mask, sim::to_bits(v), from < base ? -1 : from, w));
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, sim::Where w = sim::Where::current()) {
  const int lane = sim::lane_id(), from = lane + static_cast<int>(delta);
  const int end = (lane & ~(width - 1)) + width;
  return sim::from_bits<T>(sim::shuffle("__shfl_down_sync", mask, sim::to_bits(v), from >= end ? -1 : from, w));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32, sim::Where w = sim::Where::current()) {
  const int lane = sim::lane_id(), from = lane ^ lanes;
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
