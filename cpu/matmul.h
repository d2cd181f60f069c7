// Matrix products on raw row-major memory, by oneDNN (few rows of bf16: by ours): what the ops matmul*, and the head,
// are made of.
#pragma once

#include "core/dtype.h"

namespace dapo::cpu {

/// c[m, n] (+)= op(a) op(b) (+ bias[n]). ld* in elements; op(a) is [m, k], op(b) is [k, n]; a transposed operand is
/// stored as [k, m] or [n, k]. Sums are f32 in one order of k for a given (n, k): the bits of a row do not depend on m
/// (oneDNN's AVX-512 brgemm, and few_rows.h's with the same bits, tested; without AVX-512 this holds for f32 with b
/// transposed, which is every forward).
struct Product {
  int64_t m, n, k;
  DType a_type, b_type, c_type;
  bool a_transposed = false, b_transposed = false;
  int64_t lda, ldb, ldc;
  bool accumulate = false;     ///< c += (c is then f32)
  const void* bias = nullptr;  ///< [n] of b_type, or none
};
void product(const Product& p, void* c, const void* a, const void* b);

}  // namespace dapo::cpu
