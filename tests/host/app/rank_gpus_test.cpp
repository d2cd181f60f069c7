// Which GPU each rank takes, and the cores near it.
#include "host/app/rank_gpus.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/comm_cases.h"

namespace dapo {
namespace {

using Shares = std::vector<GpuShare>;

TEST(RankGpus, RanksThatSeeTheSameTakeThemInTurn) {
  EXPECT_EQ(assign_gpus({{"a", {}}, {"a", {}}}), (Shares{{-1}, {-1}}));
  EXPECT_EQ(assign_gpus({{"a", {"x", "y"}}, {"a", {"x", "y"}}}), (Shares{{0}, {1}}));
  EXPECT_EQ(assign_gpus({{"a", {"x", "y"}}, {"b", {"x", "y"}}, {"a", {"x", "y"}}, {"b", {"x", "y"}}}),
            (Shares{{0}, {0}, {1}, {1}}));
  EXPECT_EQ(assign_gpus({{"a", {"x"}}, {"a", {"y"}}}), (Shares{{0}, {0}}));  // as srun --gpus-per-task shows them
}

TEST(RankGpus, RanksMayShare) {
  EXPECT_EQ(assign_gpus({{"a", {"x"}}, {"a", {"x"}}, {"b", {"x"}}}, true), (Shares{{0, 2}, {0, 2}, {0, 1}}));
  EXPECT_EQ(assign_gpus({{"a", {"x", "y"}}, {"a", {"x", "y"}}, {"a", {"x", "y"}}}, true),
            (Shares{{0, 2}, {1}, {0, 2}}));
  EXPECT_EQ(assign_gpus({{"a", {"x", "y"}}, {"a", {"y"}}}, true), (Shares{{0}, {0}}));
}

TEST(RankGpus, WhatCannotBeIsRefusedWithRankAndMachine) {
  const auto refused = [](const std::vector<RankGpus>& ranks) { return error_of([&] { assign_gpus(ranks); }); };
  EXPECT_EQ(refused({{"a", {"x"}}, {"b", {"y"}}, {"b", {"y"}}}),
            "2: rank 2 on b has no GPU left: 2 ranks see 1 there; start at most one rank a GPU, or use --device cpu or "
            "parallel.transport=host");
  EXPECT_EQ(
      refused({{"a", {"x", "y"}}, {"a", {"x"}}}),
      "2: rank 1 on a would run on x, as rank 0 does; give each rank a GPU of its own (CUDA_VISIBLE_DEVICES, srun "
      "--gpus-per-task)");
  EXPECT_EQ(
      refused({{"a", {}}, {"b", {"x"}}}),
      "2: rank 0 on a sees no GPU, rank 1 on b does; give every rank a GPU (CUDA_VISIBLE_DEVICES, nvidia-smi), or "
      "use --device cpu");
}

TEST(RankGpus, ListsOfCoresAreRead) {
  const auto cores = [](const std::string& text) {
    const auto set = parse_cores(text);
    std::string out = set ? "" : "none";
    for (int core = 0; set && core < CPU_SETSIZE; ++core)
      if (CPU_ISSET(core, &*set)) out += fmt::format("{} ", core);
    return out;
  };
  EXPECT_EQ(cores("0-3,8\n"), "0 1 2 3 8 ");
  EXPECT_EQ(cores("5"), "5 ");
  EXPECT_EQ(cores("\n"), "");
  for (const char* bad : {"3-1", "a", "1-", "1;2", "0-99999999", "-1"}) EXPECT_EQ(cores(bad), "none") << bad;
}

TEST(RankGpus, ARankIsBoundToTheCoresNearItsGpu) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "rank_gpus_test";
  std::filesystem::create_directories(folder / "0000:1b:00.0");
  cpu_set_t before, after;
  CPU_ZERO(&before);
  sched_getaffinity(0, sizeof before, &before);
  int last = CPU_SETSIZE - 1;
  while (!CPU_ISSET(last, &before)) --last;
  const auto bound = [&](const std::string& list, const std::string& pci) {
    std::ofstream(folder / "0000:1b:00.0" / "local_cpulist") << list;
    std::thread([&] {  // which alone is bound
      bind_near({"GPU-1", pci}, folder.string());
      CPU_ZERO(&after);
      sched_getaffinity(0, sizeof after, &after);
    })
        .join();
    return CPU_COUNT(&after);
  };
  EXPECT_EQ(bound(fmt::format("{}\n", last), "0000:1b:00.0"), 1);
  EXPECT_TRUE(CPU_ISSET(last, &after));
  EXPECT_EQ(bound("", "0000:1b:00.0"), CPU_COUNT(&before));
  EXPECT_EQ(bound("nonsense", "0000:1b:00.0"), CPU_COUNT(&before));
  EXPECT_EQ(bound("0", "0000:00:00.0"), CPU_COUNT(&before)) << "no such card";
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace dapo
