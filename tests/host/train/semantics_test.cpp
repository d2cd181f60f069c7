// What the settings of DAPO mean in a whole step: each reaches the loss, the reward or the update (for the formulas
// themselves see objective_test.cpp and tests/ops).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "host/train/objective.h"
#include "host/train/trainer.h"
#include "tests/host/train/toy_run.h"
#include "tests/ops/reference.h"

namespace dapo {
namespace {

struct Steps {
  Config config;
  Dataset data;
  Toy toy{weights_that_say("abcd")};
  NoProgress progress;
  Trainer trainer;
  explicit Steps(const Config& c)
      : config(c), data(questions("a")), trainer(config, toy.weights, byte_tokenizer(), data, progress) {}
};

TEST(Semantics, TheLossIsClippedWeightedAndTemperedAsTheConfigSays) {
  Config c = toy_config();
  c.rollout.temperature = 0.7f;
  c.actor.clip_ratio_low = 0.1, c.actor.clip_ratio_high = 0.5, c.actor.clip_ratio_c = 1.5;
  c.actor.ppo_epochs = 3;
  c.actor.lr = 3e-2;
  Steps run(c);
  const DapoLoss want{0.1f, 0.5f, 1.5f, 20.0f};
  int kinds[4] = {};
  size_t call = 0;
  run.trainer.after_pack = [&](Pack& p) {
    double weights = 0;
    for (size_t r = 0; r < p.head_rows.size(); ++r) {
      const TokenLoss t = token_loss(p.log_prob[r], p.old_log_prob[r], p.advantage[r], want);
      EXPECT_NEAR(p.loss[r], t.loss, 1e-5f * std::abs(t.loss) + 1e-6f);
      EXPECT_EQ(p.clip[r], t.clip);
      ++kinds[p.clip[r]];
      weights += double{p.weight[r]};
    }
    EXPECT_NEAR(weights, 1, 1e-5);  // token-mean over the mini-batch, one pack here
    // The mini-batches take the groups in their order, again in each epoch.
    std::vector<int32_t> targets = p.targets, ids;
    const size_t begin = call++ % 2 * 2;
    for (size_t g = begin; g < begin + 2; ++g)
      for (const Sample& s : run.trainer.trained()[g].samples)
        ids.insert(ids.end(), s.response.ids.begin(), s.response.ids.end());
    std::sort(targets.begin(), targets.end());
    std::sort(ids.begin(), ids.end());
    EXPECT_EQ(targets, ids) << "call " << call;
  };
  const StepMetrics m = run.trainer.step();
  ASSERT_EQ(m.groups_trained, 4);
  EXPECT_EQ(call, 6u);
  EXPECT_EQ(m.mismatch, 0);  // training divides its logits by rollout's temperature
  EXPECT_EQ(m.ratio_error, 0);
  // As for a policy that moved far: a wrong response has become e^3 times as likely.
  run.trainer.after_rollout = [](std::vector<Group>& groups) {
    for (Group& g : groups)
      for (Sample& s : g.samples)
        if (!s.verdict.acc) s.response.log_prob[0] -= 3;
  };
  call = 0;
  run.trainer.step();
  for (const int kind : {kNotClipped, kClippedLow, kClippedHigh, kClippedDual}) EXPECT_GT(kinds[kind], 0) << kind;
}

TEST(Semantics, RewardsAreShapedByLengthAndAdvantagesComeFromThem) {
  Config c = toy_config();
  c.reward.overlong_buffer = true;
  c.reward.overlong_buffer_len = 3;
  c.reward.overlong_penalty_factor = 0.5;
  c.reward.correct = 2, c.reward.incorrect = -3;
  Steps run(c);
  const StepMetrics m = run.trainer.step();
  int right = 0, wrong_and_punished = 0;
  for (const Group& g : run.trainer.trained()) {
    std::vector<double> rewards;
    for (const Sample& s : g.samples) {
      const int length = s.response.ids.size();
      EXPECT_EQ(s.reward, s.verdict.acc ? 2 : -3);
      EXPECT_DOUBLE_EQ(s.shaped, s.reward + overlong_penalty(length, 4, 3, 0.5));
      right += s.verdict.acc;
      wrong_and_punished += !s.verdict.acc && s.shaped < s.reward;
      rewards.push_back(s.shaped);
    }
    const std::vector<double> want = group_advantages(rewards, true);
    for (size_t i = 0; i < want.size(); ++i) EXPECT_DOUBLE_EQ(g.samples[i].advantage, want[i]);
  }
  EXPECT_GT(right, 0);
  EXPECT_GT(wrong_and_punished, 0);
  EXPECT_LT(m.shaped_reward, m.reward);
}

TEST(Semantics, OverlongFilteringMasksTruncatedResponsesAlone) {
  Config c = toy_config();
  c.data.max_response_length = 1;  // a letter, then the end id: cut unless the first token is the end id
  c.rollout.temperature = 1.5f;
  c.algorithm.filter_groups = false;
  for (const bool filtering : {false, true}) {
    c.algorithm.overlong_filtering = filtering;
    Steps run(c);
    size_t rows = 0, whole = 0, cut = 0;
    run.trainer.after_rollout = [](std::vector<Group>& groups) {
      groups[0].samples[0].response.finish = Finish::stop;  // at least one is not cut
    };
    run.trainer.after_pack = [&](Pack& p) { rows += p.head_rows.size(); };
    run.trainer.step();
    for (const Group& g : run.trainer.trained())
      for (const Sample& s : g.samples) (s.response.finish == Finish::length ? cut : whole) += s.response.ids.size();
    EXPECT_GT(whole, 0u);
    EXPECT_GT(cut, 0u);
    EXPECT_EQ(rows, filtering ? whole : whole + cut);
  }
}

TEST(Semantics, AnUpdateIsAdamWWithTheConfigsNumbers) {
  Config c = toy_config();
  c.actor.lr = 8e-3, c.actor.lr_warmup_steps = 4;
  c.actor.beta1 = 0.8, c.actor.beta2 = 0.95, c.actor.eps = 1e-6, c.actor.weight_decay = 0.3;
  c.actor.grad_clip = 0.05;
  Steps run(c);
  const Weights& weights = run.toy.weights;
  const Learner& learner = run.trainer.learner();
  struct At {
    std::vector<float> w, m, v, g;
  };
  std::vector<At> before;
  run.trainer.after_pack = [&](Pack&) {
    before.push_back({run.toy.get(weights.flat()), run.toy.get(learner.moment1()), run.toy.get(learner.moment2()),
                      run.toy.get(learner.gradients())});
  };
  std::vector<double> lr;
  for (int step = 0; step < 2; ++step) lr.push_back(run.trainer.step().lr);
  EXPECT_DOUBLE_EQ(lr[0], 2e-3);  // warm-up is counted in steps
  EXPECT_DOUBLE_EQ(lr[1], 4e-3);
  ASSERT_EQ(before.size(), 4u);
  before.push_back({run.toy.get(weights.flat()), {}, {}, {}});
  std::vector<uint8_t> decayed(before[0].w.size(), 0);
  for (const Param& p : weights.params().all)
    if (p.decayed) std::fill_n(decayed.begin() + p.offset, p.numel(), uint8_t{1});
  int clipped = 0;
  for (size_t k = 0; k < 4; ++k) {
    const At& at = before[k];
    double norm2 = 0;
    for (const float g : at.g) norm2 += double{g} * g;
    clipped += std::sqrt(norm2) > 0.06;
    double worst = 0;
    for (size_t i = 0; i < at.w.size(); ++i) {
      double w = at.w[i], m1 = at.m[i], m2 = at.v[i];
      AdamW p{.lr = float(lr[k / 2]),
              .beta1 = 0.8f,
              .beta2 = 0.95f,
              .eps = 1e-6f,
              .weight_decay = decayed[i] ? 0.3f : 0.0f,
              .step = int64_t(k) + 1,  // bias correction counts updates
              .max_norm = 0.05f};
      ops::adamw(w, m1, m2, at.g[i], norm2, p);
      worst = std::max(worst, std::abs(w - before[k + 1].w[i]));
    }
    EXPECT_LT(worst, 1e-3 * lr[k / 2]) << "update "
                                       << k + 1;  // f32 rounds the moments; a wrong setting would move a weight by lr
  }
  EXPECT_GE(clipped, 3);
}

}  // namespace
}  // namespace dapo
