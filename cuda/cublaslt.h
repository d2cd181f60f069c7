// Products by cuBLASLt, without any split of k in forward products: one algorithm for a weight's shape and a bucket of
// rows, so that a pure function of the shape decides what runs.
#pragma once

#include "cuda/products.h"

namespace dapo::cuda {

/// y = x w^T: a product whose bits rollout and training must share.
inline bool is_forward(const Product& p) {
  return !p.a_transposed && p.b_transposed;
}

class CublasLt {
 public:
  static constexpr int64_t kLeastBucket = 8;   ///< of tokens
  static constexpr uint32_t kAlignment = 128;  ///< bytes, that operands and results must have
  /// Loads the library at its first use. Error exit 2 where it is not found or of another major version.
  explicit CublasLt(cudaStream_t stream);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;
  static std::string version();  ///< "13.1.0", of the library that is loaded

  /// The dimension that counts tokens (m, or k of a weight's gradient), rounded up to the power of two in [8, 16384]
  /// whose algorithm serves it.
  static int64_t bucket_of(const Product& p);
  /// Algorithms that the library suggests for p's bucket, best first.
  int algorithms(const Product& p);
  /// Lets the i-th of them serve p's bucket; forget() takes that back.
  void choose(const Product& p, int i);
  void forget(const Product& p);
  /// Whether choose() was called for p's bucket.
  bool chosen(const Product& p) const;
  /// By the bucket's algorithm where one was chosen; else by its first for a weight's gradient and an input's (which
  /// only repeat themselves), and by the first of one middling bucket for every m of a forward product. False: the
  /// library refuses the shape, nothing was done.
  bool run(const Product& p, void* c, const void* a, const void* b);
  /// p by the algorithm of `bucket`'s bucket.
  bool run_as(const Product& bucket, const Product& p, void* c, const void* a, const void* b);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dapo::cuda
