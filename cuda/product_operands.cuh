// The operands of the kernels of products.
#pragma once

#include "cuda/vec.cuh"

namespace dapo::cuda {

struct Operand {
  const bf16* data;
  int64_t ld;
  int outer;  ///< m or n
  int k;
};

template <class Out>
struct Result {
  Out* data;
  int64_t ld;
  int m, n;
  const bf16* bias;
  bool accumulate;
  __device__ void put(int row, int column, float x) const {
    if (row >= m || column >= n) return;
    Out* p = data + row * ld + column;
    if (bias != nullptr) x += to_float(bias[column]);
    if constexpr (sizeof(Out) == 4) {
      if (accumulate) x += *p;
    }
    *p = from_float<Out>(x);
  }
};

}  // namespace dapo::cuda
