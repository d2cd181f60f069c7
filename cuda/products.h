// Matrix products by our own kernels and by cuBLASLt; the counterpart of cpu/matmul.h.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <tuple>

#include "core/backend.h"
#include "core/product.h"

namespace dapo::cuda {

/// Tile of the hand-written product.
enum class Tile : uint8_t { large, medium, small };
/// The largest tile whose grid still gives every SM a block, and whose rows are more than half used. A pure function of
/// the shape; the bits do not depend on it.
Tile choose_tile(int64_t m, int64_t n, int sms);
/// Weight rows of a block of decode_gemm.cu, which runs forward products of few rows: 8 or 16; 0: gemm.cu runs it
/// instead. A pure function of the shape; the bits do not depend on it.
int decode_rows(int64_t m, int64_t n, int64_t k);
template <class Out>
void run_decode(const Product& p, Out* c, const bf16* a, const bf16* b, cudaStream_t stream);
/// Whether the tensor-core kernels can run this product (bf16 operands, rows aligned to 16 bytes); else plain FMAs do.
bool fits_tensor_cores(const Product& p, const void* a, const void* b);
class CublasLt;

/// Runs products by our own kernels (`own`), by the library (`cublaslt`, cublaslt.h), or, by default (`automatic`), by
/// whichever is faster: the library from 256 rows on and for gradients (1.3 to 4.5 times as fast on an H100), and what
/// prepare() found to be faster below. The library runs forward products only by algorithms that prepare() found to
/// have the bits of our own kernels on this card. DAPO_CUDA_PRODUCTS=own|cublaslt|auto decides.
class Products {
 public:
  enum class Kind : uint8_t { own, cublaslt, automatic };
  friend constexpr std::string_view choices(Kind) { return "own|cublaslt|auto"; }
  Products(cudaStream_t stream, const cudaDeviceProp& properties);
  ~Products();
  Products(const Products&) = delete;
  Products& operator=(const Products&) = delete;

  /// Error (exit 2): `cublaslt`, and the library cannot be used.
  void use(Kind kind);
  Kind kind() const { return kind_; }
  /// Compares the library with our own kernels for these weights, up to `rows` rows, in memory that it frees
  /// afterwards. type: the backend's T.
  void prepare(std::span<const WeightShape> weights, DType type, int64_t rows);
  /// How products run, one line for people.
  std::string describe() const;
  void run(const Product& p, void* c, const void* a, const void* b);

 private:
  void run_own(const Product& p, void* c, const void* a, const void* b);
  bool open_library();
  void admit(const WeightShape& w, int64_t rows);
  struct Operands;
  bool admit_bucket(const Operands& o, int64_t bucket);

  cudaStream_t stream_;
  int sms_, arch_;
  int64_t l2_bytes_;
  Kind kind_ = Kind::automatic;
  std::unique_ptr<CublasLt> lt_;
  std::string unusable_;  ///< why the library is not used
  std::string refused_;   ///< shapes that stay with our own kernels although the library is available
  using Weight = std::tuple<int64_t, int64_t, bool, bool>;  // outputs, inputs, bias, logits
  std::map<Weight, int64_t> prepared_;                      // up to how many rows
  int64_t checked_rows_ = 0;
  std::set<std::pair<int64_t, int64_t>> missing_;  ///< n, k for which the library had no algorithm: reported once
};

}  // namespace dapo::cuda
