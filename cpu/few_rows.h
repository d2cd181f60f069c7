// The forward product of a decode step, bf16: few rows of x, so that reading the weights is most of the work.
#pragma once

#include "cpu/matmul.h"

namespace dapo::cpu {

inline constexpr int64_t kFewRows = 64;

/// Whether few_rows_product computes p: bf16, y = x w^T (+ bias), at most kFewRows rows, on a CPU with AVX512-BF16.
bool few_rows_can(const Product& p);

/// c[m, n] = a[m, k] b[n, k]^T (+ bias), with the bits of oneDNN's brgemm, which computes the same rows in larger
/// batches: vdpbf16ps along k, in blocks of 512 (1,024 from k = 1,024 on) that are added in order. oneDNN does not
/// document that order, so product() compares the bits once for each shape. `packed`: few_rows_packed(p) elements.
void few_rows_product(const Product& p, void* c, const void* a, const void* b, bf16* packed);
int64_t few_rows_packed(const Product& p);

}  // namespace dapo::cpu
