// Whole DAPO steps, SFT and evaluation on a toy model.
#include "host/train/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/choices.h"
#include "host/train/evaluate.h"
#include "host/train/step_text.h"
#include "tests/host/train/trainer_case.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

TEST(Trainer, FiveStepsLearnATrivialTask) {
  Config c = toy_config();
  c.actor.lr = 1e-2;
  Case run(c, questions("a"), guesser());
  std::vector<double> acc;
  for (int i = 0; i < 5; ++i) {
    const StepMetrics m = run.trainer.step();
    acc.push_back(m.acc);
    if (m.groups_generated > 0) {
      EXPECT_EQ(m.mismatch, 0) << "step " << m.step;  // rollout and training agree to the last bit
      EXPECT_EQ(m.ratio_error, 0) << "step " << m.step;
    }
    EXPECT_EQ(m.updates, (m.groups_trained + 1) / 2) << "step " << m.step;
    EXPECT_TRUE(m.groups_trained == 4 || acc.back() > 0.9);  // otherwise mixed groups have become rare
    EXPECT_TRUE(std::isfinite(m.loss) && std::isfinite(m.entropy));
  }
  EXPECT_GT(acc.front(), 0.05);
  EXPECT_LT(acc.front(), 0.6);
  EXPECT_GT(acc.back(), acc.front() + 0.25);
}

TEST(Trainer, RepeatsBitForBitAndResumes) {
  Config c = toy_config();
  c.data.gen_batch_size = 7;  // some groups of the second step were drawn in the first
  c.algorithm.surplus = Surplus::bank;
  Case a(c, questions("a"), guesser()), b(c, questions("a"), guesser());
  a.trainer.step();
  b.trainer.step();
  EXPECT_TRUE(same_bits(a.weights(), b.weights()));
  EXPECT_FALSE(b.trainer.state().bank.empty());
  const StepMetrics whole = a.trainer.step();
  Case resumed(c, questions("a"), b.weights());
  resumed.toy.set(resumed.trainer.learner().moment1(), b.toy.get(b.trainer.learner().moment1()));
  resumed.toy.set(resumed.trainer.learner().moment2(), b.toy.get(b.trainer.learner().moment2()));
  resumed.trainer.restore(b.trainer.state());
  const StepMetrics m = resumed.trainer.step();
  EXPECT_TRUE(same_bits(a.weights(), resumed.weights()));
  ASSERT_GT(m.groups_from_bank, 0);
  const auto want = whole.fields(), got = m.fields();
  for (size_t i = 0; i < want.size(); ++i)
    if (const std::string name = want[i].first; !of_time(name)) {
      EXPECT_EQ(fmt::to_string(got[i].second), fmt::to_string(want[i].second)) << name;  // nan is nan
    }
}

TEST(Trainer, MicroBatchesAndPagesChangeRoundingOnly) {
  Config c = toy_config();
  Case whole(c, questions("a"), guesser());
  const StepMetrics w = whole.trainer.step();
  c.actor.ppo_max_token_len = 16;
  c.rollout.max_num_seqs = 8;
  c.rollout.page_size = 128;
  c.rollout.collect_every = 3;
  Case parts(c, questions("a"), guesser());
  const StepMetrics p = parts.trainer.step();
  EXPECT_NEAR(p.loss, w.loss, 1e-5 * std::abs(w.loss) + 1e-7);  // AdamW would hide a wrong scale of the gradient
  EXPECT_NEAR(p.grad_norm, w.grad_norm, 1e-4 * w.grad_norm);
  ASSERT_EQ(whole.trainer.trained().size(), parts.trainer.trained().size());
  for (size_t g = 0; g < whole.trainer.trained().size(); ++g)
    for (size_t i = 0; i < 8; ++i)
      EXPECT_EQ(whole.trainer.trained()[g].samples[i].response.ids, parts.trainer.trained()[g].samples[i].response.ids);
  // Adam's first steps are lr * sign(g) where |g| >> eps: rounding of a gradient (1e-6 of it) moves a weight by a share
  // of lr = 3e-3 only where the gradient is itself near 0, hence the mean and not the worst.
  const std::vector<float> x = whole.weights(), y = parts.weights();
  double difference = 0, moved = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    difference += std::abs(double{x[i]} - y[i]);
    moved += std::abs(double{x[i]} - guesser()[i]);
  }
  EXPECT_GT(moved, 0);
  EXPECT_LT(difference, 2e-3 * moved);
}

