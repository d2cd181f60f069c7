// Interrupts, full disks and inputs that do not match, as seen by a user.
#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/check.h"
#include "host/app/folders.h"
#include "host/app/interrupt.h"
#include "host/app/json_lines.h"
#include "tests/host/app/cli.h"

namespace dapo {
namespace {

using Json = nlohmann::json;

class Faults : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (!IsSkipped()) make_model();
  }
  /// Exit code 3, one line that contains `part`; no temporary file is left.
  void expect_disk_error(const Ran& r, const std::string& part) {
    EXPECT_EQ(r.code, kExitResources) << r.out << r.err;
    EXPECT_NE(r.err.find(part), std::string::npos) << r.err;
    for (const auto& entry : fs::recursive_directory_iterator(folder_))
      EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  }
  /// Starts a program, waits until `condition`, in the shell, holds, sends `signal`, and returns what it was (code 99: it
  /// ended before). Sets `seconds` to the time from the signal to its end.
  Ran interrupt_when(const std::string& command, const std::string& condition, const std::string& signal,
                     double& seconds) {
    write("stdout", "");  // discards the output of earlier programs
    write("script", "set -m\nenv --default-signal " + (programs_ / command).string() +
                        " >stdout 2>stderr & p=$!; until " + condition +
                        "; do kill -0 $p || exit 99; sleep 0.1; done; date +%s.%N >signalled; kill -" + signal +
                        " $p; wait $p; code=$?; date +%s.%N >ended; exit $code\n");
    const int status = std::system(("cd " + folder_.string() + " && bash script").c_str());
    const auto time = [&](const char* name) { return std::atof(slurp(folder_ / name).c_str()); };
    seconds = time("ended") - time("signalled");
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, slurp(folder_ / "stdout"), slurp(folder_ / "stderr")};
  }
  /// The same, once its output contains `text`: its exit code.
  int interrupt(const std::string& command, const std::string& text, const std::string& signal) {
    double seconds = 0;
    return interrupt_when(command, "grep -qs '" + text + "' stdout", signal, seconds).code;
  }
  void write_sft(int steps) { write("more.cfg", sft_config("tuned", "more", steps)); }
  void write_train(const std::string& rows = "rows.jsonl", int steps = 1) {
    write("train.cfg", "[model]\npath = \"tuned\"\nthreads = 1\n[data]\ntrain_files = \"" + rows +
                           "\"\nprompt_template = \"raw\"\nmax_prompt_length = 48\nmax_response_length = 8\n"
                           "train_batch_size = 2\n[rollout]\nn = 2\n[actor]\nppo_mini_batch_size = 2\n[algorithm]\n"
                           "filter_groups = false\n[reward]\noverlong_buffer = false\n[trainer]\ntotal_steps = " +
                           std::to_string(steps) + "\n");
  }
};

TEST_F(Faults, InterruptedTrainingSavesAndExits) {
  write_train("data/train.jsonl", 100000);
  EXPECT_EQ(interrupt("dapo_train train.cfg --set trainer.stuck_patience=0", "step 2/", "INT"), kExitInterrupted)
      << slurp(folder_ / "stdout") << slurp(folder_ / "stderr");
  const Ran next = run("dapo_train", "train.cfg --set trainer.total_steps=1");
  EXPECT_EQ(next.code, 0) << next.err;
  EXPECT_NE(next.out.find("goes on from runs/run/checkpoints/step_"), std::string::npos) << next.out;
  EXPECT_TRUE(fs::exists(folder_ / "runs/run/model/model.safetensors"));
}

