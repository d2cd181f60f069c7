// sum_of_squares, AdamW, cast, increment: one pass each over flat memory.
#include <algorithm>
#include <cmath>

#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/reduce.cuh"
#include "cuda/shape.h"
#include "cuda/vec.cuh"
#include "cuda/workspace.h"

namespace dapo::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kSumBlocks = 512;  // fixed, so that the order of the sum depends on the length alone

__global__ void squares_kernel(double* parts, const float* x, int64_t n) {
  __shared__ double scratch[kWarp];
  double sum = 0;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const double v = x[i];
    sum += v * v;
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}
__global__ void add_squares_kernel(double* out, const double* parts) {
  __shared__ double scratch[kWarp];
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < kSumBlocks; i += static_cast<int>(blockDim.x)) sum += parts[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *out += sum;
}

/// remainder is null where T is f32.
template <class T>
__global__ void adamw_kernel(T* w, int16_t* remainder, float* m, float* v, float* grad, const double* norm2, AdamW p,
                             float correction1, float correction2, int64_t n) {
  const double total = *norm2;
  const bool sane = isfinite(total);
  const float norm = static_cast<float>(sqrt(total));
  const float scale = p.max_norm > 0.0f ? fminf(1.0f, p.max_norm / (norm + 1e-6f)) : 1.0f;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    const float g = grad[i] * scale;
    grad[i] = 0.0f;
    if (!sane) continue;
    float master;
    if constexpr (sizeof(T) == 2)
      master = join_master(w[i], remainder[i]);
    else
      master = w[i];
    const float mi = p.beta1 * m[i] + (1.0f - p.beta1) * g;
    const float vi = p.beta2 * v[i] + (1.0f - p.beta2) * g * g;
    m[i] = mi;
    v[i] = vi;
    master *= 1.0f - p.lr * p.weight_decay;
    master -= p.lr * (mi * correction1) / (sqrtf(vi * correction2) + p.eps);
    if constexpr (sizeof(T) == 2) {
      const SplitMaster s = split_master(master);
      w[i] = s.weight;
      remainder[i] = s.remainder;
    } else {
      w[i] = master;
    }
  }
}

template <class To, class From>
__global__ void cast_kernel(To* to, const From* from, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) to[i] = from_float<To>(to_float(from[i]));
}
__global__ void increment_kernel(int32_t* t, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) t[i] += 1;
}

}  // namespace

size_t squares_workspace() {
  Arena measure("squares");
  measure.take("squares", DType::f64, {kSumBlocks});
  return measure.peak();
}

template <class T>
void CudaBackend<T>::sum_of_squares(const Tensor& out, const Tensor& x) {
  expect("sum_of_squares out", out, DType::f64, {1});
  ArenaScope scope(workspace());
  const Tensor parts = workspace().take("squares", DType::f64, {kSumBlocks});
  launch(squares_kernel, {dim3(kSumBlocks), dim3(kThreads), 0, stream_}, parts.as<double>(), x.as<const float>(),
         x.numel());
  launch(add_squares_kernel, {dim3(1), dim3(kThreads), 0, stream_}, out.as<double>(), parts.as<const double>());
}

template <class T>
void CudaBackend<T>::adamw(const Tensor& w, const Tensor& remainder, const Tensor& m, const Tensor& v,
                           const Tensor& grad, const Tensor& norm2, const AdamW& p) {
  const int64_t n = w.numel();
  for (const Tensor* t : {&m, &v, &grad}) expect("adamw m, v, grad", *t, DType::f32, {n});
  CHECK_EQ(remainder.numel(), sizeof(T) == 2 ? n : 0, "adamw remainder {}", remainder.describe());
  if (n == 0) return;
  const double t = static_cast<double>(p.step);
  const int64_t blocks = std::min<int64_t>(ceil_div(n, kThreads * 4), int64_t{properties_.multiProcessorCount} * 16);
  launch(adamw_kernel<T>, {grid_of(blocks), dim3(kThreads), 0, stream_}, w.as<T>(),
         remainder ? remainder.as<int16_t>() : nullptr, m.as<float>(), v.as<float>(), grad.as<float>(),
         norm2.as<const double>(), p, static_cast<float>(1.0 / (1.0 - std::pow(double{p.beta1}, t))),
         static_cast<float>(1.0 / (1.0 - std::pow(double{p.beta2}, t))), n);
}

template <class T>
void CudaBackend<T>::cast(const Tensor& to, const Tensor& from) {
  const int64_t n = from.numel();
  CHECK_EQ(to.numel(), n, "cast");
  if (n == 0) return;
  if (to.dtype == from.dtype) return copy(to, from);
  const LaunchConfig config{grid_of(ceil_div(n, kThreads)), dim3(kThreads), 0, stream_};
  if (to.dtype == DType::bf16)
    launch(cast_kernel<bf16, float>, config, to.as<bf16>(), from.as<const float>(), n);
  else
    launch(cast_kernel<float, bf16>, config, to.as<float>(), from.as<const bf16>(), n);
}

template <class T>
void CudaBackend<T>::increment(const Tensor& t) {
  if (t.numel() == 0) return;
  launch(increment_kernel, {grid_of(ceil_div(t.numel(), kThreads)), dim3(kThreads), 0, stream_}, t.as<int32_t>(),
         t.numel());
}

#define DAPO_INSTANTIATE(T)                                                                                      \
  template void CudaBackend<T>::sum_of_squares(const Tensor&, const Tensor&);                                    \
  template void CudaBackend<T>::adamw(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, \
                                      const Tensor&, const AdamW&);                                              \
  template void CudaBackend<T>::cast(const Tensor&, const Tensor&);                                              \
  template void CudaBackend<T>::increment(const Tensor&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
