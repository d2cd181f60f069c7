// swiglu: a = silu(gate) * up, and its backward; one pass over memory each.
#include "core/op_checks.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "cuda/shape.h"
#include "cuda/vec.cuh"

namespace dapo::cuda {
namespace {

__device__ __forceinline__ float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

template <class T, int W>
__global__ void swiglu_kernel(T* a, const T* gu, int ffn) {
  begin_overlapped();
  const int64_t n = blockIdx.x;
  const int c = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * W;
  if (c >= ffn) return;
  float g[W], u[W];
  load_floats<W>(g, gu + n * 2 * ffn + c);
  load_floats<W>(u, gu + n * 2 * ffn + ffn + c);
#pragma unroll
  for (int i = 0; i < W; ++i) g[i] = g[i] * sigmoid(g[i]) * u[i];
  store_floats<W>(a + n * ffn + c, g);
}

template <class T, int W>
__global__ void swiglu_backward_kernel(T* dgu, T* a, const T* da, const T* gu, int ffn) {
  const int64_t n = blockIdx.x;
  const int c = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * W;
  if (c >= ffn) return;
  float g[W], u[W], d[W], out[W];
  load_floats<W>(g, gu + n * 2 * ffn + c);
  load_floats<W>(u, gu + n * 2 * ffn + ffn + c);
  load_floats<W>(d, da + n * ffn + c);
#pragma unroll
  for (int i = 0; i < W; ++i) {
    const float s = sigmoid(g[i]), silu = g[i] * s;
    out[i] = silu * u[i];
    g[i] = d[i] * u[i] * (s + silu * (1.0f - s));
    u[i] = d[i] * silu;
  }
  store_floats<W>(dgu + n * 2 * ffn + c, g);
  store_floats<W>(dgu + n * 2 * ffn + ffn + c, u);
  if (a != nullptr) store_floats<W>(a + n * ffn + c, out);
}

constexpr int kThreads = 256;

/// Rows over x, of which a grid may have 2^31, columns over y.
dim3 grid(int64_t rows, int ffn, int width) {
  return dim3(grid_of(rows).x, ceil_div(ceil_div(ffn, width), kThreads));
}

}  // namespace

template <class T>
void CudaBackend<T>::swiglu(const Tensor& a, const Tensor& gu) {
  check_swiglu(dtype(), a, gu);
  const int64_t rows = a.dim(0);
  const int ffn = narrow(a.dim(1));
  if (rows == 0) return;
  with_width<T>(ffn, [&]<int W>() {
    launch_overlapped(swiglu_kernel<T, W>, {grid(rows, ffn, W), dim3(kThreads), 0, stream_}, a.as<T>(),
                      gu.as<const T>(), ffn);
  });
}

template <class T>
void CudaBackend<T>::swiglu_backward(const Tensor& dgu, const Tensor& a, const Tensor& da, const Tensor& gu) {
  check_swiglu_backward(dtype(), dgu, a, da, gu);
  const int64_t rows = da.dim(0);
  const int ffn = narrow(da.dim(1));
  if (rows == 0) return;
  with_width<T>(ffn, [&]<int W>() {
    launch(swiglu_backward_kernel<T, W>, {grid(rows, ffn, W), dim3(kThreads), 0, stream_}, dgu.as<T>(),
           a ? a.as<T>() : nullptr, da.as<const T>(), gu.as<const T>(), ffn);
  });
}

#define DAPO_INSTANTIATE(T)                                           \
  template void CudaBackend<T>::swiglu(const Tensor&, const Tensor&); \
  template void CudaBackend<T>::swiglu_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
