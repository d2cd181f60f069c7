// rmsnorm with the addition to the residual fused in, and its backward. Forward: one block for each row. Backward: a
// thread keeps its columns' sums of dw over the rows of its block, and the blocks' sums are then added in a fixed order.
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

/// rmsnorm_backward: rows whose loads a block has in flight at once, and the threads of a block that takes so many.
constexpr int kBackwardRows = 2, kShortRow = 256;

/// Rows of a block in rmsnorm_backward: at most 512 partial sums of dw, so that these cost little, in blocks that all
/// fit on the GPU together. A pure function of the shape: the bits of dw depend on it.
constexpr int64_t kMostParts = 512;
int backward_rows(int64_t rows) {
  return narrow(ceil_div(rows, kMostParts * kBackwardRows) * kBackwardRows);
}

/// W elements of the sum of `parts` tensors of `part` elements, in their order.
template <int W, class T>
__device__ __forceinline__ void load_sum(float (&to)[W], const T* from, int parts, int64_t part) {
  load_floats<W>(to, from);
  for (int p = 1; p < parts; ++p) {
    float x[W];
    load_floats<W>(x, from + p * part);
#pragma unroll
    for (int i = 0; i < W; ++i) to[i] += x[i];
  }
}

/// delta: the sum of `parts` tensors. A thread keeps its first columns in registers, and reads their weights while the
/// kernel ahead runs.
template <class T, int W>
__global__ void rmsnorm_kernel(T* y, float* sum, float* rstd, const float* x, const T* delta, int parts, const T* w,
                               float eps, int columns) {
  __shared__ float scratch[kWarp];
  const int first = thread_x() * W;
  float s[W], kept[W], g[W];
  if (first < columns) load_floats<W>(g, w + first);
  begin_overlapped();
  const int64_t row = int64_t{blockIdx.x} * columns;
  const float* stored = delta == nullptr ? x + row : sum + row;  // the second pass reads what this thread wrote
  float squares = 0.0f;
  for (int c = first; c < columns; c += block_width() * W) {
    load_floats<W>(s, x + row + c);
    if (delta != nullptr) {
      float d[W];
      load_sum<W>(d, delta + row + c, parts, int64_t{gridDim.x} * columns);
#pragma unroll
      for (int i = 0; i < W; ++i) s[i] += d[i];
      store_floats<W>(sum + row + c, s);
    }
#pragma unroll
    for (int i = 0; i < W; ++i) {
      squares += s[i] * s[i];
      if (c == first) kept[i] = s[i];
    }
  }
  const float r = rsqrtf(block_sum(squares, scratch) / static_cast<float>(columns) + eps);
  for (int c = first; c < columns; c += block_width() * W) {
    if (c != first) {
      load_floats<W>(kept, stored + c);
      load_floats<W>(g, w + c);
    }
#pragma unroll
    for (int i = 0; i < W; ++i) s[i] = kept[i] * r * g[i];
    store_floats<W>(y + row + c, s);
  }
  if (rstd != nullptr && threadIdx.x == 0) rstd[blockIdx.x] = r;
}

template <class S, class P, int W>
__global__ void sum_parts_kernel(S* to, const P* from, int parts, int64_t part) {
  const int64_t i = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * W;
  if (i >= part) return;
  float sum[W];
  load_sum<W>(sum, from + i, parts, part);
  store_floats<W>(to + i, sum);
}

