// Streams, events, graphs, and how the libraries (runtime, cuBLASLt, NCCL) hand work to streams. Work runs at the call;
// under DAPO_SIM_LAZY when somebody waits for it.
#pragma once

#include <functional>

#include "calls.h"

namespace sim {

/// Runs work now (DAPO_SIM_LAZY: when the stream is waited for), or records it if the stream is being captured.
cudaError_t submit(cudaStream_t s, std::function<cudaError_t()> work);
/// Runs what the stream still holds back; the first error.
cudaError_t catch_up(cudaStream_t s);
/// Runs what all streams still hold back, as cudaFree and cudaDeviceSynchronize do.
void catch_up_device();
bool capturing();
/// DAPO_SIM_LAZY. 0: work runs at the call. 1: when somebody waits for it, but copies from and to pageable memory as
/// drivers do them (staged at the call, finished at the call). 2: those wait too, as the runtime's documentation
/// allows.
int laziness();

}  // namespace sim
