// NCCL's stand-in: ranks as threads, as one thread with groups, and as processes.
#include <gtest/gtest.h>
#include <nccl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <numeric>
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

/// "" if this rank of two gets what it should: sums and messages larger than what fits between two ranks at once.
const char* talk(ncclUniqueId id, int rank) {
  constexpr std::size_t kCount = 200'000;
  ncclComm_t comm;
  if (ncclCommInitRank(&comm, 2, id, rank)) return "init";
  std::vector<float> own(kCount);
  std::iota(own.begin(), own.end(), float(rank));
  DeviceArray<float> x(own), y(kCount), sum(kCount);
  if (ncclAllReduce(x.data(), sum.data(), kCount, ncclFloat, ncclSum, comm, nullptr)) return "all-reduce";
  ncclGroupStart();
  ncclSend(x.data(), kCount, ncclFloat, 1 - rank, comm, nullptr);
  ncclRecv(y.data(), kCount, ncclFloat, 1 - rank, comm, nullptr);
  if (ncclGroupEnd()) return "messages";
  const std::vector<float> sums = sum.host(), theirs = y.host();
  for (std::size_t i = 0; i < kCount; ++i)
    if (sums[i] != 2 * float(i) + 1 || theirs[i] != float(i) + float(1 - rank)) return "values";
  if (ncclAllReduce(x.data(), x.data(), kCount - std::size_t(rank), ncclFloat, ncclSum, comm, nullptr) !=
      ncclInvalidUsage)
    return "a mismatch";
  ncclCommDestroy(comm);
  return "";
}

TEST(Nccl, RanksAsProcesses) {
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  const pid_t child = fork();
  if (child == 0) _exit(*talk(id, 1) == 0 ? 0 : 1);
  EXPECT_STREQ(talk(id, 0), "");
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Nccl, AnAbortEndsTheWaitForARankThatHasDied) {
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  ncclComm_t comm, other, of_child;
  const pid_t child = fork();
  if (child == 0) _exit(ncclCommInitRank(&of_child, 3, id, 2));
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  ASSERT_EQ(ncclCommInitRank(&comm, 3, id, 0), ncclSuccess);
  ASSERT_EQ(ncclCommInitRank(&other, 3, id, 1), ncclSuccess);
  std::thread abort([&] { ncclCommAbort(other); });
  DeviceArray<float> x(1, 1.0f);
  EXPECT_EQ(ncclAllReduce(x.data(), x.data(), 1, ncclFloat, ncclSum, comm, nullptr), ncclRemoteError);
  abort.join();
  ncclCommDestroy(comm);
}

}  // namespace
