// Tensor times data parallelism: on any grid the same responses are drawn and trained on, and weights are the same within
// rounding; on one grid the same bits.
#include <gtest/gtest.h>

#include <atomic>

#include "core/check.h"
#include "tests/host/train/ranks_case.h"
#include "tests/host/train/stop_at.h"

namespace dapo {
namespace {

struct GridSize {
  int dp, tp;
};
constexpr GridSize kGrids[] = {{2, 1}, {1, 2}, {2, 2}};

Config small_packs() {
  Config c = toy_config();
  c.rollout.max_num_seqs = 16;
  c.rollout.temperature = 1.3f;  // responses of several lengths
  c.data.max_response_length = 6;
  c.data.gen_batch_size = 7;
  c.algorithm.surplus = Surplus::bank;
  c.actor.ppo_max_token_len = 40;
  return c;
}

TEST(Grids, DrawAndTrainOnWhatOneRankWould) {
  const Config c = small_packs();
  const Dataset data = questions("a");
  constexpr int kSteps = 5;
  const RanksRun one = run_on(1, c, data, kSteps);
  double updates = 0;
  for (const StepMetrics& m : one.metrics) updates += m.updates;
  for (const auto& [dp, tp] : kGrids) {
    const RanksRun run = run_on(dp * tp, c, data, kSteps, tp);
    for (int s = 0; s < kSteps; ++s) {
      EXPECT_EQ(run.drawn[s], one.drawn[s]) << dp << " x " << tp << ", step " << s + 1;
      const StepMetrics &m = run.metrics[s], &want = one.metrics[s];
      EXPECT_TRUE(m.groups_generated == 0 || m.mismatch == 0)
          << dp << " x " << tp << ", step " << s + 1 << ": rollout and training differ";
      EXPECT_EQ(m.mismatch_tokens, want.mismatch_tokens);
      EXPECT_EQ(m.tokens_trained, want.tokens_trained);
      EXPECT_EQ(m.groups_kept, want.groups_kept);
      EXPECT_EQ(m.alarms, want.alarms);
      EXPECT_NEAR(m.entropy, want.entropy, 1e-3 * want.entropy);
      EXPECT_EQ(m.phases[Phase::rollout].tokens, want.phases[Phase::rollout].tokens);
    }
    // As for data parallelism (ranks_test.cpp): Adam moves an element whose gradient is as small as its error by a whole
    // lr, which bounds the distance by the number of updates times the root of 4 x tokens x unit.
    const double bound = updates * std::sqrt(4 * 102 * 0x1p-24);
    EXPECT_NEAR(run.metrics[0].grad_norm, one.metrics[0].grad_norm, 1e-4 * one.metrics[0].grad_norm);
    EXPECT_LT(distance(run.weights, one.weights), bound * distance(one.weights, one.start)) << dp << " x " << tp;
    EXPECT_LT(bound, 0.11);
  }
}

TEST(Grids, ARunRepeats) {
  Config c = small_packs();
  const Dataset data = questions("a");
  for (const bool partial : {false, true}) {
    c.rollout.partial = partial;
    c.algorithm.max_age = 3;
    const RanksRun a = run_on(4, c, data, 3, 2), b = run_on(4, c, data, 3, 2);
    EXPECT_EQ(a.drawn, b.drawn);
    EXPECT_TRUE(same_bits(a.weights, b.weights)) << "partial " << partial;
    for (size_t s = 0; s < a.metrics.size(); ++s) EXPECT_EQ(comparable(a.metrics[s]), comparable(b.metrics[s]));
  }
}

/// A verifier whose answers depend on the process that gives them: ranks that judged for themselves would differ.
TEST(Grids, VerdictsAreThoseOfTheFirstRankOfATensorGroup) {
  Config c = small_packs();
  const ScratchFolder folder;
  const std::string script = folder.path("judge.sh");
  std::ofstream(script) << "n=0\nwhile read -r line; do n=$((n + $$ % 7 + 1)); s=$((n % 2));\n"
                           "printf '{\"score\": %d, \"acc\": %d, \"pred\": \"%d\"}\\n' $s $s $$; done\n";
  c.reward.verifier = "command";
  c.reward.command = {"/bin/sh", script};
  c.algorithm.filter_groups = false;
  for (const bool partial : {false, true}) {
    c.rollout.partial = partial;
    run_on(2, c, questions("a"), 2, 2);  // checks that the ranks hold the same groups, verdicts included
  }
}

TEST(Grids, AnErrorOfOneRankIsThrownOnAllWhereverItHappens) {
  const Config c = small_packs();
  const Dataset data = questions("a");
  for (const int code : {kExitNumerics, kExitInterrupted})
    for (const int failing : {2, 3})
      for (const int at : {0, 1, 3, 8, 12}) {
        std::vector<std::string> errors(4);
        run_ranks(4, [&](HostComm& comm) {
          StopAt progress(comm.rank() == failing ? at : -1, code);
          RankCase rank(c, data, comm, progress, DType::f32, 2);
          try {
            for (int step = 0; step < 20; ++step) rank.trainer.step();
          } catch (const Error& e) {
            errors[comm.rank()] = fmt::format("{}: {}", e.code(), e.what());
          }
          comm.barrier();
        });
        for (const std::string& e : errors)
          EXPECT_EQ(e, fmt::format("{}: rank {}: this rank alone", static_cast<int>(code), failing)) << "report " << at;
      }
}

TEST(Grids, ACheckpointOfOneGoesOnOnAnother) {
  const Config c = small_packs();
  const Dataset data = questions("a");
  const ScratchFolder scratch;
  std::string before = scratch.path("first");
  std::filesystem::create_directory(before);
  run_ranks(1, [&](HostComm& comm) {
    NoProgress progress;
    RankCase rank(c, data, comm, progress);
    for (int step = 0; step < 2; ++step) rank.trainer.step();
    rank.save(before);
  });
  const std::string first = before;
  int number = 0;
  for (const auto& [dp, tp] : std::initializer_list<GridSize>{{2, 2}, {1, 2}, {4, 1}, {1, 1}}) {
    const std::string next = scratch.path(fmt::format("{}-{}x{}", ++number, dp, tp));
    std::filesystem::create_directory(next);
    run_ranks(dp * tp, [&, tp = tp](HostComm& comm) {
      NoProgress progress;
      RankCase rank(c, data, comm, progress, DType::f32, tp);
      rank.load(before);
      rank.save(next);
    });
    before = next;
  }
  for (const char* name : {"model.safetensors", "optimizer.safetensors", "state.json", "groups.safetensors"})
    EXPECT_EQ(slurp(before + "/" + name), slurp(first + "/" + name)) << name;
}

}  // namespace
}  // namespace dapo
