// Gradients are summed over the ranks while the last pack's backward runs: the same bits as after it, and an error of one
// rank in that pack stops all at the same place.
#include <gtest/gtest.h>

#include "core/check.h"
#include "tests/host/train/ranks_case.h"
#include "tests/host/train/stop_at.h"

namespace dapo {
namespace {

/// Two responses a mini-batch: of four ranks two have no pack.
Config few_packs() {
  Config c = uneven_packs();
  c.rollout.n = 2;
  c.data.train_batch_size = 2;
  c.actor.ppo_mini_batch_size = 1;
  return c;
}

TEST(Overlap, ChangesNoBit) {
  struct Run {
    int ranks, tp;
    Config config;
  };
  const Dataset data = questions("a");
  for (const auto& [ranks, tp, config] :
       {Run{2, 1, uneven_packs()}, Run{3, 1, uneven_packs()}, Run{4, 2, uneven_packs()}, Run{4, 1, few_packs()}})
    for (const DType dtype : host_types()) {
      Config c = config;
      const RanksRun with = run_on(ranks, c, data, 3, tp, dtype);
      c.parallel.overlap = false;
      const RanksRun without = run_on(ranks, c, data, 3, tp, dtype);
      EXPECT_EQ(with.drawn, without.drawn);
      EXPECT_GT(distance(with.weights, with.start), 0);
      EXPECT_TRUE(same_bits(with.weights, without.weights))
          << ranks << " ranks, tp " << tp << ", " << dtype_name(dtype);
      for (size_t s = 0; s < with.metrics.size(); ++s)
        EXPECT_EQ(comparable(with.metrics[s]), comparable(without.metrics[s]));
    }
}

TEST(Overlap, BeginsInTheLastPack) {
  const Dataset data = questions("a");
  for (const bool overlap : {true, false})
    run_ranks(3, [&](HostComm& comm) {
      Config c = uneven_packs();
      c.parallel.overlap = overlap;
      NoProgress progress;
      RankCase rank(c, data, comm, progress);
      const size_t all = rank.trainer.learner().shards().buckets();
      std::vector<size_t> left;
      rank.trainer.after_pack = [&](Pack&) { left.push_back(rank.trainer.learner().buckets_left()); };
      const StepMetrics m = rank.trainer.step();
      EXPECT_EQ(m.updates, 2);
      EXPECT_GT(left.size(), 2u) << "a mini-batch has several packs";
      EXPECT_EQ(std::ranges::count(left, overlap ? 0u : all), overlap ? m.updates : std::ssize(left));
      EXPECT_EQ(std::ranges::count(left, all), overlap ? std::ssize(left) - m.updates : std::ssize(left));
    });
}

TEST(Overlap, ABadNumberOfOneRankInTheLastPackIsRefusedByAll) {
  const Dataset data = questions("a");
  for (const int tp : {1, 2})
    run_ranks(4, [&](HostComm& comm) {
      NoProgress progress;
      RankCase rank(uneven_packs(), data, comm, progress, DType::f32, tp);
      Learner& learner = rank.trainer.learner();
      const std::vector<float> weights = rank.toy.get(rank.toy.weights.flat());
      const bool bad = rank.grid.data.rank() == 1;
      rank.trainer.after_pack = [&](Pack& p) {
        if (bad && learner.buckets_left() == 0) p.loss[0] = NAN;
      };
      EXPECT_EQ(rank.trainer.step().updates_refused, 2);
      EXPECT_TRUE(same_bits(rank.toy.get(rank.toy.weights.flat()), weights));
      for (const Tensor& t : {learner.gradients(), learner.moment1(), learner.moment2()})
        for (const float x : rank.toy.get(t)) ASSERT_EQ(x, 0);
      rank.trainer.after_pack = nullptr;
      EXPECT_EQ(rank.trainer.step().updates, 2);
    });
}

/// Without scratch for its ops a pass fails half-way; the others go on with theirs, and exchange gradients.
TEST(Overlap, AnErrorInsideAPackIsThrownOnAll) {
  const Dataset data = questions("a");
  for (const int failing : {0, 2}) {
    std::vector<std::string> errors(3);
    run_ranks(3, [&](HostComm& comm) {
      NoProgress progress;
      RankCase rank(uneven_packs(), data, comm, progress);
      rank.trainer.after_pack = [&](Pack&) {
        if (comm.rank() == failing) rank.toy.backend->set_workspace(nullptr);
      };
      try {
        rank.trainer.step();
      } catch (const AgreedError& e) {
        errors[comm.rank()] = e.what();
      }
      comm.barrier();  // the ranks are still in step
    });
    EXPECT_EQ(errors[0].substr(0, 8), fmt::format("rank {}: ", failing));
    EXPECT_NE(errors[0].find("set_workspace"), errors[0].npos) << errors[0];
    for (const std::string& e : errors) EXPECT_EQ(e, errors[0]);
  }
}

/// A signal between two packs, or after the last, of one rank: the step goes on to the bits of an unbroken one.
TEST(Overlap, AnInterruptedMiniBatchIsDoneAgainWithTheSameBits) {
  const Config c = uneven_packs();
  const Dataset data = questions("a");
  const RanksRun want = run_on(3, c, data, 1);
  int stopped_in_update = 0;
  for (int at = 0; at < 12; ++at) {
    std::vector<std::vector<float>> weights(3);
    bool in_update = false;
    run_ranks(3, [&](HostComm& comm) {
      StopAt progress(comm.rank() == 1 ? at : -1);
      RankCase rank(c, data, comm, progress);
      try {
        rank.trainer.step();
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), kExitInterrupted);
        if (comm.rank() == 0) in_update = rank.trainer.state().now.stage == StepState::update;
        rank.trainer.step();
      }
      weights[comm.rank()] = rank.toy.get(rank.toy.weights.flat());
    });
    stopped_in_update += in_update;
    for (const auto& w : weights) EXPECT_TRUE(same_bits(w, want.weights)) << "report " << at;
  }
  EXPECT_GT(stopped_in_update, 1);
}

TEST(Overlap, MetricsHoldTheBytesOfTheFormula) {
  const Dataset data = questions("a");
  for (const DType dtype : host_types())
    for (const int ranks : {1, 2, 3}) {
      const RanksRun run = run_on(ranks, uneven_packs(), data, 1, 1, dtype);
      const StepMetrics& m = run.metrics[0];
      const ParamTable params = parameter_table(Toy::shapes());
      const Shards shards(params, ranks);
      // Of each bucket every rank gets the longest slice.
      double padded = 0;
      for (size_t b = 0; b < shards.buckets(); ++b) {
        int64_t most = 0;
        for (int r = 0; r < ranks; ++r) most = std::max(most, shards.slice(b, r).count);
        padded += double(ranks - 1) * most * (4 + dtype_size(dtype));
      }
      const double formula = update_wire_bytes(double(params.size), ranks, dtype);
      EXPECT_EQ(m.exchange_bytes, m.updates * padded) << ranks << " ranks, " << dtype_name(dtype);
      EXPECT_NEAR(padded, formula, 0.1 * formula) << "rows end where they end";
      EXPECT_EQ(m.exchange_seconds > 0, ranks > 1);
      EXPECT_GE(m.exchange_seconds, 0);
    }
}

}  // namespace
}  // namespace dapo
