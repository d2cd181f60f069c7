// What the launchers of the attention kernels share.
#pragma once

#include <algorithm>

#include "cuda/cuda_backend.h"
#include "cuda/shape.h"

namespace dapo::cuda {

inline constexpr float kLog2e = 1.4426950408889634f;

/// A call of the forward kernels.
struct ForwardArgs {
  int64_t width;
  int heads, group, max_rows, sequences, kv_heads, d;
  bool wgmma;  ///< by wgmma_attention_kernel
  cudaStream_t stream;
};

/// Splits that a sequence of this length has at most.
inline int most_splits(int max_length) {
  return narrow(ceil_div(max_length, kKvSplit)) + 1;
}

/// Calls f.template operator()<D>() for the head dimensions of the tensor-core kernels; returns false for others, which
/// the plain kernels serve.
template <class F>
bool with_head_dim(int d, F&& f) {
  switch (d) {
    case 32:
      f.template operator()<32>();
      return true;
    case 64:
      f.template operator()<64>();
      return true;
    case 128:
      f.template operator()<128>();
      return true;
    default:
      return false;
  }
}

inline int longest_segment(const Segments& segments) {
  int rows = 0;
  for (const Segment& s : segments.host) rows = std::max(rows, s.length);
  return rows;
}

}  // namespace dapo::cuda
