// cast and increment.
#include "core/op_checks.h"
#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace dapo::cpu {

template <class T>
void CpuBackend<T>::cast(const Tensor& to, const Tensor& from) {
  check_cast(to, from);
  const int64_t size = from.numel();
  if (to.dtype == from.dtype) return copy(to, from);
  if (size == 0) return;
  const auto convert = [size](auto* out, const auto* in) {
    constexpr int64_t kPiece = 4096;
#pragma omp parallel for schedule(static) if (size > kParallelFrom)
    for (int64_t begin = 0; begin < size; begin += kPiece)
      each_part(std::min(kPiece, size - begin),
                [&](int64_t c, auto n) { store_part(out + begin + c, load_part(in + begin + c, n), n); });
  };
  if (to.dtype == DType::f32)
    convert(to.as<float>(), from.as<const bf16>());
  else
    convert(to.as<bf16>(), from.as<const float>());
}

template <class T>
void CpuBackend<T>::increment(const Tensor& t) {
  check_increment(t);
  int32_t* x = t.as<int32_t>();
  for (int64_t i = 0; i < t.numel(); ++i) ++x[i];
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
