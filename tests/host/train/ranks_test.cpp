// Data parallelism: for any number of ranks, the same responses are drawn and trained on, and gradients and weights
// are the same within rounding; on one grid the same bits.
#include <gtest/gtest.h>

#include "core/check.h"
#include "host/train/evaluate.h"
#include "tests/host/train/ranks_case.h"
#include "tests/host/train/stop_at.h"

namespace dapo {
namespace {

/// Several packs a mini-batch, two updates a step, groups left over for the bank.
Config many_packs() {
  Config c = toy_config();
  c.rollout.max_num_seqs = 16;
  c.rollout.temperature = 1.3f;  // responses of several lengths
  c.data.max_response_length = 6;
  c.data.gen_batch_size = 7;
  c.algorithm.surplus = Surplus::bank;
  c.actor.ppo_max_token_len = 40;
  return c;
}

constexpr double kUnit = 0x1p-24;  // rounding of f32

/// Tokens that one mini-batch of many_packs() sums a gradient over, at most.
constexpr double kTokens = 2 * (3 + 8 * 6);

TEST(Ranks, DrawAndTrainOnWhatOneRankWould) {
  const Config c = many_packs();
  const Dataset data = questions("a");
  constexpr int kSteps = 5;
  const RanksRun one = run_on(1, c, data, kSteps);
  double banked = 0, updates = 0;
  for (const StepMetrics& m : one.metrics) banked += m.groups_from_bank, updates += m.updates;
  EXPECT_GT(banked, 0);
  EXPECT_GE(updates, kSteps);
  for (const int ranks : {2, 3, 4}) {
    const RanksRun run = run_on(ranks, c, data, kSteps);
    for (int s = 0; s < kSteps; ++s) {
      EXPECT_EQ(run.drawn[s], one.drawn[s]) << ranks << " ranks, step " << s + 1;
      const StepMetrics &m = run.metrics[s], &want = one.metrics[s];
      if (m.groups_generated > 0) {
        EXPECT_EQ(m.mismatch, 0) << "the log-probs of rollout and training";
      }
      EXPECT_EQ(m.mismatch_tokens, want.mismatch_tokens);
      EXPECT_EQ(m.tokens_trained, want.tokens_trained);
      EXPECT_EQ(m.groups_kept, want.groups_kept);
      EXPECT_EQ(m.groups_banked, want.groups_banked);
      EXPECT_EQ(m.alarms, want.alarms);
      EXPECT_EQ(m.phases[Phase::rollout].tokens, want.phases[Phase::rollout].tokens);
    }
    // A gradient is a sum over up to kTokens tokens in another order: for terms of random sign the error is about
    // kTokens x unit of it. Adam divides by |g|, so an element that is as small as that error moves by a whole lr: of an
    // update's square a share of 4 x kTokens x unit; of all updates together at most their number times its root.
    EXPECT_NEAR(run.metrics[0].grad_norm, one.metrics[0].grad_norm, one.metrics[0].grad_norm * kTokens * kUnit);
    const double bound = updates * std::sqrt(4 * kTokens * kUnit);
    EXPECT_LT(distance(run.weights, one.weights), bound * distance(one.weights, one.start)) << ranks << " ranks";
    EXPECT_LT(bound, 0.11);
  }
}

/// The first moments of one update from zero are 0.1 x the clipped gradient.
TEST(Ranks, GradientsAreThoseOfOneRank) {
  Config c = many_packs();
  c.actor.ppo_mini_batch_size = 4;  // one update
  const Dataset data = questions("a");
  const auto gradient_on = [&](int ranks) {
    const ScratchFolder folder;
    run_ranks(ranks, [&](HostComm& comm) {
      NoProgress progress;
      RankCase rank(c, data, comm, progress);
      EXPECT_EQ(rank.trainer.step().updates, 1);
      rank.save(folder.path());
    });
    std::vector<float> gradient;
    run_ranks(1, [&](HostComm& comm) {  // one rank reads all shards
      NoProgress progress;
      RankCase rank(c, data, comm, progress);
      rank.load(folder.path());
      gradient = rank.toy.get(rank.trainer.learner().moment1());
    });
    return gradient;
  };
  const std::vector<float> one = gradient_on(1), zero(one.size(), 0);
  EXPECT_GT(distance(one, zero), 0);
  for (const int ranks : {2, 3, 4})
    EXPECT_LT(distance(gradient_on(ranks), one), 2 * kTokens * kUnit * distance(one, zero)) << ranks << " ranks";
}

TEST(Ranks, ARunRepeats) {
  Config c = many_packs();
  const Dataset data = questions("a");
  for (const bool partial : {false, true}) {
    c.rollout.partial = partial;
    c.algorithm.max_age = 3;
    const RanksRun a = run_on(3, c, data, 3), b = run_on(3, c, data, 3);
    EXPECT_EQ(a.drawn, b.drawn);
    EXPECT_TRUE(same_bits(a.weights, b.weights)) << "partial " << partial;
    for (size_t s = 0; s < a.metrics.size(); ++s) EXPECT_EQ(comparable(a.metrics[s]), comparable(b.metrics[s]));
  }
}

TEST(Ranks, OneWithoutPacksTakesPart) {
  Config c = many_packs();
  c.rollout.n = 2;
  c.data.train_batch_size = 2;
  c.actor.ppo_mini_batch_size = 1;  // two responses, at most two packs, four ranks
  c.algorithm.filter_groups = false;
  c.algorithm.norm_adv_by_std = false;
  const Dataset data = questions("a");
  const RanksRun one = run_on(1, c, data, 2), four = run_on(4, c, data, 2);
  EXPECT_EQ(one.drawn, four.drawn);
  EXPECT_EQ(four.metrics[1].updates, 2);
  EXPECT_NEAR(one.metrics[0].grad_norm, four.metrics[0].grad_norm, kTokens * kUnit * one.metrics[0].grad_norm);
}

TEST(Ranks, RecomputedLogProbsAndTheReferenceAreShared) {
  Config c = many_packs();
  c.actor.old_logprobs = OldLogProbs::recompute;
  c.actor.kl_loss_coef = 0.1;
  const Dataset data = questions("a");
  std::vector<StepMetrics> metrics[2];
  for (const int ranks : {1, 3})
    run_ranks(ranks, [&](HostComm& comm) {
      NoProgress progress;
      RankCase rank(c, data, comm, progress);
      Weights reference(*rank.toy.backend, rank.toy.comm, Toy::shapes());
      rank.toy.set(reference.flat(), weights_that_say("ab"));
      rank.trainer.use_reference(reference);
      for (int step = 0; step < 2; ++step) {
        const StepMetrics m = rank.trainer.step();
        if (comm.rank() == 0) metrics[ranks > 1].push_back(m);
        for (const Group& g : rank.trainer.trained())
          for (const Sample& s : g.samples) {
            EXPECT_EQ(s.ref_log_prob.size(), s.response.ids.size());
            if (g.step == m.step) {
              EXPECT_EQ(s.old_log_prob, s.response.log_prob);
            }
          }
      }
    });
  for (int step = 0; step < 2; ++step) {
    EXPECT_EQ(metrics[1][step].mismatch, 0);
    EXPECT_GT(metrics[1][step].ref_kl, 0);
    EXPECT_NEAR(metrics[1][step].ref_kl, metrics[0][step].ref_kl, 1e-4 * metrics[0][step].ref_kl);
  }
}

TEST(Ranks, LossWeightsAreGlobal) {
  for (const LossAgg agg : {LossAgg::token_mean, LossAgg::seq_mean_token_mean, LossAgg::seq_mean_token_sum}) {
    Config c = many_packs();
    c.actor.loss_agg_mode = agg;
    const Dataset data = questions("a");
    const StepMetrics one = run_on(1, c, data, 1).metrics[0], two = run_on(2, c, data, 1).metrics[0];
    EXPECT_GT(one.grad_norm, 0);
    EXPECT_NEAR(two.grad_norm, one.grad_norm, kTokens * kUnit * one.grad_norm);
    EXPECT_NEAR(two.entropy, one.entropy, kTokens * kUnit * one.entropy);
  }
}

TEST(Ranks, AnErrorOfOneIsThrownOnAll) {
  const Config c = many_packs();
  const Dataset data = questions("a");
  for (const int at : {0, 1, 3, 8, 12}) {
    std::vector<std::string> errors(3);
    run_ranks(3, [&](HostComm& comm) {
      StopAt progress(comm.rank() == 1 ? at : -1, kExitNumerics);
      RankCase rank(c, data, comm, progress);
      try {
        for (int step = 0; step < 20; ++step) rank.trainer.step();
      } catch (const Error& e) {
        errors[comm.rank()] = fmt::format("{}: {}", e.code(), e.what());
      }
    });
    for (const std::string& e : errors) EXPECT_EQ(e, "4: rank 1: this rank alone") << "report " << at;
  }
}

TEST(Ranks, EvaluateLikeOne) {
  Config c = toy_config();
  c.eval.n = 4;
  c.rollout.max_num_seqs = 8;
  const Dataset data = questions("a");
  std::vector<std::string> results[3];
  for (const int ranks : {1, 2, 3})
    run_ranks(ranks, [&](HostComm& comm) {
      NoProgress progress;
      RankCase rank(c, data, comm, progress);
      const SetResult r =
          evaluate_set(rank.config, rank.trainer.rollout(), *rank.tokenizer, {"letters", data}, progress, &rank.grid);
      std::vector<std::string> all = {fmt::format("{} {} {} {}", r.avg.mean, r.maj.mean, r.length_mean, r.tokens)};
      for (const EvalProblem& p : r.all)
        for (const Sample& s : p.group.samples)
          all.push_back(fmt::format("{} {} {} {}", p.id, fmt::join(s.response.ids, ","),
                                    fmt::join(s.response.log_prob, ","), s.verdict.acc));
      if (comm.rank() == ranks - 1) results[ranks - 1] = all;
    });
  EXPECT_EQ(results[0].size(), 1u + 8 * 4);
  EXPECT_EQ(results[1], results[0]);
  EXPECT_EQ(results[2], results[0]);
}

}  // namespace
}  // namespace dapo
