// Sums and maxima over a warp and a block, in one fixed order.
#pragma once

#include <cuda_runtime.h>

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
  const int warps = (static_cast<int>(blockDim.x) + kWarp - 1) / kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  x = warp_sum(x);
  if (warps == 1) return x;
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_sum(lane < warps ? scratch[lane] : T{});
  __syncthreads();
  return x;
}

}  // namespace dapo::cuda
