// Exit codes, one clear line per mistake, no half-written files.
#include "tests/host/app/cli.h"

#include <cmath>
#include <optional>

#include "cpu/cpu_backend.h"
#include "host/app/json_lines.h"
#include "host/app/run_log.h"
#include "tests/host/app/event_reader.h"

namespace dapo {
namespace {

TEST_F(CliTest, HelpHasExamples) {
  for (const char* command : {"", "sft", "eval", "generate", "score", "tokenize", "verify", "report", "watch", "doctor",
                              "chain", "countdown"}) {
    const Ran r = run("dapo", std::string(command) + " --help");
    EXPECT_EQ(r.code, 0);
    EXPECT_NE(r.out.find(*command ? "Example: " : "--help"), std::string::npos) << command << r.out;
  }
  const Ran r = run("dapo_train", "--help");
  EXPECT_EQ(r.code, 0);
  EXPECT_NE(r.out.find("Example: "), std::string::npos);
  EXPECT_NE(run("dapo_train", "--settings").out.find("clip_ratio_high = 0.28"), std::string::npos);
  EXPECT_NE(run("dapo_train", "--metrics").out.find("| `update/mismatch` | nats |"), std::string::npos);
  EXPECT_EQ(run("dapo_train", "--settings --markdown").out.find("# Settings\n"), 0u);
  expect_usage_error("dapo_train", "--markdown", "--settings");
}

TEST_F(CliTest, WrongUsage) {
  expect_usage_error("dapo", "", "no command; give one of sft");
  expect_usage_error("dapo", "frobnicate", "frobnicate");
  expect_usage_error("dapo", "generate", "--model");
  expect_usage_error("dapo", "generate --model m", "one of --prompt");
  expect_usage_error("dapo", "generate --model m --prompt x -n 0", "-n 0");
  expect_usage_error("dapo", "generate --model m --prompt x --top-p 2", "--top-p 2");
  expect_usage_error("dapo", "generate --model m --prompt x --temperature warm", "warm");
  expect_usage_error("dapo", "generate --model absent --prompt x", "absent: no such folder");
  expect_usage_error("dapo", "generate --model m --prompt x --device gpu", "--device gpu");
  expect_usage_error("dapo", "score --model m --dtype fp8", "--dtype fp8");
  expect_usage_error("dapo", "tokenize --model absent -", "absent", "{\"text\":\"x\"}");
  expect_usage_error("dapo", "verify --verifier nobody -", "nobody", "{}");
  expect_usage_error("dapo", "verify --verifier gsm8k --strict-box -", "--strict-box belongs to math_dapo", "{}");
  expect_usage_error("dapo", "verify --flexible -", "--flexible belongs to gsm8k", "{}");
  expect_usage_error("dapo", "tokenize --model m --chat --special -", "--special", "{}");
  expect_usage_error("dapo", "countdown c.jsonl --rows 0", "--rows 0");
  expect_usage_error("dapo", "eval", "model.path is not set");
  expect_usage_error("dapo_train", "", "no config");
  expect_usage_error("dapo_train", "absent.cfg", "absent.cfg");
  expect_usage_error("dapo_train", "--bogus", "--bogus");
  write("a.cfg", "[actor]\nlr = 1\nclip_ratio_hihg = 1\n");
  expect_usage_error("dapo_train", "a.cfg", "a.cfg:3: unknown setting actor.clip_ratio_hihg; did you mean");
  write("b.cfg", "[model]\npath = \"nowhere\"\n[data]\ntrain_files = \"t\"\n");
  expect_usage_error("dapo_train", "b.cfg", "nowhere: no such folder");
  expect_usage_error("dapo_train", "b.cfg --set actor.ppo_mini_batch_size=7", "does not divide");
}

TEST_F(CliTest, VerifyJudgesLines) {
  const Ran r = run("dapo", "verify --verifier math_dapo -",
                    "{\"solution\": \"So.\\nAnswer: 42\", \"ground_truth\": \"42\"}\n"
                    "{\"solution\": \"Answer: 41\", \"ground_truth\": 42}\n");
  EXPECT_EQ(r.code, 0) << r.err;
  std::vector<std::string> pred;
  std::vector<std::string> score;
  read_rows((folder_ / "stdout").string(), [&](const JsonRow& row) {
    pred.push_back(row.text("pred"));
    score.push_back(row.json("acc") + row.text("score"));
    EXPECT_TRUE(row.has("reason"));
  });
  EXPECT_EQ(pred, (std::vector<std::string>{"42", "41"}));
  ASSERT_EQ(score.size(), 2u);
  EXPECT_EQ(score[0].substr(0, 5), "true1");
  EXPECT_EQ(score[1].substr(0, 7), "false-1");
}

TEST_F(CliTest, BadLinesAreNamedAndNoFileIsHalfWritten) {
  const std::string good = "{\"solution\": \"Answer: 1\", \"ground_truth\": \"1\"}\n";
  for (const auto& [bad, part] :
       {std::pair<std::string, std::string>{"{\"solution\": ", "stdin>:2: not valid JSON"},
        {"[1]", "stdin>:2: not a JSON object"},
        {"{\"solution\": \"\xff\", \"ground_truth\": \"1\"}", "stdin>:2: not valid JSON"},
        {"{\"ground_truth\": \"1\"}", "stdin>:2: \"solution\" is missing"},
        {"{\"solution\": [], \"ground_truth\": \"1\"}", "stdin>:2: \"solution\" is not a string"},
        {std::string(100000, '['), "stdin>:2: not valid JSON"}}) {
    expect_usage_error("dapo", "verify -o out.jsonl -", part, good + bad + "\n");
    EXPECT_FALSE(fs::exists(folder_ / "out.jsonl"));
    EXPECT_FALSE(fs::exists(folder_ / "out.jsonl.tmp"));
  }
  expect_usage_error("dapo", "verify -", "no row", "\n \n");
  expect_usage_error("dapo", "verify absent.jsonl", "absent.jsonl");
  expect_usage_error("dapo", "verify .", "folder");
  expect_usage_error("dapo", "verify -o no/such/folder.jsonl -", "no/such/folder.jsonl", good);
}

TEST_F(CliTest, OnlyOwnOutputIsReplaced) {
  const std::string row = "{\"response\": \"1\", \"ground_truth\": \"1\"}\n";
  write("rows.jsonl", row);
  write("weights", "not rows");
  write("empty", "");
  const std::string judge = "verify --verifier exact rows.jsonl -o ";
  expect_usage_error("dapo", judge + "weights", "weights: exists, and no command of this program wrote it");
  expect_usage_error("dapo", judge + "rows.jsonl", "rows.jsonl: is an input of this command");
  fs::create_symlink("rows.jsonl", folder_ / "link");
  expect_usage_error("dapo", judge + "link", "link: is an input of this command");
  write("others.jsonl", row);
  expect_usage_error("dapo", judge + "others.jsonl", "others.jsonl: exists");
  EXPECT_EQ(slurp(folder_ / "rows.jsonl") + slurp(folder_ / "others.jsonl"), row + row);
  EXPECT_EQ(slurp(folder_ / "weights"), "not rows");
  for (const char* out : {"new.jsonl", "new.jsonl", "empty", "/dev/null"}) {
    const Ran r = run("dapo", judge + out);
    EXPECT_EQ(r.code, 0) << r.err;
  }
  EXPECT_NE(slurp(folder_ / "new.jsonl").find("\"acc\": true"), std::string::npos);
}

TEST_F(CliTest, MisspeltWordsAreNamed) {
  expect_usage_error("dapo", "generate --model m --promt x", "did you mean --prompt?");
  expect_usage_error("dapo", "generate --modle m --prompt x", "did you mean --model?");
  expect_usage_error("dapo", "generate --model m --prompt x --max_new_tokens 5", "did you mean --max-new-tokens?");
  expect_usage_error("dapo", "generate --model m --prompt x --max-tokens=5", "did you mean --max-new-tokens?");
  expect_usage_error("dapo", "generate --model m --prompt x --temp 0", "did you mean --temperature?");
  expect_usage_error("dapo", "gen --model m", "did you mean dapo generate?");
  expect_usage_error("dapo", "evaluate", "did you mean dapo eval?");
  expect_usage_error("dapo", "train a.cfg", "training is dapo_train FILE.cfg");
  expect_usage_error("dapo", "help", "see dapo --help");
  expect_usage_error("dapo_train", "a.cfg --actor.lr=1e-6", "a setting is written --set actor.lr=1e-6");
  expect_usage_error("dapo_train", "a.cfg --learning_rate 1e-6", "did you mean actor.lr?");
  expect_usage_error("dapo_train", "a.cfg --chek", "did you mean --check?");
}

TEST_F(CliTest, CommandsOnATinyModel) {
  make_model();
  // tokenize and decode
  Ran r = run("dapo", "tokenize --model tuned -", "{\"text\": \"2+3 \xc3\xbc\"}\n");
  EXPECT_EQ(r.out, "{\"ids\": [50, 43, 51, 32, 195, 188]}\n") << r.err;
  r = run("dapo", "tokenize --model tuned --decode -", r.out);
  EXPECT_EQ(r.out, "{\"text\": \"2+3 \xc3\xbc\"}\n") << r.err;
  expect_usage_error("dapo", "tokenize --model tuned --chat -", "no chat template", "{\"messages\": []}");

  // score gives the log-probs of generate, bit for bit
  r = run("dapo", "generate --model tuned --template raw --prompt '1+1' -n 3 --max-new-tokens 9 --threads 1 --seed 7");
  ASSERT_EQ(r.code, 0) << r.err;
  std::string rows;
  std::vector<std::string> log_probs;
  read_rows((folder_ / "stdout").string(), [&](const JsonRow& row) {
    log_probs.push_back(row.json("log_probs"));
    rows += "{\"ids\": [49, 43, 49, " + row.json("ids").substr(1) + ", \"prompt_len\": 3}\n";
  });
  ASSERT_EQ(log_probs.size(), 3u);
  EXPECT_EQ(
      run("dapo", "generate --model tuned --template raw --prompt '1+1' -n 3 --max-new-tokens 9 --threads 1 --seed 7")
          .out,
      r.out);
  r = run("dapo", "score --model tuned --threads 1 -", rows);
  ASSERT_EQ(r.code, 0) << r.err;
  size_t i = 0;
  read_rows((folder_ / "stdout").string(),
            [&](const JsonRow& row) { EXPECT_EQ(row.json("log_probs"), log_probs.at(i++)); });
  EXPECT_EQ(i, 3u);

  expect_usage_error("dapo", "score --model tuned -", "stdin>:1: id 264 is outside", "{\"ids\": [1, 264]}");
  expect_usage_error("dapo", "score --model tuned -", "stdin>:1: \"ids\"[1] is not a token id", "{\"ids\": [1, -1]}");
  expect_usage_error("dapo", "score --model tuned -", "prompt_len = 2", "{\"ids\": [1, 2], \"prompt_len\": 2}");
  expect_usage_error("dapo", "score --model tuned -", "needs 2 tokens", "{\"text\": \"x\"}");
  expect_usage_error("dapo", "generate --model tuned --template raw --prompt 1 --max-new-tokens 600", "exceed the 512");
  expect_usage_error("dapo", "generate --model model --prompt 1", "no model.safetensors");
  expect_usage_error("dapo", "generate --model tuned --prompt 1 --template raw --system You", "data.system_prompt");
  expect_usage_error("dapo", "generate --model tuned --template raw --prompt 1 --temperature 1e-30",
                     "--temperature 1e-30");
  expect_usage_error("dapo", "generate --model tuned --template raw --prompt 1 --threads 100000",
                     "--threads) = 100000");
  expect_usage_error("dapo", "sft sft.cfg --set sft.out=sft.cfg/x", "sft.cfg/x.tmp: cannot be made: ");
}

/// A response's log-probs from generate and from score have the same bits, wherever the prompt ends.
TEST_F(CliTest, ScoreTakesRowsOfGenerateAndGivesTheirLogProbs) {
  make_model();
  std::string prompts;
  for (const int length : {1, 5, 60, 63, 64, 65, 120, 128}) {
    prompts += "{\"ids\": [50";
    for (int i = 1; i < length; ++i) prompts += ", " + std::to_string(40 + i * 7 % 20);
    prompts += "]}\n";
  }
  write("prompts.jsonl", prompts);
  for (const char* dtype : {"bf16", "f32"}) {
    if (dtype == std::string("bf16") && !cpu_has_bf16()) continue;
    const std::string on = std::string(" --model tuned --threads 1 --dtype ") + dtype;
    fs::rename(folder_ / "tuned/tokenizer.json", folder_ / "aside");  // ids need none
    Ran r = run("dapo", "generate --prompts prompts.jsonl -n 2 --max-new-tokens 70 -o drawn.jsonl" + on);
    ASSERT_EQ(r.code, 0) << r.err;
    r = run("dapo", "score drawn.jsonl -o scored.jsonl" + on);
    ASSERT_EQ(r.code, 0) << r.err;
    expect_usage_error("dapo", "score -" + on, "needs a tokenizer", "{\"text\": \"abc\"}");
    fs::rename(folder_ / "aside", folder_ / "tuned/tokenizer.json");
    std::vector<std::string> drawn, scored;
    read_rows((folder_ / "drawn.jsonl").string(), [&](const JsonRow& row) { drawn.push_back(row.json("log_probs")); });
    read_rows((folder_ / "scored.jsonl").string(),
              [&](const JsonRow& row) { scored.push_back(row.json("log_probs")); });
    ASSERT_EQ(drawn.size(), 16u);
    ASSERT_EQ(scored.size(), 16u);
    for (size_t i = 0; i < drawn.size(); ++i) EXPECT_TRUE(scored[i] == drawn[i]) << dtype << " row " << i;
  }
}

TEST_F(CliTest, CheckShowsWhatTheModelSees) {
  make_model();
  const Ran r = run("dapo", "sft sft.cfg --overwrite --check");
  EXPECT_EQ(r.code, 0) << r.err;
  for (const char* part :
       {"first prompt, 26 tokens:", "its response, ", "Answer: ", "<|endoftext|>", "ids: [", "nothing was trained"})
    EXPECT_NE(r.out.find(part), std::string::npos) << part << r.out;
  for (const char* file : {"metrics.jsonl", "log.txt", "dapo.json"})
    EXPECT_TRUE(fs::exists(folder_ / "tuned" / file)) << file;
  std::vector<int64_t> steps;
  read_rows((folder_ / "tuned/metrics.jsonl").string(), [&](const JsonRow& row) {
    steps.push_back(row.integer("step"));
    EXPECT_TRUE(row.has("loss") && row.has("lr") && row.has("grad_norm"));
  });
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(run("dapo", "--version").out.substr(0, 8), "dapo 0.1");
  EXPECT_EQ(run("dapo_train", "--version").out.substr(0, 14), "dapo_train 0.1");
}

TEST_F(CliTest, CudaIsRefusedWhereThereIsNone) {
  if (fs::exists("/dev/nvidiactl")) GTEST_SKIP() << "skipped: this machine has a GPU";
  make_model();
  // Built with CUDA: no driver; built without: no CUDA. Both are errors: no fallback to the CPU.
  expect_usage_error("dapo", "generate --model tuned --prompt a --device cuda", "device cuda: ");
}

TEST_F(CliTest, EvalTakesFlagsAndSettings) {
  make_model();
  const Ran r = run("dapo",
                    "eval --model tuned --data data/test.jsonl -n 2 --max-problems 3 --max-new-tokens 8 --template raw "
                    "--threads 1 --set eval.pass_k=[1,2] --set eval.temperature=0.5 -o responses.jsonl");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("\"eval/problems\": 3, \"eval/n\": 2,"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("\"eval/pass@2\": "), std::string::npos) << r.out;
  int rows = 0;
  read_rows((folder_ / "responses.jsonl").string(), [&](const JsonRow& row) {
    EXPECT_EQ(row.text("id").substr(0, 2), std::to_string(rows++ / 2) + "-");
    for (const char* field : {"prompt", "ground_truth", "prompt_ids"}) EXPECT_TRUE(row.has(field));
  });
  EXPECT_EQ(rows, 6);
  write("hard.jsonl",
        "{\"prompt\": \"a\", \"answer\": \"no eight bytes hold this\"}\n{\"prompt\": \"b\", \"answer\": \"nor this "
        "one\"}\n");
  const Ran hard = run(
      "dapo",
      "eval --model tuned --data hard.jsonl -n 2 --max-new-tokens 8 --template raw --threads 1 --set eval.pass_k=1");
  EXPECT_NE(hard.out.find("not one of 4 responses is right"), std::string::npos) << hard.out << hard.err;
  write("eval.cfg",
        "[model]\npath = \"tuned\"\nthreads = 1\n[data]\nmax_response_length = 8\nprompt_template = \"raw\"\n");
  expect_usage_error("dapo", "eval eval.cfg", "data.val_files is not set");
  EXPECT_EQ(run("dapo", "eval eval.cfg --data data/test.jsonl -n 1 --max-problems 2 --set eval.pass_k=1").code, 0);
  expect_usage_error("dapo", "eval eval.cfg --data data/test.jsonl -o no/such.jsonl",
                     "no/such.jsonl: cannot be written");
  expect_usage_error("dapo", "eval eval.cfg --data data/test.jsonl --max-new-tokens 600", "exceed the 512 positions");
}

TEST_F(CliTest, CountdownProblemsAreReadAndJudged) {
  ASSERT_EQ(run("dapo", "countdown some/c.jsonl --rows 20 --seed 3").code, 0);
  make_model();
  const Ran r = run(
      "dapo",
      "eval --model tuned --data some/c.jsonl -n 1 --max-new-tokens 4 --template raw --threads 1 --verifier countdown "
      "--set eval.pass_k=1");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("\"eval/problems\": 20,"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("\"eval/verifier_errors\": 0,"), std::string::npos) << r.out;
  write("rows.jsonl", "{\"input\": \"30,100,93\", \"output\": \"23\"}\n");
  EXPECT_EQ(run("dapo",
                "eval --model tuned --data rows.jsonl -n 1 --max-new-tokens 4 --template raw --threads 1 --verifier "
                "countdown "
                "--set eval.pass_k=1 --set data.format=countdown")
                .code,
            0);
}

TEST_F(CliTest, BrokenModelFolders) {
  make_model();
  write("tuned/config.json", slurp(folder_ / "tuned/config.json").replace(0, 1, ""));
  expect_usage_error("dapo", "score --model tuned -", "tuned/config.json", "{\"text\": \"abc\"}");
  fs::copy_file(folder_ / "model/config.json", folder_ / "tuned/config.json", fs::copy_options::overwrite_existing);
  std::string weights = slurp(folder_ / "tuned/model.safetensors");
  write("tuned/model.safetensors", weights.replace(weights.size() - 64, 64, 64, '\xff'));  // NaN
  const Ran r = run("dapo", "score --model tuned --threads 1 -o scored.jsonl -", "{\"text\": \"abc\"}");
  EXPECT_EQ(r.code, 4) << r.err;
  EXPECT_NE(r.err.find("the weights of tuned hold NaN"), std::string::npos) << r.err;
  EXPECT_FALSE(fs::exists(folder_ / "scored.jsonl"));
  fs::resize_file(folder_ / "tuned/model.safetensors", 1000);
  expect_usage_error("dapo", "score --model tuned -", "model.safetensors", "{\"text\": \"abc\"}");
  fs::remove(folder_ / "tuned/tokenizer.json");
  expect_usage_error("dapo", "tokenize --model tuned -", "tokenizer", "{\"text\": \"abc\"}");
}

/// The event file of a run has every number of its metrics.jsonl.
void expect_events(const fs::path& run) {
  std::vector<Event> events;
  for (const auto& entry : fs::directory_iterator(run / "tensorboard")) {
    EXPECT_TRUE(events.empty()) << "more than one file";
    events = events_of(entry.path().string());
  }
  ASSERT_EQ(events.size(), 5u);  // version, start, and three lines
  size_t line = 2, numbers = 0;
  std::istringstream lines(slurp(run / "metrics.jsonl"));
  for (std::string text; std::getline(lines, text); ++line) {
    const std::optional<MetricsLine> metrics = parse_metrics(text);
    ASSERT_TRUE(metrics);
    EXPECT_EQ(events[line].step, metrics->step);
    std::map<std::string, float> finite;
    for (const auto& [name, value] : metrics->fields)
      if (std::isfinite(value)) finite[name] = static_cast<float>(value);
    EXPECT_EQ(events[line].values, finite);
    numbers += finite.size();
  }
  EXPECT_GT(numbers, 100u);
}

TEST_F(CliTest, TrainWritesARunFolder) {
  make_model();
  write("run.cfg",
        "[model]\npath = \"tuned\"\nthreads = 1\n[data]\ntrain_files = \"data/train.jsonl\"\nval_files = "
        "\"data/test.jsonl\"\nprompt_template = \"raw\"\nmax_prompt_length = 48\nmax_response_length = 16\n"
        "train_batch_size = 4\n[rollout]\nn = 4\n[actor]\nppo_mini_batch_size = 2\n[algorithm]\nfilter_groups = false\n"
        "[reward]\noverlong_buffer_len = 4\n[eval]\nn = 1\nmax_problems = 4\n[trainer]\ntotal_steps = 2\n");
  Ran r = run("dapo_train", "run.cfg --check");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
  r = run("dapo_train", "run.cfg");
  ASSERT_EQ(r.code, 0) << r.err;
  std::vector<int64_t> steps;
  read_rows((folder_ / "runs/run/metrics.jsonl").string(), [&](const JsonRow& row) {
    steps.push_back(row.integer("step"));
    if (steps.back() > 0) {
      EXPECT_EQ(row.text("update/mismatch").substr(0, 1), "0");
      EXPECT_EQ(row.integer("update/count"), 2);
    }
    EXPECT_EQ(row.has("eval/avg"), steps.back() != 1);
  });
  EXPECT_EQ(steps, (std::vector<int64_t>{0, 1, 2}));
  int rows = 0;
  read_rows((folder_ / "runs/run/rollouts/step_2.jsonl").string(), [&](const JsonRow& row) {
    ++rows;
    for (const char* field : {"prompt", "response", "score", "reason", "advantage"}) EXPECT_TRUE(row.has(field));
    EXPECT_EQ(row.json("kept"), "true");
    const std::string log_probs = row.json("log_probs");
    EXPECT_EQ(std::ranges::count(log_probs, ','), std::ssize(row.ids("ids")) - 1);
    EXPECT_NE(log_probs.find('-'), std::string::npos);
  });
  EXPECT_EQ(rows, 16);
  expect_events(folder_ / "runs/run");
  for (const char* part : {"2 of 2", "wrong</span>", "\" title=\"log-prob -"})
    EXPECT_NE(slurp(folder_ / "runs/run/report.html").find(part), std::string::npos) << part;
  EXPECT_NE(slurp(folder_ / "runs/run/dapo.json").find("\"product_gflops\""), std::string::npos);
  const Ran watched = run("dapo", "watch runs/run --last 1");
  EXPECT_EQ(watched.code, 0);
  EXPECT_EQ(watched.out.find("2 earlier steps are left out (--last 1)\nstep      reward"), 0u) << watched.out;
  for (const char* part :
       {"\nstep 2/2  ", "\neval after step 2: avg@1", "\ndone after step 2: model in runs/run/model, report in "})
    EXPECT_NE(watched.out.find(part), std::string::npos) << watched.out;
  r = run("dapo", "report runs/run runs/run -o two.html");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_NE(slurp(folder_ / "two.html").find("<h1>2 runs</h1>"), std::string::npos);
  expect_usage_error("dapo", "report data", "data: has no metrics.jsonl");
  for (const char* file : {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"})
    EXPECT_TRUE(fs::exists(folder_ / "runs/run/model" / file)) << file;
  const std::string first = slurp(folder_ / "runs/run/model/model.safetensors");

  r = run("dapo_train", "run.cfg --check");
  EXPECT_NE(r.out.find("first prompt, 26 tokens:"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("pass@8, pass@32 left out"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("the run writes"), std::string::npos) << r.out;

  // no group is kept, but every response is written, and the other commands accept the rows unchanged
  r = run("dapo_train",
          "run.cfg --set algorithm.filter_groups=true --set algorithm.max_num_gen_batches=1 --set trainer.run_dir=idle "
          "--set eval.before_train=false --set eval.every=0");
  ASSERT_EQ(r.code, 0) << r.err;
  rows = 0;
  read_rows((folder_ / "idle/rollouts/step_1.jsonl").string(), [&](const JsonRow& row) {
    ++rows;
    EXPECT_EQ(row.json("kept"), "false");
    EXPECT_FALSE(row.has("advantage"));
  });
  EXPECT_GE(rows, 16);
  r = run("dapo", "verify idle/rollouts/step_1.jsonl");
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), rows) << r.err;
  r = run("dapo", "score --model idle/model --threads 1 idle/rollouts/step_1.jsonl");
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), rows) << r.err;

  expect_usage_error("dapo_train", "run.cfg --set data.max_response_length=600", "exceed the 512 positions of tuned");
  expect_usage_error("dapo_train", "run.cfg --resume no", "already holds a run");
  EXPECT_EQ(run("dapo_train", "runs/run/config.resolved.cfg --overwrite").code,
            0);  // the written config reproduces the config
  EXPECT_EQ(slurp(folder_ / "runs/run/model/model.safetensors"), first);
}

}  // namespace
}  // namespace dapo
