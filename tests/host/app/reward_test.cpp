// Rewards and evaluation as a user runs them: programs as verifiers, terms, sets by name, two models compared.
#include <cstdlib>
#include <map>

#include "host/app/json_lines.h"
#include "tests/host/app/cli.h"

namespace dapo {
namespace {

class RewardTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (IsSkipped()) return;
    make_model();
    // right is what ends in an even digit, for any ground truth
    write("judge.sh",
          "while read -r line; do case \"$line\" in *[02468]'\",'*) s=1;; *) s=0;; esac; echo \"{\\\"score\\\": $s, "
          "\\\"pred\\\": \\\"even $s\\\"}\"; done\n");
    write(
        "slow.sh",
        "while read -r line; do echo '{\"acc\": true}'; read -r line || exit 0; echo $$ >slow.pid; sleep 1000; done\n");
    write("run.cfg",
          "[model]\npath = \"tuned\"\nthreads = 1\n[data]\ntrain_files = \"data/train.jsonl\"\nval_files = "
          "[\"data/test.jsonl\", \"few.jsonl\"]\nprompt_template = \"raw\"\nmax_prompt_length = 48\n"
          "max_response_length = 16\ntrain_batch_size = 4\n[rollout]\nn = 4\n[actor]\nppo_mini_batch_size = 2\n"
          "[algorithm]\nfilter_groups = false\n[reward]\noverlong_buffer_len = 4\n[eval]\nn = 2\nmax_problems = 4\n"
          "pass_k = [2]\n[trainer]\ntotal_steps = 1\n");
    write("few.jsonl", "{\"prompt\": \"1+1\", \"answer\": \"2\"}\n{\"prompt\": \"1+2\", \"answer\": \"3\"}\n");
  }
  /// The last JSON object among lines of output, by field.
  static std::string last_json(const std::string& out) {
    const size_t at = out.rfind("\n{");
    return at == out.npos ? "" : out.substr(at + 1, out.find('\n', at + 1) - at - 1);
  }
  /// Whether a process is gone, or will be once its new parent reaps it.
  static bool soon_gone(const std::string& pid) {
    const auto gone = [&] {
      const std::string stat = slurp("/proc/" + pid + "/stat");
      return stat.empty() || stat.find(") Z ") != std::string::npos;
    };
    for (int i = 0; i < 10000 && !gone(); ++i) usleep(10000);  // by itself it would run ten times as long
    return gone();
  }
  /// Starts a program whose verifier is slow.sh, sends `signal` once that is stuck, and waits. Sets `stuck` to the process
  /// id of slow.sh, and `seconds` to the time from the signal to the end.
  Ran signal_while_stuck(const std::string& command, const std::string& signal, std::string& stuck, double& seconds) {
    write("script", (programs_ / command).string() +
                        " & p=$!; until [ -s slow.pid ] || ! kill -0 $p; do sleep .1; done; "
                        "date +%s.%N >signalled; kill -" +
                        signal + " $p; wait $p; code=$?; date +%s.%N >ended; exit $code\n");
    const Ran r = shell("bash script");
    stuck = slurp(folder_ / "slow.pid");
    stuck = stuck.substr(0, stuck.find('\n'));
    EXPECT_FALSE(stuck.empty()) << r.out << r.err;
    seconds = std::atof(slurp(folder_ / "ended").c_str()) - std::atof(slurp(folder_ / "signalled").c_str());
    return r;
  }
};

TEST_F(RewardTest, VerifyWithAProgram) {
  const std::string rows =
      "{\"response\": \"12\", \"ground_truth\": \"x\", \"id\": \"7\"}\n{\"response\": \"13\", \"ground_truth\": "
      "\"x\"}\n";
  Ran r = run("dapo", "verify --verifier command --command 'sh judge.sh' -", rows);
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out,
            "{\"score\": 1, \"acc\": true, \"pred\": \"even 1\", \"reason\": \"right\"}\n"
            "{\"score\": 0, \"acc\": false, \"pred\": \"even 0\", \"reason\": \"wrong\"}\n");
  EXPECT_EQ(r.err, "");
  r = run("dapo", "verify --verifier command --command 'sh -c \"exit 3\"' -", rows);
  EXPECT_EQ(r.code, 0);
  EXPECT_EQ(
      r.err,
      "dapo: 2 of 2 responses could not be judged; the first error: reward.command \"sh\" ended with exit code 3\n");
  EXPECT_NE(r.out.find("\"reason\": \"error: "), std::string::npos) << r.out;
  r = run("dapo", "verify --verifier format --pattern '1*' -",
          rows + "{\"response\": \"2\", \"ground_truth\": \"x\"}\n");
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 3);
  EXPECT_NE(r.out.find("\"acc\": false, \"pred\": \"\", \"reason\": \"\\\"1\\\" is not at the beginning\""),
            std::string::npos)
      << r.out;
  expect_usage_error("dapo", "verify --verifier command -", "reward.command is not set", rows);
  expect_usage_error("dapo", "verify --verifier command --command no-such-thing -", "cannot be started", rows);
  expect_usage_error("dapo", "verify --command x -", "--command belongs to command", rows);
  expect_usage_error("dapo", "verify --pattern x -", "--pattern belongs to format", rows);
  expect_usage_error("dapo", "verify --timeout 0 -", "--timeout 0", rows);
  expect_usage_error("dapo", "verify --workers 0 -", "--workers 0", rows);
}

