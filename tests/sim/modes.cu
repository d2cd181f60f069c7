// Errors that only a real device would punish: accesses of the host to device memory, and results that are read without
// waiting for them.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/sim/device_array.h"

using namespace dapo;

namespace {

__global__ void add_one(float* x) {
  x[threadIdx.x] += 1.0f;
}

/// The modes are read at process start: each statement runs in its own process.
class Modes : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  void TearDown() override { unsetenv("DAPO_SIM_PROTECT"), unsetenv("DAPO_SIM_LAZY"); }
};

TEST_F(Modes, TheHostCannotAccessDeviceMemory) {
  setenv("DAPO_SIM_PROTECT", "1", 1);
  const auto by_the_host = [](bool directly) {
    DeviceArray<float> x(32, 1.0f);
    launch(add_one, {dim3(1), dim3(32)}, x.data());
    const bool right = x.host()[5] == 2.0f;
    std::exit(right && (!directly || *static_cast<volatile float*>(x.data()) == 2.0f) ? 0 : 1);
  };
  EXPECT_EXIT(by_the_host(false), ::testing::ExitedWithCode(0), "");
  EXPECT_DEATH(by_the_host(true), "");
}

TEST_F(Modes, WorkIsDoneWhenSomebodyWaits) {
  setenv("DAPO_SIM_LAZY", "1", 1);
  const auto in_order = [] {
    DeviceArray<float> x(32, 1.0f);
    cudaStream_t stream = nullptr;
    float* pinned = nullptr;
    cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    cuda_check(cudaMallocHost(reinterpret_cast<void**>(&pinned), 32 * sizeof(float)), "pinned");
    pinned[0] = 7.0f;
    launch(add_one, {dim3(1), dim3(32), 0, stream}, x.data());
    cuda_check(cudaMemcpyAsync(pinned, x.data(), 32 * sizeof(float), cudaMemcpyDeviceToHost, stream), "copy");
    const bool waits = pinned[0] == 7.0f;
    cuda_check(cudaStreamSynchronize(stream), "synchronize");
    const bool done = pinned[0] == 2.0f;
    std::exit(waits && done ? 0 : 1);
  };
  EXPECT_EXIT(in_order(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