TEST_F(Faults, NumbersThatGoBadLeaveTheLastGoodWeightsAndTheRollouts) {
  write_train("data/train.jsonl");
  // Rewards beyond the range of float: every advantage is NaN, every update is rejected.
  const Ran r = run("dapo_train", "train.cfg --set reward.incorrect=-1e300 --set trainer.nonfinite_patience=1");
  EXPECT_EQ(r.code, kExitNumerics) << r.out << r.err;
  EXPECT_NE(r.err.find("weights of the last good update are in runs/run/models/step_1"), std::string::npos) << r.err;
  EXPECT_EQ(slurp(folder_ / "runs/run/models/step_1/model.safetensors"), slurp(folder_ / "tuned/model.safetensors"));
  EXPECT_TRUE(fs::exists(folder_ / "runs/run/rollouts/step_1.jsonl"));
  EXPECT_NE(r.out.find("--replay runs/run/replays/step_1-1"), std::string::npos) << r.out;
  const Ran again = run("dapo_train", "train.cfg --set reward.incorrect=-1e300 --replay runs/run/replays/step_1-1");
  EXPECT_EQ(again.code, kExitNumerics) << again.err;
  EXPECT_NE(again.out.find("response 0, token 0 (id "), std::string::npos) << again.out;
  EXPECT_NE(again.out.find("advantage = nan"), std::string::npos) << again.out;
  EXPECT_EQ(run("dapo_train", "train.cfg --replay runs/run/replays/step_1-1").code, kExitUsage) << "other settings";
}

TEST_F(Faults, FineTuningThatGoesBadLeavesTheOlderModel) {
  const std::string before = slurp(folder_ / "tuned/model.safetensors");
  const Ran r = run("dapo", "sft sft.cfg --overwrite --set sft.steps=20 --set sft.lr=1e30");
  EXPECT_EQ(r.code, kExitNumerics) << r.out << r.err;
  EXPECT_EQ(slurp(folder_ / "tuned/model.safetensors"), before);
  EXPECT_NE(r.err.find("are in tuned.failed"), std::string::npos) << r.err;
  EXPECT_TRUE(fs::exists(folder_ / "tuned.failed/model.safetensors"));
}

TEST_F(Faults, InterruptedFineTuningSavesAndExits) {
  write_sft(1000000);
  EXPECT_EQ(interrupt("dapo sft more.cfg", "sft 1/", "TERM"), kExitInterrupted) << slurp(folder_ / "stderr");
  EXPECT_TRUE(fs::exists(folder_ / "more/model.safetensors"));
  EXPECT_EQ(run("dapo", "score --model more -", "{\"text\": \"abc\"}").code, 0);
}

TEST(Interrupts, ASecondOneExitsAtOnce) {
  const auto signals = [](int count) {
    catch_interrupts();
    for (int i = 0; i < count; ++i) raise(SIGINT);
    exit(interrupted() ? 7 : 8);
  };
  EXPECT_EXIT(signals(1), testing::ExitedWithCode(7), "a second signal quits without saving");
  EXPECT_EXIT(signals(2), testing::ExitedWithCode(kExitInterrupted), "");
}

TEST_F(Faults, AFullDiskLeavesOlderFilesUnchanged) {
  write_sft(1);
  ASSERT_EQ(run("dapo", "sft more.cfg").code, 0);
  const std::string before = slurp(folder_ / "more/model.safetensors");
  const Ran r = shell("ulimit -f 64; exec " + (programs_ / "dapo").string() + " sft more.cfg --overwrite");
  expect_disk_error(r, "model.safetensors");
  EXPECT_EQ(slurp(folder_ / "more/model.safetensors"), before);

  write_train();
  write("rows.jsonl", "{\"prompt\": \"1+1\", \"answer\": \"2\"}\n{\"prompt\": \"1+2\", \"answer\": \"3\"}\n");
  const Ran t = shell("ulimit -f 64; exec " + (programs_ / "dapo_train").string() + " train.cfg");
  expect_disk_error(t, "optimizer.safetensors");
  EXPECT_FALSE(fs::exists(folder_ / "runs/run/model"));
  if (fs::exists("/dev/full")) {
    const Ran v =
        run("dapo", "verify - 2>stderr >/dev/full; exit $?", "{\"solution\": \"a\", \"ground_truth\": \"a\"}");
    EXPECT_EQ(v.code, kExitResources);
  }
}

