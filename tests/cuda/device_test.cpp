// The device that the other tests run on.
#include <gtest/gtest.h>

#include <cstdio>

#include "cuda/cuda_device.h"

namespace dapo {
namespace {

TEST(CudaDevice, Starts) {
  for (const DType t : {DType::f32, DType::bf16}) {
    const auto backend = make_cuda_backend(t);
    EXPECT_GT(backend->memory_available(), size_t{1} << 30);
    std::printf("%s, %.1f GB free\n", backend->describe().c_str(),
                static_cast<double>(backend->memory_available()) / 1e9);
  }
}

}  // namespace
}  // namespace dapo
