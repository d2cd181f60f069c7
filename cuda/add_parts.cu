#include "cuda/add_parts.h"
#include "cuda/launch.h"
#include "cuda/shape.h"
#include "cuda/thread.cuh"
#include "cuda/vec.cuh"

namespace dapo::cuda {
namespace {

/// Threads of a block: kLanes vectors of columns x kRows parts at a time.
constexpr int kLanes = 8, kRows = 32;

/// W columns a thread: row y of the block adds parts y, y + kRows, ..., then the rows' sums are added in order.
template <int W>
__global__ void __launch_bounds__(kLanes* kRows)
    add_parts_kernel(float* __restrict__ to, const float* __restrict__ from, int parts, int columns) {
  __shared__ float sums[kRows][kLanes * W];
  const int lane = thread_x() % kLanes, y = thread_x() / kLanes;
  const int first = block_x() * kLanes * W, c = first + lane * W;
  float sum[W] = {};
  if (c < columns)
#pragma unroll 8
    for (int p = y; p < parts; p += kRows) {
      float x[W];
      load_floats<W>(x, from + int64_t{p} * columns + c);
#pragma unroll
      for (int i = 0; i < W; ++i) sum[i] += x[i];
    }
#pragma unroll
  for (int i = 0; i < W; ++i) sums[y][lane * W + i] = sum[i];
  __syncthreads();
  const int i = thread_x();
  if (i >= kLanes * W || first + i >= columns) return;
  float total = 0.0f;
  for (int r = 0; r < kRows; ++r) total += sums[r][i];
  to[first + i] += total;
}

}  // namespace

void add_parts(float* to, const float* from, int parts, int columns, cudaStream_t stream) {
  with_width<float>(columns, [&]<int W>() {
    launch(add_parts_kernel<W>, {grid_of(ceil_div(columns, kLanes * W)), dim3(kLanes * kRows), 0, stream}, to, from,
           parts, columns);
  });
}

}  // namespace dapo::cuda
