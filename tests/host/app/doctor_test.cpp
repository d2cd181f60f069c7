// dapo doctor: what it finds, what it says to do, and its exit codes.
#include "host/app/doctor.h"

#include <regex>

#include "host/verify/verify.h"
#include "tests/host/app/cli.h"

namespace dapo {
namespace {

class Doctor : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
  }
  /// Expects this exit code and every part in the report.
  void expect(int code, const std::string& arguments, const std::vector<std::string>& parts) {
    const Ran r = run("dapo", "doctor " + arguments);
    EXPECT_EQ(r.code, code) << arguments << "\n" << r.out << r.err;
    for (const std::string& part : parts)
      EXPECT_NE(r.out.find(part), std::string::npos) << part << "\n" << r.out << r.err;
    last_ = r.out;
  }
  std::string last_;
};

std::string row(const std::string& prompt, const std::string& answer) {
  return "{\"prompt\": \"" + prompt + "\", \"answer\": \"" + answer + "\"}\n";
}

TEST_F(Doctor, TheMachineAlone) {
  expect(0, "",
         {"this machine\n", "processors: ", "cpu: ", "thread", "memory: ", "GiB free of", "limits: ", "GFLOP/s",
          "disk at ", "MB/s written and synced", "0 errors, "});
  for (const auto& entry : fs::directory_iterator(folder_))
    EXPECT_EQ(entry.path().filename().string().find(".dapo_doctor"), std::string::npos) << "the probe file stays";
  expect(2, "--set trainer.run_dir=/proc/nowhere", {"ERROR    /proc: cannot be written", "-> set trainer.run_dir"});
  expect_usage_error("dapo", "doctor --set no.such=1", "no.such");
}

TEST_F(Doctor, RowsThatHurtARun) {
  write("good.jsonl", row("1+1", "2") + row("1+2", "3"));
  expect(0, "good.jsonl",
         {"rows of good.jsonl", "2 rows, no problem twice", "answers read: math_dapo 100 %", "gsm8k 100 %",
          "name a model folder beside it"});
  expect(0, "good.jsonl --verifier boxed", {"answers: boxed reads every one of 2"});

  write("copies.jsonl", row("1+1", "2") + row("1+1", "2") + row("1+2", "3") + row("1+2", "4"));
  expect(0, "copies.jsonl",
         {"WARNING  1 problems have conflicting answers: row 2-", "\"3\" and \"4\"", "-> remove or repair these rows",
          "the first of each is used"});
  expect(0, "copies.jsonl --set data.unique=false", {"-> set data.unique = true"});

  // 07 is compared as text; the third answer has no number at all
  write("unread.jsonl", row("a", "5") + row("b", "6") + row("c", "6 apples and a half #### x"));
  expect(0, "unread.jsonl --verifier gsm8k",
         {"WARNING  answers: gsm8k cannot read 1 of 3 (33.3 %): row 2-", "-> choose another reward.verifier"});
  write("words.jsonl", row("a", "yes, it is") + row("b", "no it is not"));
  expect(2, "words.jsonl --verifier countdown", {"ERROR    answers: countdown cannot read 2 of 2"});

  write("none.jsonl", "{\"prompt\": \"a\"}\n");
  expect(2, "none.jsonl", {"ERROR    ", "none.jsonl:1", "-> docs/data.md"});
  expect(2, "absent.jsonl", {"ERROR    absent.jsonl"});
  write("sft.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n");
  expect(0, "sft.jsonl", {"1 rows, no problem twice"});
  EXPECT_EQ(last_.find("answers"), std::string::npos) << last_;
}

TEST_F(Doctor, PromptsThroughTheModelsTokenizer) {
  make_model();
  std::string tokenizer = slurp(folder_ / "tuned/tokenizer_config.json");
  tokenizer.insert(tokenizer.rfind('}'),
                   ", \"chat_template\": \"{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}\"");
  write("tuned/tokenizer_config.json", tokenizer);
  write("rows.jsonl", row("12345678", "1") + row("123", "2") + row("<|im_start|>user", "3"));
  expect(0, "tuned rows.jsonl",
         {"WARNING  template: 1 of 3 prompts contain <|im_start|>, so the chat template would be "
          "applied twice: row 2-",
          "-> set data.prompt_template = \"raw\"", "prompt tokens: shortest 15, median 20, ", "longest 28"});
  expect(0, "tuned rows.jsonl --template raw --max-prompt 7",
         {"WARNING  2 of 3 prompts (66.7 %) are longer than data.max_prompt_length = 7 and are left out: rows 0-",
          "-> data.max_prompt_length = 16 takes all"});
  expect(2, "tuned rows.jsonl --template raw --max-prompt 7 --set data.overlong_prompts=error",
         {"ERROR    2 of 3 prompts", "stop the run"});
  expect(2, "tuned rows.jsonl --template raw --max-prompt 2", {"ERROR    3 of 3 prompts"});
  write("asked.jsonl", row("What? Think step by step.", "3") + row("Why?", "4"));
  expect(
      0, "tuned asked.jsonl --template raw --set 'data.prompt_suffix=\" Think step by step.\"'",
      {"WARNING  template: 1 of 2 prompts already have data.prompt_suffix: row 0-", "-> leave data.prompt_suffix out"});
}

