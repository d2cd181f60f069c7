// rope: rotates q and k of packed rows by their positions.
#include "core/op_checks.h"
#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace dapo::cpu {

template <class T>
void CpuBackend<T>::rope(const Tensor& qkv, const Tensor& table, const Tensor& positions, const AttentionDims& dims,
                         bool inverse) {
  check_rope(dtype(), qkv, table, positions, dims);
  const int64_t rows = qkv.dim(0), width = dims.qkv_width(), half = dims.head_dim / 2;
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