/// block_sum() of N numbers, each with a row of `scratch`.
template <int N>
__device__ __forceinline__ void block_sums(float (&x)[N], float (&scratch)[N][kWarp]) {
  const int warps = ceil_div(block_width(), kWarp);
  const int warp = thread_x() / kWarp, lane = thread_x() % kWarp;
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = warp_sum(x[i]);
  if (warps == 1) return;
  if (lane == 0)
#pragma unroll
    for (int i = 0; i < N; ++i) scratch[i][warp] = x[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = warp_sum(lane < warps ? scratch[i][lane] : 0.0f);
  __syncthreads();
}

/// dw_parts[block, C]. A thread has W columns: their weights and their sums of dw stay in registers over the rows of the
/// block, which come R at a time, so that the loads of R rows are in flight at once and R dot products share a barrier.
/// Rows wider than a block are cut into strips (block_y()), each of which sums the whole row's dot product.
template <class T, int W, int R>
__global__ void __launch_bounds__(R == 1 ? 1024 : kShortRow)
    rmsnorm_backward_kernel(T* __restrict__ dx, float* __restrict__ dw_parts, const T* __restrict__ dy,
                            const float* __restrict__ x, const T* __restrict__ w, const float* __restrict__ rstd,
                            int rows, int block_rows, int columns) {
  __shared__ float scratch[R][kWarp];
  const int strip = block_width() * W, own = block_y() * strip + thread_x() * W;
  const bool in = own < columns;
  const int c = in ? own : 0;
  float v[W], dw[W] = {};
  load_floats<W>(v, w + c);
  const int begin = block_x() * block_rows, end = begin + block_rows < rows ? begin + block_rows : rows;
  for (int n = begin; n < end; n += R) {
    float h[R][W], r[R], dot[R] = {};
    Vec<T, W> g[R], d[R];
#pragma unroll
    for (int i = 0; i < R; ++i) {  // a row past the end is the last one times zero
      const int row = n + i < end ? n + i : end - 1;
      const int64_t at = int64_t{row} * columns + c;
      load_floats<W>(h[i], x + at);
      g[i] = *reinterpret_cast<const Vec<T, W>*>(dy + at);
      d[i] = *reinterpret_cast<const Vec<T, W>*>(dx + at);
      r[i] = in && n + i < end ? rstd[row] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
      for (int j = 0; j < W; ++j) {
        h[i][j] *= r[i];
        const float product = to_float(g[i].v[j]) * h[i][j];
        dw[j] += product;
        dot[i] = fmaf(product, v[j], dot[i]);
      }
    if (gridDim.y > 1)
#pragma unroll 1
      for (int other = thread_x(); other < columns; other += block_width())
        if (other / strip != block_y())
#pragma unroll
          for (int i = 0; i < R; ++i) {
            const int64_t at = int64_t{n + i} * columns + other;
            if (n + i < end) dot[i] += to_float(dy[at]) * to_float(w[other]) * x[at] * rstd[n + i];
          }
    block_sums(dot, scratch);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      if (n + i >= end || !in) continue;
      const float mean = dot[i] / static_cast<float>(columns);
      float sum[W];
#pragma unroll
      for (int j = 0; j < W; ++j) sum[j] = to_float(d[i].v[j]) + r[i] * (to_float(g[i].v[j]) * v[j] - h[i][j] * mean);
      store_floats<W>(dx + int64_t{n + i} * columns + c, sum);
    }
  }
  if (in) store_floats<W>(dw_parts + int64_t{blockIdx.x} * columns + c, dw);
}

int parts_of(const Tensor& t) {
  return t.rank == 3 ? narrow(t.dim(0)) : 1;
}

}  // namespace

size_t rmsnorm_workspace(const WorkspaceNeeds& needs) {
  Arena measure("rmsnorm");
  const int64_t rows = std::max(needs.max_tokens, needs.max_head_rows);
  measure.take("rmsnorm dw", DType::f32, {std::min(ceil_div(rows, kBackwardRows), kMostParts), needs.hidden});
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
                      delta ? delta.as<const T>() : nullptr, parts_of(delta), w.as<const T>(), eps, columns);
  });
}

template <class T>
void CudaBackend<T>::add_parts(const Tensor& sum, const Tensor& parts) {
  check_add_parts(sum, parts);
  const int64_t part = sum.numel();
  if (part == 0) return;
  const auto add = [&]<class S, class P>(S* to, const P* from) {
    constexpr int kThreads = 256;
    with_width<S>(sum.dim(1), [&]<int W>() {
      launch(sum_parts_kernel<S, P, W>, {grid_of(ceil_div(part, kThreads * W)), dim3(kThreads), 0, stream_}, to, from,
             parts_of(parts), part);
    });
  };
  if (parts.dtype == DType::f32) return add(sum.as<float>(), parts.as<const float>());
  if (sum.dtype == DType::f32) return add(sum.as<float>(), parts.as<const bf16>());
  add(sum.as<bf16>(), parts.as<const bf16>());
}

template <class T>
void CudaBackend<T>::rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                                      const Tensor& w, const Tensor& rstd) {
  check_rmsnorm_backward(dtype(), dx, dw, dy, x, w, rstd);
  const int rows = narrow(x.dim(0)), columns = narrow(x.dim(1));
  if (rows == 0) return;
  const int block_rows = backward_rows(rows);
  const int64_t blocks = ceil_div(rows, block_rows);
  ArenaScope scope(workspace());
  const Tensor parts = workspace().take("rmsnorm dw", DType::f32, {blocks, columns});
  with_width<T>(columns, [&]<int W>() {
    const dim3 block = row_threads(columns, W);
    const bool is_short = block.x <= kShortRow;
    const auto kernel = is_short ? rmsnorm_backward_kernel<T, W, kBackwardRows> : rmsnorm_backward_kernel<T, W, 1>;
    const unsigned strips = ceil_div(columns, int64_t{block.x} * W);
    launch(kernel, {dim3(narrow(blocks), strips), block, 0, stream_}, dx.as<T>(), parts.as<float>(), dy.as<const T>(),
           x.as<const float>(), w.as<const T>(), rstd.as<const float>(), rows, block_rows, columns);
  });
  cuda::add_parts(dw.as<float>(), parts.as<const float>(), narrow(blocks), columns, stream_);
}

#define DAPO_INSTANTIATE(T)                                                                                        \
  template void CudaBackend<T>::rmsnorm(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, \
                                        const Tensor&, float);                                                     \
  template void CudaBackend<T>::add_parts(const Tensor&, const Tensor&);                                           \
  template void CudaBackend<T>::rmsnorm_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,       \
                                                 const Tensor&, const Tensor&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
