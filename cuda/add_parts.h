// The second half of a sum over rows: adds the blocks' partial sums of columns in order.
#pragma once

#include <cuda_runtime.h>

namespace dapo::cuda {

/// to[c] += sum over p < parts of from[p, c], in that order. to f32[columns], from f32[parts, columns].
void add_parts(float* to, const float* from, int parts, int columns, cudaStream_t stream);

}  // namespace dapo::cuda