TEST_F(RewardTest, AProgramIsGoneWhenOursIsKilled) {
  write("rows.jsonl",
        "{\"response\": \"1\", \"ground_truth\": \"x\"}\n{\"response\": \"2\", \"ground_truth\": \"x\"}\n");
  std::string pid;
  double seconds = 0;
  signal_while_stuck("dapo verify --verifier command --command 'sh slow.sh' --timeout 1000 --workers 1 rows.jsonl",
                     "KILL", pid, seconds);
  EXPECT_TRUE(soon_gone(pid)) << pid;
}

TEST_F(RewardTest, ASignalDoesNotWaitForAProgram) {
  std::string pid;
  double seconds = 0;
  const Ran r = signal_while_stuck(
      "dapo_train run.cfg --set reward.verifier=command --set 'reward.command=sh slow.sh' --set reward.timeout=1000 "
      "--set "
      "reward.workers=1 --set eval.before_train=false",
      "TERM", pid, seconds);
  EXPECT_EQ(r.code, 130) << r.out << r.err;
  EXPECT_LT(seconds, 60) << "the answer would come after 1000 s";
  EXPECT_TRUE(soon_gone(pid)) << pid;
}

TEST_F(RewardTest, AProgramThatDoesNotWorkIsAnErrorBeforeTheRun) {
  const std::string with = "run.cfg --set reward.verifier=command --set ";
  expect_usage_error("dapo_train", with + "reward.command=absent-program", "\"absent-program\" cannot be started");
  expect_usage_error("dapo_train", with + "'reward.command=sh -c \"echo no module >&2; exit 1\"'",
                     "ended with exit code 1: no module, when it is tried with an empty response");
  expect_usage_error("dapo_train", with + "'reward.command=sh -c \"read x; echo ready\"'", "printed what is not JSON");
  expect_usage_error("dapo", "eval " + with + "reward.command=absent-program", "cannot be started");
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(RewardTest, TermsAndSetsAreLoggedApart) {
  const Ran r = run("dapo_train",
                    "run.cfg --set 'reward.terms=[{name = \"even\", verifier = \"command\", command = \"sh judge.sh\", "
                    "weight = 0.5}, {name = \"long\", verifier = \"format\", pattern = \"*=*\"}]'");
  ASSERT_EQ(r.code, 0) << r.err;
  std::map<int64_t, bool> steps;
  read_rows((folder_ / "runs/run/metrics.jsonl").string(), [&](const JsonRow& row) {
    const int64_t step = row.integer("step");
    steps[step] = true;
    for (const char* name : {"eval/avg", "eval/test/avg", "eval/test/pass@2_low", "eval/few/avg", "eval/few/maj_high"})
      EXPECT_TRUE(row.has(name)) << name;
    EXPECT_FALSE(row.has("eval/low"));
    EXPECT_EQ(row.integer("eval/few/problems"), 2);
    if (step == 0) return;
    for (const char* name : {"reward/term/verifier", "reward/term/even", "reward/term/long"})
      EXPECT_TRUE(row.has(name)) << name;
    EXPECT_NEAR(std::stod(row.text("reward/mean")),
                std::stod(row.text("reward/term/verifier")) + 0.5 * std::stod(row.text("reward/term/even")) +
                    std::stod(row.text("reward/term/long")),
                1e-5);
  });
  EXPECT_EQ(steps.size(), 2u);
  read_rows((folder_ / "runs/run/rollouts/step_1.jsonl").string(), [&](const JsonRow& row) {
    const std::string terms = row.json("terms");
    EXPECT_EQ(std::count(terms.begin(), terms.end(), ','), 2) << terms;
  });
  for (const char* file : {"step_0", "step_1"}) {
    std::map<std::string, int> rows;
    read_rows((folder_ / "runs/run/eval" / file).string() + ".jsonl", [&](const JsonRow& row) {
      ++rows[row.text("set")];
      for (const char* field : {"id", "response", "pred", "reason", "acc"}) EXPECT_TRUE(row.has(field));
    });
    EXPECT_EQ(rows, (std::map<std::string, int>{{"test", 8}, {"few", 4}}));
  }
  EXPECT_NE(r.out.find("eval after step 1, few: avg@2 "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find(", 512 + 2 test rows"), std::string::npos) << r.out;
  EXPECT_EQ(run("dapo_train", "runs/run/config.resolved.cfg --overwrite --set trainer.log_rollouts=false").code, 0);
  EXPECT_TRUE(fs::is_empty(folder_ / "runs/run/eval"));
}

TEST_F(RewardTest, TrainingAndEvalReportTheSameNumbers) {
  ASSERT_EQ(run("dapo_train", "run.cfg --set eval.before_train=false").code, 0);
  const Ran r = run("dapo", "eval run.cfg --model runs/run/model -o responses.jsonl");
  ASSERT_EQ(r.code, 0) << r.err;
  write("eval.json", last_json(r.out) + "\n");
  std::map<std::string, std::string> training;
  const std::vector<std::string> names = {"eval/test/avg",         "eval/test/low",    "eval/test/pass@2",
                                          "eval/test/length_mean", "eval/test/tokens", "eval/test/maj",
                                          "eval/few/avg",          "eval/few/high"};
  read_rows((folder_ / "runs/run/metrics.jsonl").string(), [&](const JsonRow& row) {
    for (const std::string& name : names) training[name] = row.text(name.c_str());
  });
  read_rows((folder_ / "eval.json").string(), [&](const JsonRow& row) {
    for (const std::string& name : names) EXPECT_EQ(row.text(name.c_str()), training[name]) << name;
  });
  EXPECT_EQ(slurp(folder_ / "responses.jsonl"), slurp(folder_ / "runs/run/eval/step_1.jsonl"));
}

TEST_F(RewardTest, TwoModelsAreComparedOnTheSameProblems) {
  write("more.cfg", sft_config("tuned", "better", 30));
  ASSERT_EQ(run("dapo", "sft more.cfg").code, 0);
  Ran r = run("dapo", "eval run.cfg tuned better --data data/test.jsonl --max-problems 30 -o both.jsonl");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("better against tuned: avg "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("paired by problem)  better on "), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("of 30 problems"), std::string::npos) << r.out;
  std::map<std::string, double> avg;
  std::map<std::string, std::string> first_id;
  read_rows((folder_ / "both.jsonl").string(), [&](const JsonRow& row) {
    avg[row.text("model")] += row.flag("acc") / 60.0;
    first_id.emplace(row.text("model"), row.text("id"));
  });
  EXPECT_EQ(first_id["tuned"], first_id["better"]);
  write("difference.json", last_json(r.out) + "\n");
  read_rows((folder_ / "difference.json").string(), [&](const JsonRow& row) {
    EXPECT_EQ(row.text("baseline"), "tuned");
    EXPECT_NEAR(std::stod(row.text("difference/avg")), avg["better"] - avg["tuned"], 1e-9);
    EXPECT_LT(std::stod(row.text("difference/low")), std::stod(row.text("difference/high")));
    EXPECT_EQ(row.integer("difference/problems"), 30);
  });
  r = run("dapo",
          "eval tuned tuned --data data/test.jsonl few.jsonl --template raw --max-problems 3 -n 1 "
          "--max-new-tokens 8 --threads 1 --set eval.pass_k=1");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("tuned against tuned, few: avg +0.0 points (-"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("\"difference/test/avg\": 0, "), std::string::npos) << r.out;

  expect_usage_error("dapo", "eval tuned tuned tuned --data few.jsonl", "two models at most");
  expect_usage_error("dapo", "eval run.cfg run.cfg", "one config at most");
  expect_usage_error("dapo", "eval tuned absent --data few.jsonl", "absent: no such folder");
}

TEST_F(RewardTest, KnownSetsThatAreNotThereSayHowToFetchThem) {
  expect_usage_error("dapo", "eval tuned --data aime-2024",
                     "datasets/aime-2024.parquet is not there; fetch it with data/download.sh aime-2024");
  expect_usage_error("dapo_train", "run.cfg --set data.val_files=math-500", "data/download.sh math-500");
  write("datasets/math-500.jsonl", "{\"problem\": \"1+1\", \"answer\": \"2\"}\n");
  const Ran r = run("dapo",
                    "eval tuned --data math-500 --template raw -n 1 --max-new-tokens 4 --threads 1 --set "
                    "eval.pass_k=1 -o out.jsonl");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(slurp(folder_ / "out.jsonl").find("\"set\": \"math-500\""), std::string::npos);
}

}  // namespace
}  // namespace dapo
