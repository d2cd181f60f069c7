// Ranks on GPUs as threads, connected by NCCL: any number in the simulator, one on a real card, which NCCL gives to one
// rank only. Through the host's memory, any number.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <vector>

#include "core/staged_comm.h"
#include "cuda/cuda_device.h"
#include "cuda/nccl_comm.h"
#include "cuda/probe.h"
#include "tests/comm_cases.h"
#include "tests/thread_comm.h"

namespace dapo {

inline std::vector<int> gpu_rank_counts() {
  return cuda_simulated() ? std::vector<int>{1, 2, 3} : std::vector<int>{1};
}

/// Runs rank(backend, its communicator) on `size` ranks.
inline void run_gpu_ranks(DType type, int size, const std::function<void(Backend&, Comm&)>& rank) {
  run_ranks(size, [&](Comm& host) {
    const std::unique_ptr<Backend> backend = make_cuda_backend(type);
    const std::unique_ptr<Comm> nccl = make_nccl_comm(*backend, dynamic_cast<HostComm&>(host));
    rank(*backend, *nccl);
  });
}
/// The same on one GPU, through the host's memory.
inline void run_staged_ranks(DType type, int size, const std::function<void(Backend&, Comm&)>& rank) {
  run_ranks(size, [&](Comm& host) {
    const std::unique_ptr<Backend> backend = make_cuda_backend(type, 0, size);
    StagedComm staged(*backend, dynamic_cast<HostComm&>(host));
    rank(*backend, staged);
  });
}

/// Why ranks cannot be connected here; "" if they can.
inline std::string no_nccl() {
  const std::string error = error_of([] { run_gpu_ranks(DType::f32, 1, [](Backend&, Comm&) {}); });
  return error.find("NCCL, which connects ranks on GPUs") == std::string::npos ? "" : error;
}

}  // namespace dapo
