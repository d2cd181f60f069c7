// A machine with several GPUs: each rank's backend is on its own, whichever thread calls it.
#include <gtest/gtest.h>

#include <thread>

#include "cuda/cuda_device.h"
#include "sim/cuda_runtime.h"
#include "sim/sim.h"
#include "tests/comm_cases.h"

namespace dapo {
namespace {

int current_device() {
  int device = -1;
  cudaGetDevice(&device);
  return device;
}

TEST(Gpus, ABackendIsOnItsOwn) {
  sim::set_device_count(2);
  const std::vector<CudaGpu> gpus = cuda_gpus();
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[0].uuid, "GPU-00000000-0000-0000-0000-000000000001");
  EXPECT_EQ(gpus[1].uuid, "GPU-00000000-0000-0000-0000-000000000002");
  EXPECT_EQ(gpus[1].pci, "0000:02:00.0");
  {
    const std::unique_ptr<Backend> second = make_cuda_backend(DType::f32, 1);
    EXPECT_EQ(current_device(), 1);
    int of_thread = -1;
    std::thread([&] {
      void* const memory = second->allocate(16);
      of_thread = current_device();
      second->release(memory, 16);
    }).join();
    EXPECT_EQ(of_thread, 1);
  }
  EXPECT_NE(error_of([] { make_cuda_backend(DType::f32, 2); }), "");
  make_cuda_backend(DType::f32);
  EXPECT_EQ(current_device(), 0);
  sim::reset_device();
}

}  // namespace
}  // namespace dapo
