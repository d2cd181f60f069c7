// A matrix product on raw row-major memory: what the ops matmul*, and the head, are made of.
#pragma once

#include "core/dtype.h"

namespace dapo {

/// c[m, n] (+)= op(a) op(b) (+ bias[n]). ld* are in elements. op(a) is [m, k], op(b) is [k, n]; a transposed operand is
/// stored as [k, m] or [n, k]. Sums are f32. A forward product (b transposed, a not) sums over k in one order for a
/// given (n, k): the bits of a row do not depend on m.
struct Product {
  int64_t m, n, k;
  DType a_type, b_type, c_type;
  bool a_transposed = false, b_transposed = false;
  int64_t lda, ldb, ldc;
  bool accumulate = false;     ///< c += (c is then f32)
  const void* bias = nullptr;  ///< [n] of b_type, or none
};

}  // namespace dapo
