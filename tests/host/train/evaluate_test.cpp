// Rewards of several terms and of programs, and evaluations, on the toy model.
#include "host/train/evaluate.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/check.h"
#include "host/train/run_state.h"
#include "host/train/step_text.h"
#include "tests/host/train/stop_at.h"
#include "tests/host/train/trainer_case.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

TEST(Reward, TermsAreLoggedApartAndDoNotDecideWhatIsRight) {
  Config c = toy_config();
  c.reward.terms = {{"is_b", "format", -0.5, "b", {}}};
  c.data.gen_batch_size = 4;
  Case run(c, questions("a"), guesser());
  const StepMetrics m = run.trainer.step();
  ASSERT_EQ(m.terms.size(), 2u);
  EXPECT_EQ(m.terms[0].first, "verifier");
  EXPECT_EQ(m.terms[1].first, "is_b");
  EXPECT_NEAR(m.terms[0].second, 2 * m.acc - 1, 1e-9);
  EXPECT_GT(m.terms[1].second, 0.05);
  EXPECT_NEAR(m.reward, m.terms[0].second - 0.5 * m.terms[1].second, 1e-6);
  double b = 0, responses = 0;
  std::vector<Group> all = run.trainer.trained();
  for (const auto* more : {&run.trainer.left_out(), &run.trainer.state().bank})
    all.insert(all.end(), more->begin(), more->end());
  for (const Group& g : all) {
    bool right = false, wrong = false;
    for (const Sample& s : g.samples) {
      const std::string text = byte_tokenizer().decode(s.response.shown());
      EXPECT_EQ(s.verdict.acc, text == "a");
      EXPECT_FLOAT_EQ(s.reward, text == "a" ? 1 : text == "b" ? -1.5 : -1);
      b += text == "b";
      ++responses;
      (s.verdict.acc ? right : wrong) = true;
    }
    if (&g < &all[run.trainer.trained().size()]) {
      EXPECT_TRUE(right && wrong);  // b does not make a group mixed
    }
  }
  EXPECT_NEAR(m.terms[1].second, b / responses, 1e-9);
  const Fields fields = m.fields();
  const auto at = std::ranges::find(fields, "reward/term/is_b", &Fields::value_type::first);
  ASSERT_NE(at, fields.end());
  EXPECT_EQ(at->second, m.terms[1].second);
}

TEST(Reward, AProgramThatFailsLeavesGroupsOutAndIsNamedInTheAlarm) {
  Config c = toy_config();
  c.reward.verifier = "command";
  c.reward.command = {"sh", "-c", "while read -r line; do echo '{\"error\": \"out of tokens\"}'; done"};
  Case run(c, questions("a"), guesser());
  const StepMetrics m = run.trainer.step();
  EXPECT_EQ(m.verifier_errors, m.groups_generated * c.rollout.n);
  EXPECT_EQ(m.groups_trained, 0);
  EXPECT_TRUE(std::isnan(m.reward));
  ASSERT_FALSE(m.alarms.empty());
  EXPECT_TRUE(std::ranges::any_of(m.alarms, [](const std::string& a) {
    return a.find("reports: out of tokens") != a.npos;
  })) << m.alarms[0];
  try {
    try_commands(c.reward, questions("a")[0]);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kExitUsage);
    EXPECT_STREQ(e.what(), "reward.command \"sh\" reports: out of tokens, when it is tried with an empty response");
  }
  try_commands(toy_config().reward, questions("a")[0]);
}

