// Checkpoints as a user meets them: kills, signals, damage, changed settings, --resume.
#include "host/app/checkpoint.h"

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "core/check.h"
#include "tests/host/app/cli.h"

namespace dapo {
namespace {

using Json = nlohmann::json;

/// kill -9 a test; the nightly run sets more.
int kills() {
  const char* given = std::getenv("DAPO_KILLS");
  return given != nullptr ? std::atoi(given) : 20;
}

class Checkpoints : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (IsSkipped()) return;
    make_model();
    write("train.cfg",
          "[model]\npath = \"tuned\"\nthreads = 1\n[data]\ntrain_files = \"data/train.jsonl\"\nval_files = "
          "\"val.jsonl\"\nprompt_template = \"raw\"\nmax_prompt_length = 48\nmax_response_length = 24\n"
          "train_batch_size = 4\ngen_batch_size = 6\n[rollout]\nn = 4\nmax_num_seqs = 8\n[actor]\nppo_mini_batch_size "
          "= 2\n[algorithm]\nfilter_groups = false\nsurplus = \"bank\"\n[reward]\noverlong_buffer_len = 16\n[eval]\n"
          "every = 2\nn = 2\npass_k = 1\n[trainer]\ntotal_steps = 6\nsave_every = 2\nkeep_best = \"\"\nstuck_patience "
          "= 0\n");
    std::string val;
    for (int i = 0; i < 16; ++i) val += "{\"prompt\": \"" + std::to_string(i) + "\", \"answer\": \"0\"}\n";
    write("val.jsonl", val);
  }
  /// A run in this folder; `more`: further arguments.
  Ran train(const std::string& run_dir, const std::string& more = "") {
    return run("dapo_train", "train.cfg --set trainer.run_dir=" + run_dir + " " + more);
  }
  /// Starts a run, sends `signal` after `seconds`, and returns its exit code (128 + signal if that ended it).
  int train_until(const std::string& run_dir, double seconds, int signal) {
    return shell((programs_ / "dapo_train").string() + " train.cfg --set trainer.run_dir=" + run_dir +
                 " & p=$!; sleep " + fmt::format("{:.3f}", seconds) + fmt::format("; kill -{} $p; wait $p", signal))
        .code;
  }
  /// All that must be the same of two runs: weights, optimizer, groups, responses, metrics but for times.
  std::map<std::string, std::string> result(const std::string& run_dir) {
    const fs::path at = folder_ / run_dir;
    std::map<std::string, std::string> out;
    for (const char* file : {"model/model.safetensors", "checkpoints/step_6/model/model.safetensors",
                             "checkpoints/step_6/optimizer.safetensors", "checkpoints/step_6/groups.safetensors"})
      out[file] = slurp(at / file);
    for (int step = 1; step <= 6; ++step) {
      const std::string name = fmt::format("rollouts/step_{}.jsonl", step);
      out[name] = slurp(at / name);
    }
    std::istringstream lines(slurp(at / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      Json json = Json::parse(line);
      std::vector<std::string> times;
      for (const auto& [name, value] : json.items())
        for (const char* part : {"seconds", "_per_s", "gflops", "preemptions", "verifier_slow"})
          if (name.find(part) != name.npos) times.push_back(name);
      for (const std::string& name : times) json.erase(name);
      out["metrics"] += json.dump() + "\n";
    }
    return out;
  }
  void expect_same(const std::string& run_dir, const std::map<std::string, std::string>& whole) {
    const auto now = result(run_dir);
    EXPECT_NE(whole.at("model/model.safetensors"), slurp(folder_ / "tuned/model.safetensors")) << "nothing was learned";
    for (const auto& [name, text] : whole) {
      EXPECT_FALSE(text.empty()) << name;
      EXPECT_TRUE(now.at(name) == text) << run_dir << ": " << name << " differs"
                                        << (name == "metrics" ? "\n" + text + now.at(name) : "");
    }
  }
};

TEST_F(Checkpoints, KilledAtAnyMomentARunEndsWithTheSameBits) {
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(train("whole").code, 0) << slurp(folder_ / "stderr");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const auto whole = result("whole");
  std::mt19937 random(7);
  int killed = 0, interrupted = 0;
  for (int number = 0; killed < kills(); ++number) {
    const std::string dir = "r" + std::to_string(number);
    int code = -1;
    for (int i = 0; i < 200 && code != 0; ++i) {
      // Longer each time: a machine that has become slower must get to a new checkpoint in the end.
      const double after = seconds * std::uniform_real_distribution(0.05, 0.9)(random) * (1 + i / 10.0);
      code = train_until(dir, after, random() % 4 == 0 ? SIGTERM : SIGKILL);
      ASSERT_TRUE(code == 0 || code == 128 + SIGKILL || code == 128 + SIGTERM || code == kExitInterrupted)
          << code << slurp(folder_ / "stderr");
      killed += code == 128 + SIGKILL;
      interrupted += code == kExitInterrupted;
    }
    ASSERT_EQ(code, 0) << slurp(folder_ / "stderr");
    expect_same(dir, whole);
    if (HasFailure()) return;
    std::vector<std::string> kept;
    for (const Checkpoint& c : checkpoints_of((folder_ / dir).string())) kept.push_back(c.name());
    EXPECT_EQ(kept.size(), 2u) << "trainer.keep = 2: " << testing::PrintToString(kept);
    if (HasFailure()) return;
    fs::remove_all(folder_ / dir);
  }
  RecordProperty("killed", killed);
  RecordProperty("interrupted", interrupted);
}

/// The reward's program sends the signal, and does not answer, so that the evaluation cannot be complete before it.
TEST_F(Checkpoints, AnInterruptedEvaluationGoesOn) {
  write("judge.sh",
        "stop() { if mkdir $1 2>/dev/null; then kill -TERM $PPID; sleep 1000; fi; }\n"
        "while read -r line; do\n  case \"$line\" in *'\"ground_truth\":\"val\"'*)\n"
        "    stop before; if [ -e r/rollouts/step_2.jsonl ]; then stop after; fi;;\n  esac\n"
        "  case \"$line\" in *[02468ace]'\",'*) echo '{\"acc\": true, \"pred\": \"even\"}';; *) echo "
        "'{\"acc\": false, \"pred\": \"odd\"}';; esac\ndone\n");
  std::string val;
  for (int i = 0; i < 16; ++i) val += "{\"prompt\": \"" + std::to_string(i) + "\", \"answer\": \"val\"}\n";
  write("val.jsonl", val);
  const std::string judge =
      "--set reward.verifier=command --set 'reward.command=sh judge.sh' --set reward.timeout=1000 --set eval.n=4 ";
  const auto drawn = [&](const std::string& checkpoint) {
    size_t tokens = 0;
    for (const std::vector<Group>& set : read_state((folder_ / checkpoint).string()).evaluation)
      for (const Group& g : set)
        for (const Sample& s : g.samples) tokens += s.response.ids.size();
    return tokens;
  };
  Ran r = train("r", judge);
  EXPECT_EQ(r.code, kExitInterrupted) << r.err;
  EXPECT_NE(r.out.find("interrupted after step 0 and in its evaluation"), std::string::npos) << r.out;
  EXPECT_GT(drawn("r/checkpoints/step_0"), 0u);
  r = train("r", judge);
  EXPECT_EQ(r.code, kExitInterrupted) << r.err;
  EXPECT_NE(r.out.find("interrupted after step 2 and in its evaluation"), std::string::npos) << r.out;
  EXPECT_GT(drawn("r/checkpoints/step_2"), 0u);
  r = train("r", judge);
  EXPECT_EQ(r.code, 0) << r.out << r.err;
  ASSERT_EQ(train("whole", judge).code, 0);
  expect_same("r", result("whole"));
  for (const char* file : {"eval/step_0.jsonl", "eval/step_2.jsonl"})
    EXPECT_EQ(slurp(folder_ / "r" / file), slurp(folder_ / "whole" / file)) << file;
}

TEST_F(Checkpoints, DamageIsFoundAndTheOneBeforeIsTaken) {
  ASSERT_EQ(train("whole").code, 0) << slurp(folder_ / "stderr");
  const auto whole = result("whole");
  const std::string newest = "checkpoints/step_6/";
  ASSERT_EQ(find_damage((folder_ / "whole" / newest).string()), "");
  for (const std::string file : {"MANIFEST.json", "state.json", "groups.safetensors", "optimizer.safetensors",
                                 "model/model.safetensors", "model/config.json", "model/tokenizer.json"})
    for (const char* how : {"flip", "cut", "gone"}) {
      fs::remove_all(folder_ / "r");
      fs::copy(folder_ / "whole", folder_ / "r", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
      fs::remove_all(folder_ / "r/model");
      const fs::path path = folder_ / "r" / newest / file;
      std::string bytes = slurp(path);
      if (*how == 'f') bytes[bytes.size() * 2 / 3] ^= 4;
      if (*how == 'c') bytes.resize(bytes.size() / 2);
      if (*how == 'g')
        fs::remove(path);
      else
        std::ofstream(path, std::ios::binary) << bytes;
      const Ran r = train("r");
      ASSERT_EQ(r.code, 0) << file << how << r.err;
      const bool listed = file != "MANIFEST.json" || *how != 'g';
      EXPECT_EQ(r.out.find("damaged, so the one before it is taken: " + file) != std::string::npos, listed)
          << file << how << r.out;
      EXPECT_NE(r.out.find("goes on from r/checkpoints/step_4"), std::string::npos) << r.out;
      EXPECT_EQ(fs::exists(folder_ / "r/checkpoints/step_6.damaged"), listed);
      expect_same("r", whole);
    }
  std::ofstream(folder_ / "r/checkpoints/step_6/state.json") << "x";
  std::ofstream(folder_ / "r/checkpoints/step_4/state.json") << "x";
  expect_usage_error("dapo_train", "train.cfg --set trainer.run_dir=r", "no checkpoint can be read");
  EXPECT_EQ(train("r", "--overwrite").code, 0);
  expect_same("r", whole);
}

TEST_F(Checkpoints, WhatMayChangeAndWhatMayNot) {
  ASSERT_EQ(train("r", "--set trainer.total_steps=2").code, 0) << slurp(folder_ / "stderr");
  const auto refused = [&](const std::string& more, const std::string& part) {
    expect_usage_error("dapo_train", "train.cfg --set trainer.run_dir=r " + more, part);
  };
  refused("--set actor.lr=5e-6", "actor.lr = 5e-06 (was 1e-06)");
  refused("--set rollout.n=2 --set data.shuffle=false", "data.shuffle = false (was true), rollout.n = 2 (was 4)");
  refused("--set model.dtype=f32", "model.dtype = \"f32\" (was \"auto\")");
  const std::string rows = slurp(folder_ / "data/train.jsonl");
  write("fewer.jsonl", rows.substr(rows.find('\n') + 1));
  refused("--set data.train_files=fewer.jsonl", "not the rows that the run was begun with");
  refused("--resume no", "already holds a run");
  refused("--resume data", "not a checkpoint");
  write("same.jsonl", rows);
  const Ran longer = train("r",
                           "--set data.train_files=same.jsonl --set eval.every=3 --set trainer.save_every=1 --set "
                           "rollout.max_num_seqs=4 --set rollout.page_size=128 --set reward.workers=1");
  ASSERT_EQ(longer.code, 0) << longer.err;
  EXPECT_NE(longer.out.find("goes on from r/checkpoints/step_2"), std::string::npos) << longer.out;
  ASSERT_EQ(train("whole").code, 0);
  EXPECT_TRUE(slurp(folder_ / "r/model/model.safetensors") == slurp(folder_ / "whole/model/model.safetensors"));

  // a complete run is complete
  const Ran again = train("whole");
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.out.find("done after step 6"), std::string::npos) << again.out;
  // an older checkpoint of the same run drops the newer ones, so it has to be asked for
  refused("--resume r/checkpoints/step_5", "already holds a run");
  const Ran back = train("r", "--resume r/checkpoints/step_5 --overwrite --set trainer.save_every=0");
  EXPECT_EQ(back.code, 0) << back.err;
  EXPECT_NE(back.out.find("step 6/6"), std::string::npos) << back.out;
  EXPECT_EQ(back.out.find("step 5/6"), std::string::npos) << back.out;
  EXPECT_TRUE(slurp(folder_ / "r/model/model.safetensors") == slurp(folder_ / "whole/model/model.safetensors"));
  // another run may begin at a checkpoint of this one, with its own metrics
  const Ran fork = train("fork", "--resume whole/checkpoints/step_4");
  EXPECT_EQ(fork.code, 0) << fork.err;
  EXPECT_TRUE(slurp(folder_ / "fork/model/model.safetensors") == slurp(folder_ / "whole/model/model.safetensors"));
  EXPECT_EQ(slurp(folder_ / "fork/metrics.jsonl").find("{\"step\": 5,"), 0u);
}

TEST_F(Checkpoints, TheNewestAndTheBestStay) {
  ASSERT_EQ(train("r", "--set trainer.save_every=1 --set trainer.keep_best=reward/mean").code, 0);
  std::istringstream lines(slurp(folder_ / "r/metrics.jsonl"));
  double best = -1e9;
  int64_t best_step = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line);
    if (json.contains("reward/mean") && json["reward/mean"] > best)
      best = json["reward/mean"], best_step = json["step"];
  }
  std::set<int64_t> left, want = {5, 6, best_step};
  for (const Checkpoint& c : checkpoints_of((folder_ / "r").string())) left.insert(c.step);
  EXPECT_EQ(left, want);
  EXPECT_EQ(fs::read_symlink(folder_ / "r/checkpoints/best"), "step_" + std::to_string(best_step));
  EXPECT_EQ(run("dapo", "score --model r/checkpoints/best/model -", "{\"text\": \"abc\"}").code, 0);

  write("r/checkpoints/step_5/notes", "mine");
  ASSERT_EQ(
      train("r", "--set trainer.save_every=1 --set trainer.keep_best=reward/mean --set trainer.total_steps=8").code, 0);
  EXPECT_EQ(slurp(folder_ / "r/checkpoints/step_5/notes"), "mine");
  EXPECT_FALSE(fs::exists(folder_ / "r/checkpoints/step_5/MANIFEST.json"));
  ASSERT_EQ(train("all", "--set trainer.save_every=1 --set trainer.keep=0").code, 0);
  EXPECT_EQ(checkpoints_of((folder_ / "all").string()).size(), 6u);
}

}  // namespace
}  // namespace dapo
