// Where a thread is, as int: index arithmetic is signed everywhere else.
#pragma once

#include <cuda_runtime.h>

namespace dapo::cuda {

__device__ __forceinline__ int thread_x() {
  return static_cast<int>(threadIdx.x);
}
__device__ __forceinline__ int block_x() {
  return static_cast<int>(blockIdx.x);
}
__device__ __forceinline__ int block_y() {
  return static_cast<int>(blockIdx.y);
}
__device__ __forceinline__ int block_z() {
  return static_cast<int>(blockIdx.z);
}
/// Threads of a block, blocks of the grid.
__device__ __forceinline__ int block_width() {
  return static_cast<int>(blockDim.x);
}
__device__ __forceinline__ int grid_width() {
  return static_cast<int>(gridDim.x);
}

}  // namespace dapo::cuda
