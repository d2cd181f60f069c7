// cuDNN's fused attention on our packed rows, to time ours beside it. Compiled where the headers of cuDNN and of its
// frontend are (DAPO_CUDNN, see the Makefile); libcudnn itself is loaded when it is asked for.
#pragma once

#include <memory>
#include <string>

#include "bench/parts/cases.h"

namespace dapo::bench {

class CudnnAttention {
 public:
  /// Why it cannot be had, one line; empty: it can.
  static std::string missing();
  /// Error where cuDNN does not take the shape. The workspace and its own lse are allocated from `backend`.
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
