// sum_of_squares and adamw: one pass each over flat memory.
#include <algorithm>
#include <cmath>

#include "core/op_checks.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/reduce.cuh"
#include "cuda/shape.h"
#include "cuda/thread.cuh"
#include "cuda/vec.cuh"
#include "cuda/workspace.h"

namespace dapo::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSumBlocks = 512;  // fixed, so that the order of the sum depends on the length alone
constexpr int kSumVectors = 4;   // of four floats, in flight at once

/// Each thread adds four vectors of four floats per iteration, each into a sum of its own. W = 1: x is not aligned to
/// 16 bytes; the order is the same.
template <int W>
__global__ void __launch_bounds__(kThreads, 4) squares_kernel(double* parts, const float* __restrict__ x, int64_t n) {
  __shared__ double scratch[kWarp];
  constexpr int64_t kPiece = int64_t{kThreads} * kSumVectors * 4;
  double sums[kSumVectors] = {};
  for (int64_t begin = int64_t{blockIdx.x} * kPiece; begin < n; begin += int64_t{kSumBlocks} * kPiece) {
    float v[kSumVectors][4];
#pragma unroll
    for (int j = 0; j < kSumVectors; ++j) {
      const int64_t i = begin + (j * kThreads + thread_x()) * 4;
      if (W == 4 && i + 4 <= n) {
        load_floats<4>(v[j], x + i);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) v[j][e] = i + e < n ? x[i + e] : 0.0f;
      }
    }
#pragma unroll
    for (int j = 0; j < kSumVectors; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[j] = fma(static_cast<double>(v[j][e]), static_cast<double>(v[j][e]), sums[j]);
  }
  const double sum = block_sum((sums[0] + sums[1]) + (sums[2] + sums[3]), scratch);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}
__global__ void add_squares_kernel(double* out, const double* parts) {
  __shared__ double scratch[kWarp];
  double sum = 0;
  for (int i = thread_x(); i < kSumBlocks; i += block_width()) sum += parts[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *out += sum;
}

/// The update of one element. Rounding is spelled out, so that an element's bits do not depend on whether it is part of
/// a vector.
struct Step {
  float scale, keep1, add1, keep2, add2, decay, lr, eps, correction1, correction2;
  __device__ __forceinline__ void apply(float& master, float& m, float& v, float grad) const {
    const float g = __fmul_rn(grad, scale);
    m = __fmaf_rn(add1, g, __fmul_rn(keep1, m));
    v = __fmaf_rn(g, __fmul_rn(add2, g), __fmul_rn(keep2, v));
    const float up = __fmul_rn(lr, __fmul_rn(m, correction1));
    master = __fsub_rn(__fmul_rn(decay, master), up / __fadd_rn(sqrtf(__fmul_rn(v, correction2)), eps));
  }
};

/// Eight elements: all loads, then all stores.
constexpr int kElements = 8;

/// Elements [head, head + 8 * vectors) are aligned to 16 bytes in every tensor; the rest go one by one. remainder is
/// null where T is f32.
template <class T>
__global__ void __launch_bounds__(kThreads, 4)
    adamw_kernel(T* __restrict__ w, int16_t* __restrict__ remainder, float* __restrict__ m, float* __restrict__ v,
                 float* __restrict__ grad, const double* __restrict__ norm2, AdamW p, float correction1,
                 float correction2, int64_t head, int64_t vectors, int64_t n) {
  const double total = *norm2;
  const bool sane = isfinite(total);
  const float norm = sqrt(total);
  const Step step{p.max_norm > 0.0f ? fminf(1.0f, p.max_norm / (norm + 1e-6f)) : 1.0f,
                  p.beta1,
                  1.0f - p.beta1,
                  p.beta2,
                  1.0f - p.beta2,
                  __fsub_rn(1.0f, __fmul_rn(p.lr, p.weight_decay)),
                  p.lr,
                  p.eps,
                  correction1,
                  correction2};
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x, stride = int64_t{gridDim.x} * kThreads;
  for (int64_t t = thread; t < vectors; t += stride) {
    const int64_t i = head + t * kElements;
    const float none[kElements] = {};
    if (!sane) {
      store_vectors(grad + i, none);
      continue;
    }
    float g[kElements], mi[kElements], vi[kElements], master[kElements];
    load_vectors(g, grad + i);
    load_vectors(mi, m + i);
    load_vectors(vi, v + i);
    if constexpr (sizeof(T) == 2) {
      const Vec<T> high = *reinterpret_cast<const Vec<T>*>(w + i);
      const Vec<int16_t> low = *reinterpret_cast<const Vec<int16_t>*>(remainder + i);
#pragma unroll
      for (int e = 0; e < kElements; ++e) master[e] = join_master(high.v[e], low.v[e]);
    } else {
      load_vectors(master, w + i);
    }
#pragma unroll
    for (int e = 0; e < kElements; ++e) step.apply(master[e], mi[e], vi[e], g[e]);
    store_vectors(grad + i, none);
    store_vectors(m + i, mi);
    store_vectors(v + i, vi);
    if constexpr (sizeof(T) == 2) {
      Vec<T> high;
      Vec<int16_t> low;
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        const SplitMaster s = split_master(master[e]);
        high.v[e] = s.weight;
        low.v[e] = s.remainder;
      }
      *reinterpret_cast<Vec<T>*>(w + i) = high;
      *reinterpret_cast<Vec<int16_t>*>(remainder + i) = low;
    } else {
      store_vectors(w + i, master);
    }
  }
  for (int64_t t = thread; t < n - vectors * kElements; t += stride) {
    const int64_t i = t < head ? t : t + vectors * kElements;
    const float g = grad[i];
    grad[i] = 0.0f;
    if (!sane) continue;
    float master;
    if constexpr (sizeof(T) == 2)
      master = join_master(w[i], remainder[i]);
    else
      master = w[i];
    step.apply(master, m[i], v[i], g);
    if constexpr (sizeof(T) == 2) {
      const SplitMaster s = split_master(master);
      w[i] = s.weight;
      remainder[i] = s.remainder;
    } else {
      w[i] = master;
    }
  }
}

