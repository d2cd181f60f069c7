// The second half of a sum over rows: adds the blocks' partial sums of columns in a fixed order.
#pragma once

#include <cuda_runtime.h>

namespace dapo::cuda {

/// to[c] += sum over p < parts of from[p, c]: first those of equal p % 32, then these 32 sums, each in order.
/// to f32[columns], from f32[parts, columns].
void add_parts(float* to, const float* from, int parts, int columns, cudaStream_t stream);

}  // namespace dapo::cuda
