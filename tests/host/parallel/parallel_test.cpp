// What needs no second process: the watchdog's judgement, the environment, exit codes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <map>

#include "core/check.h"
#include "host/parallel/given_ranks.h"
#include "host/parallel/heartbeat_page.h"
#include "host/parallel/launch.h"
#include "host/parallel/watchdog.h"

namespace dapo {
namespace {

/// Three ranks; a test changes what is seen of them, and lets time pass.
class JudgeTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int r = 0; r < 3; ++r) {
      RankSeen s;
      s.rank = r;
      s.here = s.running = true;
      s.calls = 7;
      seen_.push_back(s);
    }
  }
  /// Rank 0 and 2 wait in call 8; rank 1 has not come.
  void wait_for_rank_1() {
    for (const int r : {0, 2}) {
      seen_[r].calls = 8;
      seen_[r].inside = true;
      ++seen_[r].beats;
    }
  }
  /// Seconds until rank 0 names a culprit; -1: not within `most`.
  double seconds_to_culprit(double most) {
    for (double t = 0; t < most; t += 0.5) {
      for (RankSeen& s : seen_)
        if (s.rank == moving_) ++s.beats;
      if (const auto culprit = judge_.look(seen_, 0.5)) {
        culprit_ = *culprit;
        return t + 0.5;
      }
    }
    return -1;
  }
  std::vector<RankSeen> seen_;
  int moving_ = -1;
  Judge judge_{0, 60};
  Culprit culprit_;
};

TEST_F(JudgeTest, ADeadRankIsNamedAtOnce) {
  seen_[2].running = false;
  EXPECT_EQ(seconds_to_culprit(10), 0.5);
  EXPECT_EQ(culprit_.rank, 2);
}

TEST_F(JudgeTest, ARankThatSleepsWhileOthersWaitHangsAfterTheLimit) {
  wait_for_rank_1();
  const double seconds = seconds_to_culprit(1000);
  EXPECT_GE(seconds, 60);
  EXPECT_LE(seconds, 62);
  EXPECT_EQ(culprit_.rank, 1);
  EXPECT_NE(culprit_.why.find("no sign of life"), std::string::npos) << culprit_.why;
}

TEST_F(JudgeTest, ARankThatReportsProgressIsWaitedFor) {
  wait_for_rank_1();
  moving_ = 1;
  EXPECT_EQ(seconds_to_culprit(10000), -1);
}

TEST_F(JudgeTest, ARankThatComputesInSilenceGetsTenTimesAsLong) {
  wait_for_rank_1();
  seen_[1].busy = true;
  const double seconds = seconds_to_culprit(10000);
  EXPECT_GE(seconds, 600);
  EXPECT_LE(seconds, 602);
  EXPECT_EQ(culprit_.rank, 1);
}

TEST_F(JudgeTest, AStoppedRankIsNamedInsideACallAndOutside) {
  for (const bool inside : {false, true}) {
    seen_.clear();
    SetUp();
    judge_ = Judge(0, 60);
    wait_for_rank_1();
    if (inside) seen_[1] = seen_[2], seen_[1].rank = 1;
    seen_[1].stopped = true;
    EXPECT_LE(seconds_to_culprit(1000), 62);
    EXPECT_EQ(culprit_.rank, 1);
    EXPECT_NE(culprit_.why.find("stopped"), std::string::npos) << culprit_.why;
  }
}

TEST_F(JudgeTest, ARankThatLeftEarlyIsNamedSoon) {
  wait_for_rank_1();
  seen_[1].left = true;
  seen_[1].running = false;
  const double seconds = seconds_to_culprit(10);
  EXPECT_GE(seconds, Judge::kLeaveSeconds);
  EXPECT_LE(seconds, 5);
  EXPECT_EQ(culprit_.rank, 1);
}

TEST_F(JudgeTest, RanksThatLeaveInOrderAreNobodysFault) {
  wait_for_rank_1();
  seen_[1].left = true;  // it has passed the last barrier, which others have not noticed yet
  seen_[1].calls = 8;
  EXPECT_EQ(seconds_to_culprit(50), -1);
}

TEST_F(JudgeTest, NobodyIsBlamedWhileThisRankComputes) {
  seen_[1].calls = 8;
  seen_[1].inside = true;
  EXPECT_EQ(seconds_to_culprit(10000), -1);
}

