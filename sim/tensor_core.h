// What a tensor core adds up: d = a b + d of bf16 values with fp32 sums.
#pragma once

namespace sim {

/// One instruction over a tile: d[i][j] += sum over k < depth (at most 16) of a[i][k] b[k][j]. a is rows x depth,
/// b depth x columns (at most 256), d rows x columns, each row after row.
///
/// Exact sums (sim.h: set_exact_sums) are the bits of an H100: the products and d are aligned to the largest exponent
/// among them, each is truncated to 25 bits below it, they are summed exactly, and the sum is truncated to fp32. The
/// sum of nothing but zeros, and one that is truncated to zero, is +0; a NaN is 7fffffff. Otherwise: fp32 fma in order
/// of k, which is faster.
void multiply_bf16(const float* a, const float* b, float* d, int rows, int columns, int depth);
/// fp32 fma in order of k, always (tf32).
void multiply_fma(const float* a, const float* b, float* d, int rows, int columns, int depth);

}  // namespace sim
