// Checkpoints of several ranks: read on any number of ranks, and written where one of them is interrupted.
#include <gtest/gtest.h>

#include "core/check.h"
#include "tests/host/train/ranks_case.h"
#include "tests/host/train/stop_at.h"

namespace dapo {
namespace {

Config with_bank() {
  Config c = toy_config();
  c.rollout.max_num_seqs = 16;
  c.data.max_response_length = 6;
  c.data.gen_batch_size = 7;
  c.algorithm.surplus = Surplus::bank;
  c.actor.ppo_max_token_len = 40;
  return c;
}

/// Everything that a checkpoint holds, as one rank writes it.
struct Image {
  std::string weights, optimizer, state, groups;
  bool operator==(const Image&) const = default;
};

Image image_of(const std::string& folder) {
  return {slurp(folder + "/model.safetensors"), slurp(folder + "/optimizer.safetensors"), slurp(folder + "/state.json"),
          slurp(folder + "/groups.safetensors")};
}

class AnyNumberOfRanks : public ::testing::TestWithParam<DType> {};

TEST_P(AnyNumberOfRanks, HoldsTheSameState) {
  const DType dtype = GetParam();
  if (dtype == DType::bf16 && !cpu_has_bf16()) GTEST_SKIP() << "skipped: this CPU has no bf16 products";
  const Config c = with_bank();
  const Dataset data = questions("a");
  const ScratchFolder scratch;
  std::string before = scratch.path("1");
  std::filesystem::create_directory(before);
  run_ranks(1, [&](HostComm& comm) {
    NoProgress progress;
    RankCase rank(c, data, comm, progress, dtype);
    for (int step = 0; step < 2; ++step) rank.trainer.step();
    EXPECT_FALSE(rank.trainer.state().bank.empty());
    rank.save(before);
  });
  const Image want = image_of(before);
  int number = 0;
  for (const int ranks : {2, 4, 3, 1}) {
    const std::string next = scratch.path(fmt::format("{}-{}", ++number, ranks));
    std::filesystem::create_directory(next);
    run_ranks(ranks, [&](HostComm& comm) {
      NoProgress progress;
      RankCase rank(c, data, comm, progress, dtype);
      rank.load(before);
      rank.save(next);
    });
    before = next;
  }
  const Image have = image_of(before);
  EXPECT_EQ(have.weights, want.weights);
  EXPECT_EQ(have.optimizer, want.optimizer);
  EXPECT_EQ(have.state, want.state);
  EXPECT_EQ(have.groups, want.groups);
}
INSTANTIATE_TEST_SUITE_P(, AnyNumberOfRanks, ::testing::Values(DType::f32, DType::bf16));

TEST(RanksResume, AFileThatIsMissingIsAnError) {
  const Config c = with_bank();
  const Dataset data = questions("a");
  const ScratchFolder folder;
  run_ranks(3, [&](HostComm& comm) {
    NoProgress progress;
    RankCase rank(c, data, comm, progress);
    rank.save(folder.path());
  });
  std::filesystem::remove(folder.path("optimizer-00002-of-00003.safetensors"));
  run_ranks(1, [&](HostComm& comm) {
    NoProgress progress;
    RankCase rank(c, data, comm, progress);
    try {
      rank.load(folder.path());
      ADD_FAILURE() << "a third of the moments is missing";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), kExitUsage);
      EXPECT_NE(std::string(e.what()).find("do not hold each of its"), std::string::npos) << e.what();
    }
  });
}

/// Two steps on `ranks` ranks, of which rank 1 is interrupted at its `patience`-th report and so on; each time all go on
/// from a checkpoint.
std::vector<float> run_in_pieces(const Config& c, const Dataset& data, int ranks, int patience, int& stops) {
  constexpr int kSteps = 2;
  const ScratchFolder folder;
  std::vector<float> weights;
  bool begun = false;
  for (int done = 0; done < kSteps;) {
    std::vector<int> reached(ranks, done);
    bool stopped = false;
    run_ranks(ranks, [&](HostComm& comm) {
      StopAt progress(comm.rank() == 1 ? patience : -1);
      RankCase rank(c, data, comm, progress);
      if (begun) rank.load(folder.path());
      int& own = reached[comm.rank()];
      try {
        for (; own < kSteps; ++own) rank.trainer.step();
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), kExitInterrupted) << e.what();
        if (comm.rank() == 0) stopped = true;
      }
      comm.barrier();
      rank.save(folder.path());
      if (comm.rank() == 0) weights = rank.toy.get(rank.toy.weights.flat());
    });
    for (const int r : reached) EXPECT_EQ(r, reached[0]) << "the ranks stopped at different steps";
    begun = true;
    done = reached[0];
    stops += stopped;
    ++patience;  // a stage that takes as many reports is passed in the end
  }
  return weights;
}

TEST(RanksResume, WhereOneRankIsInterruptedAllStopAndNoBitChanges) {
  const Config c = with_bank();
  const Dataset data = questions("a");
  int stops = 0;
  const std::vector<float> want = run_in_pieces(c, data, 2, 1 << 30, stops);
  EXPECT_EQ(stops, 0);
  for (const int patience : {0, 1, 2, 5, 9}) {
    stops = 0;
    EXPECT_TRUE(same_bits(run_in_pieces(c, data, 2, patience, stops), want)) << patience;
    EXPECT_GT(stops, 0) << patience;
  }
}

}  // namespace
}  // namespace dapo
