// Dynamic sampling in whole steps: which groups are drawn, kept, banked and dropped, and how they are counted.
#include <gtest/gtest.h>

#include <cmath>

#include "host/train/step_text.h"
#include "tests/host/train/trainer_case.h"

namespace dapo {
namespace {

TEST(Trainer, DynamicSamplingEndsWhereNothingIsMixed) {
  Config c = toy_config();
  c.algorithm.max_num_gen_batches = 3;
  c.data.gen_batch_size = 4;
  Case wrong(c, questions("z"), guesser());
  const std::vector<float> before = wrong.weights();
  StepMetrics m = wrong.trainer.step();
  EXPECT_EQ(m.generation_batches, 3);
  EXPECT_EQ(m.groups_wrong, 12);
  EXPECT_EQ(m.groups_trained, 0);
  EXPECT_EQ(m.updates, 0);
  EXPECT_GE(m.alarms.size(), 2u);
  EXPECT_TRUE(same_bits(before, wrong.weights()));
  Case right(c, questions("a"), weights_that_say("a"));
  m = right.trainer.step();
  EXPECT_GE(m.groups_right, 10);
  EXPECT_LE(m.generation_batches, 3);
  c.algorithm.filter_groups = false;  // then every group is kept
  c.data.gen_batch_size = 0;
  Case all(c, questions("z"), guesser());
  m = all.trainer.step();
  EXPECT_EQ(m.generation_batches, 1);
  EXPECT_EQ(m.groups_trained, 4);
}

TEST(Trainer, DrawingStopsWhereNearlyEverythingIsRight) {
  Config c = toy_config();
  c.algorithm.stop_when_solved = 0.75;
  Case right(c, questions("a"), weights_that_say("a"));
  const StepMetrics m = right.trainer.step();
  EXPECT_EQ(m.groups_generated, 4) << "one batch shows it";
  EXPECT_EQ(m.prompts_solved, m.groups_right);
  ASSERT_FALSE(m.alarms.empty());
  EXPECT_NE(m.alarms[0].find("algorithm.stop_when_solved"), std::string::npos) << m.alarms[0];
  c.algorithm.max_age = 0;  // no bank: the next step draws
  Case again(c, questions("a"), weights_that_say("a"));
  TrainerState low = again.trainer.state();
  low.yield = {1, 1000};  // a yield that would draw hundreds of prompts at once
  low.solved = true;
  again.trainer.restore(low);
  EXPECT_EQ(again.trainer.step().groups_generated, 4) << "a batch shows it";
  EXPECT_TRUE(again.trainer.state().solved);
  Case wrong(c, questions("z"), guesser());  // all wrong is no reason: a hard task needs its draws
  EXPECT_GT(wrong.trainer.step().groups_generated, 4);
}

TEST(Trainer, PartialRolloutsGoOnInTheNextStep) {
  Config c = toy_config();
  c.data.gen_batch_size = 7;
  c.data.max_response_length = 6;
  c.rollout.partial = true;
  c.rollout.max_num_seqs = 16;  // two groups at once
  c.rollout.temperature = 2;    // responses of every length
  c.algorithm.filter_groups = false;
  c.algorithm.max_age = 3;
  Case run(c, questions("a"), guesser());
  const auto step = [&run] {
    const StepMetrics m = run.trainer.step();
    EXPECT_EQ(m.groups_trained, 4);
    EXPECT_EQ(m.groups_unfinished, std::ssize(run.trainer.state().unfinished));
    return m;
  };
  StepMetrics m = step();
  EXPECT_GT(m.groups_unfinished, 0);
  EXPECT_LT(m.groups_generated, 7);
  std::vector<Group> left = run.trainer.state().unfinished;
  const auto begun = std::ranges::find_if(left, [](const Group& g) {
    return std::ranges::any_of(g.samples, [](const Sample& s) { return !s.response.ids.empty(); });
  });
  ASSERT_NE(begun, left.end()) << "a response is cut in its middle";
  m = step();
  EXPECT_GT(m.age_max, 0);
  int compared = 0;
  for (const std::vector<Group>* groups : {&run.trainer.trained(), &run.trainer.left_out()})
    for (const Group& g : *groups) {
      if (g.step != begun->step || g.prompt_key != begun->prompt_key) continue;
      for (size_t i = 0; i < g.samples.size(); ++i) {
        const Response &now = g.samples[i].response, &then = begun->samples[i].response;
        ASSERT_GE(now.ids.size(), then.ids.size());
        for (size_t k = 0; k < then.ids.size(); ++k, ++compared) {
          EXPECT_EQ(now.ids[k], then.ids[k]);
          EXPECT_EQ(now.log_prob[k], then.log_prob[k]) << "of the weights that drew it";
        }
      }
    }
  EXPECT_GT(compared, 0);
  c.algorithm.max_age = 0;
  Case fresh(c, questions("a"), guesser());
  fresh.trainer.step();
  EXPECT_GT(fresh.trainer.step().groups_expired, 0);
}

TEST(Trainer, WhatIsAlwaysSolvedIsVisitedLessOften) {
  Config c = toy_config();
  c.data.gen_batch_size = 8;
  c.algorithm.max_num_gen_batches = 1;
  c.algorithm.skip_solved = 2;
  c.actor.lr = 1e-9;  // the others stay mixed
  c.trainer.stuck_patience = 0;
  std::string lines;  // half of the prompts are never answered rightly
  for (char prompt : std::string("stuvwxyz"))
    lines += fmt::format("{{\"prompt\":\"{}?\",\"answer\":\"{}\"}}\n", prompt, prompt < 'w' ? "a" : "Q");
  Case run(c, dataset_of(lines), guesser());
  int64_t skipped = 0;
  for (int i = 0; i < 20; ++i) skipped += run.trainer.step().prompts_skipped;
  int hopeless = 0, mixed = 0, judged = 0;
  for (int i = 0; i < 8; ++i) {
    const PromptRecord& r = run.trainer.state().prompts[i];
    (i < 4 ? mixed : hopeless) += r.visits;
    judged += r.judged;
    if (i >= 4) {
      EXPECT_EQ(r.streak, -r.visits);
      EXPECT_EQ(r.solve_rate(), 0);
    }
  }
  EXPECT_EQ(mixed + hopeless, 160);
  EXPECT_EQ(judged, 160 * c.rollout.n);
  EXPECT_GT(mixed, 2 * hopeless);
  EXPECT_GT(hopeless, 8) << "they are visited still";
  EXPECT_GT(skipped, 40);
}

TEST(PromptRecord, StreaksAndDraws) {
  PromptRecord r;
  for (int i = 0; i < 3; ++i) add_visit(r, 4, 4);
  EXPECT_EQ(r.streak, 3);
  add_visit(r, 0, 4);
  EXPECT_EQ(r.streak, -1);
  add_visit(r, 1, 4);
  EXPECT_EQ(r.streak, 0);
  EXPECT_EQ(r.visits, 5);
  EXPECT_DOUBLE_EQ(r.solve_rate(), 13.0 / 20);
  r.streak = -2;
  int visited = 0;
  for (uint64_t epoch = 0; epoch < 1000; ++epoch) {
    EXPECT_FALSE(passes_over(r, 0, 1, epoch, 5));
    EXPECT_FALSE(passes_over(r, 3, 1, epoch, 5));
    visited += !passes_over(r, 2, 1, epoch, 5);
  }
  EXPECT_NEAR(visited, 250, 60);
}

TEST(Trainer, SurplusIsBankedOrDropped) {
  Config c = toy_config();
  c.data.gen_batch_size = 12;
  c.algorithm.surplus = Surplus::bank;
  Case bank(c, questions("a"), guesser());
  StepMetrics m = bank.trainer.step();
  ASSERT_GE(m.groups_kept, 8);
  EXPECT_EQ(m.groups_banked, 4);  // no more than the next step can use
  EXPECT_EQ(m.groups_dropped, m.groups_kept - 8);
  EXPECT_EQ(m.age_max, 0);
  const int64_t surplus = m.groups_kept - 4;
  m = bank.trainer.step();
  EXPECT_EQ(m.groups_from_bank, 4);
  EXPECT_EQ(m.groups_generated, 0);
  EXPECT_TRUE(std::isnan(m.acc) && std::isnan(m.length_mean));  // no responses were drawn
  EXPECT_NE(step_text(m.fields(), 9, 0).find("all groups from the bank"), std::string::npos)
      << step_text(m.fields(), 9, 0);
  EXPECT_EQ(bank.trainer.trained().front().step, 1);
  EXPECT_EQ(m.age_mean, 1);
  EXPECT_EQ(m.age_max, 1);
  EXPECT_TRUE(std::isnan(m.mismatch));  // banked groups were drawn by older weights: nothing to compare
  for (const Surplus mode : {Surplus::drop, Surplus::automatic}) {  // auto drops if data.gen_batch_size is set
    c.algorithm.surplus = mode;
    Case drop(c, questions("a"), guesser());
    m = drop.trainer.step();
    EXPECT_EQ(m.groups_dropped, surplus);
    EXPECT_EQ(m.groups_banked, 0);
    EXPECT_EQ(drop.trainer.step().age_max, 0);
  }
}

TEST(Trainer, BankedGroupsExpire) {
  Config c = toy_config();
  c.data.gen_batch_size = 12;
  c.algorithm.surplus = Surplus::bank;
  for (const int max_age : {0, 1, 3}) {
    c.algorithm.max_age = max_age;
    Case run(c, questions("a"), guesser());
    run.trainer.step();
    TrainerState s = run.trainer.state();
    EXPECT_EQ(s.bank.size(), max_age == 0 ? 0u : 4u);
    for (Group& g : s.bank) g.step = -1;  // as if drawn two steps before
    run.trainer.restore(std::move(s));
    const StepMetrics m = run.trainer.step();
    EXPECT_EQ(m.groups_expired, max_age == 1 ? 4 : 0) << max_age;
    EXPECT_EQ(m.groups_from_bank, max_age == 3 ? 4 : 0) << max_age;
    EXPECT_EQ(m.age_max, max_age == 3 ? 3 : 0) << max_age;
    EXPECT_EQ(m.groups_generated > 0, max_age != 3) << max_age;
  }
}

TEST(Trainer, UnjudgedGroupsAreNeitherRightNorWrong) {
  Config c = toy_config();
  c.data.shuffle = false;
  c.data.gen_batch_size = 8;
  std::string lines;
  for (const char prompt : std::string("stuvwxyz"))  // an empty ground truth cannot be judged
    lines += fmt::format("{{\"prompt\":\"{}?\",\"answer\":\"{}\"}}\n", prompt, prompt < 'w' ? "a" : "");
  c.algorithm.max_num_gen_batches = 1;
  Case once(c, dataset_of(lines), weights_that_say("a"));
  const StepMetrics m = once.trainer.step();
  EXPECT_EQ(m.groups_generated, 8);
  EXPECT_EQ(m.groups_unjudged, 4);
  EXPECT_EQ(m.verifier_errors, 32);
  EXPECT_EQ(m.groups_wrong, 0);
  EXPECT_EQ(m.groups_right + m.groups_kept, 4);
  EXPECT_GT(m.acc, 0.9);  // of the judged ones
  EXPECT_GT(m.reward, 0.8);
  EXPECT_NE(step_text(m.fields(), 9, 0).find("unjudged 4"), std::string::npos) << step_text(m.fields(), 9, 0);
}

TEST(Trainer, FilteredDrawsRaiseAnAlarmOnce) {
  const auto alarms = [](Config c) {
    Case run(c, questions("a"), guesser());
    size_t n = 0;
    for (int step = 0; step < 2; ++step)
      for (const std::string& a : run.trainer.step().alarms) n += a.find("filtered distribution") != a.npos;
    return n;
  };
  Config c = toy_config();
  EXPECT_EQ(alarms(c), 0u);
  c.rollout.top_p = 0.9f;
  EXPECT_EQ(alarms(c), 1u);
  c.rollout.top_p = 1;
  c.rollout.top_k = 20;
  EXPECT_EQ(alarms(c), 1u);
}

TEST(Trainer, AtAYieldOfAThirdTheFirstStepFillsInThreeBatches) {
  Config c = toy_config();
  c.data.train_batch_size = 32;
  c.actor.ppo_mini_batch_size = 32;
  c.rollout.n = 2;  // right with .25 each: mixed with 2 x .25 x .75 = .375
  int64_t batches = 0;
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    c.trainer.seed = seed;
    Case run(c, questions("a"), guesser());
    const StepMetrics m = run.trainer.step();
    EXPECT_LE(m.generation_batches, 3) << seed;
    EXPECT_EQ(m.groups_trained, 32) << seed;
    batches += m.generation_batches;
  }
  EXPECT_LE(batches, 13);
}

}  // namespace
}  // namespace dapo
