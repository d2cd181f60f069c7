// Matrix products on raw row-major memory: what the ops matmul*, and the head, are made of (the twin of cpu/matmul.h).
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "core/dtype.h"

namespace dapo::cuda {

/// c[m, n] (+)= op(a) op(b) (+ bias[n]). ld* in elements; op(a) is [m, k], op(b) is [k, n]; a transposed operand is
/// stored as [k, m] or [n, k]. Sums are f32 in one order of k for a given (n, k): the bits of a row do not depend on m.
struct Product {
  int64_t m, n, k;
  DType a_type, b_type, c_type;
  bool a_transposed = false, b_transposed = false;
  int64_t lda, ldb, ldc;
  bool accumulate = false;     ///< c += (c is then f32)
  const void* bias = nullptr;  ///< [n] of b_type, or none
};

/// Tile of the hand-written product.
enum class Tile : uint8_t { large, medium, small };
/// The largest tile whose grid still gives every SM a block, and whose rows are more than half used; a pure function of
/// the shape. The bits do not depend on it.
Tile choose_tile(int64_t m, int64_t n, int sms);
/// Whether the tensor-core kernel takes this product: bf16 operands, rows aligned to 16 bytes; else plain FMAs do.
bool fits_tensor_cores(const Product& p, const void* a, const void* b);

class CublasLt;

/// Runs products: `own`, the default, are the kernels of gemm.cu; `cublaslt` the library's (cublaslt.h), by use() or
/// the environment: DAPO_CUDA_PRODUCTS=own|cublaslt.
class Products {
 public:
  enum class Kind : uint8_t { own, cublaslt };
  Products(cudaStream_t stream, const cudaDeviceProp& properties);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  void use(Kind kind);
  void run(const Product& p, void* c, const void* a, const void* b);

 private:
  void run_own(const Product& p, void* c, const void* a, const void* b);
  cudaStream_t stream_;
  int sms_;
  Kind kind_ = Kind::own;
  std::unique_ptr<CublasLt> lt_;
};

}  // namespace dapo::cuda
