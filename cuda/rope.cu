// rope: rotates the pairs (i, i + D/2) of q and k in place. A thread a pair; consecutive threads take consecutive
// pairs.
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/shape.h"

namespace dapo::cuda {
namespace {

template <class T>
__global__ void rope_kernel(T* qkv, const float* table, const int32_t* positions, int heads, int half, int width,
                            float sign) {
  const int64_t n = blockIdx.x;
  const float* angles = table + int64_t{positions[n]} * 2 * half;
  T* row = qkv + n * width;
  for (int j = static_cast<int>(threadIdx.x); j < heads * half; j += static_cast<int>(blockDim.x)) {
    const int i = j % half;
    T* p = row + (j / half) * 2 * half + i;
    const float c = angles[i], s = sign * angles[half + i];
    const float a = to_float(p[0]), b = to_float(p[half]);
    p[0] = from_float<T>(a * c - b * s);
    p[half] = from_float<T>(b * c + a * s);
  }
}

}  // namespace

template <class T>
void CudaBackend<T>::rope(const Tensor& qkv, const Tensor& table, const Tensor& positions, const AttentionDims& dims,
                          bool inverse) {
  const int64_t rows = qkv.dim(0);
  expect("rope qkv", qkv, dtype(), {rows, dims.qkv_width()});
  expect("rope table", table, DType::f32, {table.dim(0), dims.head_dim});
  expect("rope positions", positions, DType::i32, {rows});
  if (rows == 0) return;
  const int heads = dims.heads + dims.kv_heads, half = dims.head_dim / 2;
  launch(rope_kernel<T>, {grid_of(rows), row_threads(heads * half, 2), 0, stream_}, qkv.as<T>(),
         table.as<const float>(), positions.as<const int32_t>(), heads, half, narrow(dims.qkv_width()),
         inverse ? -1.0f : 1.0f);
}

template void CudaBackend<float>::rope(const Tensor&, const Tensor&, const Tensor&, const AttentionDims&, bool);
template void CudaBackend<bf16>::rope(const Tensor&, const Tensor&, const Tensor&, const AttentionDims&, bool);

}  // namespace dapo::cuda
