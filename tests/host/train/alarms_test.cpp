// Alarms: each condition raises one, once, and names what to do.
#include "host/train/alarms.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testdata.h"

namespace dapo {
namespace {

/// A run in which nothing deserves attention.
struct Watched {
  Config config;
  AlarmState state;
  StepMetrics m;
  Watched() {
    config.rollout.n = 8;
    m.groups_generated = 12, m.groups_kept = 8, m.groups_right = 2, m.groups_wrong = 2;
    m.acc = m.train_acc = 0.5, m.found = 1, m.length_mean = 100, m.truncated = 0.01;
    m.updates = 2, m.entropy = 0.5, m.mismatch_tokens = 100;
  }
  /// The alarms of so many steps.
  std::vector<std::string> steps(int count) {
    std::vector<std::string> all;
    for (int i = 0; i < count; ++i) {
      ++m.step;
      for (std::string& text : raise_alarms(config, 1000, m, state)) all.push_back(std::move(text));
    }
    return all;
  }
  /// Expects one alarm with these parts, however long the condition holds.
  void expect_one(std::initializer_list<const char*> parts, int count = 60) {
    const std::vector<std::string> all = steps(count);
    ASSERT_EQ(all.size(), 1u) << (all.empty() ? "none" : all.back());
    for (const char* part : parts) EXPECT_NE(all[0].find(part), std::string::npos) << part << " in: " << all[0];
  }
};

TEST(Alarms, AHealthyRunRaisesNone) {
  Watched run;
  EXPECT_TRUE(run.steps(500).empty());
  run.m.acc = run.m.length_mean = run.m.truncated = run.m.mismatch = NAN;  // all groups from the bank
  run.m.groups_generated = run.m.groups_right = run.m.groups_wrong = 0;
  EXPECT_TRUE(run.steps(100).empty());
}

TEST(Alarms, OnceWhileItHoldsAndAgainAfterAQuietTime) {
  Watched run;
  run.m.truncated = 0.75;
  run.expect_one({"75 % of the responses are cut", "data.max_response_length"}, 300);
  run.m.truncated = 0;
  EXPECT_TRUE(run.steps(AlarmState::kQuiet).empty());
  run.m.truncated = 0.6;
  run.expect_one({"60 % of the responses are cut"});
  run.m.truncated = 0;
  run.steps(AlarmState::kQuiet - 1);
  run.m.truncated = 0.6;
  EXPECT_TRUE(run.steps(1).empty());  // it only paused
}

TEST(Alarms, WhatAStepNoticedItselfIsAlsoRaisedOnce) {
  Watched run;
  run.m.alarms = {"7 of 8 groups after 30 prompts: the step trains on those"};
  EXPECT_EQ(run.steps(1), run.m.alarms);
  run.m.alarms = {"3 of 8 groups after 31 prompts: the step trains on those", "update refused: a reason"};
  EXPECT_EQ(run.steps(2), std::vector<std::string>{"update refused: a reason"});
}

TEST(Alarms, AVerifierThatFailsOrIsConstant) {
  Watched errors;
  errors.m.verifier_errors = 3, errors.m.groups_unjudged = 2;
  errors.expect_one({"could not judge 3 responses", "2 groups", "rollouts/step_1.jsonl"});
  Watched wrong;
  wrong.m.groups_wrong = 12, wrong.m.groups_right = 0, wrong.m.found = 0.25;
  wrong.expect_one({"not one of 96 responses is right", "math_dapo", "25 %", "--check"});
  Watched right;
  right.m.groups_right = 12, right.m.groups_wrong = 0;
  right.expect_one({"all 96 responses are right", "accepts anything"});
}

TEST(Alarms, EntropyCollapses) {
  Watched at_once;
  at_once.m.entropy = 5e-4;
  at_once.expect_one({"entropy has collapsed to 0.0005 nats", "actor.clip_ratio_high"});
  Watched later;
  EXPECT_TRUE(later.steps(AlarmState::kFirst).empty());
  later.m.entropy = 0.024;  // a twentieth of the start is .025
  later.expect_one({"collapsed to 0.024 nats (mean of the first 10 steps: 0.5)"});
  Watched learned;
  learned.steps(AlarmState::kFirst);
  learned.m.entropy = 0.024, learned.m.acc = learned.m.train_acc = 0.95, learned.m.length_mean = 130;
  EXPECT_TRUE(learned.steps(30).empty());  // a task that is solved needs none
}

TEST(Alarms, EntropyExplodes) {
  Watched chance;
  chance.m.entropy = 0.71 * std::log(1000.0);
  chance.expect_one({"entropy has risen to 4.90 nats", "chance is 6.91", "actor.lr"});
  Watched later;
  later.steps(AlarmState::kFirst);
  later.m.entropy = 1.49;
  EXPECT_TRUE(later.steps(5).empty());
  later.m.entropy = 1.51;
  later.expect_one({"risen to 1.51 nats (mean of the first 10 steps: 0.5)"});
}

TEST(Alarms, RolloutAndTrainingDisagree) {
  Watched run;
  run.m.mismatch = 0.02;
  run.expect_one({"disagree by 0.02 nats", "100 tokens", "old_logprobs"});
  Watched infinite;
  infinite.m.ratio_error = INFINITY;
  infinite.expect_one({"disagree"});
}

TEST(Alarms, SamplingFromAFilteredDistribution) {
  Watched run;
  run.config.rollout.top_k = 20;
  run.expect_one({"filtered distribution", "top_k = 20"});
}

TEST(Alarms, RewardWithoutAChangeOfLength) {
  Watched run;
  run.steps(AlarmState::kWindow);
  run.m.acc = 0.75, run.m.length_mean = 103;
  run.expect_one({"accuracy rose from 50 % to 75 % within 20 steps", "kept their length (100.0 to 103.0 tokens)",
                  "rollouts/step_40.jsonl"});
  Watched shrinks;
  shrinks.steps(AlarmState::kWindow);
  shrinks.m.acc = 0.75, shrinks.m.length_mean = 40;
  shrinks.expect_one({"accuracy rose", "shrank (100.0 to 40.0 tokens)"});
  Watched longer;  // it learns to reason
  longer.steps(AlarmState::kWindow);
  longer.m.acc = 0.75, longer.m.length_mean = 130;
  EXPECT_TRUE(longer.steps(100).empty());
}

TEST(Alarms, LengthWithoutReward) {
  Watched run;
  run.steps(AlarmState::kWindow);
  for (int i = 0; i < 10 * AlarmState::kWindow; ++i) {  // slower than one window shows
    run.m.length_mean *= 1.01;
    const std::vector<std::string> alarms = run.steps(1);
    if (alarms.empty()) continue;
    EXPECT_NE(alarms[0].find("length without reward"), std::string::npos) << alarms[0];
    EXPECT_TRUE(run.steps(50).empty());
    return;
  }
  ADD_FAILURE() << "no alarm";
}

TEST(Alarms, AResumedRunRaisesTheSame) {
  Watched unbroken;
  unbroken.m.truncated = 0.75;
  unbroken.m.entropy = 0.1 + 0.2;  // no short decimal
  unbroken.steps(33);
  Watched resumed = unbroken;
  resumed.state = AlarmState::parse(unbroken.state.text());
  EXPECT_EQ(resumed.state.text(), unbroken.state.text());
  for (Watched* run : {&unbroken, &resumed}) run->m.acc = 0.8, run->m.entropy = 0.011;
  EXPECT_EQ(unbroken.steps(40), resumed.steps(40));
  EXPECT_EQ(unbroken.state.text(), resumed.state.text());
  for (const char* text : {"", "{}", "{\"seen\": 1}", "[]"})
    EXPECT_NE(error_of(kExitUsage, [&] { AlarmState::parse(text); }).find("AlarmState::text()"), std::string::npos);
}

}  // namespace
}  // namespace dapo