TEST(Trainer, AShortMiniBatchWeighsLess) {
  Config c = toy_config();
  c.algorithm.filter_groups = false;
  std::vector<double> sums;
  for (const int groups : {2, 1}) {
    Case run(c, questions("a"), guesser());
    sums.clear();
    run.trainer.after_rollout = [&](std::vector<Group>& g) { g.resize(2 + groups); };
    run.trainer.after_pack = [&](Pack& p) {
      double sum = 0;
      for (const float w : p.weight) sum += double{w};
      sums.push_back(sum);
    };
    EXPECT_EQ(run.trainer.step().updates, 2);
    ASSERT_EQ(sums.size(), 2u);
    EXPECT_NEAR(sums[0], 1, 1e-5);
    EXPECT_NEAR(sums[1], groups / 2.0, 1e-5);  // verl divides by the configured size of a mini-batch
  }
}

TEST(Trainer, GradientNormsAreTheMeanAndTheLargest) {
  Config c = toy_config();
  c.actor.ppo_mini_batch_size = 1;
  Case run(c, questions("a"), guesser());
  std::vector<double> norms;
  run.trainer.after_pack = [&](Pack&) {
    double squares = 0;
    for (const float g : run.toy.get(run.trainer.learner().gradients())) squares += double{g} * g;
    norms.push_back(std::sqrt(squares));
  };
  const StepMetrics m = run.trainer.step();
  ASSERT_EQ(norms.size(), 4u);
  EXPECT_NEAR(m.grad_norm, (norms[0] + norms[1] + norms[2] + norms[3]) / 4, 1e-6);
  EXPECT_NEAR(m.grad_norm_max, *std::max_element(norms.begin(), norms.end()), 1e-6);
}

TEST(Trainer, BadNumbersAreRefusedAndLeaveNoTrace) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  Config c = toy_config();
  c.trainer.nonfinite_patience = 100;
  Case run(c, questions("a"), guesser());
  run.trainer.step();
  const auto state = [&run] {
    std::vector<float> all = run.weights();
    for (const Tensor& t : {run.trainer.learner().moment1(), run.trainer.learner().moment2()})
      for (float x : run.toy.get(t)) all.push_back(x);
    return all;
  };
  const std::vector<float> before = state();
  const std::vector<std::function<void(Pack&)>> breaks = {
      [&](Pack& p) { p.loss[0] = nan; },
      [&](Pack& p) { p.log_prob.back() = infinity; },
      [&](Pack& p) { p.entropy[0] = nan; },
      [&](Pack&) {
        std::vector<float> g = run.toy.get(run.trainer.learner().gradients());
        g[100] = nan;
        run.toy.set(run.trainer.learner().gradients(), g);
      },
  };
  for (size_t i = 0; i < breaks.size(); ++i) {
    run.trainer.after_pack = breaks[i];
    const StepMetrics m = run.trainer.step();
    EXPECT_EQ(m.updates, 0) << i;
    EXPECT_EQ(m.updates_refused, 2) << i;
    EXPECT_TRUE(same_bits(before, state())) << i;
    for (float g : run.toy.get(run.trainer.learner().gradients())) ASSERT_EQ(g, 0) << i;
  }
  run.trainer.after_pack = nullptr;
  run.trainer.after_rollout = [&](std::vector<Group>& g) { g[0].samples[1].shaped = nan; };
  StepMetrics m = run.trainer.step();
  EXPECT_EQ(m.updates_refused, 1);  // the other mini-batch is good
  EXPECT_EQ(m.updates, 1);
  run.trainer.after_rollout = [&](std::vector<Group>& g) { g[3].samples[0].response.log_prob[0] = infinity; };
  m = run.trainer.step();
  EXPECT_EQ(m.updates_refused, 1);
  run.trainer.after_rollout = nullptr;
  m = run.trainer.step();
  EXPECT_EQ(m.updates, 2);
  EXPECT_EQ(run.trainer.state().refused, 0);
}