// A limit on the size of files simulates the full disk; prlimit lifts it during the run.
TEST_F(Faults, ARunSurvivesAFullDisk) {
  if (shell("command -v prlimit").code != 0) GTEST_SKIP() << "skipped: prlimit (util-linux) is not installed";
  write_train("data/train.jsonl", 100000);
  write("train.cfg", slurp(folder_ / "train.cfg") + "save_every = 3\nstuck_patience = 0\n");
  write("script",
        "cd " + folder_.string() +
            "; says() { until grep -qs \"$1\" out; do [ ! -e code ] || exit 99; sleep 0.1; done; }\n(ulimit -S -f 8; " +
            (programs_ / "dapo_train").string() +
            " train.cfg & echo $! >pid; wait $!; echo $? >code) 2>&1 | cat >out &\n" +
            "says 'kept and tried again'; says 'tried again after the next step'; prlimit --pid $(cat pid) "
            "--fsize=unlimited; says 'is complete again'; kill -TERM $(cat pid); wait\n");
  const int status = std::system(("bash " + (folder_ / "script").string()).c_str());
  const std::string out = slurp(folder_ / "out");
  ASSERT_EQ(WEXITSTATUS(status), 0) << out;
  EXPECT_EQ(slurp(folder_ / "code"), "130\n") << out;
  EXPECT_FALSE(fs::is_empty(folder_ / "runs/run/checkpoints"));
  std::ifstream lines(folder_ / "runs/run/metrics.jsonl");
  int step = 0;
  for (std::string line; std::getline(lines, line);) EXPECT_EQ(Json::parse(line)["step"], ++step) << "none is lost";
  EXPECT_GT(step, 3);
}

TEST_F(Faults, ASignalBeforeThereIsAnythingToSave) {
  // Waits for input that never comes; bit 14 of SigCgt: SIGTERM is caught.
  const Ran r =
      shell("mkfifo in; " + (programs_ / "dapo").string() +
            " verify - <>in & p=$!; until [ $((0x$(sed -n 's/SigCgt:.//p' /proc/$p/status) & 0x4000)) != 0 ]; "
            "do kill -0 $p || exit 99; sleep 0.02; done; kill -TERM $p; wait $p");
  EXPECT_EQ(r.code, kExitInterrupted) << r.err;
  EXPECT_EQ(r.err, "\ninterrupted\n");
}

TEST_F(Faults, ASignalEndsAnEvaluationAtOnce) {
  write_train("data/train.jsonl", 100);
  std::string val;
  for (int i = 0; i < 64; ++i) val += "{\"prompt\": \"" + std::to_string(i) + "\", \"answer\": \"0\"}\n";
  write("val.jsonl", val);
  const std::string slow =
      " --set data.val_files=val.jsonl --set eval.before_train=false --set eval.every=1 --set eval.n=64 --set "
      "data.max_response_length=400 --set rollout.ignore_eos=true --set trainer.run_dir=";
  for (const char* signal : {"TERM", "HUP"}) {
    const std::string dir = std::string("r") + signal;
    double seconds = 0;
    const Ran r = interrupt_when("dapo_train train.cfg" + slow + dir, "grep -qs 'step 1/' stdout", signal, seconds);
    EXPECT_EQ(r.code, kExitInterrupted) << r.err;
    EXPECT_LT(seconds, 60) << "the evaluation, 1.6 million tokens, would take minutes";
    EXPECT_TRUE(fs::exists(folder_ / dir / "checkpoints/step_1/model/model.safetensors"));
    EXPECT_EQ(slurp(folder_ / dir / "metrics.jsonl"), "") << "the line is written with its evaluation, on a resume";
    EXPECT_EQ(slurp(folder_ / "stdout").find("eval after"), std::string::npos);
  }
  const std::string eval =
      "dapo eval --model tuned --data val.jsonl -n 64 --max-new-tokens 400 --template raw --threads 1 --set "
      "rollout.ignore_eos=true -o all.jsonl";
  EXPECT_EQ(interrupt(eval, "cpu", "TERM"), kExitInterrupted) << slurp(folder_ / "stderr");
  EXPECT_NE(slurp(folder_ / "stderr").find("so nothing is reported"), std::string::npos);
  EXPECT_EQ(slurp(folder_ / "stdout").find("avg@"), std::string::npos);
  for (const auto& entry : fs::directory_iterator(folder_))
    EXPECT_EQ(entry.path().filename().string().find("all.jsonl"), std::string::npos) << entry.path();
}

