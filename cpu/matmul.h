// Matrix products by oneDNN, and by our own kernel for few rows of bf16.
#pragma once

#include "core/product.h"

namespace dapo::cpu {

/// Computes p. The bits of a row do not depend on m: oneDNN's AVX-512 brgemm, and few_rows.h's with the same bits
/// (tested). Without AVX-512 this holds for f32 with b transposed, which is every forward product.
void product(const Product& p, void* c, const void* a, const void* b);

}  // namespace dapo::cpu
