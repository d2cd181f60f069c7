// swiglu: silu(gate) * up, and its gradient.
#include "core/op_checks.h"
#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace dapo::cpu {
namespace {

DAPO_ALWAYS_INLINE f32x16 sigmoid(f32x16 x) {
  return 1.0f / (1.0f + vexp(-x));
}

}  // namespace

template <class T>
void CpuBackend<T>::swiglu(const Tensor& a, const Tensor& gu) {
  check_swiglu(dtype(), a, gu);
  const int64_t rows = a.dim(0), width = a.dim(1);
  if (rows == 0) return;
  T* to = a.as<T>();
  const T* from = gu.as<T>();
#pragma omp parallel for if (rows * width > kParallelFrom / 4)
  for (int64_t r = 0; r < rows; ++r) {
    const T *gate = from + r * 2 * width, *up = gate + width;
    T* out = to + r * width;
    each_part(width, [&](int64_t c, auto n) {
      const f32x16 g = load_part(gate + c, n);
      store_part(out + c, g * sigmoid(g) * load_part(up + c, n), n);
    });
  }
}

template <class T>
void CpuBackend<T>::swiglu_backward(const Tensor& dgu, const Tensor& a, const Tensor& da, const Tensor& gu) {
  check_swiglu_backward(dtype(), dgu, a, da, gu);
  const int64_t rows = da.dim(0), width = da.dim(1);
  if (rows == 0) return;
  T *to = dgu.as<T>(), *again = a ? a.as<T>() : nullptr;
  const T *grad = da.as<T>(), *from = gu.as<T>();
#pragma omp parallel for if (rows * width > kParallelFrom / 4)
  for (int64_t r = 0; r < rows; ++r) {
    const T *gate = from + r * 2 * width, *up = gate + width, *d_row = grad + r * width;
    T *dgate = to + r * 2 * width, *dup = dgate + width;
    each_part(width, [&](int64_t c, auto n) {
      const f32x16 g = load_part(gate + c, n), u = load_part(up + c, n), d = load_part(d_row + c, n);
      const f32x16 s = sigmoid(g), silu = g * s;
      store_part(dgate + c, d * u * s * fma(g, 1.0f - s, splat(1.0f)), n);
      store_part(dup + c, d * silu, n);
      if (again != nullptr) store_part(again + r * width + c, silu * u, n);
    });
  }
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
