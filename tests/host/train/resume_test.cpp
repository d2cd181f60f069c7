// A run that is stopped anywhere and goes on in another process ends with the bits of one that was not.
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "core/check.h"
#include "host/train/run_state.h"
#include "host/train/settings_changes.h"
#include "model/training_state.h"
#include "tests/host/train/stop_at.h"
#include "tests/host/train/trainer_case.h"

namespace dapo {
namespace {

struct Process {
  Config config;
  const Dataset& data;
  Toy toy;
  Weights reference;
  Trainer trainer;
  Process(const Config& c, const Dataset& d, Progress& progress)
      : config(c),
        data(d),
        toy(guesser()),
        reference(*toy.backend, toy.comm, Toy::shapes()),
        trainer(config, toy.weights, byte_tokenizer(), data, progress) {
    toy.set(reference.flat(), guesser());
    if (config.actor.kl_loss_coef > 0) trainer.use_reference(reference);
  }

  void save(const std::string& folder) {
    TrainingState training(trainer.learner());
    training.copy_to_host();
    training.save_model(folder);
    training.save_optimizer(folder);
    RunState state;
    state.trainer = trainer.snapshot();
    StateImage(state).write(folder);
  }
  void load(const std::string& folder) {
    toy.weights.load(folder);
    load_optimizer(trainer.learner(), folder);
    trainer.restore(read_state(folder).trainer);
  }
};

/// Metrics but for those of time and what depends on the schedule of a rollout.
std::vector<std::string> comparable(const StepMetrics& m) {
  std::vector<std::string> out;
  for (const auto& [name, value] : m.fields())
    if (!of_time(name) && name.find("preemptions") == name.npos) out.push_back(fmt::format("{} = {}", name, value));
  for (const std::string& alarm : m.alarms) out.push_back(alarm);
  return out;
}

struct End {
  std::string weights, optimizer;  ///< files
  std::vector<std::string> metrics, responses;
};

/// `steps` steps, each in processes that stop after `patience` reports and go on from a checkpoint.
End run_in_pieces(const Config& c, const Dataset& data, int steps, int patience, int& stops) {
  const ScratchFolder scratch;
  const std::string folder = scratch.path("checkpoint");
  std::filesystem::create_directory(folder);
  End end;
  bool begun = false;
  for (int done = 0; done < steps;) {
    StopAt progress(patience);
    Process p(c, data, progress);
    if (begun) p.load(folder);
    begun = true;
    try {
      while (done < steps) {
        const std::vector<std::string> metrics = comparable(p.trainer.step());
        end.metrics.insert(end.metrics.end(), metrics.begin(), metrics.end());
        for (const std::vector<Group>* groups : {&p.trainer.trained(), &p.trainer.left_out()})
          for (const Group& g : *groups)
            for (const Sample& s : g.samples)
              end.responses.push_back(fmt::format("{} {} {} {}", g.example, fmt::join(s.response.ids, ","),
                                                  fmt::join(s.response.log_prob, ","), s.advantage));
        ++done;
      }
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), kExitInterrupted) << e.what();
      ++stops;
      ++patience;  // a stage that takes as many reports is passed in the end
    }
    p.save(folder);
  }
  end.weights = slurp(folder + "/model.safetensors");
  end.optimizer = slurp(folder + "/optimizer.safetensors");
  return end;
}

struct ResumeCase {
  int patience;  ///< reports until the first stop
  bool bank = false, reference = false;
};

class Resume : public ::testing::TestWithParam<ResumeCase> {};

TEST_P(Resume, StoppedAtAnyReportTheBitsAreTheSame) {
  const ResumeCase& variant = GetParam();
  Config c = toy_config();
  c.rollout.max_num_seqs = 16;  // two groups at once: a generation batch takes many calls
  c.rollout.collect_every = 1;
  c.data.max_response_length = 6;
  c.actor.ppo_epochs = 2;
  c.actor.ppo_max_token_len = 40;  // several packs a mini-batch
  if (variant.bank) {
    c.data.gen_batch_size = 7;
    c.algorithm.surplus = Surplus::bank;
    c.actor.old_logprobs = OldLogProbs::recompute;
  }
  if (variant.reference) c.actor.kl_loss_coef = 0.05f;
  const Dataset data = questions("a");
  int none = 0, stops = 0;
  const End whole = run_in_pieces(c, data, 3, std::numeric_limits<int>::max() - 1000, none);
  EXPECT_EQ(none, 0);
  const End pieces = run_in_pieces(c, data, 3, variant.patience, stops);
  EXPECT_GT(stops, 2);
  ASSERT_EQ(pieces.metrics.size(), whole.metrics.size());
  for (size_t i = 0; i < whole.metrics.size(); ++i) EXPECT_EQ(pieces.metrics[i], whole.metrics[i]);
  EXPECT_EQ(pieces.responses, whole.responses);
  EXPECT_TRUE(pieces.weights == whole.weights);
  EXPECT_TRUE(pieces.optimizer == whole.optimizer);
}
INSTANTIATE_TEST_SUITE_P(Reports, Resume,
                         ::testing::Values(ResumeCase{0}, ResumeCase{1, true}, ResumeCase{2}, ResumeCase{3, true},
                                           ResumeCase{4}, ResumeCase{5, true}, ResumeCase{6}, ResumeCase{7, true},
                                           ResumeCase{1, false, true}, ResumeCase{2, true, true}),
                         [](const auto& row) {
                           const ResumeCase& v = row.param;
                           return fmt::format("After{}{}{}", v.patience, v.bank ? "Bank" : "",
                                              v.reference ? "Reference" : "");
                         });

