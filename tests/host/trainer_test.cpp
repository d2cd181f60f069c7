// Whole DAPO steps, SFT and evaluation on a toy model.
#include "host/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "host/evaluate.h"
#include "host/progress.h"
#include "tests/host/toy.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

struct Case {
  Config config;
  Dataset data;
  Toy toy;
  NoProgress progress;
  Trainer trainer;
  Case(const Config& c, Dataset d, const std::vector<float>& weights)
      : config(c), data(std::move(d)), toy(weights), trainer(config, toy.model, byte_tokenizer(), data, progress) {}
  std::vector<float> weights() { return toy.get(toy.model.weights()); }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

const std::vector<float>& guesser() {
  return weights_that_say("abcd");
}

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
    EXPECT_TRUE(m.groups_trained == 4 || acc.back() > 0.9);  // else mixed groups have become rare
    EXPECT_TRUE(std::isfinite(m.loss) && std::isfinite(m.entropy));
  }
  EXPECT_GT(acc.front(), 0.05);
  EXPECT_LT(acc.front(), 0.6);
  EXPECT_GT(acc.back(), acc.front() + 0.25);
}

TEST(Trainer, RepeatsBitForBitAndResumes) {
  Config c = toy_config();
  c.data.gen_batch_size = 7;  // some groups of the second step were drawn in the first
  c.algorithm.surplus = "bank";
  Case a(c, questions("a"), guesser()), b(c, questions("a"), guesser());
  a.trainer.step();
  b.trainer.step();
  EXPECT_TRUE(same_bits(a.weights(), b.weights()));
  EXPECT_FALSE(b.trainer.state().bank.empty());
  const StepMetrics whole = a.trainer.step();
  Case resumed(c, questions("a"), b.weights());
  resumed.toy.set(resumed.toy.model.moment1(), b.toy.get(b.toy.model.moment1()));
  resumed.toy.set(resumed.toy.model.moment2(), b.toy.get(b.toy.model.moment2()));
  resumed.trainer.restore(b.trainer.state());
  const StepMetrics m = resumed.trainer.step();
  EXPECT_TRUE(same_bits(a.weights(), resumed.weights()));
  ASSERT_GT(m.groups_from_bank, 0);
  const auto want = whole.fields(), got = m.fields();
  for (size_t i = 0; i < want.size(); ++i)
    if (const std::string name = want[i].first;
        name.find("seconds") == name.npos && name.find("_per_s") == name.npos && name.find("gflops") == name.npos) {
      EXPECT_EQ(got[i].second, want[i].second) << name;
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
  EXPECT_NEAR(p.loss, w.loss, 1e-5 * std::abs(w.loss) + 1e-7);  // AdamW would hide a wrong scale
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

TEST(Trainer, RecomputedOldLogProbsAreTheRollouts) {
  Config c = toy_config();
  c.data.gen_batch_size = 7;
  c.algorithm.surplus = "bank";
  Case a(c, questions("a"), guesser());
  c.actor.old_logprobs = "recompute";
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
    // Groups from the bank keep the log-probs of the weights that drew them: measuring changes no bit of training.
    EXPECT_TRUE(same_bits(a.weights(), b.weights())) << step;
    banked += m.groups_from_bank;
  }
  EXPECT_GT(banked, 0);
}

TEST(Trainer, EveryStepThatDrawsComparesLogProbs) {
  Config c = toy_config();
  c.actor.ppo_mini_batch_size = 1;
  c.data.gen_batch_size = 6;
  c.algorithm.surplus = "bank";
  Case run(c, questions("a"), guesser());
  int from_bank = 0;
  for (int step = 1; step <= 4; ++step) {
    const StepMetrics m = run.trainer.step();
    if (m.groups_generated == 0) {
      EXPECT_EQ(m.mismatch_tokens, 0) << step;
      EXPECT_TRUE(std::isnan(m.mismatch) && std::isnan(m.ratio_error)) << step;
      EXPECT_NE(step_text(m, 9).find("mismatch -"), std::string::npos) << step_text(m, 9);
      continue;
    }
    from_bank += m.groups_from_bank > 0;  // the first mini-batch is a banked group: a fresh one is scored
    EXPECT_GT(m.mismatch_tokens, 0) << step;
    EXPECT_EQ(m.mismatch, 0) << step;
    EXPECT_NE(step_text(m, 9).find(fmt::format("mismatch 0 ({} tokens)", m.mismatch_tokens)), std::string::npos)
        << step_text(m, 9);
  }
  EXPECT_GT(from_bank, 0);
}

TEST(Trainer, AMaskedOrRefusedMiniBatchDoesNotHideAMismatch) {
  const auto off_by_one = [](std::vector<SampleGroup>& groups) {
    for (SampleGroup& g : groups)
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

  c.algorithm.overlong_filtering = true;  // all are masked: one group is scored all the same
  Case masked(c, questions("a"), guesser());
  masked.trainer.after_rollout = [&](std::vector<SampleGroup>& groups) {
    off_by_one(groups);
    for (SampleGroup& g : groups)
      for (Sample& s : g.samples) s.response.finish = Finish::length;
  };
  m = masked.trainer.step();
  EXPECT_EQ(m.updates, 0);
  EXPECT_GT(m.mismatch_tokens, 0);
  EXPECT_NEAR(m.mismatch, 1, 1e-5);

  // The first mini-batch is masked; the second still meets the weights that drew it.
  Case second(c, questions("a"), guesser());
  second.trainer.after_rollout = [&](std::vector<SampleGroup>& groups) {
    for (size_t g = 0; g < 2; ++g)
      for (Sample& s : groups[g].samples) s.response.finish = Finish::length;
    for (size_t g = 2; g < groups.size(); ++g)
      for (Sample& s : groups[g].samples) s.response.finish = Finish::stop;
  };
  m = second.trainer.step();
  EXPECT_EQ(m.updates, 1);
  int64_t tokens = 0;
  for (size_t g = 2; g < second.trainer.trained().size(); ++g)
    for (const Sample& s : second.trainer.trained()[g].samples) tokens += static_cast<int64_t>(s.response.ids.size());
  EXPECT_EQ(m.mismatch_tokens, tokens);
  EXPECT_EQ(m.mismatch, 0);
}

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
  c.algorithm.filter_groups = false;  // then there is a batch, whatever it is
  c.data.gen_batch_size = 0;
  Case all(c, questions("z"), guesser());
  m = all.trainer.step();
  EXPECT_EQ(m.generation_batches, 1);
  EXPECT_EQ(m.groups_trained, 4);
}

TEST(Trainer, SurplusIsBankedOrDropped) {
  Config c = toy_config();
  c.data.gen_batch_size = 12;
  c.algorithm.surplus = "bank";
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
  EXPECT_TRUE(std::isnan(m.acc) && std::isnan(m.length_mean));  // of responses that were not drawn nothing is said
  EXPECT_NE(step_text(m, 9).find("all groups from the bank"), std::string::npos) << step_text(m, 9);
  EXPECT_EQ(bank.trainer.trained().front().step, 1);
  EXPECT_EQ(m.age_mean, 1);
  EXPECT_EQ(m.age_max, 1);
  EXPECT_TRUE(std::isnan(m.mismatch));                 // banked groups were drawn by older weights: nothing to compare
  for (const char* surplus_mode : {"drop", "auto"}) {  // auto drops where a generation batch is as large as asked for
    c.algorithm.surplus = surplus_mode;
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
  c.algorithm.surplus = "bank";
  for (const int max_age : {0, 1, 3}) {
    c.algorithm.max_age = max_age;
    Case run(c, questions("a"), guesser());
    run.trainer.step();
    TrainerState s = run.trainer.state();
    EXPECT_EQ(s.bank.size(), max_age == 0 ? 0u : 4u);
    for (SampleGroup& g : s.bank) g.step = -1;  // as if drawn two steps before
    run.trainer.restore(std::move(s));
    const StepMetrics m = run.trainer.step();
    EXPECT_EQ(m.groups_expired, max_age == 1 ? 4 : 0) << max_age;
    EXPECT_EQ(m.groups_from_bank, max_age == 3 ? 4 : 0) << max_age;
    EXPECT_EQ(m.age_max, max_age == 3 ? 3 : 0) << max_age;
    EXPECT_EQ(m.groups_generated > 0, max_age != 3) << max_age;
  }
}

TEST(Trainer, AShortMiniBatchCountsForAsMuchLess) {
  Config c = toy_config();
  c.algorithm.filter_groups = false;
  std::vector<double> sums;
  for (const int groups : {2, 1}) {
    Case run(c, questions("a"), guesser());
    sums.clear();
    run.trainer.after_rollout = [&](std::vector<SampleGroup>& g) { g.resize(static_cast<size_t>(2 + groups)); };
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
  EXPECT_GT(m.acc, 0.9);  // of those that were judged
  EXPECT_GT(m.reward, 0.8);
  EXPECT_NE(step_text(m, 9).find("unjudged 4"), std::string::npos) << step_text(m, 9);
}

TEST(Trainer, GradientNormsAreTheMeanAndTheLargest) {
  Config c = toy_config();
  c.actor.ppo_mini_batch_size = 1;
  Case run(c, questions("a"), guesser());
  std::vector<double> norms;
  run.trainer.after_pack = [&](Pack&) {
    double squares = 0;
    for (const float g : run.toy.get(run.toy.model.gradients())) squares += double{g} * g;
    norms.push_back(std::sqrt(squares));
  };
  const StepMetrics m = run.trainer.step();
  ASSERT_EQ(norms.size(), 4u);
  EXPECT_NEAR(m.grad_norm, (norms[0] + norms[1] + norms[2] + norms[3]) / 4, 1e-6);
  EXPECT_NEAR(m.grad_norm_max, *std::max_element(norms.begin(), norms.end()), 1e-6);
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

TEST(Trainer, BadNumbersAreRefusedAndLeaveNoTrace) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  Config c = toy_config();
  c.trainer.nonfinite_patience = 100;
  Case run(c, questions("a"), guesser());
  run.trainer.step();
  const auto state = [&run] {
    std::vector<float> all = run.weights();
    for (const Tensor& t : {run.toy.model.moment1(), run.toy.model.moment2()})
      for (float x : run.toy.get(t)) all.push_back(x);
    return all;
  };
  const std::vector<float> before = state();
  const std::vector<std::function<void(Pack&)>> breaks = {
      [&](Pack& p) { p.loss[0] = nan; },
      [&](Pack& p) { p.log_prob.back() = infinity; },
      [&](Pack& p) { p.entropy[0] = nan; },
      [&](Pack&) {
        std::vector<float> g = run.toy.get(run.toy.model.gradients());
        g[100] = nan;
        run.toy.set(run.toy.model.gradients(), g);
      },
  };
  for (size_t i = 0; i < breaks.size(); ++i) {
    run.trainer.after_pack = breaks[i];
    const StepMetrics m = run.trainer.step();
    EXPECT_EQ(m.updates, 0) << i;
    EXPECT_EQ(m.updates_refused, 2) << i;
    EXPECT_TRUE(same_bits(before, state())) << i;
    for (float g : run.toy.get(run.toy.model.gradients())) ASSERT_EQ(g, 0) << i;
  }
  run.trainer.after_pack = nullptr;
  run.trainer.after_rollout = [&](std::vector<SampleGroup>& g) { g[0].samples[1].shaped = nan; };
  StepMetrics m = run.trainer.step();
  EXPECT_EQ(m.updates_refused, 1);  // the other mini-batch is sound
  EXPECT_EQ(m.updates, 1);
  run.trainer.after_rollout = [&](std::vector<SampleGroup>& g) { g[3].samples[0].response.log_prob[0] = infinity; };
  m = run.trainer.step();
  EXPECT_EQ(m.updates_refused, 1);
  run.trainer.after_rollout = nullptr;
  m = run.trainer.step();
  EXPECT_EQ(m.updates, 2);
  EXPECT_EQ(run.trainer.state().refused, 0);
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
  for (const char* mode :
       {"seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "token-mean-per-micro-batch"}) {
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
    EXPECT_EQ(m.updates, 4) << mode;
    EXPECT_EQ(m.ratio_error, 0) << mode;
    EXPECT_LE(m.shaped_reward, m.reward) << mode;
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
  c.data.overlong_prompts = "error";
  EXPECT_THROW(Case(c, dataset_of(lines), guesser()), Error);
  c.data.overlong_prompts = "drop";
  c.data.max_prompt_length = 1;
  EXPECT_THROW(Case(c, dataset_of(lines), guesser()), Error);
}

TEST(Evaluate, ResponsesWithoutAnAnswerDoNotVote) {
  const auto judge = [](const char* verifier, const std::vector<std::string>& responses) {
    std::vector<Verdict> v;
    for (const std::string& r : responses) v.push_back(make_verifier(verifier)->verify(r, "1/2"));
    return majority_of(v);
  };
  EXPECT_EQ(judge("math_dapo", {"cut", "cut", "cut", "Answer: 1/2", "Answer: 1/2", "Answer: 3"}), 1);
  EXPECT_EQ(judge("boxed", {"\\boxed{\\frac12}", "\\boxed{0.5}", "\\boxed{3}", "\\boxed{3}", "\\boxed{.50}"}), 1);
  EXPECT_EQ(judge("boxed", {"\\boxed{3}", "\\boxed{3.0}", "\\boxed{1/2}"}), 0);
}

TEST(Evaluate, IsTheSameEveryTimeAndInParts) {
  Config c = toy_config();
  c.eval.n = 12;
  const Dataset data = questions("a");
  const auto run = [&](int batch) {
    Toy toy(guesser());
    c.rollout.max_num_seqs = batch;
    toy.model.reserve(generation_limits(c, toy.model.config(), *toy.backend, 12, 1000));
    Rollout rollout(toy.model, {256});
    NoProgress progress;
    EvalResult r = evaluate(c, rollout, byte_tokenizer(), data, progress);
    EXPECT_EQ(r.fields().size(), evaluate(c, rollout, byte_tokenizer(), data, progress).fields().size());
    return r;
  };
  const EvalResult a = run(64), b = run(5);
  EXPECT_EQ(a.problems, 8);
  EXPECT_EQ(a.avg, b.avg);
  EXPECT_EQ(a.maj, b.maj);
  ASSERT_EQ(a.pass.size(), 2u);
  EXPECT_DOUBLE_EQ(a.pass[0].second, a.avg);
  EXPECT_GT(a.pass[1].second, a.avg);
  EXPECT_LE(a.low, a.avg);
  EXPECT_GE(a.high, a.avg);
  EXPECT_GT(a.avg, 0.05);
  EXPECT_LT(a.avg, 0.6);
  for (size_t p = 0; p < a.all.size(); ++p) {
    ASSERT_EQ(a.all[p].responses.size(), 12u);
    for (size_t i = 0; i < 12; ++i) EXPECT_EQ(a.all[p].responses[i].ids, b.all[p].responses[i].ids);
  }
}

}  // namespace
}  // namespace dapo
