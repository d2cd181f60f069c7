// Products by cuBLASLt, without split-k in forward products: one algorithm for each weight shape and bucket of rows, so
// that what runs is a pure function of the shape.
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
  static constexpr int64_t kFewRows = 256;     ///< up to which forward products take the fastest of many algorithms
  static constexpr uint32_t kAlignment = 128;  ///< of operands and results, bytes
  /// Loads the library at its first use. Error exit 2 if it is not found or has another major version.
  explicit CublasLt(cudaStream_t stream);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;
  static std::string version();  ///< "13.1.0", of the library that is loaded

  /// The number of tokens (m, or k of a weight's gradient), rounded up to a power of two in [8, 16384]: products of a
  /// bucket share an algorithm.
  static int64_t bucket_of(const Product& p);
  /// Algorithms that the library suggests for p's bucket, best first.
  int algorithms(const Product& p);
  /// Makes the i-th of them the algorithm of p's bucket; forget() undoes that.
  void choose(const Product& p, int i);
  void forget(const Product& p);
  /// Whether choose() was called for p's bucket.
  bool chosen(const Product& p) const;
  /// Runs p by its bucket's chosen algorithm. If none was chosen: gradients (which only have to be reproducible) by
  /// their bucket's first one, forward products of every m by the first one of a middle bucket. False: the library does
  /// not support the shape, and nothing was done.
  bool run(const Product& p, void* c, const void* a, const void* b);
  /// Runs p by the algorithm of `bucket`'s bucket.
  bool run_as(const Product& bucket, const Product& p, void* c, const void* a, const void* b);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dapo::cuda
