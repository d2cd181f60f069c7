// A run of many steps holds no more at its end than at its beginning.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <limits>

#include "tests/host/app/cli.h"

namespace dapo {
namespace {

/// Steps of the run; the nightly run sets more.
int steps() {
  const char* given = std::getenv("DAPO_STEPS");
  return given != nullptr ? std::atoi(given) : 400;
}

/// What a process holds.
struct Held {
  int64_t bytes = std::numeric_limits<int64_t>::max(), descriptors = bytes, threads = bytes;
  /// The least of both: what a checkpoint under way takes is given back.
  void least(const Held& other) {
    bytes = std::min(bytes, other.bytes);
    descriptors = std::min(descriptors, other.descriptors);
    threads = std::min(threads, other.threads);
  }
};

Held held_by(pid_t process) {
  const fs::path at = fs::path("/proc") / std::to_string(process);
  const auto entries = [&](const char* folder) {
    return std::distance(fs::directory_iterator(at / folder), fs::directory_iterator());
  };
  long long size = 0, resident = 0;
  EXPECT_EQ(std::sscanf(slurp(at / "statm").c_str(), "%lld %lld", &size, &resident), 2);
  return {resident * sysconf(_SC_PAGESIZE), entries("fd"), entries("task")};
}

class LongRun : public CliTest {};

TEST_F(LongRun, MemoryDescriptorsAndThreadsStayAsTheyAre) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "skipped: a sanitizer's own memory would be measured";
#endif
  make_model();
  write("run.cfg",
        "[model]\npath = \"tuned\"\nthreads = 1\n[data]\ntrain_files = \"data/train.jsonl\"\nval_files = "
        "\"val.jsonl\"\nprompt_template = \"raw\"\nmax_prompt_length = 48\nmax_response_length = 8\ntrain_batch_size = "
        "2\n[rollout]\nn = 2\n[actor]\nppo_mini_batch_size = 1\n[algorithm]\nfilter_groups = false\n[reward]\n"
        "overlong_buffer = false\n[eval]\nevery = 20\nn = 2\npass_k = 1\n[trainer]\nsave_every = 10\nstuck_patience = "
        "0\nrun_dir = \"run\"\n");
  write("val.jsonl", "{\"prompt\": \"1\", \"answer\": \"2\"}\n{\"prompt\": \"2\", \"answer\": \"3\"}\n");
  const int total = steps();
  // With several arenas glibc keeps, by chance, some of what threads have freed: kilobytes a step, which do not appear
  // with one arena or with MALLOC_TRIM_THRESHOLD_. What the run itself holds is measured.
  const std::string line = "MALLOC_ARENA_MAX=1 exec " + (programs_ / "dapo_train").string() +
                           " run.cfg --set trainer.total_steps=" + std::to_string(total);
  int pipe[2];
  ASSERT_EQ(pipe2(pipe, O_CLOEXEC), 0);
  // A small pipe, so that the run is never far ahead of the lines that are read here.
  ASSERT_GE(fcntl(pipe[0], F_SETPIPE_SZ, 4096), 4096);
  const pid_t child = fork();
  if (child == 0) {
    dup2(pipe[1], STDOUT_FILENO), dup2(pipe[1], STDERR_FILENO);
    if (chdir(folder_.c_str()) == 0) execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    _exit(127);
  }
  close(pipe[1]);
  std::FILE* const out = fdopen(pipe[0], "r");
  std::setvbuf(out, nullptr, _IONBF, 0);
  Held early, late;
  int samples = 0;
  std::string last;
  char text[4096];
  while (std::fgets(text, sizeof text, out) != nullptr) {
    last = text;
    int step = 0;
    if (std::sscanf(text, "step %d/", &step) != 1 || step > total * 7 / 8) continue;  // later it may have ended
    if (step <= total / 2) continue;  // buffers grow to the longest that they hold, for some hundred steps
    if (step <= total * 5 / 8)
      early.least(held_by(child));
    else
      late.least(held_by(child)), ++samples;
  }
  std::fclose(out);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status << last;
  EXPECT_EQ(samples, total * 7 / 8 - total * 5 / 8);
  RecordProperty("growth", std::to_string(late.bytes - early.bytes));
  std::printf("%d steps: %.2f MB after half, %.2f MB later; %ld descriptors, %ld threads\n", total,
              1e-6 * static_cast<double>(early.bytes), 1e-6 * static_cast<double>(late.bytes),
              static_cast<long>(late.descriptors), static_cast<long>(late.threads));
  EXPECT_LE(late.bytes, early.bytes + (1 << 20)) << "memory grows";
  EXPECT_LE(late.descriptors, early.descriptors);
  EXPECT_LE(late.threads, early.threads);
}

}  // namespace
}  // namespace dapo
