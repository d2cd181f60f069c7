// Attention of a decode step with a given batch and context. The tests' cases run prompts and responses in one call;
// here the pages are filled first, and one row of each sequence attends.
#pragma once

#include "bench/parts/bench_cases.h"

namespace dapo::bench {

/// `batch` sequences of prefix + own tokens; `group` of them share a prefix (0 tokens: no prefix).
BenchCase decode_case(DType t, AttentionDims d, int batch, int group, int prefix, int own);

}  // namespace dapo::bench
