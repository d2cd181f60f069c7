// Each step compares the log-probs of rollout with those of training; measuring changes nothing.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "host/train/step_text.h"
#include "tests/host/train/trainer_case.h"

namespace dapo {
namespace {

TEST(Trainer, RecomputedOldLogProbsAreTheRollouts) {
  Config c = toy_config();
  c.data.gen_batch_size = 7;
  c.algorithm.surplus = Surplus::bank;
  Case a(c, questions("a"), guesser());
  c.actor.old_logprobs = OldLogProbs::recompute;
  Case b(c, questions("a"), guesser());
  int64_t banked = 0;
  for (int step = 1; step <= 3; ++step) {
    const StepMetrics want = a.trainer.step(), m = b.trainer.step();
    if (m.groups_generated > 0) {
      EXPECT_GT(m.mismatch_tokens, 0) << step;
      EXPECT_EQ(m.mismatch, 0) << step;
      EXPECT_EQ(m.ratio_error, 0) << step;
    }
    EXPECT_EQ(m.ratio_kl, want.ratio_kl) << step;
    // Banked groups keep the log-probs of the weights that drew them: measuring changes no bit of training.
    EXPECT_TRUE(same_bits(a.weights(), b.weights())) << step;
    banked += m.groups_from_bank;
  }
  EXPECT_GT(banked, 0);
}

TEST(Trainer, EveryStepThatDrawsComparesLogProbs) {
  Config c = toy_config();
  c.actor.ppo_mini_batch_size = 1;
  c.data.gen_batch_size = 6;
  c.algorithm.surplus = Surplus::bank;
  Case run(c, questions("a"), guesser());
  int from_bank = 0;
  for (int step = 1; step <= 4; ++step) {
    const StepMetrics m = run.trainer.step();
    if (m.groups_generated == 0) {
      EXPECT_EQ(m.mismatch_tokens, 0) << step;
      EXPECT_TRUE(std::isnan(m.mismatch) && std::isnan(m.ratio_error)) << step;
      EXPECT_NE(step_text(m.fields(), 9, 0).find("all groups from the bank"), std::string::npos);
      continue;
    }
    from_bank += m.groups_from_bank > 0;  // the first mini-batch is a banked group: a new one is scored
    EXPECT_GT(m.mismatch_tokens, 0) << step;
    EXPECT_EQ(m.mismatch, 0) << step;
  }
  EXPECT_GT(from_bank, 0);
}

TEST(Trainer, AMaskedOrRefusedMiniBatchDoesNotHideAMismatch) {
  const auto off_by_one = [](std::vector<Group>& groups) {
    for (Group& g : groups)
      for (Sample& s : g.samples)
        for (float& x : s.response.log_prob) x -= 1;
  };
  Config c = toy_config();
  c.trainer.nonfinite_patience = 100;
  Case refused(c, questions("a"), guesser());
  refused.trainer.after_rollout = off_by_one;
  refused.trainer.after_pack = [](Pack& p) { p.loss[0] = std::numeric_limits<float>::quiet_NaN(); };
  StepMetrics m = refused.trainer.step();
  EXPECT_EQ(m.updates, 0);
  EXPECT_NEAR(m.mismatch, 1, 1e-5);

  c.algorithm.overlong_filtering = true;  // all are masked, yet one group is scored
  Case masked(c, questions("a"), guesser());
  masked.trainer.after_rollout = [&](std::vector<Group>& groups) {
    off_by_one(groups);
    for (Group& g : groups)
      for (Sample& s : g.samples) s.response.finish = Finish::length;
  };
  m = masked.trainer.step();
  EXPECT_EQ(m.updates, 0);
  EXPECT_GT(m.mismatch_tokens, 0);
  EXPECT_NEAR(m.mismatch, 1, 1e-5);

  // The first mini-batch is masked; the second still runs on the weights that drew it.
  Case second(c, questions("a"), guesser());
  second.trainer.after_rollout = [&](std::vector<Group>& groups) {
    for (size_t g = 0; g < 2; ++g)
      for (Sample& s : groups[g].samples) s.response.finish = Finish::length;
    for (size_t g = 2; g < groups.size(); ++g)
      for (Sample& s : groups[g].samples) s.response.finish = Finish::stop;
  };
  m = second.trainer.step();
  EXPECT_EQ(m.updates, 1);
  int64_t tokens = 0;
  for (size_t g = 2; g < second.trainer.trained().size(); ++g)
    for (const Sample& s : second.trainer.trained()[g].samples) tokens += s.response.ids.size();
  EXPECT_EQ(m.mismatch_tokens, tokens);
  EXPECT_EQ(m.mismatch, 0);
}

}  // namespace
}  // namespace dapo
