// What a step asks of the driver, counted by the simulator.
#include "sim/cuda_runtime.h"
#include "sim/sim.h"
#include "tests/cuda/trainer_case.h"

namespace dapo {
namespace {

TEST(CudaTrainer, AStepReplaysItsDecodesAndAllocatesNothing) {
  TrainerCase run(toy_config(), "cuda", "bf16");
  run.trainer.step();
  EXPECT_GT(sim::live().executables, 0) << "decode steps are replayed";
  sim::fail_call(1, cudaErrorMemoryAllocation, "cudaMalloc");
  run.trainer.step();
  EXPECT_FALSE(sim::failed()) << "cudaMalloc inside a step";
  sim::fail_call(0, 0);
}

}  // namespace
}  // namespace dapo
