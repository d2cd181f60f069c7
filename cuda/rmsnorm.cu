// rmsnorm with the addition to the residual fused in, and its backward. Forward: one block for each row. Backward: a
// thread keeps its column's sum of dw over the rows of its block, and the blocks' sums are then added in order.
#include "core/op_checks.h"
#include "cuda/add_parts.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "cuda/reduce.cuh"
#include "cuda/shape.h"
#include "cuda/thread.cuh"
#include "cuda/vec.cuh"
#include "cuda/workspace.h"

namespace dapo::cuda {
namespace {

/// Rows of a block in rmsnorm_backward: enough to have few partial sums of dw, few enough to fill the GPU.
constexpr int kBackwardRows = 16;

template <class T, int W>
__global__ void rmsnorm_kernel(T* y, float* sum, float* rstd, const float* x, const T* delta, const T* w, float eps,
                               int columns) {
  __shared__ float scratch[kWarp];
  begin_overlapped();
  const int64_t row = int64_t{blockIdx.x} * columns;
  const float* stored = delta == nullptr ? x + row : sum + row;  // the second pass reads what this thread wrote
  float squares = 0.0f;
  for (int c = thread_x() * W; c < columns; c += block_width() * W) {
    float s[W];
    load_floats<W>(s, x + row + c);
    if (delta != nullptr) {
      float d[W];
      load_floats<W>(d, delta + row + c);
#pragma unroll
      for (int i = 0; i < W; ++i) s[i] += d[i];
      store_floats<W>(sum + row + c, s);
    }
#pragma unroll
    for (int i = 0; i < W; ++i) squares += s[i] * s[i];
  }
  const float r = rsqrtf(block_sum(squares, scratch) / static_cast<float>(columns) + eps);
  for (int c = thread_x() * W; c < columns; c += block_width() * W) {
    float s[W], g[W];
    load_floats<W>(s, stored + c);
    load_floats<W>(g, w + c);
#pragma unroll
    for (int i = 0; i < W; ++i) s[i] = s[i] * r * g[i];
    store_floats<W>(y + row + c, s);
  }
  if (rstd != nullptr && threadIdx.x == 0) rstd[blockIdx.x] = r;
}

/// dw_parts[block, C]. The columns' sums are in shared memory; each is touched by one thread only.
template <class T, int W>
__global__ void rmsnorm_backward_kernel(T* dx, float* dw_parts, const T* dy, const float* x, const T* w,
                                        const float* rstd, int rows, int columns) {
  __shared__ float scratch[kWarp];
  float* dw = dynamic_smem<float>();
  for (int c = thread_x() * W; c < columns; c += block_width() * W)
#pragma unroll
    for (int i = 0; i < W; ++i) dw[c + i] = 0.0f;
  const int begin = block_x() * kBackwardRows;
  const int end = begin + kBackwardRows < rows ? begin + kBackwardRows : rows;
  for (int n = begin; n < end; ++n) {
    const int64_t row = int64_t{n} * columns;
    const float r = rstd[n];
    float dot = 0.0f;
    for (int c = thread_x() * W; c < columns; c += block_width() * W) {
      float g[W], h[W], v[W];
      load_floats<W>(g, dy + row + c);
      load_floats<W>(h, x + row + c);
      load_floats<W>(v, w + c);
#pragma unroll
      for (int i = 0; i < W; ++i) {
        h[i] *= r;
        dw[c + i] += g[i] * h[i];
        dot += g[i] * v[i] * h[i];
      }
    }
    const float mean = block_sum(dot, scratch) / static_cast<float>(columns);
    for (int c = thread_x() * W; c < columns; c += block_width() * W) {
      float g[W], h[W], v[W], d[W];
      load_floats<W>(g, dy + row + c);
      load_floats<W>(h, x + row + c);
      load_floats<W>(v, w + c);
      load_floats<W>(d, dx + row + c);
#pragma unroll
      for (int i = 0; i < W; ++i) d[i] += r * (g[i] * v[i] - h[i] * r * mean);  // h here is x
      store_floats<W>(dx + row + c, d);
    }
  }
  for (int c = thread_x() * W; c < columns; c += block_width() * W)
#pragma unroll
    for (int i = 0; i < W; ++i) dw_parts[int64_t{blockIdx.x} * columns + c + i] = dw[c + i];
}

}  // namespace

size_t rmsnorm_workspace(const WorkspaceNeeds& needs) {
  Arena measure("rmsnorm");
  measure.take("rmsnorm dw", DType::f32,
               {ceil_div(std::max(needs.max_tokens, needs.max_head_rows), kBackwardRows), needs.hidden});
  return measure.peak();
}

template <class T>
void CudaBackend<T>::rmsnorm(const Tensor& y, const Tensor& sum, const Tensor& rstd, const Tensor& x,
                             const Tensor& delta, const Tensor& w, float eps) {
  check_rmsnorm(dtype(), y, sum, rstd, x, delta, w);
  const int64_t rows = x.dim(0);
  const int columns = narrow(x.dim(1));
  if (rows == 0) return;
  with_width<T>(columns, [&]<int W>() {
    launch_overlapped(rmsnorm_kernel<T, W>, {grid_of(rows), row_threads(columns, W), 0, stream_}, y.as<T>(),
                      delta ? sum.as<float>() : nullptr, rstd ? rstd.as<float>() : nullptr, x.as<const float>(),
                      delta ? delta.as<const T>() : nullptr, w.as<const T>(), eps, columns);
  });
}

template <class T>
void CudaBackend<T>::rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                                      const Tensor& w, const Tensor& rstd) {
  check_rmsnorm_backward(dtype(), dx, dw, dy, x, w, rstd);
  const int rows = narrow(x.dim(0)), columns = narrow(x.dim(1));
  if (rows == 0) return;
  const int blocks = narrow(ceil_div(rows, kBackwardRows));
  ArenaScope scope(workspace());
  const Tensor parts = workspace().take("rmsnorm dw", DType::f32, {blocks, columns});
  with_width<T>(columns, [&]<int W>() {
    launch(rmsnorm_backward_kernel<T, W>, {grid_of(blocks), row_threads(columns, W), columns * sizeof(float), stream_},
           dx.as<T>(), parts.as<float>(), dy.as<const T>(), x.as<const float>(), w.as<const T>(),
           rstd.as<const float>(), rows, columns);
  });
  add_parts(dw.as<float>(), parts.as<const float>(), blocks, columns, stream_);
}

#define DAPO_INSTANTIATE(T)                                                                                        \
  template void CudaBackend<T>::rmsnorm(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, \
                                        const Tensor&, float);                                                     \
  template void CudaBackend<T>::rmsnorm_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,       \
                                                 const Tensor&, const Tensor&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
