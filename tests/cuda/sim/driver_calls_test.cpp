// A step's calls into the driver, counted by the simulator.
#include "sim/cuda_runtime.h"
#include "sim/sim.h"
#include "tests/cuda/device_trainer.h"

namespace dapo {
namespace {

TEST(CudaTrainer, AStepReplaysItsDecodesAndAllocatesNothing) {
  TrainerCase run(toy_config(), "cuda", "bf16");
  run.trainer.step();
  EXPECT_GT(sim::live().executables, 0) << "decode steps are replayed";
  const sim::Live before = sim::live();
  for (const char* name : {"cudaMalloc", "cudaMallocHost"}) {
    sim::fail_call(1, cudaErrorMemoryAllocation, name);
    run.trainer.step();
    EXPECT_FALSE(sim::failed()) << name << " inside a step";
    sim::fail_call(0, 0);
  }
  EXPECT_EQ(sim::live().allocations, before.allocations);
  EXPECT_EQ(sim::live().pinned, before.pinned);
}

}  // namespace
}  // namespace dapo
