// A decode step's attention at a given batch and context. The tests' cases run prompts and responses in one call; here
// the pages are filled before, and one row a sequence attends.
#pragma once

#include "bench/parts/cases.h"

namespace dapo::bench {

/// batch sequences of prefix + own tokens, `group` of them sharing a prefix (0 tokens: none).
BenchCase decode_case(DType t, AttentionDims d, int batch, int group, int prefix, int own);

}  // namespace dapo::bench
