// What the files of attention share beside the kernels: work items and sizes.
#pragma once

#include "core/backend.h"

namespace dapo::cpu {

/// Queries [first, first + kQueryBlock) of a segment's or sequence's rows: with a KV head, the work of one thread.
struct QueryBlock {
  int32_t sequence, first;
};
static_assert(sizeof(QueryBlock) == 8);

/// OpenMP threads pay off from this number of multiply-adds on (they take about 3 us to wake).
inline constexpr int64_t kParallelSums = 1 << 18;

/// f32 scratch of one thread of attention_backward().
int64_t attention_backward_floats(const AttentionDims& dims);

}  // namespace dapo::cpu
