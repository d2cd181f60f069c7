// How launchers choose grids and blocks: pure functions of shapes.
#pragma once

#include <cuda_runtime.h>

#include <limits>

#include "core/check.h"
#include "core/sizes.h"
#include "cuda/vec.cuh"

namespace dapo::cuda {

inline int narrow(int64_t n) {
  CHECK(n >= 0 && n <= std::numeric_limits<int>::max(), "{} does not fit 32 bits", n);
  return static_cast<int>(n);
}
inline dim3 grid_of(int64_t blocks) {
  return dim3(narrow(blocks));
}

/// Threads of a block that visits one row of `columns` elements, `width` at a time: whole warps, 1024 at most.
inline dim3 row_threads(int columns, int width) {
  const int64_t warps = ceil_div(ceil_div(columns, width), 32);
  return dim3((warps < 1 ? 1 : warps > 32 ? 32 : warps) * 32);
}

/// Calls f.template operator()<W>() with W elements per access: 16 bytes if rows of `columns` elements are aligned to
/// that, else one element.
template <class T, class F>
void with_width(int64_t columns, F&& f) {
  if (columns % kVec<T> == 0)
    f.template operator()<kVec<T>>();
  else
    f.template operator()<1>();
}

}  // namespace dapo::cuda
