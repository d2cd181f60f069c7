// rope: q and k of packed rows turned by their positions.
#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace dapo::cpu {

template <class T>
void CpuBackend<T>::rope(const Tensor& qkv, const Tensor& table, const Tensor& positions, const AttentionDims& dims,
                         bool inverse) {
  const int64_t rows = qkv.dim(0), width = dims.qkv_width(), half = dims.head_dim / 2;
  CHECK_EQ(dims.head_dim % 2, 0);
  expect("rope: qkv", qkv, dtype(), {rows, width});
  expect("rope: table", table, DType::f32, {table.dim(0), dims.head_dim});
  expect("rope: positions", positions, DType::i32, {rows});
  if (rows == 0) return;
  const int64_t heads = dims.heads + dims.kv_heads;
  const float sign = inverse ? -1.0f : 1.0f;
  T* x = qkv.as<T>();
  const float* angles = table.as<float>();
  const int32_t* position = positions.as<int32_t>();
#pragma omp parallel for schedule(static) if (rows * width > kParallelFrom)
  for (int64_t r = 0; r < rows; ++r) {
    const float *cosine = angles + position[r] * int64_t{dims.head_dim}, *sine = cosine + half;
    for (int64_t h = 0; h < heads; ++h) {
      T *low = x + r * width + h * dims.head_dim, *high = low + half;
      each_part(half, [&](int64_t c, auto n) {
        const f32x16 a = load_part(low + c, n), b = load_part(high + c, n);
        const f32x16 cs = load_part(cosine + c, n), sn = load_part(sine + c, n) * sign;
        store_part(low + c, fma(a, cs, -(b * sn)), n);
        store_part(high + c, fma(b, cs, a * sn), n);
      });
    }
  }
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
