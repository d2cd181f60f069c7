// rmsnorm with the addition to the residual, and its backward.
#include <cmath>

#include "core/op_checks.h"
#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"
#include "cpu/vec.h"
#include "cpu/workspace.h"

namespace dapo::cpu {
namespace {

/// Rows whose part of dw is summed separately: the order of the sum depends on N, not on the threads.
constexpr int64_t kBlockRows = 64;

int64_t blocks_of(int64_t rows) {
  return ceil_div(rows, kBlockRows);
}

int64_t parts_of(const Tensor& delta) {
  return delta.rank == 3 ? delta.dim(0) : 1;
}
/// n elements at `from` of each part, added in order.
template <class T, class N>
DAPO_ALWAYS_INLINE f32x16 load_sum(const T* from, int64_t parts, int64_t part, N n) {
  f32x16 sum = load_part(from, n);
  for (int64_t p = 1; p < parts; ++p) sum += load_part(from + p * part, n);
  return sum;
}

}  // namespace

size_t rmsnorm_workspace_bytes(const WorkspaceNeeds& needs) {
  Arena measure("rmsnorm");
  measure.take("rmsnorm dw", DType::f32, {blocks_of(std::max(needs.max_tokens, needs.max_head_rows)), needs.hidden});
  return measure.peak();
}

template <class T>
void CpuBackend<T>::rmsnorm(const Tensor& y, const Tensor& sum, const Tensor& rstd, const Tensor& x,
                            const Tensor& delta, const Tensor& w, float eps) {
  check_rmsnorm(dtype(), y, sum, rstd, x, delta, w);
  const int64_t rows = x.dim(0), width = x.dim(1);
  if (rows == 0) return;
  const T *add = delta ? delta.as<T>() : nullptr, *weight = w.as<T>();
  const int64_t parts = parts_of(delta), part = rows * width;
  T* out = y.as<T>();
  const float* from = x.as<float>();
  float *residual = delta ? sum.as<float>() : nullptr, *scale = rstd ? rstd.as<float>() : nullptr;
#pragma omp parallel for schedule(static) if (rows * width > kParallelFrom)
  for (int64_t r = 0; r < rows; ++r) {
    const float* s = from + r * width;
    f32x16 squares = {};
    if (add != nullptr) {
      float* to = residual + r * width;
      each_part(width, [&](int64_t c, auto n) {
        const f32x16 v = load_part(s + c, n) + load_sum(add + r * width + c, parts, part, n);
        store_part(to + c, v, n);
        squares = fma(v, v, squares);
      });
      s = to;
    } else {
      each_part(width, [&](int64_t c, auto n) {
        const f32x16 v = load_part(s + c, n);
        squares = fma(v, v, squares);
      });
    }
    const float inverse = 1.0f / std::sqrt(sum_lanes(squares) / width + eps);
    if (scale != nullptr) scale[r] = inverse;
    each_part(width, [&](int64_t c, auto n) {
      store_part(out + r * width + c, load_part(s + c, n) * inverse * load_part(weight + c, n), n);
    });
  }
}

/// to = part 0 + part 1 + ... of `size` elements each.
template <class To, class From>
void sum_parts(To* to, const From* from, int64_t parts, int64_t size) {
  constexpr int64_t kRun = 4096;
#pragma omp parallel for schedule(static) if (size > kParallelFrom)
  for (int64_t begin = 0; begin < size; begin += kRun)
    each_part(std::min(kRun, size - begin),
              [&](int64_t c, auto n) { store_part(to + begin + c, load_sum(from + begin + c, parts, size, n), n); });
}

template <class T>
void CpuBackend<T>::add_parts(const Tensor& sum, const Tensor& parts) {
  check_add_parts(sum, parts);
  const auto add = [&](auto* to, const auto* from) { sum_parts(to, from, parts_of(parts), sum.numel()); };
  if (parts.dtype == DType::f32) return add(sum.as<float>(), parts.as<const float>());
  if (sum.dtype == DType::f32) return add(sum.as<float>(), parts.as<const bf16>());
  add(sum.as<bf16>(), parts.as<const bf16>());
}

template <class T>
void CpuBackend<T>::rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                                     const Tensor& w, const Tensor& rstd) {
  check_rmsnorm_backward(dtype(), dx, dw, dy, x, w, rstd);
  const int64_t rows = x.dim(0), width = x.dim(1);
  if (rows == 0) return;
  ArenaScope scope(workspace());
  const int64_t blocks = blocks_of(rows);
  float* partial = workspace().take("rmsnorm dw", DType::f32, {blocks, width}).template as<float>();
  T* to = dx.as<T>();
  const T *grad = dy.as<T>(), *weight = w.as<T>();
  const float *from = x.as<float>(), *scale = rstd.as<float>();
#pragma omp parallel for schedule(static) if (rows * width > kParallelFrom)
  for (int64_t b = 0; b < blocks; ++b) {
    float* p = partial + b * width;
    std::memset(p, 0, width * sizeof(float));
    for (int64_t r = b * kBlockRows; r < std::min(rows, (b + 1) * kBlockRows); ++r) {
      const T* d = grad + r * width;
      const float* v = from + r * width;
      f32x16 dots = {};
      each_part(width, [&](int64_t c, auto n) {
        dots = fma(load_part(d + c, n) * load_part(weight + c, n), load_part(v + c, n), dots);
      });
      const float s = scale[r], mean = sum_lanes(dots) * s / width;
      each_part(width, [&](int64_t c, auto n) {
        const f32x16 dc = load_part(d + c, n), h = load_part(v + c, n) * s;
        const f32x16 g = fma(h, -mean, dc * load_part(weight + c, n));
        store_part(to + r * width + c, fma(g, s, load_part(to + r * width + c, n)), n);
        store_part(p + c, fma(dc, h, load_part(p + c, n)), n);
      });
    }
  }
  float* sum = dw.as<float>();
  for (int64_t b = 0; b < blocks; ++b)
    each_part(width, [&](int64_t c, auto n) {
      store_part(sum + c, load_part(sum + c, n) + load_part(partial + b * width + c, n), n);
    });
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
