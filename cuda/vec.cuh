// 128-bit access: Vec<T> holds 16 bytes of T, Vec<T, 1> one T (for rows whose width is not a multiple of 16 bytes).
#pragma once

#include <cuda_runtime.h>

#include "core/dtype.h"

namespace dapo::cuda {

template <class T>
inline constexpr int kVec = 16 / static_cast<int>(sizeof(T));

template <class T, int N = kVec<T>>
struct alignas(sizeof(T) * N) Vec {
  T v[N];
};

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
  return to_bf16(x);
}

template <int N, class T>
__device__ __forceinline__ void load_floats(float (&to)[N], const T* from) {
  const Vec<T, N> a = *reinterpret_cast<const Vec<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = to_float(a.v[i]);
}
template <int N, class T>
__device__ __forceinline__ void store_floats(T* to, const float (&from)[N]) {
  Vec<T, N> a;
#pragma unroll
  for (int i = 0; i < N; ++i) a.v[i] = from_float<T>(from[i]);
  *reinterpret_cast<Vec<T, N>*>(to) = a;
}

/// The same for N floats in vectors of 16 bytes.
template <int N>
__device__ __forceinline__ void load_vectors(float (&to)[N], const float* from) {
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    const Vec<float> a = *reinterpret_cast<const Vec<float>*>(from + i);
#pragma unroll
    for (int j = 0; j < 4; ++j) to[i + j] = a.v[j];
  }
}
template <int N>
__device__ __forceinline__ void store_vectors(float* to, const float (&from)[N]) {
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    Vec<float> a;
#pragma unroll
    for (int j = 0; j < 4; ++j) a.v[j] = from[i + j];
    *reinterpret_cast<Vec<float>*>(to + i) = a;
  }
}

}  // namespace dapo::cuda
