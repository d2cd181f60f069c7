// matmul and its two backwards, by Products; the gradient of the bias.
#include <algorithm>

#include "core/op_checks.h"
#include "cuda/add_parts.h"
#include "cuda/attention_choice.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/products.h"
#include "cuda/shape.h"
#include "cuda/thread.cuh"
#include "cuda/vec.cuh"
#include "cuda/workspace.h"

namespace dapo::cuda {
namespace {

constexpr int kBiasRows = 64;  // rows of one partial sum of a bias's gradient
constexpr int kBiasThreads = 128;

/// parts[block, n] = sum of the block's rows of dy.
template <class T>
__global__ void column_sums_kernel(float* parts, const T* dy, int rows, int columns) {
  const int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= columns) return;
  const int begin = block_y() * kBiasRows;
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
  const std::string attention = attention_choice_->describe();
  return products_->describe() + (attention.empty() ? "" : "; " + attention);
}

template <class T>
void CudaBackend<T>::matmul(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias) {
  check_matmul(dtype(), y, x, w, bias);
  const int64_t m = x.dim(0), n = w.dim(0), k = w.dim(1);
  products_->run({.m = m,
                  .n = n,
                  .k = k,
                  .a_type = dtype(),
                  .b_type = dtype(),
                  .c_type = dtype(),
                  .b_transposed = true,
                  .lda = k,
                  .ldb = k,
                  .ldc = n,
                  .bias = bias.data},
                 y.data, x.data, w.data);
}

template <class T>
void CudaBackend<T>::matmul_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& w) {
  check_matmul_backward_input(dtype(), dx, dy, w);
  const int64_t m = dy.dim(0), k = w.dim(0), n = w.dim(1);
  products_->run(
      {.m = m, .n = n, .k = k, .a_type = dtype(), .b_type = dtype(), .c_type = dtype(), .lda = k, .ldb = n, .ldc = n},
      dx.data, dy.data, w.data);
}

template <class T>
void CudaBackend<T>::matmul_backward_weight(const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x) {
  check_matmul_backward_weight(dtype(), dw, db, dy, x);
  const int64_t k = dy.dim(0), m = dy.dim(1), n = x.dim(1);
  if (k == 0) return;
  products_->run({.m = m,
                  .n = n,
                  .k = k,
                  .a_type = dtype(),
                  .b_type = dtype(),
                  .c_type = DType::f32,
                  .a_transposed = true,
                  .lda = m,
                  .ldb = n,
                  .ldc = n,
                  .accumulate = true},
                 dw.data, dy.data, x.data);
  if (!db) return;
  const int blocks = narrow(ceil_div(k, kBiasRows)), columns = narrow(m);
  ArenaScope scope(workspace());
  const Tensor parts = workspace().take("bias parts", DType::f32, {blocks, columns});
  const unsigned strips = ceil_div(columns, kBiasThreads);
  launch(column_sums_kernel<T>, {dim3(strips, blocks), dim3(kBiasThreads), 0, stream_}, parts.as<float>(),
         dy.as<const T>(), narrow(k), columns);
  cuda::add_parts(db.as<float>(), parts.as<const float>(), blocks, columns, stream_);
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
