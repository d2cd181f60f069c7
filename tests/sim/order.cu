// Order, barriers, shuffles, atomics: what a correct kernel may rely on, and what it may not.
#include <gtest/gtest.h>

#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "tests/sim/device_array.h"

using namespace dapo;

namespace {

__global__ void sum_kernel(float* out, const float* in, int n) {
  __shared__ float partial[32];
  float s = 0.0f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) s += in[i];
  for (int d = 16; d > 0; d /= 2) s += __shfl_xor_sync(0xffffffffu, s, d);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = s;
  __syncthreads();
  if (threadIdx.x < 32) {
    s = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f;
    for (int d = 16; d > 0; d /= 2) s += __shfl_xor_sync(0xffffffffu, s, d);
    if (threadIdx.x == 0) atomicAdd(out, s);
  }
}

TEST(Order, AMillionElementsSum) {
  const int n = 1 << 20;
  DeviceArray<float> in(n, 1.0f), out(1, 0.0f);
  launch(sum_kernel, {dim3(132), dim3(256)}, out.data(), in.data(), n);
  EXPECT_EQ(out.host()[0], float(n));
}

}  // namespace