TEST(RunState, EveryNumberComesBack) {
  RunState s;
  s.trainer.step = 7;
  s.trainer.cursor = {uint64_t{1} << 63, 5};
  s.trainer.yield = {0.1, 1.0 / 3};
  s.trainer.now.stage = StepState::update;
  s.trainer.now.sums.agreement = {3, std::numeric_limits<double>::infinity(), 5e-324};
  s.trainer.now.sums.alarms = {"one \"quoted\"", "two\n"};
  Group g;
  g.example = 3;
  g.prompt = {1, 2};
  g.samples.resize(2);
  g.samples[0].response = {{5, 6, 7}, {-0.1f, -std::numeric_limits<float>::infinity(), -1e-40f}, Finish::stop};
  g.samples[0].old_log_prob = {1, 2, 3};
  g.samples[1].verdict = {
      .score = -1, .acc = false, .found = true, .error = true, .pred = "\xc3\xbc", .reason = "r", .terms = {1, -0.5f}};
  s.trainer.now.groups = {g};
  s.trainer.bank = {g, Group()};
  s.unwritten.emplace();
  s.unwritten->mismatch = std::nan("");
  s.unwritten->loss = -0.0;
  s.evaluation = {{g}, {}, {g, g}};
  s.settings = "[model]\n";
  s.data = ~uint64_t{0};
  const ScratchFolder scratch;
  StateImage(s).write(scratch.path());
  const RunState r = read_state(scratch.path());
  EXPECT_EQ(r.trainer.cursor, s.trainer.cursor);
  EXPECT_EQ(r.trainer.yield.weight, s.trainer.yield.weight);
  EXPECT_EQ(r.trainer.now.stage, StepState::update);
  EXPECT_EQ(r.trainer.now.sums.agreement.mismatch, std::numeric_limits<double>::infinity());
  EXPECT_EQ(r.trainer.now.sums.agreement.ratio, 5e-324);
  EXPECT_EQ(r.trainer.now.sums.alarms, s.trainer.now.sums.alarms);
  ASSERT_EQ(r.trainer.bank.size(), 2u);
  for (const Group& back : {r.trainer.now.groups.at(0), r.trainer.bank[0]}) {
    EXPECT_EQ(back.prompt, g.prompt);
    EXPECT_EQ(back.samples[0].response.ids, g.samples[0].response.ids);
    EXPECT_EQ(back.samples[0].response.log_prob, g.samples[0].response.log_prob);
    EXPECT_EQ(back.samples[0].old_log_prob, g.samples[0].old_log_prob);
    EXPECT_TRUE(back.samples[1].response.ids.empty() && back.samples[1].old_log_prob.empty());
    EXPECT_EQ(back.samples[1].verdict.pred, "\xc3\xbc");
    EXPECT_TRUE(back.samples[1].verdict.error);
    EXPECT_EQ(back.samples[1].verdict.terms, g.samples[1].verdict.terms);
  }
  ASSERT_TRUE(r.unwritten.has_value());
  EXPECT_TRUE(std::isnan(r.unwritten->mismatch));
  EXPECT_TRUE(std::signbit(r.unwritten->loss));
  EXPECT_EQ(r.data, s.data);
  ASSERT_EQ(r.evaluation.size(), 3u);
  EXPECT_EQ(r.evaluation[1].size(), 0u);
  ASSERT_EQ(r.evaluation[2].size(), 2u);
  EXPECT_EQ(r.evaluation[2][1].samples[0].response.ids, g.samples[0].response.ids);

  // format 2 had no sums of the exchange between ranks, and format 1 no "evaluation" either
  RunState older = s;
  older.evaluation.clear();
  StateImage(older).write(scratch.path());
  std::string text = slurp(scratch.path("state.json"));
  const auto replace = [&](const std::string& now, const std::string& then) {
    const size_t at = text.find(now);
    ASSERT_NE(at, text.npos) << now;
    text.replace(at, now.size(), then);
  };
  for (size_t at = 0; (at = text.find("\"exchange_")) != text.npos;) text.erase(at, text.find('\n', at) + 1 - at);
  for (const auto& [now, then] : {std::pair("\"format\": 3", "\"format\": 2"), {"\"format\": 2", "\"format\": 1"}}) {
    replace(now, then);
    if (then[std::strlen(then) - 1] == '1') replace("\"evaluation\": [],", "");
    std::ofstream(scratch.path("state.json")) << text;
    EXPECT_EQ(read_state(scratch.path()).trainer.step, 7);
  }

  std::ofstream(scratch.path("state.json")) << "{\"format\": 1}";
  EXPECT_NE(error_of(kExitUsage, [&] { read_state(scratch.path()); }).find("state.json"), std::string::npos);
  std::ofstream(scratch.path("state.json")) << "{\"format\": 99}";
  EXPECT_NE(error_of(kExitUsage, [&] { read_state(scratch.path()); }).find("format 99"), std::string::npos);
}

TEST(SettingsChanges, WhatMattersIsToldFromWhatDoesNot) {
  const Config before;
  Config now = before;
  now.trainer.total_steps = 7;
  now.eval.n = 3;
  now.actor.lr = 5e-6;
  now.parallel.dp = 2;
  std::vector<std::string> all;
  for (const SettingChange& c : changed_settings(config_text(before), now))
    all.push_back(fmt::format("{} {} {} {}", c.key, c.before, c.now, c.harmless));
  EXPECT_EQ(all, (std::vector<std::string>{"actor.lr 1e-06 5e-06 false", "eval.n 32 3 true", "parallel.dp 1 2 true",
                                           "trainer.total_steps 100 7 true"}));
  // a setting that an older version did not have had its default
  std::string older = config_text(before);
  const size_t at = older.find("clip_ratio_high");
  older.erase(at, older.find('\n', at) + 1 - at);
  EXPECT_TRUE(changed_settings(older, before).empty());
}

}  // namespace
}  // namespace dapo
