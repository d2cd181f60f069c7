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
      s.calls.fill(7);
      seen_.push_back(s);
    }
  }
  /// Rank 0 and 2 wait in call 8; rank 1 has not come.
  void wait_for_rank_1() {
    for (const int r : {0, 2}) {
      seen_[r].calls[0] = 8;
      seen_[r].inside = true;
      ++seen_[r].beats;
    }
  }
  /// Seconds until rank 0 names a culprit; -1: not within `most`.
  double seconds_to_culprit(double most) {
    for (double t = 0; t < most; t += 0.5) {
      for (RankSeen& s : seen_)
        if (s.rank == moving_) ++s.beats;
      if (const auto culprit = judge_.look(seen_, 0.5, tp_)) {
        culprit_ = *culprit;
        return t + 0.5;
      }
    }
    return -1;
  }
  std::vector<RankSeen> seen_;
  int moving_ = -1, tp_ = 1;
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
  seen_[1].calls[0] = 8;
  EXPECT_EQ(seconds_to_culprit(50), -1);
}

TEST_F(JudgeTest, NobodyIsBlamedWhileThisRankComputes) {
  seen_[1].calls[0] = 8;
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

/// A grid of 2 x 2 ranks, seen by rank 0; none has met another since call 7.
class GridJudgeTest : public JudgeTest {
 protected:
  void SetUp() override {
    JudgeTest::SetUp();
    seen_.push_back(seen_.back());
    seen_.back().rank = 3;
    tp_ = 2;
  }
  /// A rank enters the next call among these ranks.
  void enter(int rank, Among among) {
    RankSeen& s = seen_[rank];
    ++s.calls[static_cast<size_t>(among)];
    s.among = among;
    s.inside = true;
    ++s.beats;
  }
};

TEST_F(GridJudgeTest, OtherRanksOfTheGroupCountTheirCallsByThemselves) {
  seen_[0].calls[1] = seen_[1].calls[1] = 1000;  // the other tensor group decodes less
  enter(0, Among::data);
  moving_ = 2;
  EXPECT_EQ(seconds_to_culprit(1000), -1);
}

TEST_F(GridJudgeTest, TheRankThatAnotherGroupWaitsForIsNamed) {
  enter(0, Among::data);    // with rank 2,
  enter(2, Among::tensor);  // which waits for rank 3
  enter(1, Among::data);
  const double seconds = seconds_to_culprit(1000);
  EXPECT_GE(seconds, 60);
  EXPECT_LE(seconds, 62);
  EXPECT_EQ(culprit_.rank, 3);
}

TEST_F(GridJudgeTest, AStoppedRankInACallOfAnotherGroupIsNamed) {
  enter(0, Among::data);
  enter(1, Among::data);
  enter(2, Among::tensor);
  enter(3, Among::tensor);
  seen_[3].stopped = true;
  EXPECT_LE(seconds_to_culprit(1000), 62);
  EXPECT_EQ(culprit_.rank, 3);
  EXPECT_NE(culprit_.why.find("stopped"), std::string::npos) << culprit_.why;
}

TEST_F(GridJudgeTest, RanksThatWaitForEachOtherAcrossGroupsAreFound) {
  enter(0, Among::data);  // with rank 2, which has gone to its tensor group, whose rank 3 waits for rank 1,
  enter(2, Among::tensor);
  enter(3, Among::data);
  enter(1, Among::tensor);  // and that for rank 0
  const double seconds = seconds_to_culprit(10000);
  EXPECT_GE(seconds, 60);
  EXPECT_LE(seconds, 62);
  EXPECT_EQ(culprit_.rank, -1);
}

TEST_F(JudgeTest, ADeviceMayWorkForLongUnlessARankIsBehind) {
  const auto wait_for_devices = [&] {
    seen_.clear();
    SetUp();
    judge_ = Judge(0, 60);
    for (RankSeen& s : seen_) s.calls.fill(8), s.inside = s.device = true, ++s.beats;
  };
  wait_for_devices();
  double seconds = seconds_to_culprit(10000);
  EXPECT_GE(seconds, 600);
  EXPECT_EQ(culprit_.rank, -1);
  wait_for_devices();
  seen_[1].inside = seen_[1].device = false;  // it has begun what the others wait for, and does something else
  EXPECT_GE(seconds_to_culprit(10000), 600);
  wait_for_devices();
  seen_[1].calls.fill(7);
  seen_[1].inside = seen_[1].device = false;
  seconds = seconds_to_culprit(10000);
  EXPECT_LE(seconds, 62);
  EXPECT_EQ(culprit_.rank, 1);
  wait_for_devices();
  seen_[1].stopped = true;
  EXPECT_LE(seconds_to_culprit(10000), 62);
  EXPECT_EQ(culprit_.rank, 1);
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
  mine.ranks()[1].enter("all_reduce_sum", Among::world, 17);
  EXPECT_EQ(rank_text(1, theirs.ranks()[1]),
            fmt::format("rank 1 (pid {}), in phase rollout, in all_reduce_sum, its call 17", getpid()));
  mine.ranks()[1].leave();
  mine.ranks()[1].enter("all_gather", Among::tensor, 3);
  mine.ranks()[1].leave();
  EXPECT_NE(rank_text(1, theirs.ranks()[1]).find("after all_gather, its call 3 in its tensor group"),
            std::string::npos);
  EXPECT_EQ(theirs.tensor_ranks(), 1);
  mine.set_tensor_ranks(2);
  EXPECT_EQ(theirs.tensor_ranks(), 2);
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
