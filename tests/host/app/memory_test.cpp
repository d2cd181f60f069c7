// The memory of a run against its plan.
#include <fcntl.h>
#include <sys/resource.h>

#include <cmath>
#include <regex>

#include "host/app/backends.h"
#include "model/weights.h"
#include "tests/host/app/cli.h"
#include "tokenizer/tokenizer.h"

namespace dapo {
namespace {

class Memory : public CliTest {
 protected:
  /// A model of some 40 M parameters: its arenas are most of what the process holds.
  void make_large_model() {
    ModelConfig c;
    c.hidden = 768;
    c.ffn = 2048;
    c.layers = 6;
    c.heads = 12;
    c.kv_heads = 4;
    c.head_dim = 64;
    c.vocab = 264;
    c.max_position = 512;
    c.eos = {256};
    c.pad = 257;
    write_byte_tokenizer((folder_ / "model").string());
    const ChosenBackend chosen = make_backend("cpu", "f32", 1);
    const std::unique_ptr<Comm> comm = make_single_comm(*chosen.backend);
    Weights weights(*chosen.backend, *comm, c);
    weights.init(1, 0.02f);
    weights.save((folder_ / "model").string());
  }
  /// Runs a program and returns the most memory that it held, bytes.
  size_t peak_of(const std::string& program, const std::vector<std::string>& arguments, int& code) {
    const std::string path = (programs_ / program).string(), out = (folder_ / "run.out").string();
    std::vector<char*> argv = {const_cast<char*>(path.c_str())};
    for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    const std::string folder = folder_.string();
    const pid_t child = fork();
    if (child == 0) {
      const int fd = open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
      dup2(fd, 1), dup2(fd, 2);
      if (chdir(folder.c_str()) == 0) execv(path.c_str(), argv.data());
      _exit(127);
    }
    int status = 0;
    rusage usage{};
    EXPECT_EQ(wait4(child, &status, 0, &usage), child);
    code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return static_cast<size_t>(usage.ru_maxrss) * 1024;
  }
};

TEST_F(Memory, ThePeakOfARunIsThePlans) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "skipped: a sanitizer's own memory would be measured";
#endif
  make_large_model();
  std::string rows;
  for (int i = 0; i < 16; ++i)
    rows += fmt::format("{{\"prompt\": \"what is {} + {}?\", \"answer\": \"{}\"}}\n", i, i, 2 * i);
  write("rows.jsonl", rows);
  // every response runs to its limit, so that packs and pages are full
  write(
      "run.cfg",
      "[model]\npath = \"model\"\nthreads = 2\ndtype = \"f32\"\n[data]\ntrain_files = \"rows.jsonl\"\nprompt_template "
      "= "
      "\"raw\"\nmax_prompt_length = 16\nmax_response_length = 64\ntrain_batch_size = 4\n[rollout]\nn = 4\nmax_num_seqs "
      "= 16\nignore_eos = true\n[actor]\nppo_mini_batch_size = 4\n[algorithm]\nfilter_groups = false\n[reward]\n"
      "verifier = \"exact\"\noverlong_buffer = false\n[trainer]\ntotal_steps = 2\n");
  setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
  const Ran plan = run("dapo_train", "run.cfg --plan");
  ASSERT_EQ(plan.code, 0) << plan.err;
  std::smatch found;
  ASSERT_TRUE(std::regex_search(plan.out, found, std::regex("peak of the process +[0-9.]+ GiB +([0-9,]+) bytes")))
      << plan.out;
  const double planned = std::stod(std::regex_replace(found[1].str(), std::regex(","), ""));
  int code = -1;
  const auto peak = static_cast<double>(peak_of("dapo_train", {"run.cfg"}, code));
  ASSERT_EQ(code, 0) << slurp(folder_ / "run.out");
  RecordProperty("peak_over_plan", fmt::format("{:.4f}", peak / planned));
  EXPECT_GT(planned, 600e6);
  EXPECT_NEAR(peak / planned, 1, 0.05) << "peak " << peak / 1e6 << " MB, planned " << planned / 1e6 << " MB\n"
                                       << plan.out;
}

}  // namespace
}  // namespace dapo