TEST(Trainer, ARefusedMiniBatchCanBeRunAgain) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Config c = toy_config();
  c.trainer.nonfinite_patience = 100;
  Case run(c, questions("a"), guesser());
  std::vector<TrainerState> refused;
  run.trainer.on_refused = [&](const TrainerState& s) { refused.push_back(s); };
  run.trainer.after_rollout = [&](std::vector<Group>& g) { g[3].samples[2].response.log_prob[1] = nan; };
  const StepMetrics m = run.trainer.step();
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].now.mini_batches, 1);
  EXPECT_EQ(refused[0].now.sums.updates, 1);
  EXPECT_EQ(refused[0].now.sums.updates_refused, 0);
  EXPECT_EQ(m.updates_refused, 1);

  Case again(c, questions("a"), run.weights());
  again.trainer.restore(refused[0]);
  const Group& bad = refused[0].now.groups[3];
  const std::string found = again.trainer.replay();
  EXPECT_EQ(found.find(fmt::format("row {} of the data, response 2, token 1 (id {}): old log-prob = nan\n", bad.example,
                                   bad.samples[2].response.ids[1])),
            0u)
      << found;
  EXPECT_TRUE(same_bits(again.weights(), run.weights())) << "a replay changes nothing";
  std::vector<float> weights = run.weights();
  weights[5] = nan;
  Case broken(c, questions("a"), weights);
  broken.trainer.restore(refused[0]);
  EXPECT_EQ(broken.trainer.replay().find("weights of "), 0u) << broken.trainer.replay();
}

TEST(Trainer, StopsAfterRefusalsInARow) {
  Config c = toy_config();
  c.trainer.nonfinite_patience = 3;
  Case run(c, questions("a"), guesser());
  run.trainer.after_pack = [](Pack& p) { p.loss[0] = std::numeric_limits<float>::quiet_NaN(); };
  EXPECT_EQ(run.trainer.step().updates_refused, 2);
  try {
    run.trainer.step();
    FAIL() << "the third refusal ends the run";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kExitNumerics);
  }
  EXPECT_TRUE(same_bits(guesser(), run.weights()));
}

TEST(Trainer, WeightsThatHoldNanEndTheRunAtTheFirstDraw) {
  std::vector<float> weights = guesser();
  weights[5] = std::numeric_limits<float>::quiet_NaN();
  Case run(toy_config(), questions("a"), weights);
  const std::string said = error_of(kExitNumerics, [&] { run.trainer.step(); });
  EXPECT_NE(said.find("not finite"), std::string::npos) << said;
}

TEST(Trainer, EveryModeRuns) {
  for (const LossAgg mode : {LossAgg::seq_mean_token_mean, LossAgg::seq_mean_token_sum,
                             LossAgg::seq_mean_token_sum_norm, LossAgg::token_mean_per_micro_batch}) {
    Config c = toy_config();
    c.actor.loss_agg_mode = mode;
    c.actor.ppo_epochs = 2;
    c.actor.ppo_max_token_len = 32;
    c.algorithm.overlong_filtering = true;
    c.algorithm.norm_adv_by_std = false;
    c.reward.overlong_buffer = true;
    c.reward.overlong_buffer_len = 2;
    Case run(c, questions("a"), guesser());
    const StepMetrics m = run.trainer.step();
    EXPECT_EQ(m.updates, 4) << choice_name(mode);
    EXPECT_EQ(m.ratio_error, 0) << choice_name(mode);
    EXPECT_LE(m.shaped_reward, m.reward) << choice_name(mode);
    EXPECT_EQ(m.fields().front().first, std::string("step"));
  }
}

TEST(Trainer, LongPromptsAreDroppedOrRefused) {
  Config c = toy_config();
  c.data.max_prompt_length = 3;
  const std::string lines = "{\"prompt\":\"ab\",\"answer\":\"a\"}\n{\"prompt\":\"abcd\",\"answer\":\"a\"}\n";
  Case run(c, dataset_of(lines), guesser());
  EXPECT_EQ(run.trainer.prompts(), 1u);
  EXPECT_EQ(run.trainer.prompts_dropped(), 1u);
  c.data.overlong_prompts = OverlongPrompts::error;
  EXPECT_THROW(Case(c, dataset_of(lines), guesser()), Error);
  c.data.overlong_prompts = OverlongPrompts::drop;
  c.data.max_prompt_length = 1;
  EXPECT_THROW(Case(c, dataset_of(lines), guesser()), Error);
}

}  // namespace
}  // namespace dapo
