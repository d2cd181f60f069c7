// NCCL's stand-in: ranks as threads, and as one thread with groups.
#include <gtest/gtest.h>
#include <nccl.h>

#include <thread>

#include "sim.h"
#include "tests/sim/device_array.h"

using namespace dapo;

namespace {

TEST(Nccl, RanksAsThreads) {
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 3; ++rank)
    ranks.emplace_back([id, rank] {
      ncclComm_t comm;
      ASSERT_EQ(ncclCommInitRank(&comm, 3, id, rank), ncclSuccess);
      DeviceArray<float> x(std::vector<float>{float(rank), 1, 2, 3, 4, 5}), y(2), all(18);
      for (int i = 0; i < 20; ++i) {
        ASSERT_EQ(ncclReduceScatter(x.data(), y.data(), 2, ncclFloat, ncclSum, comm, nullptr), ncclSuccess);
        ASSERT_EQ(ncclAllGather(x.data(), all.data(), 6, ncclFloat, comm, nullptr), ncclSuccess);
      }
      EXPECT_EQ(y.host()[0], rank == 0 ? 3.0f : 6.0f * float(rank));
      EXPECT_EQ(all.host()[12], 2.0f);
      ASSERT_EQ(ncclAllReduce(x.data(), x.data(), 6, ncclFloat, ncclMax, comm, nullptr), ncclSuccess);
      EXPECT_EQ(x.host()[0], 2.0f);
      ncclCommDestroy(comm);
    });
  for (auto& r : ranks) r.join();
  EXPECT_EQ(sim::live().handles, 0);
}

TEST(Nccl, OneThreadWithGroups) {
  ncclUniqueId id;
  ncclGetUniqueId(&id);
  ncclComm_t comm[2];
  for (int r = 0; r < 2; ++r) ASSERT_EQ(ncclCommInitRank(&comm[r], 2, id, r), ncclSuccess);
  DeviceArray<int> a(4, 1), b(4, 2);
  ncclGroupStart();
  ncclAllReduce(a.data(), a.data(), 4, ncclInt, ncclSum, comm[0], nullptr);
  ncclAllReduce(b.data(), b.data(), 4, ncclInt, ncclSum, comm[1], nullptr);
  ASSERT_EQ(ncclGroupEnd(), ncclSuccess);
  EXPECT_EQ(a.host()[3], 3);
  EXPECT_EQ(b.host()[3], 3);
  ncclGroupStart();
  ncclAllReduce(a.data(), a.data(), 4, ncclInt, ncclSum, comm[0], nullptr);
  ncclAllReduce(b.data(), b.data(), 3, ncclInt, ncclSum, comm[1], nullptr);
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);  // the ranks disagree
  for (ncclComm_t c : comm) ncclCommDestroy(c);
}

TEST(Nccl, MessagesBetweenRanks) {
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 3; ++rank)
    ranks.emplace_back([id, rank] {
      ncclComm_t comm;
      ASSERT_EQ(ncclCommInitRank(&comm, 3, id, rank), ncclSuccess);
      DeviceArray<int> x(std::vector<int>{10 * rank, 10 * rank + 1, 10 * rank + 2}), y(3, -1);
      for (int i = 0; i < 20; ++i) {  // a transposition, the rank's own block included
        ASSERT_EQ(ncclGroupStart(), ncclSuccess);
        for (int peer = 0; peer < 3; ++peer) {
          ASSERT_EQ(ncclSend(x.data() + peer, 1, ncclInt, peer, comm, nullptr), ncclSuccess);
          ASSERT_EQ(ncclRecv(y.data() + peer, 1, ncclInt, peer, comm, nullptr), ncclSuccess);
        }
        ASSERT_EQ(ncclGroupEnd(), ncclSuccess);
      }
      EXPECT_EQ(y.host(), (std::vector<int>{rank, 10 + rank, 20 + rank}));
      if (rank == 0) {
        EXPECT_EQ(ncclSend(x.data(), 2, ncclInt, 1, comm, nullptr), ncclInvalidUsage);
      } else if (rank == 1) {
        EXPECT_EQ(ncclRecv(y.data(), 1, ncclInt, 0, comm, nullptr), ncclInvalidUsage);
      }
      ncclCommDestroy(comm);
    });
  for (auto& r : ranks) r.join();
}

}  // namespace
