// When cuBLASLt is loaded, counted by the simulator.
#include <gtest/gtest.h>

#include <cstdlib>

#include "core/check.h"
#include "cuda/cuda_device.h"
#include "sim/sim.h"

namespace dapo {
namespace {

TEST(CudaProducts, TheLibraryIsTakenOnlyWhereAskedFor) {
  const long before = sim::live().handles;
  {
    const auto own = make_cuda_backend(DType::bf16);
    EXPECT_EQ(sim::live().handles, before);
    setenv("DAPO_CUDA_PRODUCTS", "cublaslt", 1);
    const auto library = make_cuda_backend(DType::bf16);
    EXPECT_EQ(sim::live().handles, before + 1);
    setenv("DAPO_CUDA_PRODUCTS", "mkl", 1);
    EXPECT_THROW(make_cuda_backend(DType::bf16), Error);
    unsetenv("DAPO_CUDA_PRODUCTS");
  }
  EXPECT_EQ(sim::live().handles, before);
}

}  // namespace
}  // namespace dapo