TEST(Evaluate, ResponsesWithoutAnAnswerDoNotVote) {
  const auto judge = [](const char* verifier, const std::vector<std::string>& responses) {
    std::vector<Sample> samples(responses.size());
    for (size_t i = 0; i < responses.size(); ++i)
      samples[i].verdict = make_verifier(verifier)->verify(responses[i], "1/2");
    return majority(votes_of(samples));
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
    ModelMemory memory(toy.weights, generation_limits(c, toy.weights.config(), *toy.backend, 12, 1000));
    Decoder decoder(memory);
    Rollout rollout(decoder, {256});
    NoProgress progress;
    SetResult r = evaluate_set(c, rollout, byte_tokenizer(), {"letters", data}, progress);
    EXPECT_EQ(r.name, "letters");
    return r;
  };
  const SetResult a = run(64), b = run(5);
  EXPECT_EQ(a.problems, 8);
  EXPECT_EQ(a.avg.mean, b.avg.mean);
  EXPECT_EQ(a.maj.mean, b.maj.mean);
  ASSERT_EQ(a.pass.size(), 2u);
  EXPECT_DOUBLE_EQ(a.pass[0].second.mean, a.avg.mean);
  EXPECT_GT(a.pass[1].second.mean, a.avg.mean);
  ASSERT_EQ(a.maj_k.size(), 1u);  // between 1 and n
  EXPECT_EQ(a.maj_k[0].first, 4);
  EXPECT_EQ(a.maj_k[0].second.mean, b.maj_k[0].second.mean);
  for (const Estimate& e : {a.avg, a.maj, a.pass[1].second, a.maj_k[0].second}) {
    EXPECT_LT(e.low, e.high);
    EXPECT_LE(e.low, e.mean);
    EXPECT_GE(e.high, e.mean);
  }
  EXPECT_GT(a.avg.mean, 0.05);
  EXPECT_LT(a.avg.mean, 0.6);
  for (size_t p = 0; p < a.all.size(); ++p) {
    const std::vector<Sample>&x = a.all[p].group.samples, &y = b.all[p].group.samples;
    ASSERT_EQ(x.size(), 12u);
    for (size_t i = 0; i < 12; ++i) {
      EXPECT_EQ(x[i].response.ids, y[i].response.ids);
      EXPECT_EQ(y[i].verdict.acc, byte_tokenizer().decode(y[i].response.ids) == "a");  // its own verdict
    }
  }
}

TEST(Evaluate, InterruptedAnywhereItGoesOnWithTheSameResult) {
  Config c = toy_config();
  c.eval.n = 12;
  c.rollout.max_num_seqs = 5;  // a request is cut, and many are not begun
  c.rollout.collect_every = 1;
  const std::vector<EvalSet> sets = {{"a", questions("a")}, {"b", questions("b")}};
  const auto run = [&](Progress& progress, RunState& state) {
    Toy toy(guesser());
    ModelMemory memory(toy.weights, generation_limits(c, toy.weights.config(), *toy.backend, 12, 1000));
    Decoder decoder(memory);
    Rollout rollout(decoder, {256});
    const EvalResult result = evaluate(c, rollout, byte_tokenizer(), sets, progress, nullptr, &state.evaluation);
    return std::pair(result, rollout.stats().drawn_tokens);  // of the last set, by this process
  };
  const auto text = [](const EvalResult& result) {
    std::vector<std::string> out;
    for (const auto& [name, value] : result.fields())
      if (name.find("seconds") == name.npos) out.push_back(fmt::format("{} = {}", name, value));
    for (const SetResult& set : result.sets)
      for (const EvalProblem& p : set.all)
        for (const Sample& s : p.group.samples)
          out.push_back(fmt::format("{} {} {} {}", p.id, fmt::join(s.response.ids, ","),
                                    fmt::join(s.response.log_prob, ","), s.verdict.acc));
    return out;
  };
  NoProgress never;
  RunState none;
  const auto [whole, tokens] = run(never, none);
  EXPECT_TRUE(none.evaluation.empty());
  EXPECT_EQ(tokens, whole.sets[1].tokens);
  for (const int patience : {0, 1, 4, 9, 30, 60}) {
    const ScratchFolder folder;
    RunState state;
    int stops = 0;
    for (bool done = false; !done;) {
      StopAt progress(patience + stops);  // a call that takes as many reports is passed in the end
      try {
        const auto [result, drawn] = run(progress, state);
        EXPECT_EQ(text(result), text(whole)) << "patience " << patience;
        if (stops > 3) {
          EXPECT_LT(drawn, tokens) << "what had been drawn was drawn again";
        }
        done = true;
      } catch (const Error& e) {
        ASSERT_EQ(e.code(), kExitInterrupted) << e.what();
        ++stops;
        StateImage(state).write(folder.path());
        state = read_state(folder.path());  // another process goes on
      }
    }
    EXPECT_GT(stops, 0) << patience;
    EXPECT_TRUE(state.evaluation.empty());
  }
}