bool aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

}  // namespace

size_t squares_workspace() {
  Arena measure("squares");
  measure.take("squares", DType::f64, {kSumBlocks});
  return measure.peak();
}

template <class T>
void CudaBackend<T>::sum_of_squares(const Tensor& out, const Tensor& x) {
  check_sum_of_squares(out, x);
  ArenaScope scope(workspace());
  const Tensor parts = workspace().take("squares", DType::f64, {kSumBlocks});
  launch(aligned(x.data) ? squares_kernel<4> : squares_kernel<1>, {dim3(kSumBlocks), dim3(kThreads), 0, stream_},
         parts.as<double>(), x.as<const float>(), x.numel());
  launch(add_squares_kernel, {dim3(1), dim3(kThreads), 0, stream_}, out.as<double>(), parts.as<const double>());
}

template <class T>
void CudaBackend<T>::adamw(const Tensor& w, const Tensor& remainder, const Tensor& m, const Tensor& v,
                           const Tensor& grad, const Tensor& norm2, const AdamW& p) {
  check_adamw(dtype(), w, remainder, m, v, grad, norm2, p);
  const int64_t n = w.numel();
  if (n == 0) return;
  const double t = p.step;
  // Elements before the first that is aligned in all tensors: these are slices of larger tensors, cut at the same
  // place.
  int64_t head = 0;
  while (head < kElements && head < n && !aligned(m.as<float>() + head)) ++head;
  while (head < kElements && head < n && !aligned(w.as<T>() + head)) head += 4;
  const bool vectors = head < kElements && aligned(w.as<T>() + head) && aligned(m.as<float>() + head) &&
                       aligned(v.as<float>() + head) && aligned(grad.as<float>() + head) &&
                       (!remainder || aligned(remainder.as<int16_t>() + head));
  const int64_t count = vectors && n > head ? (n - head) / kElements : 0;
  if (count == 0) head = n;
  const int64_t blocks = std::min(ceil_div(std::max(count, n - count * kElements), kThreads),
                                  int64_t{properties_.multiProcessorCount} * 16);
  launch(adamw_kernel<T>, {grid_of(blocks), dim3(kThreads), 0, stream_}, w.as<T>(),
         remainder ? remainder.as<int16_t>() : nullptr, m.as<float>(), v.as<float>(), grad.as<float>(),
         norm2.as<const double>(), p, static_cast<float>(1.0 / (1.0 - std::pow(double{p.beta1}, t))),
         static_cast<float>(1.0 / (1.0 - std::pow(double{p.beta2}, t))), head, count, n);
}

#define DAPO_INSTANTIATE(T)                                                                                      \
  template void CudaBackend<T>::sum_of_squares(const Tensor&, const Tensor&);                                    \
  template void CudaBackend<T>::adamw(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, \
                                      const Tensor&, const AdamW&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
