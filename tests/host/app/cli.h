// The built programs, run as by a user. They are found in the test program's folder, or in $DAPO_PROGRAMS.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/testdata.h"

namespace dapo {

namespace fs = std::filesystem;

struct Ran {
  int code;
  std::string out, err;
};

class CliTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* given = std::getenv("DAPO_PROGRAMS");
    programs_ = given != nullptr ? fs::absolute(given) : fs::read_symlink("/proc/self/exe").parent_path();
    if (!fs::exists(programs_ / "dapo") || !fs::exists(programs_ / "dapo_train"))
      GTEST_SKIP() << "skipped: dapo and dapo_train are not in " << programs_ << " (make, or DAPO_PROGRAMS)";
  }

  /// Runs a program in the test's folder; `arguments` go through the shell.
  Ran run(const std::string& program, const std::string& arguments, const std::string& input = "") {
    return shell((programs_ / program).string() + " " + arguments, input);
  }
  Ran shell(const std::string& line, const std::string& input = "") {
    std::ofstream(folder_ / "stdin", std::ios::binary) << input;
    const int status = std::system(("cd " + folder_.string() + " && (" + line + ") <stdin >stdout 2>stderr").c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, slurp(folder_ / "stdout"), slurp(folder_ / "stderr")};
  }
  /// Expects exit code 2 and one line on standard error that starts with the program's name and contains `part`.
  void expect_usage_error(const std::string& program, const std::string& arguments, const std::string& part,
                          const std::string& input = "") {
    const Ran r = run(program, arguments, input);
    EXPECT_EQ(r.code, 2) << program << " " << arguments << "\n" << r.out << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
    EXPECT_EQ(r.err.rfind(program + ": ", 0), 0u) << r.err;
    EXPECT_NE(r.err.find(part), std::string::npos) << r.err;
  }
  void write(const std::string& name, const std::string& text) { scratch_.write(name, text); }
  /// Fine-tuning from one model folder into another.
  static std::string sft_config(const std::string& from, const std::string& to, int steps) {
    return "[model]\npath = \"" + from +
           "\"\nthreads = 1\n[data]\nprompt_template = \"raw\"\nmax_prompt_length = 48\nmax_response_length = 48\n"
           "[sft]\nfiles = \"data/skill.jsonl\"\nout = \"" +
           to + "\"\nbatch_size = 4\nsteps = " + std::to_string(steps) + "\n";
  }
  /// The demo's data and model with two steps of fine-tuning: a tiny model that all commands accept.
  void make_model() {
    ASSERT_EQ(run("dapo", "chain .").code, 0);
    write("sft.cfg", sft_config("model", "tuned", 2) + "init_std = 0.1\n");
    const Ran r = run("dapo", "sft sft.cfg");
    ASSERT_EQ(r.code, 0) << r.err;
  }

  fs::path programs_;
  const ScratchFolder scratch_;
  const fs::path folder_ = scratch_.path();
};

}  // namespace dapo
