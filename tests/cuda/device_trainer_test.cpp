// The whole trainer with --device cuda against --device cpu.
#include "tests/cuda/device_trainer.h"

namespace dapo {
namespace {

void expect_agreement(const StepMetrics& m) {
  EXPECT_EQ(m.mismatch_tokens > 0, m.groups_generated > 0) << "step " << m.step;
  if (m.groups_generated == 0) return;  // all from the bank: nothing to compare
  EXPECT_EQ(m.mismatch, 0) << "step " << m.step;
  EXPECT_EQ(m.ratio_error, 0) << "step " << m.step;
}

TEST(CudaTrainer, FiveStepsEqualTheCpus) {
  TrainerCase cpu(toy_config(), "cpu", "f32"), cuda(toy_config(), "cuda", "f32");
  for (int step = 1; step <= 5; ++step) {
    const StepMetrics want = cpu.trainer.step(), got = cuda.trainer.step();
    expect_agreement(got);
    ASSERT_EQ(cuda.responses(), cpu.responses()) << "step " << step;
    EXPECT_EQ(got.updates, want.updates);
    // Rounding of f32 through two layers: 1e-6 of a loss of order 1; the norm is a sum over gradients of that accuracy.
    EXPECT_NEAR(got.loss, want.loss, 1e-5) << "step " << step;
    EXPECT_NEAR(got.entropy, want.entropy, 1e-4) << "step " << step;
    EXPECT_NEAR(got.grad_norm, want.grad_norm, 1e-3 * want.grad_norm) << "step " << step;
  }
  // As in tests/host/train/trainer_test.cpp: Adam turns rounding into steps where a gradient is almost 0, hence the
  // mean.
  const auto x = cpu.toy.get(cpu.toy.weights.flat()), y = cuda.toy.get(cuda.toy.weights.flat());
  const auto& begin = weights_that_say("abcd");
  double difference = 0, moved = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    difference += std::abs(double{x[i]} - y[i]);
    moved += std::abs(double{x[i]} - begin[i]);
  }
  EXPECT_GT(moved, 0);
  EXPECT_LT(difference, 1e-2 * moved);
}

TEST(CudaTrainer, AStepInBf16SamplesWhatItTrainsOn) {
  TrainerCase run(toy_config(), "cuda", "bf16");
  for (int step = 0; step < 2; ++step) {  // the second replays decodes
    const StepMetrics m = run.trainer.step();
    expect_agreement(m);
    EXPECT_GT(m.updates, 0);
  }
}

}  // namespace
}  // namespace dapo
