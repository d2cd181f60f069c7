// matmul and its two backwards over Products; the bias's gradient.
#include <algorithm>

#include "cuda/add_parts.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/products.h"
#include "cuda/shape.h"
#include "cuda/vec.cuh"
#include "cuda/workspace.h"

namespace dapo::cuda {
namespace {

constexpr int kBiasRows = 64;  // rows of one partial sum of a bias's gradient
constexpr int kBiasThreads = 128;

/// parts[block, n] = sum of the block's rows of dy.
template <class T>
__global__ void column_sums_kernel(float* parts, const T* dy, int rows, int columns) {
  const int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (c >= columns) return;
  const int begin = static_cast<int>(blockIdx.y) * kBiasRows;
  const int end = begin + kBiasRows < rows ? begin + kBiasRows : rows;
  float sum = 0.0f;
  for (int n = begin; n < end; ++n) sum += to_float(dy[int64_t{n} * columns + c]);
  parts[int64_t{blockIdx.y} * columns + c] = sum;
}

}  // namespace

template <class T>
void CudaBackend<T>::prepare_products(std::span<const WeightShape> weights, int64_t rows) {
  products_->prepare(weights, dtype(), rows);
}
template <class T>
std::string CudaBackend<T>::products_text() const {
  return products_->describe();
}

template <class T>
void CudaBackend<T>::matmul(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias) {
  const int64_t m = x.dim(0), n = w.dim(0), k = w.dim(1);
  expect("matmul y", y, dtype(), {m, n});
  expect("matmul x", x, dtype(), {m, k});
  expect("matmul w", w, dtype(), {n, k});
  if (bias) expect("matmul bias", bias, dtype(), {n});
  products_->run({m, n, k, dtype(), dtype(), dtype(), false, true, k, k, n, false, bias.data}, y.data, x.data, w.data);
}

template <class T>
void CudaBackend<T>::matmul_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& w) {
  const int64_t m = dy.dim(0), k = w.dim(0), n = w.dim(1);
  expect("matmul_backward_input dx", dx, dtype(), {m, n});
  expect("matmul_backward_input dy", dy, dtype(), {m, k});
  products_->run({m, n, k, dtype(), dtype(), dtype(), false, false, k, n, n}, dx.data, dy.data, w.data);
}

template <class T>
void CudaBackend<T>::matmul_backward_weight(const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x) {
  const int64_t k = dy.dim(0), m = dy.dim(1), n = x.dim(1);
  expect("matmul_backward_weight dw", dw, DType::f32, {m, n});
  expect("matmul_backward_weight x", x, dtype(), {k, n});
  if (k == 0) return;
  products_->run({m, n, k, dtype(), dtype(), DType::f32, true, false, m, n, n, true}, dw.data, dy.data, x.data);
  if (!db) return;
  expect("matmul_backward_weight db", db, DType::f32, {m});
  const int blocks = narrow(ceil_div(k, kBiasRows)), columns = narrow(m);
  ArenaScope scope(workspace());
  const Tensor parts = workspace().take("bias parts", DType::f32, {blocks, columns});
  const unsigned strips = static_cast<unsigned>(ceil_div(columns, kBiasThreads));
  launch(column_sums_kernel<T>, {dim3(strips, static_cast<unsigned>(blocks)), dim3(kBiasThreads), 0, stream_},
         parts.as<float>(), dy.as<const T>(), narrow(k), columns);
  add_parts(db.as<float>(), parts.as<const float>(), blocks, columns, stream_);
}

size_t matmul_workspace(const WorkspaceNeeds& needs) {
  Arena measure("matmul");
  const int64_t widest = std::max(needs.attention.qkv_width(), std::max(needs.hidden, 2 * needs.ffn));
  measure.take("bias parts", DType::f32, {ceil_div(needs.max_tokens, kBiasRows), widest});
  return measure.peak();
}

#define DAPO_INSTANTIATE(T)                                                                         \
  template void CudaBackend<T>::prepare_products(std::span<const WeightShape>, int64_t);            \
  template std::string CudaBackend<T>::products_text() const;                                       \
  template void CudaBackend<T>::matmul(const Tensor&, const Tensor&, const Tensor&, const Tensor&); \
  template void CudaBackend<T>::matmul_backward_input(const Tensor&, const Tensor&, const Tensor&); \
  template void CudaBackend<T>::matmul_backward_weight(const Tensor&, const Tensor&, const Tensor&, const Tensor&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
