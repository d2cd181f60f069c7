// What every call of the libraries (runtime, cuBLASLt, NCCL) has in common: it is counted, may return an injected
// error, and keeps its error for cudaGetLastError.
#pragma once

#include "cuda_runtime.h"
#include "sim.h"

namespace sim {

/// Counts a call; non-zero: the injected error that it must return.
int enter(const char* name);
/// Keeps the error for cudaGetLastError.
cudaError_t keep(cudaError_t e);
/// Changes the number of live library handles (cuBLASLt, NCCL).
void count_handles(long change);
long live_handles();

}  // namespace sim

/// First in every call of the runtime: counts it, and returns the injected error.
#define ENTER(name) \
  if (const int injected = sim::enter(name)) return sim::keep(static_cast<cudaError_t>(injected))
