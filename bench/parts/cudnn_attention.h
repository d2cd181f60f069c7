// cuDNN's fused attention on our packed rows, to compare ours with. Compiled if the headers of cuDNN and of its
// frontend are found (DAPO_CUDNN, see the Makefile); libcudnn itself is loaded at its first use.
#pragma once

#include <memory>
#include <string>

#include "bench/parts/bench_cases.h"

namespace dapo::bench {

class CudnnAttention {
 public:
  /// Reason why it cannot be used, one line; empty if it can.
  static std::string missing();
  /// Error if cuDNN does not support the shape. Allocates its workspace and its own lse from `backend`.
  CudnnAttention(Backend& backend, const EqualSequences& sequences);
  ~CudnnAttention();
  /// Forward: out from qkv. Backward: dqkv from dout, qkv, out (and the lse of the last forward()).
  void forward(const Tensor& out, const Tensor& qkv);
  void backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dapo::bench