TEST_F(Faults, ASignalInARolloutKeepsWhatIsDrawn) {
  write_train("data/train.jsonl", 2);
  // 800 responses of 400 tokens, one after the other: interrupted when the first has been drawn, as the reward's program,
  // which is tried with an empty response before the run, tells
  write("judge.sh",
        "while read -r line; do case \"$line\" in *'\"response\":\"\"'*) ;; *) : >judged ;; esac; echo '{\"acc\": "
        "true}'; done\n");
  double seconds = 0;
  const Ran r = interrupt_when(
      "dapo_train train.cfg --set data.max_response_length=400 --set rollout.n=4 --set rollout.max_num_seqs=1 --set "
      "data.train_batch_size=200 --set rollout.ignore_eos=true --set reward.verifier=command --set 'reward.command=sh "
      "judge.sh'",
      "[ -e judged ]", "TERM", seconds);
  EXPECT_EQ(r.code, kExitInterrupted) << r.err;
  EXPECT_LT(seconds, 60);
  EXPECT_NE(r.out.find("in the rollout of step 1, which is kept: saved in runs/run/checkpoints/step_0-open"),
            std::string::npos)
      << r.out;
  EXPECT_GT(fs::file_size(folder_ / "runs/run/checkpoints/step_0-open/groups.safetensors"), 2000u);
  EXPECT_FALSE(fs::exists(folder_ / "runs/run/model"));
  EXPECT_EQ(slurp(folder_ / "runs/run/metrics.jsonl"), "");
}

TEST_F(Faults, AnInterruptedGenerationKeepsWhatIsComplete) {
  std::string prompts;
  for (int i = 0; i < 3000; ++i) prompts += "{\"ids\": [49, 43, 50]}\n";
  write("prompts.jsonl", prompts);
  double seconds = 0;
  const Ran r = interrupt_when(
      "dapo generate --model tuned --prompts prompts.jsonl --batch 1 --max-new-tokens 100 --threads 1 -o out.jsonl",
      "[ -s out.jsonl.*.tmp ]", "TERM", seconds);
  EXPECT_EQ(r.code, kExitInterrupted) << r.err;
  EXPECT_FALSE(fs::exists(folder_ / "out.jsonl"));
  int rows = 0;
  read_rows((folder_ / "out.jsonl.partial").string(), [&](const JsonRow& row) {
    ++rows;
    EXPECT_TRUE(row.has("ids"));
  });
  EXPECT_NE(r.err.find(std::to_string(rows) + " of 3000 prompts are complete, in"), std::string::npos) << r.out;
}

TEST_F(Faults, LostOutputIsAnError) {
  const std::string rows = "{\"solution\": \"Answer: 1\", \"ground_truth\": \"1\"}\n";
  write("rows.jsonl", rows);
  const std::string dapo = (programs_ / "dapo").string() + " ";
  const std::string eval =
      "eval --model tuned --data data/test.jsonl -n 1 --max-problems 2 --max-new-tokens 4 --template "
      "raw --threads 1 --set eval.pass_k=1";
  for (const std::string& command :
       {std::string("verify rows.jsonl"), eval, std::string("--version"), std::string("--help"),
        std::string("generate --model tuned --prompt 1 --template raw --max-new-tokens 4")})
    for (const char* to : {" >&-", " >/dev/full"}) {
      const Ran r = shell(dapo + command + to);
      EXPECT_EQ(r.code, kExitResources) << command << to << r.err;
      EXPECT_NE(r.err.find("standard output: "), std::string::npos) << command << to << r.err;
    }
  write("script",
        dapo +
            "generate --model tuned --prompt 1 --template raw -n 5000 --max-new-tokens 1 | head -1 >first; exit "
            "${PIPESTATUS[0]}");
  EXPECT_EQ(shell("bash script").code, kExitResources);
  EXPECT_EQ(shell(dapo + "verify - <&-").code, kExitUsage);
}