TEST(Evaluate, WhatIsDrawnOfOtherPromptsIsNotUsed) {
  Config c = toy_config();
  c.eval.n = 2;
  const auto run = [&](DrawnSets& drawn) {
    Toy toy(guesser());
    ModelMemory memory(toy.weights, generation_limits(c, toy.weights.config(), *toy.backend, 12, 1000));
    Decoder decoder(memory);
    Rollout rollout(decoder, {256});
    NoProgress progress;
    return evaluate(c, rollout, byte_tokenizer(), std::vector<EvalSet>{{"a", questions("a")}}, progress, nullptr,
                    &drawn);
  };
  DrawnSets drawn;
  const EvalResult whole = run(drawn);
  drawn.resize(3);  // a set that is no longer asked for, too
  for (const EvalProblem& p : whole.sets[0].all) drawn[0].push_back(p.group);
  for (Group& g : drawn[0]) {
    g.prompt.push_back(65);
    for (Sample& s : g.samples) s.response.ids = {66, 256}, s.response.log_prob = {0, 0};
  }
  const EvalResult again = run(drawn);
  EXPECT_EQ(again.sets[0].avg.mean, whole.sets[0].avg.mean);
  for (size_t p = 0; p < whole.sets[0].all.size(); ++p)
    EXPECT_EQ(again.sets[0].all[p].group.samples[1].response.ids, whole.sets[0].all[p].group.samples[1].response.ids);
}

TEST(Evaluate, EachSetHasItsOwnFigures) {
  Config c = toy_config();
  c.eval.n = 8;
  const auto run = [&](const std::vector<EvalSet>& sets, const std::vector<float>& weights) {
    Toy toy(weights);
    ModelMemory memory(toy.weights, generation_limits(c, toy.weights.config(), *toy.backend, 12, 1000));
    Decoder decoder(memory);
    Rollout rollout(decoder, {256});
    NoProgress progress;
    return evaluate(c, rollout, byte_tokenizer(), sets, progress);
  };
  const EvalSet a{"a", questions("a")}, none{"none", questions("never said")};
  const EvalResult both = run({a, none}, guesser()), alone = run({a}, guesser());
  ASSERT_EQ(both.sets.size(), 2u);
  EXPECT_EQ(both.sets[0].avg.mean, alone.sets[0].avg.mean);  // no matter what else is evaluated
  EXPECT_EQ(both.sets[1].avg.mean, 0);
  EXPECT_GT(both.sets[1].avg.high, 0.2);
  const auto value = [](const EvalResult& r, const std::string& name) {
    const Fields fields = r.fields();
    const auto at = std::ranges::find(fields, name, &Fields::value_type::first);
    return at == fields.end() ? -1 : at->second;
  };
  EXPECT_EQ(value(alone, "eval/avg"), alone.sets[0].avg.mean);
  EXPECT_EQ(value(alone, "eval/pass@4_low"), alone.sets[0].pass[1].second.low);
  EXPECT_EQ(value(alone, "eval/maj_high"), alone.sets[0].maj.high);
  EXPECT_EQ(value(alone, "eval/maj@4"), alone.sets[0].maj_k[0].second.mean);
  EXPECT_EQ(value(alone, "eval/maj@4_low"), alone.sets[0].maj_k[0].second.low);
  EXPECT_EQ(value(alone, "eval/a/avg"), -1);
  EXPECT_EQ(value(both, "eval/a/avg"), alone.sets[0].avg.mean);
  EXPECT_EQ(value(both, "eval/none/pass@4"), 0);
  EXPECT_EQ(value(both, "eval/avg"), alone.sets[0].avg.mean / 2);

  // another model on the same problems
  const EvalResult sure = run({a}, weights_that_say("a"));
  const Comparison better = compare(alone.sets[0], sure.sets[0]), same = compare(alone.sets[0], alone.sets[0]);
  EXPECT_EQ(better.problems, 8);
  EXPECT_NEAR(better.difference.mean, sure.sets[0].avg.mean - alone.sets[0].avg.mean, 1e-12);
  EXPECT_GT(better.difference.low, 0);
  EXPECT_EQ(better.better, 8);
  EXPECT_EQ(same.difference.mean, 0);
  EXPECT_LT(same.difference.low, -0.2);  // eight problems without a difference do not prove that there is none
  EXPECT_GT(same.difference.high, 0.2);
  EXPECT_EQ(same.better + same.worse, 0);
  SetResult fewer = alone.sets[0];
  fewer.all.erase(fewer.all.begin(), fewer.all.begin() + 3);  // prompts too long for that model
  EXPECT_EQ(compare(fewer, sure.sets[0]).problems, 5);
}

}  // namespace
}  // namespace dapo
