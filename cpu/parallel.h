// When a loop is worth its threads: waking them costs about 3 us, the time in which one core moves about 64 KB.
#pragma once

#include <cstdint>

namespace dapo::cpu {

/// OpenMP threads pay off for loops over more elements than this.
inline constexpr int64_t kParallelFrom = 1 << 15;

}  // namespace dapo::cpu
