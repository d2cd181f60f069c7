#include <algorithm>
#include <cmath>

#include "cuda/cuda_backend.h"
#include "cuda/shape.h"
#include "cuda/trial.h"
#include "cuda/vec.cuh"

namespace dapo::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ uint32_t mix(uint32_t x) {
  x ^= x >> 16, x *= 0x7feb352du, x ^= x >> 15, x *= 0x846ca68bu;
  return x ^ x >> 16;
}

__global__ void normal_kernel(bf16* to, int64_t n, uint32_t seed, float scale) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const uint32_t a = mix(static_cast<uint32_t>(i) ^ mix(seed + static_cast<uint32_t>(i >> 32))), b = mix(a ^ seed);
  const float u = (static_cast<float>(a >> 8) + 0.5f) * 0x1p-24f, v = static_cast<float>(b >> 8) * 0x1p-24f;
  const float x = sqrtf(-2.0f * logf(u)) * cosf(6.2831853f * v);
  to[i] = to_bf16(x * (b % 64 == 0 ? 8.0f * scale : scale));
}

/// count += words that differ.
__global__ void count_different_kernel(unsigned* count, const uint32_t* x, const uint32_t* y, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n && x[i] != y[i]) atomicAdd(count, 1u);
}

}  // namespace

void fill_normal(const Scratch& to, int64_t n, uint32_t seed, float scale, cudaStream_t stream) {
  launch(normal_kernel, {grid_of(ceil_div(n, kThreads)), dim3(kThreads), 0, stream}, to.as<bf16>(), n, seed, scale);
}

bool same_words(const Scratch& x, const Scratch& y, int64_t words, const Scratch& count, cudaStream_t stream) {
  unsigned different = 0;
  CUDA_CHECK(cudaMemsetAsync(count.as<void>(), 0, sizeof different, stream));
  launch(count_different_kernel, {grid_of(ceil_div(words, kThreads)), dim3(kThreads), 0, stream}, count.as<unsigned>(),
         x.as<const uint32_t>(), y.as<const uint32_t>(), words);
  CUDA_CHECK(cudaMemcpyAsync(&different, count.as<void>(), sizeof different, cudaMemcpyDeviceToHost, stream));
  CUDA_CHECK(cudaStreamSynchronize(stream));
  return different == 0;
}

double seconds_of(cudaStream_t stream, int64_t l2_bytes, const std::function<void()>& run) {
  struct Event {
    cudaEvent_t event = nullptr;
    Event() { CUDA_CHECK(cudaEventCreate(&event)); }
    ~Event() { cudaEventDestroy(event); }
  } const start, stop;
  const int64_t bytes = std::max<int64_t>(2 * l2_bytes, 1 << 20);
  const Scratch other(bytes);
  double best = INFINITY;
  for (int i = 0; i < 3; ++i) {
    if (other) CUDA_CHECK(cudaMemsetAsync(other.as<void>(), i, static_cast<size_t>(bytes), stream));
    CUDA_CHECK(cudaEventRecord(start.event, stream));
    run();
    CUDA_CHECK(cudaEventRecord(stop.event, stream));
    CUDA_CHECK(cudaEventSynchronize(stop.event));
    float ms = 0;
    CUDA_CHECK(cudaEventElapsedTime(&ms, start.event, stop.event));
    best = std::min(best, 1e-3 * ms);
  }
  return best;
}

}  // namespace dapo::cuda