TEST_F(Doctor, ModelFolders) {
  make_model();
  expect(0, "tuned",
         {"model tuned\n", "config.json: qwen2, 0.", "weights: every tensor of config.json with its shape, ",
          "tokenizer: 258 tokens, vocab_size 264", "stops at 256 <|endoftext|>", "no chat template"});
  expect(2, "model", {"ERROR    no weights in the folder", "-> download them"});
  const std::string config = slurp(folder_ / "tuned/config.json"),
                    generation = slurp(folder_ / "tuned/generation_config.json");
  const auto with = [&](const std::string& text, const std::string& pattern, const std::string& to) {
    const std::string out = std::regex_replace(text, std::regex(pattern), to);
    EXPECT_NE(out, text) << pattern;
    return out;
  };
  write("tuned/config.json", with(config, "\"intermediate_size\": 384", "\"intermediate_size\": 320"));
  expect(2, "tuned", {"ERROR    ", "but config.json asks for"});
  write("tuned/config.json", config);
  write("tuned/generation_config.json", with(generation, "256", "9999"));
  expect(2, "tuned", {"ERROR    tuned: eos_token_id 9999 is outside the vocabulary of 264"});
  write("tuned/generation_config.json", with(generation, "256", "65"));
  expect(0, "tuned", {"stops at 65 A, 256 <|endoftext|>"});
  fs::remove(folder_ / "tuned/generation_config.json");
  expect(0, "tuned", {"no generation_config.json"});
  fs::remove(folder_ / "tuned/tokenizer.json");
  expect(2, "tuned", {"ERROR    ", "-> copy the tokenizer's files"});
  fs::remove(folder_ / "tuned/config.json");
  expect(2, "tuned", {"ERROR    no config.json"});
}

TEST_F(Doctor, AConfigIsCheckedWhole) {
  make_model();
  const std::string head =
      "[model]\npath = \"tuned\"\nthreads = 1\n[data]\ntrain_files = \"data/train.jsonl\"\nval_files = \"val.jsonl\"\n"
      "prompt_template = \"raw\"\nmax_prompt_length = 48\nmax_response_length = 48\n";
  write("run.cfg", head + "[reward]\noverlong_buffer_len = 12\n");
  const std::string train = slurp(folder_ / "data/train.jsonl");
  write("val.jsonl", train.substr(0, train.find('\n') + 1) + row("another", "1"));
  expect(0, "run.cfg",
         {"run run.cfg\n", "memory: ", "model tuned\n", "training rows\n", "test rows\n", "this machine\n",
          "answers: math_dapo reads every one of",
          "WARNING  1 of 2 test problems are in the training set too: test row 0-"});
  write("bad.cfg", head + "[reward]\nverifier = \"nobody\"\n");
  expect(2, "bad.cfg", {"config bad.cfg\n", "ERROR    bad.cfg:11"});
  fs::remove(folder_ / "val.jsonl");
  expect(2, "run.cfg", {"ERROR    not here: val.jsonl"});
  expect(0, "sft.cfg", {"rows to imitate\n", "response tokens: ", "fine-tuning starts at random"});
  expect(2, "run.cfg --set model.path=nowhere", {"ERROR    "});
}

TEST(DoctorAnswers, AResponseWithTheAnswerIsJudgedRight) {
  for (const char* name : {"math_dapo", "gsm8k", "boxed", "exact"})
    EXPECT_TRUE(make_verifier(name)->verify(response_with_answer(name, "42"), "42").acc) << name;
  EXPECT_EQ(response_with_answer("countdown", "42"), "");
}

}  // namespace
}  // namespace dapo
