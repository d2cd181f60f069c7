// How the libraries (runtime, cuBLASLt, NCCL) hand work to streams, count their calls and take injected errors.
#pragma once

#include <functional>

#include "cuda_runtime.h"
#include "sim.h"

namespace sim {

/// Counts a call; non-zero: the injected error that it has to answer.
int enter(const char* name);
/// Runs work now (DAPO_SIM_LAZY: when the stream is waited for), or records it where the stream is being captured.
cudaError_t submit(cudaStream_t s, std::function<cudaError_t()> work);
/// Runs whatever streams still hold back: what cudaFree and cudaDeviceSynchronize imply.
void catch_up_device();
/// Keeps the error for cudaGetLastError.
cudaError_t keep(cudaError_t e);
bool capturing();
/// Changes the count of live library handles (cuBLASLt, NCCL).
void count_handles(long change);

}  // namespace sim

/// First in every call of the runtime: counts it, and answers the injected error.
#define ENTER(name) \
  if (const int injected = sim::enter(name)) return sim::keep(static_cast<cudaError_t>(injected))
