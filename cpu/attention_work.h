// What the files of attention share beside the kernels: the list of work, checks, measures.
#pragma once

#include "core/backend.h"

namespace dapo::cpu {

/// Queries [first, first + kQueryBlock) of a segment's or sequence's rows: with a KV head, the work of one thread.
struct QueryBlock {
  int32_t sequence, first;
};
static_assert(sizeof(QueryBlock) == 8);

/// Multiply-adds from which on OpenMP threads pay (they take some 3 us to wake).
inline constexpr int64_t kParallelSums = 1 << 18;

/// Segments cover rows [0, rows) in order; a prefix comes first and has none itself.
void check_segments(const Segments& segments, int64_t rows);
/// f32 scratch of one thread of attention_backward().
int64_t attention_backward_floats(const AttentionDims& dims);

}  // namespace dapo::cpu
