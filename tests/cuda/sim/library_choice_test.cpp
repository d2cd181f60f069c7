// When cuBLASLt is loaded, which products it is not used for, how few calls a product makes: caused and counted by the
// simulator.
#include <gtest/gtest.h>

#include <cstdlib>

#include "cuda/cuda_device.h"
#include "cuda/launch.h"
#include "cuda/products.h"
#include "sim/cublasLt.h"
#include "tests/cuda/sim/driver_test.h"

namespace dapo {
namespace {

using cuda::Products;

class ProductsDriver : public DriverTest {
 protected:
  static constexpr int64_t kRows = 200, kOutputs = 2056, kInputs = 32;
  static constexpr WeightShape kWeight{kOutputs, kInputs, false, true};  // into f32: no rounding hides a bit
  /// The line of automatic products after prepare().
  static std::string line_of(Products& products) {
    products.prepare({&kWeight, 1}, DType::bf16, kRows);
    return products.describe();
  }
  static bool says(const std::string& line, const char* part) { return line.find(part) != std::string::npos; }
};

TEST_F(ProductsDriver, TheLibraryIsLoadedOnlyIfNeeded) {
  const long before = sim::live().handles, allocations = sim::live().allocations;  // other tests' backends have some
  {
    const auto automatic = make_cuda_backend(DType::bf16);
    EXPECT_EQ(sim::live().handles, before);
    automatic->prepare_products({&kWeight, 1}, kRows);
    EXPECT_GT(sim::live().handles, before);
    EXPECT_EQ(sim::live().allocations, allocations + 1) << "the library's workspace; the check's memory is free again";
    setenv("DAPO_CUDA_PRODUCTS", "own", 1);
    const long with_library = sim::live().handles;
    const auto own = make_cuda_backend(DType::bf16);
    own->prepare_products({&kWeight, 1}, kRows);
    EXPECT_EQ(sim::live().handles, with_library);
    setenv("DAPO_CUDA_PRODUCTS", "cublaslt", 1);
    const auto library = make_cuda_backend(DType::bf16);
    EXPECT_EQ(sim::live().handles, with_library + 1);
    setenv("DAPO_CUDA_PRODUCTS", "mkl", 1);
    expect_error(kExitUsage, "one of own, cublaslt, auto", [] { make_cuda_backend(DType::bf16); });
    unsetenv("DAPO_CUDA_PRODUCTS");
  }
  EXPECT_EQ(sim::live().handles, before);
}

TEST_F(ProductsDriver, AnAlgorithmWithOtherBitsIsSkipped) {
  Products all(nullptr, sim::device_properties());
  EXPECT_TRUE(says(line_of(all), "own kernels or cuBLASLt 13.0.0, whichever is faster")) << all.describe();
  sim::set_library_other_bits(0b0111);  // only the fourth has the right bits
  Products fourth(nullptr, sim::device_properties());
  EXPECT_FALSE(says(line_of(fourth), "other bits")) << fourth.describe();
  sim::set_library_other_bits(0b1111);
  Products none(nullptr, sim::device_properties());
  EXPECT_TRUE(says(line_of(none), "own kernels for 2056 x 32 (other bits at 8, 16, 32, 64, 128, 256 rows)"))
      << none.describe();
}

TEST_F(ProductsDriver, WithoutTheLibraryOwnKernelsRun) {
  sim::fail_call(1, CUBLAS_STATUS_NOT_INITIALIZED, "cublasLtCreate");
  Products broken(nullptr, sim::device_properties());
  EXPECT_TRUE(says(line_of(broken), "own kernels; cublasLt: cublasLtCreate failed")) << broken.describe();
  sim::set_library_version(140000);
  Products newer(nullptr, sim::device_properties());
  EXPECT_TRUE(says(line_of(newer), "own kernels; cuBLASLt has version 14.0, 12 or 13 is needed")) << newer.describe();
  expect_error(kExitUsage, "version 14.0", [&] { newer.use(Products::Kind::cublaslt); });
}

TEST_F(ProductsDriver, AnotherCardIsNamed) {
  cudaDeviceProp p = sim::device_properties();
  p.major = 8, p.minor = 0;
  Products ampere(nullptr, p);
  EXPECT_TRUE(says(line_of(ampere), "tuned for sm_90, this is sm_80")) << ampere.describe();
}

/// Descriptors are created once: a repeated product is one call; with other rows or another bias, a few.
TEST_F(ProductsDriver, ARepeatedProductIsOneCall) {
  Products products(nullptr, sim::device_properties());
  products.prepare({&kWeight, 1}, DType::bf16, kRows);
  void* memory = nullptr;
  constexpr size_t kPart = size_t{2} << 20;
  cuda_check(cudaMalloc(&memory, 3 * kPart), "cudaMalloc");
  char* at = static_cast<char*>(memory);
  const Product p{kRows, kOutputs, kInputs, DType::bf16, DType::bf16, DType::f32,
                  false, true,     kInputs, kInputs,     kOutputs};
  products.run(p, at, at + kPart, at + 2 * kPart);
  const long before = sim::calls();
  products.run(p, at, at + kPart, at + 2 * kPart);
  EXPECT_EQ(sim::calls() - before, 1);
  cudaFree(memory);
}

}  // namespace
}  // namespace dapo
