// When a loop is worth the threads: waking them costs some 3 us, the time in which one core moves about 64 KB.
#pragma once

#include <cstdint>

namespace dapo::cpu {

/// Elements touched by a loop from which on OpenMP threads pay.
inline constexpr int64_t kParallelFrom = 1 << 15;

}  // namespace dapo::cpu
