// Collectives of 1 to 4 ranks, as threads: results to the bit, and ranks that do not call the same.
#include "core/comm.h"

#include <gtest/gtest.h>

#include "core/grid.h"
#include "tests/comm_cases.h"
#include "tests/thread_comm.h"

namespace dapo {
namespace {

class CommOf : public testing::TestWithParam<int> {};

TEST_P(CommOf, EveryCollectiveGivesWhatItsDefinitionSays) {
  run_ranks(GetParam(), [](Comm& comm) {
    const std::string wrong = wrong_collectives(comm);
    EXPECT_EQ(wrong, "");
  });
}

TEST_P(CommOf, SumsAreInRankOrderWhateverTheirLength) {
  run_ranks(GetParam(), [](Comm& comm) { EXPECT_EQ(wrong_sums(comm), ""); });
}

TEST_P(CommOf, ARankOutOfStepIsNamed) {
  if (GetParam() == 1) GTEST_SKIP() << "one rank is never out of step";
  run_ranks(GetParam(), [](Comm& comm) { EXPECT_EQ(wrong_mismatches(comm), ""); });
}

TEST_P(CommOf, AnErrorOfOneRankIsThrownByAll) {
  run_ranks(GetParam(), [](Comm& comm) { EXPECT_EQ(wrong_agreement(comm), ""); });
}

/// Of n elements of 4 bytes on each of R ranks: what has to reach the others.
TEST_P(CommOf, CountsTheBytesThatItSends) {
  run_ranks(GetParam(), [](Comm& comm) {
    const int ranks = comm.size();
    const int64_t n = 5 * ranks;
    std::vector<float> row(n), rows(n * ranks), other(n * ranks);
    const auto sent = [&](auto&& call) {
      const uint64_t before = comm.sent();
      call();
      return comm.sent() - before;
    };
    const uint64_t all = 4 * n * (ranks - 1);
    EXPECT_EQ(sent([&] { comm.all_gather(tensor(rows), tensor(row)); }), all);
    EXPECT_EQ(sent([&] { comm.all_to_all(tensor(other), tensor(rows)); }), all);
    EXPECT_EQ(sent([&] { comm.reduce_scatter(tensor(row), tensor(rows)); }), all);
    EXPECT_EQ(sent([&] { comm.broadcast(tensor(row), 0); }), comm.rank() == 0 ? all : 0);
    EXPECT_EQ(sent([&] { comm.all_gather_bytes("12345678"); }), 8u * (ranks - 1));
    EXPECT_EQ(sent([&] { comm.barrier(); }), 0u);
    if (ranks == 1) return;
    const int to = (comm.rank() + 1) % ranks, from = (comm.rank() + ranks - 1) % ranks;
    EXPECT_EQ(sent([&] {
                comm.send(tensor(row), to);
                comm.recv(tensor(row), from);
              }),
              4u * n);
  });
}

INSTANTIATE_TEST_SUITE_P(Ranks, CommOf, testing::Values(1, 2, 3, 4));

TEST(Grid, EveryPartIsAGroupThatNamesRanksByTheWorld) {
  for (const auto& [size, tp] : {std::pair{4, 2}, {6, 2}, {6, 3}, {4, 4}, {4, 1}, {1, 1}})
    run_ranks(size, [tp = tp](HostComm& comm) {
      const HostGrid grid(comm, tp);
      EXPECT_EQ(wrong_grid(grid.grid(), tp), "") << comm.size() << " ranks in groups of " << tp;
    });
}

TEST(Grid, ARankThatFailsFreesThoseInItsParts) {
  try {
    run_ranks(4, [](HostComm& comm) {
      HostGrid grid(comm, 2);
      if (comm.rank() == 3) fail_input("rank 3 cannot go on");
      for (int i = 0; i < 2; ++i) grid.grid().tensor.barrier(), grid.grid().data.barrier();
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "rank 3 cannot go on");
  }
}

TEST(ThreadComm, ARankThatFailsFreesTheOthers) {
  try {
    run_ranks(3, [](Comm& comm) {
      if (comm.rank() == 1) fail_input("rank 1 cannot go on");
      comm.barrier();
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "rank 1 cannot go on");
    EXPECT_EQ(e.code(), kExitUsage);
  }
}

TEST(ThreadComm, ARankThatDoesNotComeIsNotWaitedForForEver) {
  EXPECT_THROW(run_ranks(
                   2, [](Comm& comm) { comm.rank() == 0 ? comm.barrier() : void(); }, std::chrono::seconds(1)),
               Error);
}

TEST(SingleComm, HasTheWholeInterface) {
  SingleComm comm([](void*, const Tensor& to, const Tensor& from) { std::memcpy(to.data, from.data, from.bytes()); },
                  nullptr);
  EXPECT_EQ(wrong_collectives(comm), "");
  EXPECT_EQ(wrong_sums(comm), "");
  EXPECT_EQ(wrong_agreement(comm), "");
  std::vector<float> x(2);
  EXPECT_THROW(comm.send(tensor(x), 1), Error);
}

}  // namespace
}  // namespace dapo