TEST_F(JudgeTest, WhenAllWaitTheRankIsOfAnotherMachine) {
  wait_for_rank_1();
  seen_[1] = {};
  seen_[1].rank = 1;
  const double seconds = seconds_to_culprit(10000);
  EXPECT_GE(seconds, 600);
  EXPECT_EQ(culprit_.rank, -1);
  EXPECT_NE(culprit_.why.find("another machine"), std::string::npos);
}

TEST_F(JudgeTest, AMachineThatWasSuspendedBlamesNobody) {
  wait_for_rank_1();
  EXPECT_FALSE(judge_.look(seen_, 0.5));
  EXPECT_FALSE(judge_.look(seen_, 3600));
}

GivenRanks given(const std::map<std::string, std::string>& environment) {
  return given_ranks([&](const char* name) -> const char* {
    const auto it = environment.find(name);
    return it == environment.end() ? nullptr : it->second.c_str();
  });
}

TEST(GivenRanks, AreThoseOfTheLauncher) {
  EXPECT_EQ(given({}).by, "");
  EXPECT_EQ(given({}).size, 1);
  const GivenRanks mpirun = given({{"OMPI_COMM_WORLD_SIZE", "8"}, {"OMPI_COMM_WORLD_RANK", "3"}, {"PMI_SIZE", "1"}});
  EXPECT_EQ(mpirun.by, "mpirun");
  EXPECT_EQ(mpirun.size, 8);
  EXPECT_EQ(mpirun.rank, 3);
  const GivenRanks srun = given({{"SLURM_STEP_NUM_TASKS", "16"}, {"SLURM_PROCID", "15"}, {"SLURM_NTASKS", "16"}});
  EXPECT_EQ(srun.by, "srun");
  EXPECT_EQ(srun.size, 16);
  EXPECT_EQ(srun.rank, 15);
  // A batch script, outside srun.
  EXPECT_EQ(given({{"SLURM_NTASKS", "16"}, {"SLURM_PROCID", "0"}}).by, "");
}

TEST(GivenRanks, WhatIsNoNumberIsNamed) {
  for (const char* bad : {"", "x", "2x", "-1", "99999999999"}) {
    try {
      given({{"OMPI_COMM_WORLD_SIZE", bad}, {"OMPI_COMM_WORLD_RANK", "0"}});
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), kExitUsage);
      EXPECT_NE(std::string(e.what()).find("OMPI_COMM_WORLD_SIZE"), std::string::npos);
    }
  }
  EXPECT_THROW(given({{"PMI_SIZE", "2"}, {"PMI_RANK", "2"}}), Error);
}

TEST(Launch, EveryEndHasAnExitCode) {
  const auto exited = [](int code) { return code << 8; };
  for (const int code : {0, 2, 3, 4, 5, 70, 130}) EXPECT_EQ(launched_exit_code(exited(code), true), code);
  for (const int code : {1, 134, 137, 139, 143, 255}) EXPECT_EQ(launched_exit_code(exited(code), true), kExitLostRank);
  EXPECT_EQ(launched_exit_code(exited(1), false), kExitUsage);
  EXPECT_EQ(launched_exit_code(exited(213), false), kExitUsage);
  EXPECT_EQ(launched_exit_code(SIGKILL, true), kExitLostRank);
}

TEST(HeartbeatPage, ShowsOneProcessToAnother) {
  const std::string name = HeartbeatPage::new_name();
  const HeartbeatPage mine(name, 2), theirs(name, 2);
  HeartbeatPage::unlink(name);
  EXPECT_NE(access(("/dev/shm/" + name).c_str(), F_OK), 0);
  begin_heartbeat(mine.ranks()[1]);
  mine.ranks()[1].phase.set("rollout");
  mine.ranks()[1].enter("all_reduce_sum", 17);
  EXPECT_EQ(rank_text(1, theirs.ranks()[1]),
            fmt::format("rank 1 (pid {}), in phase rollout, in all_reduce_sum, its call 17", getpid()));
  EXPECT_TRUE(alive(theirs.ranks()[1]));
  EXPECT_EQ(theirs.ranks()[0].pid.load(), 0);
  mine.ranks()[1].started.fetch_add(1);  // another process with this pid
  EXPECT_FALSE(alive(theirs.ranks()[1]));
  EXPECT_EQ(theirs.reported(), 0);
  EXPECT_TRUE(mine.first_to_report(kExitResources));
  EXPECT_FALSE(theirs.first_to_report(kExitLostRank));
  EXPECT_EQ(theirs.reported(), kExitResources);
}

}  // namespace
}  // namespace dapo
