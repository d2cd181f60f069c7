// rope: rotates the pairs (i, i + D/2) of q and k in place. A thread takes W pairs of one head: 16 bytes of each half.
#include "core/op_checks.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/rope.cuh"
#include "cuda/shape.h"

namespace dapo::cuda {
namespace {

constexpr int kThreads = 256;

/// pieces: groups of W pairs in a row.
template <class T, int W>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(T* qkv, const float* __restrict__ table, const int32_t* __restrict__ positions, int pieces, int half,
                int width, float sign, int64_t count) {
  const int64_t job = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (job >= count) return;
  const int64_t n = job / pieces;
  const int pair = static_cast<int>(job - n * pieces) * W, head = pair / half, i = pair - head * half;
  const float* angles = table + int64_t{positions[n]} * 2 * half + i;
  T* p = qkv + n * width + head * 2 * half + i;
  float a[W], b[W];
  load_floats<W>(a, p);
  load_floats<W>(b, p + half);
  rotate(a, b, angles, half, sign);
  store_floats<W>(p, a);
  store_floats<W>(p + half, b);
}

}  // namespace

template <class T>
void CudaBackend<T>::rope(const Tensor& qkv, const Tensor& table, const Tensor& positions, const AttentionDims& dims,
                          bool inverse) {
  check_rope(dtype(), qkv, table, positions, dims);
  const int64_t rows = qkv.dim(0);
  if (rows == 0) return;
  const int heads = dims.heads + dims.kv_heads, half = dims.head_dim / 2;
  with_width<T>(half, [&]<int W>() {
    const int pieces = heads * (half / W);
    launch(rope_kernel<T, W>, {grid_of(ceil_div(rows * pieces, kThreads)), dim3(kThreads), 0, stream_}, qkv.as<T>(),
           table.as<const float>(), positions.as<const int32_t>(), pieces, half, narrow(dims.qkv_width()),
           inverse ? -1.0f : 1.0f, rows * pieces);
  });
}

template void CudaBackend<float>::rope(const Tensor&, const Tensor&, const Tensor&, const AttentionDims&, bool);
template void CudaBackend<bf16>::rope(const Tensor&, const Tensor&, const Tensor&, const AttentionDims&, bool);

}  // namespace dapo::cuda
