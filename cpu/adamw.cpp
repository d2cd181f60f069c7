// sum_of_squares and adamw: the update.
#include <cmath>

#include "core/op_checks.h"
#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"

namespace dapo::cpu {
namespace {

using f64x16 = double __attribute__((vector_size(128)));

/// Where part `i` of `parts` begins in a run of n, on a multiple of the lanes.
int64_t part_begin(int64_t n, int64_t i, int64_t parts) {
  return i == parts ? n : n / kLanes * i / parts * kLanes;
}

// The master: a float, or a bf16 weight with its remainder (core/dtype.h's join_master and split_master, by lanes).
template <class N>
DAPO_ALWAYS_INLINE f32x16 load_master(const float* w, const int16_t*, N n) {
  return load_part(w, n);
}
template <class N>
DAPO_ALWAYS_INLINE void store_master(float* w, int16_t*, f32x16 v, N n) {
  store_part(w, v, n);
}
template <class N>
DAPO_ALWAYS_INLINE f32x16 load_master(const bf16* w, const int16_t* remainder, N n) {
  using i16x16 = int16_t __attribute__((vector_size(32)));
  i16x16 low = {};
  std::memcpy(&low, remainder, n * sizeof(int16_t));
  const u32x16 high = reinterpret_cast<u32x16>(load_part(w, n));
  return reinterpret_cast<f32x16>(high + reinterpret_cast<u32x16>(__builtin_convertvector(low, i32x16)));
}
template <class N>
DAPO_ALWAYS_INLINE void store_master(bf16* w, int16_t* remainder, f32x16 v, N n) {
  const u32x16 u = reinterpret_cast<u32x16>(v);
  const u16x16 high = __builtin_convertvector((u + 0x8000u) >> 16, u16x16);
  const u16x16 low = __builtin_convertvector(u, u16x16);
  std::memcpy(w, &high, n * sizeof(bf16));
  std::memcpy(remainder, &low, n * sizeof(int16_t));
}

}  // namespace

template <class T>
void CpuBackend<T>::sum_of_squares(const Tensor& out, const Tensor& x) {
  check_sum_of_squares(out, x);
  const int64_t size = x.numel();
  if (size == 0) return;
  const float* from = x.as<float>();
  constexpr int64_t kParts = 256;  // a fixed number: the order of the sum does not depend on the threads
  double partial[kParts];
#pragma omp parallel for schedule(static) if (size > kParallelFrom)
  for (int64_t i = 0; i < kParts; ++i) {
    const int64_t begin = part_begin(size, i, kParts);
    f64x16 sum = {};
    each_part(part_begin(size, i + 1, kParts) - begin, [&](int64_t c, auto n) {
      const f64x16 v = __builtin_convertvector(load_part(from + begin + c, n), f64x16);
      sum += v * v;
    });
    partial[i] = 0;
    for (int l = 0; l < kLanes; ++l) partial[i] += sum[l];
  }
  double total = 0;
  for (const double p : partial) total += p;
  *out.as<double>() += total;
}

template <class T>
void CpuBackend<T>::adamw(const Tensor& w, const Tensor& remainder, const Tensor& m, const Tensor& v,
                          const Tensor& grad, const Tensor& norm2, const AdamW& params) {
  check_adamw(dtype(), w, remainder, m, v, grad, norm2, params);
  const int64_t size = w.numel();
  if (size == 0) return;
  const double squares = *norm2.as<double>();
  if (!std::isfinite(squares)) return zero(grad);

  const double clip = params.max_norm > 0 ? params.max_norm / (std::sqrt(squares) + 1e-6) : 1.0;
  const double correction1 = 1 - std::pow(double{params.beta1}, params.step);
  const double correction2 = 1 - std::pow(double{params.beta2}, params.step);
  const float scale = std::min(1.0, clip);
  const float keep1 = params.beta1, add1 = 1 - params.beta1, keep2 = params.beta2, add2 = 1 - params.beta2;
  const float decay = 1 - double{params.lr} * params.weight_decay;
  const float step = -params.lr / correction1;
  const float root = 1 / std::sqrt(correction2);
  T* weight = w.as<T>();
  int16_t* low = remainder ? remainder.as<int16_t>() : nullptr;
  float *mean = m.as<float>(), *square = v.as<float>(), *g = grad.as<float>();
  constexpr int64_t kPiece = 4096;
#pragma omp parallel for schedule(static) if (size > kParallelFrom)
  for (int64_t begin = 0; begin < size; begin += kPiece)
    each_part(std::min(kPiece, size - begin), [&](int64_t c, auto n) {
      const int64_t i = begin + c;
      const f32x16 gi = load_part(g + i, n) * scale;
      const f32x16 mi = fma(load_part(mean + i, n), keep1, gi * add1);
      const f32x16 vi = fma(load_part(square + i, n), keep2, gi * gi * add2);
      const f32x16 old = load_master(weight + i, low ? low + i : nullptr, n);
      const f32x16 update = mi / fma(vsqrt(vi), root, splat(params.eps));
      store_master(weight + i, low ? low + i : nullptr, fma(update, step, old * decay), n);
      store_part(mean + i, mi, n);
      store_part(square + i, vi, n);
      store_part(g + i, f32x16{}, n);
    });
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
