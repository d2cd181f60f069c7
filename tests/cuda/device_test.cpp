// The device that the other tests run on.
#include <gtest/gtest.h>

#include <cstdio>
#include <numeric>
#include <vector>

#include "cuda/cuda_device.h"
#include "cuda/probe.h"

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

/// The kernels that measure memory do copy, and return their rates.
TEST(CudaDevice, MemoryRatesComeFromARealCopy) {
  const auto backend = make_cuda_backend(DType::bf16);
  std::vector<int32_t> numbers(300 << 10), got(numbers.size());
  std::iota(numbers.begin(), numbers.end(), 1);
  const int64_t n = std::ssize(numbers);
  const size_t bytes = numbers.size() * sizeof(int32_t);
  const Tensor from(backend->allocate(bytes), DType::i32, {n}), to(backend->allocate(bytes), DType::i32, {n});
  backend->copy_in(from, numbers.data());
  const CudaMemoryRates rates = cuda_memory_rates(*backend, to.data, from.data, bytes);
  EXPECT_GT(rates.copy, 0);
  EXPECT_GT(rates.read, 0);
  backend->copy_out_now(got.data(), to);
  // The sum writes a word to each of the first four places; whole pieces of 32 KB are copied.
  const size_t whole = bytes / (32 << 10) * (32 << 10) / sizeof(int32_t);
  for (size_t i = 4; i < whole; ++i) ASSERT_EQ(got[i], numbers[i]) << i;
  backend->release(from.data, bytes);
  backend->release(to.data, bytes);
}

}  // namespace
}  // namespace dapo
