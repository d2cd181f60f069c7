#include "cuda/add_parts.h"
#include "cuda/launch.h"
#include "cuda/shape.h"

namespace dapo::cuda {
namespace {

constexpr int kThreads = 128;

/// A thread a column.
__global__ void add_parts_kernel(float* to, const float* from, int parts, int columns) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= columns) return;
  float sum = 0.0f;
  for (int p = 0; p < parts; ++p) sum += from[int64_t{p} * columns + c];
  to[c] += sum;
}

}  // namespace

void add_parts(float* to, const float* from, int parts, int columns, cudaStream_t stream) {
  launch(add_parts_kernel, {grid_of(ceil_div(columns, kThreads)), dim3(kThreads), 0, stream}, to, from, parts, columns);
}

}  // namespace dapo::cuda
