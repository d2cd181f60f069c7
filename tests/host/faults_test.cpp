// Interrupts, full disks and inputs that do not fit one another, as a user meets them.
#include <csignal>

#include "core/check.h"
#include "host/interrupt.h"
#include "tests/host/cli.h"

namespace dapo {
namespace {

class Faults : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (!IsSkipped()) make_model();
  }
  /// Exit code 3, one line that holds `part`; nothing under a temporary name is left.
  void expect_disk_error(const Ran& r, const std::string& part) {
    EXPECT_EQ(r.code, kExitResources) << r.out << r.err;
    EXPECT_NE(r.err.find(part), std::string::npos) << r.err;
    for (const auto& entry : fs::recursive_directory_iterator(folder_))
      EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  }
  /// Starts a program, waits until its output holds `text`, sends `signals`, and gives the exit code (99: no such
  /// text).
  int interrupt(const std::string& command, const std::string& text, const std::string& signals) {
    write("stdout", "");  // what a program before it said is not waited for
    write("script",
          "set -m\ncd " + folder_.string() + "; " + (programs_ / command).string() +
              " >stdout 2>stderr & p=$!; (sleep 120; kill -9 $p 2>/dev/null) & watch=$!; seen=; for i in "
              "$(seq 300); do grep -qs '" +
              text + "' stdout && seen=1 && break; sleep 0.1; done; for s in " + signals +
              "; do kill -$s $p; sleep 0.01; done; wait $p; code=$?; kill -- -$watch; [ -n \"$seen\" ] || exit "
              "99; exit $code\n");
    const int status = std::system(("bash " + (folder_ / "script").string()).c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
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

TEST_F(Faults, InterruptedTrainingSavesAndLeaves) {
  write_train("data/train.jsonl", 100000);
  EXPECT_EQ(interrupt("dapo_train train.cfg", "step 2/", "INT"), kExitInterrupted)
      << slurp(folder_ / "stdout") << slurp(folder_ / "stderr");
  EXPECT_TRUE(fs::exists(folder_ / "runs/run/model/model.safetensors"));
}

TEST_F(Faults, NumbersThatGoBadLeaveTheLastGoodWeightsAndTheRollouts) {
  write_train("data/train.jsonl");
  // Rewards that no float holds: each advantage is NaN, each update refused.
  const Ran r = run("dapo_train", "train.cfg --set reward.incorrect=-1e300 --set trainer.nonfinite_patience=1");
  EXPECT_EQ(r.code, kExitNumerics) << r.out << r.err;
  EXPECT_NE(r.err.find("weights of the last good update are in runs/run/models/step_1"), std::string::npos) << r.err;
  EXPECT_EQ(slurp(folder_ / "runs/run/models/step_1/model.safetensors"), slurp(folder_ / "tuned/model.safetensors"));
  EXPECT_TRUE(fs::exists(folder_ / "runs/run/rollouts/step_1.jsonl"));
}

TEST_F(Faults, FineTuningThatGoesBadLeavesTheOlderModel) {
  const std::string before = slurp(folder_ / "tuned/model.safetensors");
  const Ran r = run("dapo", "sft sft.cfg --set sft.steps=20 --set sft.lr=1e30");
  EXPECT_EQ(r.code, kExitNumerics) << r.out << r.err;
  EXPECT_EQ(slurp(folder_ / "tuned/model.safetensors"), before);
  EXPECT_NE(r.err.find("are in tuned.failed"), std::string::npos) << r.err;
  EXPECT_TRUE(fs::exists(folder_ / "tuned.failed/model.safetensors"));
}

TEST_F(Faults, InterruptedFineTuningSavesAndLeaves) {
  write_sft(1000000);
  EXPECT_EQ(interrupt("dapo sft more.cfg", "sft 1/", "TERM"), kExitInterrupted) << slurp(folder_ / "stderr");
  EXPECT_TRUE(fs::exists(folder_ / "more/model.safetensors"));
  EXPECT_EQ(run("dapo", "score --model more -", "{\"text\": \"abc\"}").code, 0);
}

TEST(Interrupts, ASecondOneLeavesAtOnce) {
  const auto signals = [](int count) {
    catch_interrupts();
    for (int i = 0; i < count; ++i) raise(SIGINT);
    exit(interrupted() ? 7 : 8);
  };
  EXPECT_EXIT(signals(1), testing::ExitedWithCode(7), "once more leaves at once");
  EXPECT_EXIT(signals(2), testing::ExitedWithCode(kExitInterrupted), "");
}

TEST_F(Faults, FullDiskLeavesWhatWasThere) {
  write_sft(1);
  ASSERT_EQ(run("dapo", "sft more.cfg").code, 0);
  const std::string before = slurp(folder_ / "more/model.safetensors");
  const Ran r = shell("ulimit -f 64; exec " + (programs_ / "dapo").string() + " sft more.cfg");
  expect_disk_error(r, "model.safetensors");
  EXPECT_EQ(slurp(folder_ / "more/model.safetensors"), before);

  write_train();
  write("rows.jsonl", "{\"prompt\": \"1+1\", \"answer\": \"2\"}\n{\"prompt\": \"1+2\", \"answer\": \"3\"}\n");
  const Ran t = shell("ulimit -f 64; exec " + (programs_ / "dapo_train").string() + " train.cfg");
  expect_disk_error(t, "model.safetensors");
  EXPECT_FALSE(fs::exists(folder_ / "runs/run/model"));
  if (fs::exists("/dev/full")) {
    const Ran v =
        run("dapo", "verify - 2>stderr >/dev/full; exit $?", "{\"solution\": \"a\", \"ground_truth\": \"a\"}");
    EXPECT_EQ(v.code, kExitResources);
  }
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

TEST_F(Faults, CopiesOfAProblemAreLeftOutAndSaid) {
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

TEST_F(Faults, ModelsWhosePartsDoNotFit) {
  const std::string config = slurp(folder_ / "tuned/config.json");
  const auto change = [&](const std::string& from, const std::string& to) {
    std::string text = config;
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    write("tuned/config.json", text);
  };
  change("\"vocab_size\": 264", "\"vocab_size\": 257");
  expect_usage_error("dapo", "score --model tuned -", "do not belong together", "{\"text\": \"abc\"}");
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