TEST_F(Faults, TrainingSurvivesAClosedStandardOutput) {
  write_train("data/train.jsonl", 3);
  const std::string train = (programs_ / "dapo_train").string() + " train.cfg --set trainer.run_dir=";
  int number = 0;
  for (const char* to : {" >&-", " >/dev/full", " <&- >&- 2>&-", " | head -1"}) {
    const std::string dir = "r" + std::to_string(number++);
    write("script", train + dir + to + "; exit ${PIPESTATUS[0]}");
    const Ran r = shell("bash script");
    EXPECT_EQ(r.code, 0) << to << r.err;
    EXPECT_TRUE(fs::exists(folder_ / dir / "model/model.safetensors"));
    EXPECT_EQ(slurp(folder_ / dir / "config.resolved.cfg").substr(0, 8), "[model]\n");
    int lines = 0;
    read_rows((folder_ / dir / "metrics.jsonl").string(),
              [&](const JsonRow& row) { EXPECT_EQ(row.integer("step"), ++lines); });
    EXPECT_EQ(lines, 3);
    const std::string log = slurp(folder_ / dir / "log.txt");
    for (const char* part :
         {"dapo_train 0.", "commit ", "tuned/model.safetensors", "data/train.jsonl", "step 3/3", "done after"})
      EXPECT_NE(log.find(part), std::string::npos) << to << part << log;
  }
}

TEST_F(Faults, ForeignFoldersAreNotReplaced) {
  write_train("data/train.jsonl");
  write("box/models/qwen/x", "w");
  fs::create_directories(folder_ / "box/m2");
  for (const char* out : {"box/models", "box/m2/..", "model", "."})
    for (const char* flag : {"", " --overwrite"})
      expect_usage_error("dapo", std::string("sft sft.cfg --set sft.out=") + out + flag,
                         "this program did not write it");
  expect_usage_error("dapo", "sft sft.cfg --set model.path=tuned", "tuned: already holds a model");
  write("mine/model/x", "w");
  write("mine/rollouts/step_1.jsonl", "w");
  for (const char* flag : {"", " --overwrite"})
    expect_usage_error("dapo_train", std::string("train.cfg --set trainer.run_dir=mine") + flag,
                       "no run of this program");
  expect_usage_error("dapo_train", "train.cfg --set trainer.run_dir=train.cfg/x", "train.cfg/x: cannot be made: ");
  ASSERT_EQ(run("dapo_train", "train.cfg").code, 0);
  write("runs/run/notes", "w");
  write("runs/run/rollouts/step_x.jsonl", "w");
  write("runs/run/model/sub/x", "w");
  ASSERT_EQ(run("dapo_train", "train.cfg --overwrite").code, 0);
  for (const char* file : {"box/models/qwen/x", "mine/model/x", "mine/rollouts/step_1.jsonl", "runs/run/notes",
                           "runs/run/rollouts/step_x.jsonl", "runs/run/model/sub/x"})
    EXPECT_EQ(slurp(folder_ / file), "w") << file;
  expect_usage_error("dapo", "chain .", "exists; name another path");
  const FolderLock other((folder_ / "runs/run").string());
  expect_usage_error("dapo_train", "train.cfg --overwrite", "is writing there");
}

