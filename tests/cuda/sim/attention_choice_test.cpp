// Which kernels run attention: by the device, the variable, the comparison at start, and the rows.
#include "cuda/attention_choice.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "cuda/cuda_device.h"
#include "tests/cuda/sim/driver_test.h"

namespace dapo {
namespace {

using cuda::AttentionChoice;
using cuda::AttentionKernel;
using cuda::AttentionPass;

class AttentionChoices : public DriverTest {
 protected:
  static cudaDeviceProp ampere() {
    cudaDeviceProp p = sim::device_properties();
    p.major = 8, p.minor = 0;
    return p;
  }
};

TEST_F(AttentionChoices, WgmmaOnlyWhereItWasFasterAndABlockHasRows) {
  AttentionChoice choice(sim::device_properties());
  const AttentionDims heads{14, 2, 64}, wide{2, 2, 128}, narrow{14, 2, 32};
  constexpr AttentionPass kForward = AttentionPass::forward, kBackward = AttentionPass::backward;
  EXPECT_FALSE(choice.wgmma(kForward, heads, 4096)) << "nothing was compared";
  EXPECT_EQ(choice.describe(), "");
  EXPECT_TRUE(choice.open(heads));
  choice.choose(kForward, heads, true, "1.50 times as fast as the other");
  choice.choose(kForward, wide, false, "wgmma has other bits");
  EXPECT_FALSE(choice.open(heads));
  EXPECT_FALSE(choice.open(narrow));
  EXPECT_TRUE(choice.wgmma(kForward, heads, 19));
  EXPECT_FALSE(choice.wgmma(kForward, heads, 18)) << "126 packed rows";
  EXPECT_TRUE(choice.wgmma(kForward, {7, 1, 64}, 19)) << "a rank's part of the same heads";
  EXPECT_FALSE(choice.wgmma(kForward, wide, 4096));
  EXPECT_FALSE(choice.wgmma(kForward, narrow, 4096));
  EXPECT_EQ(choice.describe(),
            "attention: wgmma for heads of 64, 7 a KV head (1.50 times as fast as the other), mma.sync for heads of "
            "128, 1 a KV head (wgmma has other bits)");
  EXPECT_FALSE(choice.wgmma(kBackward, heads, 4096)) << "only the forward pass was compared";
  choice.choose(kBackward, heads, true, "2.00 times as fast as the other");
  choice.choose(kBackward, wide, true, "3.00 times as fast as the other");
  EXPECT_TRUE(choice.wgmma(kBackward, heads, 64));
  EXPECT_FALSE(choice.wgmma(kBackward, heads, 63)) << "less than 64 keys";
  EXPECT_TRUE(choice.wgmma(kBackward, wide, 128));
  EXPECT_FALSE(choice.wgmma(kBackward, wide, 127)) << "127 packed rows";
  EXPECT_FALSE(choice.wgmma(kForward, wide, 4096)) << "each pass has its own choice";
  const std::string text = choice.describe();
  EXPECT_EQ(
      text.substr(text.find("; its")),
      "; its backward pass: wgmma for heads of 64, 7 a KV head (2.00 times as fast as the other), wgmma for heads "
      "of 128, 1 a KV head (3.00 times as fast as the other)");
  choice.use(AttentionKernel::wgmma);
  EXPECT_TRUE(choice.wgmma(kForward, wide, 1));
  EXPECT_TRUE(choice.wgmma(kBackward, wide, 1));
  EXPECT_FALSE(choice.wgmma(kForward, narrow, 4096));
  choice.use(AttentionKernel::mma);
  EXPECT_FALSE(choice.wgmma(kForward, heads, 4096));
}

TEST_F(AttentionChoices, TheVariableIsChecked) {
  setenv("DAPO_CUDA_ATTENTION", "wgmma", 1);
  EXPECT_EQ(AttentionChoice(sim::device_properties()).describe(), "attention: wgmma (DAPO_CUDA_ATTENTION=wgmma)");
  expect_error(kExitUsage, "sm_80", [] { AttentionChoice choice(ampere()); });
  setenv("DAPO_CUDA_ATTENTION", "flash", 1);
  expect_error(kExitUsage, "one of mma, wgmma, auto", [] { AttentionChoice choice(sim::device_properties()); });
  unsetenv("DAPO_CUDA_ATTENTION");
  EXPECT_FALSE(AttentionChoice(ampere()).open({14, 2, 64}));
}

TEST_F(AttentionChoices, TheKernelsAreComparedAtStart) {
  const long before = sim::live().allocations;
  const auto backend = make_cuda_backend(DType::bf16);
  for (const int d : {64, 128}) backend->prepare_attention({2, 1, d}, 150);
  EXPECT_EQ(sim::live().allocations, before) << "the memory is free again";
  const std::string text = backend->products_text();
  EXPECT_EQ(text.find("other bits"), std::string::npos) << text;
  for (const char* part : {"; attention: ", "; its backward pass: ", "for heads of 64, 2 a KV head (1",
                           "for heads of 128, 2 a KV head (1", " times as fast as the other)"})
    EXPECT_NE(text.find(part), std::string::npos) << text;
  const auto full = make_cuda_backend(DType::bf16);
  sim::fail_call(1, cudaErrorMemoryAllocation, "cudaMalloc");
  full->prepare_attention({2, 1, 64}, 150);
  EXPECT_NE(full->products_text().find("mma.sync for heads of 64, 2 a KV head (no memory to compare it with wgmma)"),
            std::string::npos)
      << full->products_text();
}

}  // namespace
}  // namespace dapo
