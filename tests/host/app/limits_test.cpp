// What a run needs from a machine, and its errors if the machine does not have it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/app/json_lines.h"
#include "host/app/plan.h"
#include "tests/host/train/toy_run.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

TEST(Limits, TooFewPagesForTheLongestSequenceAreAnError) {
  const Toy toy;
  Config c = toy_config();
  const int page = c.rollout.page_size;
  c.data.max_prompt_length = page + 1;                         // two pages, and one of the response
  const double least = 2.0 * 2 * 1 * 16 * 4 * 3 * page / 1e9;  // K and V, layers, KV heads, width, bytes, pages, tokens
  EXPECT_DOUBLE_EQ(least_kv_gb(c, toy.weights.config(), *toy.backend), least);
  c.rollout.kv_memory_gb = least;
  EXPECT_EQ(training_limits(c, toy.weights.config(), *toy.backend).kv_pages, 3);
  c.rollout.kv_memory_gb = least * 0.99;
  const std::string said = error_of(kExitUsage, [&] { training_limits(c, toy.weights.config(), *toy.backend); });
  EXPECT_NE(said.find("rollout.kv_memory_gb"), std::string::npos) << said;
  EXPECT_NE(said.find(fmt::format("3 pages of {} tokens", page)), std::string::npos) << said;
  c.rollout.kv_memory_gb = 0;
  EXPECT_GT(training_limits(c, toy.weights.config(), *toy.backend).kv_pages, 3);
}

TEST(Limits, APrefillCallOnACpuIsShort) {
  const Toy toy;
  Config c = toy_config();
  const auto tokens = [&] { return training_limits(c, toy.weights.config(), *toy.backend).prefill_tokens; };
  EXPECT_EQ(tokens(), 256);
  c.rollout.max_num_batched_tokens = 0;
  EXPECT_EQ(tokens(), 512);
  EXPECT_EQ(generation_limits(c, toy.weights.config(), *toy.backend, 16, 4).prefill_tokens, 512);
}

TEST(Limits, ACpuThatLacksAnInstructionSetIsNamed) {
  check_cpu();
  EXPECT_GE(needed_cpu_features().size(), 2u);
  const std::string said = error_of(kExitUsage, [] {
    check_cpu({{"avx2", false}, {"fma", true}, {"avx512f", false}});
  });
  EXPECT_NE(said.find("lacks avx2, avx512f,"), std::string::npos) << said;
  EXPECT_NE(said.find("ARCH=x86-64-v3"), std::string::npos) << said;
}

TEST(LineWriter, AFileThatCannotBePublishedLeavesNothing) {
  const std::string path = temp_folder() + "/taken";
  LineWriter out(path);
  std::filesystem::create_directories(path + "/by");
  error_of(kExitUsage, [&] { LineWriter again(path); });
  out.line("{}");
  error_of(kExitResources, [&] { out.commit(); });
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
}

TEST(LineWriter, PipesAndDevicesAreWrittenNotReplaced) {
  const std::string fifo = temp_folder() + "/fifo", file = temp_folder() + "/file", link = temp_folder() + "/link";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const int reader = open(fifo.c_str(), O_RDONLY | O_NONBLOCK);
  {
    LineWriter out(fifo);
    out.line("{}");
    out.commit();
  }
  char text[8] = {};
  EXPECT_EQ(read(reader, text, sizeof text), 3);
  close(reader);
  EXPECT_TRUE(std::filesystem::is_fifo(fifo));
  std::ofstream(file) << "old";
  std::filesystem::create_symlink("file", link);
  LineWriter out(link);
  out.line("[]");
  EXPECT_EQ(slurp(file), "old");
  out.commit();
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(slurp(file), "[]\n");
}

}  // namespace
}  // namespace dapo
