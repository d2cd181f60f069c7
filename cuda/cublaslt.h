// Products by cuBLASLt: one algorithm a weight shape, never split-K, whatever m.
#pragma once

#include "cuda/products.h"

namespace dapo::cuda {

class CublasLt {
 public:
  /// Loads the library at its first use. Error exit 2 where it is not found.
  explicit CublasLt(cudaStream_t stream);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;
  void run(const Product& p, void* c, const void* a, const void* b);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dapo::cuda
