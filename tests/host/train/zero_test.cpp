// ZeRO stage 2 (gradients are sharded, and summed pack by pack) and gradients that travel in bf16.
#include <gtest/gtest.h>

#include "core/check.h"
#include "tests/host/train/ranks_case.h"
#include "tests/host/train/stop_at.h"

namespace dapo {
namespace {

Config in_stage_2(Config c) {
  c.parallel.zero_stage = 2;
  return c;
}

struct GridSize {
  int ranks, tp;
};
constexpr GridSize kGrids[] = {{2, 1}, {3, 1}, {4, 2}};

/// One pack a rank: the same sums.
TEST(ZeroStage2, OnePackARankHasTheBitsOfStage1) {
  const Dataset data = questions("a");
  const Config c = uneven_packs(512);
  for (const auto& [ranks, tp] : kGrids)
    for (const DType dtype : host_types()) {
      const RanksRun one = run_on(ranks, c, data, 3, tp, dtype), two = run_on(ranks, in_stage_2(c), data, 3, tp, dtype);
      EXPECT_GT(distance(one.weights, one.start), 0);
      EXPECT_TRUE(same_bits(one.weights, two.weights)) << ranks << " ranks, tp " << tp << ", " << dtype_name(dtype);
      for (size_t s = 0; s < one.metrics.size(); ++s) EXPECT_EQ(comparable(one.metrics[s]), comparable(two.metrics[s]));
    }
}

/// Several: the sum over up to 102 tokens in another order (ranks_test.cpp derives the bounds).
TEST(ZeroStage2, SeveralPacksChangeRoundingOnlyAndOverlapNothing) {
  const Dataset data = questions("a");
  constexpr double kTokens = 2 * (3 + 8 * 6), kUnit = 0x1p-24;
  for (const auto& [ranks, tp] : kGrids) {
    Config c = uneven_packs(14);
    const RanksRun one = run_on(ranks, c, data, 3, tp);
    const RanksRun two = run_on(ranks, in_stage_2(c), data, 3, tp);
    EXPECT_EQ(one.drawn, two.drawn);
    double updates = 0;
    for (const StepMetrics& m : one.metrics) updates += m.updates;
    EXPECT_NEAR(two.metrics[0].grad_norm, one.metrics[0].grad_norm, one.metrics[0].grad_norm * kTokens * kUnit);
    const double bound = updates * std::sqrt(4 * kTokens * kUnit);
    EXPECT_LT(distance(two.weights, one.weights), bound * distance(one.weights, one.start));
    EXPECT_GT(two.metrics[0].exchange_bytes, one.metrics[0].exchange_bytes) << "once a pack";
    c.parallel.overlap = false;
    EXPECT_TRUE(same_bits(run_on(ranks, in_stage_2(c), data, 3, tp).weights, two.weights)) << ranks << ", tp " << tp;
  }
}

/// Two responses a mini-batch on four ranks: two take part with zeros.
TEST(ZeroStage2, RanksWithoutPacksTakePart) {
  Config c = uneven_packs(14);
  c.rollout.n = 2;
  c.data.train_batch_size = 2;
  c.actor.ppo_mini_batch_size = 1;
  const Dataset data = questions("a");
  const RanksRun one = run_on(4, c, data, 2), two = run_on(4, in_stage_2(c), data, 2);
  EXPECT_TRUE(same_bits(one.weights, two.weights));
}

TEST(ZeroStage2, AnErrorInsideAPackOfOneRankIsThrownOnAll) {
  const Dataset data = questions("a");
  for (const size_t at : {0, 1, 2}) {
    std::vector<std::string> errors(3);
    run_ranks(3, [&](HostComm& comm) {
      NoProgress progress;
      RankCase rank(in_stage_2(uneven_packs(14)), data, comm, progress);
      size_t packs = 0;
      rank.trainer.after_pack = [&](Pack&) {
        if (comm.rank() == 1 && packs++ >= at) rank.toy.backend->set_workspace(nullptr);
      };
      try {
        for (int step = 0; step < 3; ++step) rank.trainer.step();
      } catch (const AgreedError& e) {
        errors[comm.rank()] = e.what();
      }
      comm.barrier();
    });
    EXPECT_EQ(errors[0].substr(0, 8), "rank 1: ");
    EXPECT_NE(errors[0].find("set_workspace"), errors[0].npos) << errors[0];
    for (const std::string& e : errors) EXPECT_EQ(e, errors[0]) << "pack " << at;
  }
}

TEST(ZeroStage2, ABadNumberIsRefusedAndAnInterruptedMiniBatchIsDoneAgain) {
  const Config c = in_stage_2(uneven_packs(14));
  const Dataset data = questions("a");
  const RanksRun want = run_on(3, c, data, 1);
  for (int at = 0; at < 12; ++at) {
    std::vector<std::vector<float>> weights(3);
    run_ranks(3, [&](HostComm& comm) {
      StopAt progress(comm.rank() == 1 ? at : -1);
      RankCase rank(c, data, comm, progress);
      try {
        rank.trainer.step();
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), kExitInterrupted);
        rank.trainer.step();
      }
      weights[comm.rank()] = rank.toy.get(rank.toy.weights.flat());
    });
    for (const auto& w : weights) EXPECT_TRUE(same_bits(w, want.weights)) << "report " << at;
  }
  run_ranks(3, [&](HostComm& comm) {
    NoProgress progress;
    RankCase rank(c, data, comm, progress);
    const std::vector<float> before = rank.toy.get(rank.toy.weights.flat());
    rank.trainer.after_pack = [&](Pack& p) {
      if (comm.rank() == 2) p.loss[0] = NAN;
    };
    EXPECT_EQ(rank.trainer.step().updates_refused, 2);
    EXPECT_TRUE(same_bits(rank.toy.get(rank.toy.weights.flat()), before));
    const Learner& learner = rank.trainer.learner();
    for (const Tensor& t : {learner.gradients(), learner.moment1(), learner.moment2()})
      for (const float x : rank.toy.get(t)) ASSERT_EQ(x, 0);
  });
}

