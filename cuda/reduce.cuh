// Sums, running sums and maxima over a warp and a block, in one fixed order.
#pragma once

#include <cuda_runtime.h>

#include "core/sizes.h"
#include "cuda/thread.cuh"

namespace dapo::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kFullMask = 0xffffffffu;

/// The same sum in every lane (butterfly).
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int m = kWarp / 2; m > 0; m /= 2) x += __shfl_xor_sync(kFullMask, x, m);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int m = kWarp / 2; m > 0; m /= 2) x = fmaxf(x, __shfl_xor_sync(kFullMask, x, m));
  return x;
}

/// The sum over the block in every thread; `scratch` holds kWarp values and may be used again after the call.
template <class T>
__device__ __forceinline__ T block_sum(T x, T* scratch) {
  const int warps = ceil_div(block_width(), kWarp);
  const int warp = thread_x() / kWarp, lane = thread_x() % kWarp;
  x = warp_sum(x);
  if (warps == 1) return x;
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_sum(lane < warps ? scratch[lane] : T{});
  __syncthreads();
  return x;
}

/// The largest x of the block in every thread; `scratch` as in block_sum.
__device__ __forceinline__ float block_max(float x, float* scratch) {
  const int warps = ceil_div(block_width(), kWarp);
  const int warp = thread_x() / kWarp, lane = thread_x() % kWarp;
  x = warp_max(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_max(scratch[lane < warps ? lane : 0]);
  __syncthreads();
  return x;
}

/// Sum over the lanes before this one.
template <class T>
__device__ __forceinline__ T warp_scan(T x) {
  const int lane = thread_x() % kWarp;
  T sum = x;
#pragma unroll
  for (int d = 1; d < kWarp; d *= 2) {
    const T y = __shfl_up_sync(kFullMask, sum, static_cast<unsigned>(d));
    if (lane >= d) sum += y;
  }
  return sum - x;
}

/// Sum over the threads before this one, of integers; `scratch` as in block_sum.
template <class T>
__device__ __forceinline__ T block_scan(T x, T* scratch) {
  const int warps = ceil_div(block_width(), kWarp);
  const int warp = thread_x() / kWarp, lane = thread_x() % kWarp;
  const T before = warp_scan(x);
  if (lane == kWarp - 1) scratch[warp] = before + x;
  __syncthreads();
  const T earlier = __shfl_sync(kFullMask, warp_scan(lane < warps ? scratch[lane] : T{}), warp);
  __syncthreads();
  return earlier + before;
}

}  // namespace dapo::cuda
