// How launchers choose blocks: pure functions of shapes.
#pragma once

#include <cuda_runtime.h>

#include <limits>

#include "core/check.h"
#include "cuda/vec.cuh"

namespace dapo::cuda {

inline int narrow(int64_t n) {
  CHECK(n >= 0 && n <= std::numeric_limits<int>::max(), "{} does not fit 32 bits", n);
  return static_cast<int>(n);
}
inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline dim3 grid_of(int64_t blocks) {
  return dim3(static_cast<unsigned>(narrow(blocks)));
}

/// Threads of a block that walks one row of `columns` elements, W at a time: whole warps, 1024 at most.
inline dim3 row_threads(int columns, int width) {
  const int64_t warps = ceil_div(ceil_div(columns, width), 32);
  return dim3(static_cast<unsigned>((warps < 1 ? 1 : warps > 32 ? 32 : warps) * 32));
}

/// f.template operator()<W>() with W elements an access: 16 bytes where rows of `columns` elements are aligned to that.
template <class T, class F>
void with_width(int64_t columns, F&& f) {
  if (columns % kVec<T> == 0)
    f.template operator()<kVec<T>>();
  else
    f.template operator()<1>();
}

}  // namespace dapo::cuda