/// The slices of this rank, and room for two layers, the embedding and the rest.
TEST(ZeroStage2, KeepsAShardOfTheGradients) {
  ModelConfig model = Toy::shapes();
  model.layers = 24;
  Config c = uneven_packs(64);
  const std::unique_ptr<Backend> backend = make_cpu_backend(DType::f32);
  for (const bool tied : {true, false}) {
    model.tied = tied;
    const ParamTable params = parameter_table(model);
    for (const int ranks : {1, 2, 4}) {
      c.parallel.dp = ranks;
      c.parallel.zero_stage = 1;
      const ModelLimits full = training_limits(c, model, *backend);
      const MemoryPlan plan = plan_memory(*backend, model, full);
      c.parallel.zero_stage = 2;
      const ModelLimits limits = training_limits(c, model, *backend);
      const MemoryPlan sharded = plan_memory(*backend, model, limits);
      EXPECT_EQ(static_cast<int64_t>(plan.bytes_of("gradients")), 4 * params.size);
      if (ranks == 1) {
        EXPECT_EQ(sharded.bytes_of("gradients"), plan.bytes_of("gradients"));
        EXPECT_EQ(sharded.bytes_of("gradients of a pack"), 0u);
        continue;
      }
      const Shards shards(params, ranks);
      EXPECT_EQ(static_cast<int64_t>(sharded.bytes_of("gradients")), 4 * shards.most());
      const int64_t embedding = shards.bucket(0).count(), last = shards.bucket(shards.last_bucket()).count();
      const int64_t layer = shards.bucket(1).count();
      EXPECT_EQ(static_cast<int64_t>(sharded.bytes_of("gradients of a pack")),
                4 * (2 * layer + (tied ? embedding + last : std::max(embedding, last))));
      EXPECT_LT(sharded.bytes_of("gradients") + sharded.bytes_of("gradients of a pack"), plan.bytes_of("gradients"));
    }
  }
}

/// Each rank's part of a sum is rounded to 8 bits once: a relative error of 2^-9 at most.
TEST(ReduceDType, Bf16RoundsEachRanksPartOnce) {
  const Dataset data = questions("a");
  for (const int stage : {1, 2})
    for (const int ranks : {2, 3}) {
      Config c = uneven_packs(512);
      c.actor.ppo_mini_batch_size = 4;  // one update
      c.parallel.zero_stage = stage;
      const auto first_update = [&](ReduceDType type) {
        c.parallel.reduce_dtype = type;
        return run_on(ranks, c, data, 1).metrics[0];
      };
      const StepMetrics f32 = first_update(ReduceDType::f32), bf16 = first_update(ReduceDType::bf16);
      EXPECT_GT(f32.grad_norm, 0);
      EXPECT_NE(bf16.grad_norm, f32.grad_norm);
      EXPECT_EQ(bf16.tokens_trained, f32.tokens_trained);
      // gradients 2 instead of 4 bytes, weights 4
      EXPECT_EQ(bf16.exchange_bytes * 8, f32.exchange_bytes * 6);
    }
}

}  // namespace
}  // namespace dapo
