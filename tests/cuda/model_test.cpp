// The golden models and the model's equalities (tests/model/golden_test.cpp, equality_test.cpp, linked here) on the
// CUDA backend.
#include "tests/cuda/gpu_ranks.h"
#include "tests/model/rig.h"

namespace dapo {

std::unique_ptr<Backend> rig_backend(DType dtype) {
  return make_cuda_backend(dtype);
}
/// Through NCCL in the simulator; on a card, which the ranks share, through the host's memory.
void run_rig_ranks(DType dtype, int ranks, const std::function<void(Backend&, Comm&)>& rank) {
  (cuda_simulated() && no_nccl().empty() ? run_gpu_ranks : run_staged_ranks)(dtype, ranks, rank);
}
bool rig_has(DType) {
  return true;
}

}  // namespace dapo