TEST_F(Faults, ARunThatLearnsNothingStops) {
  write_train("rows.jsonl", 100);
  write("rows.jsonl",
        "{\"prompt\": \"1\", \"answer\": \"never said\"}\n{\"prompt\": \"2\", \"answer\": \"nor this\"}\n");
  const Ran r = run("dapo_train", "train.cfg --set trainer.stuck_patience=3");
  EXPECT_EQ(r.code, kExitNumerics) << r.out << r.err;
  EXPECT_NE(r.err.find("nothing to learn from in 3 steps"), std::string::npos) << r.err;
  EXPECT_NE(r.out.find("stopped after step 3: model in runs/run/model"), std::string::npos) << r.out;
  EXPECT_TRUE(fs::exists(folder_ / "runs/run/model/model.safetensors"));
}

TEST_F(Faults, RowsThatCannotBeTrainedOn) {
  write_train();
  const std::string good = "{\"prompt\": \"1+1\", \"answer\": \"2\"}\n";
  for (const auto& [rows, part] :
       {std::pair<std::string, std::string>{good + "{\"prompt\": ", "rows.jsonl:2: "},
        {good + "\n{\"prompt\": \"x\"}", "rows.jsonl:3: no answer"},
        {"", "rows.jsonl: no rows"},
        {"\n\n", "rows.jsonl: no rows"},
        {"{\"prompt\": \"" + std::string(100, '1') + "\", \"answer\": \"2\"}", "no training prompt is left"}}) {
    write("rows.jsonl", rows);
    expect_usage_error("dapo_train", "train.cfg", part);
    EXPECT_FALSE(fs::exists(folder_ / "runs")) << part;
  }
  fs::remove(folder_ / "rows.jsonl");
  expect_usage_error("dapo_train", "train.cfg", "rows.jsonl");
  write("rows.jsonl", good);
  expect_usage_error("dapo_train", "train.cfg --set data.max_prompt_length=2 --set data.overlong_prompts=error",
                     "row ");
}

TEST_F(Faults, CopiesOfAProblemAreLeftOutAndReported) {
  write_train();
  write("rows.jsonl",
        "{\"prompt\": \"1+1\", \"answer\": \"2\"}\n{\"prompt\": \"1+2\", \"answer\": \"3\"}\n"
        "{\"prompt\": \"1+1\", \"answer\": \"2\"}\n{\"prompt\": \"" +
            std::string(60, '1') + "\", \"answer\": \"2\"}\n");
  Ran r = run("dapo_train", "train.cfg --check");
  EXPECT_NE(r.out.find("2 prompts from 4 rows; left out: 1 longer than data.max_prompt_length = 48, 1 copies"),
            std::string::npos)
      << r.out << r.err;
  r = run("dapo_train", "train.cfg --check --set data.unique=false");
  EXPECT_NE(r.out.find("3 prompts from 4 rows"), std::string::npos) << r.out << r.err;
}

TEST_F(Faults, ModelsWhosePartsDoNotMatch) {
  const std::string config = slurp(folder_ / "tuned/config.json");
  const auto change = [&](const std::string& from, const std::string& to) {
    std::string text = config;
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    write("tuned/config.json", text);
  };
  change("\"vocab_size\": 264", "\"vocab_size\": 257");
  expect_usage_error("dapo", "score --model tuned -", "they do not match", "{\"text\": \"abc\"}");
  change("\"vocab_size\": 264", "\"vocab_size\": 272");
  expect_usage_error("dapo", "score --model tuned -", "embed_tokens", "{\"text\": \"abc\"}");
  change("\"vocab_size\": 264", "\"vocab_size\": 99999999999999999999");
  expect_usage_error("dapo", "score --model tuned -", "config.json", "{\"text\": \"abc\"}");
  write("tuned/config.json", config);
  write("tuned/generation_config.json", "{\"eos_token_id\": 5000}");
  expect_usage_error("dapo", "score --model tuned -", "eos_token_id 5000", "{\"text\": \"abc\"}");
  write("tuned/generation_config.json", "{\"eos_token_id\": 256}");
  write("tuned/tokenizer.json", "{}");
  expect_usage_error("dapo", "score --model tuned -", "tokenizer.json", "{\"text\": \"abc\"}");
}

}  // namespace
}  // namespace dapo
