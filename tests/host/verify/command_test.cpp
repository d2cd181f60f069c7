// Verifier `command`: programs that answer, and every way in which they may not.
#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "core/check.h"
#include "host/verify/pool.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

/// A shell script as a verifier; the file that $1 names is in the test's folder.
class CommandTest : public ::testing::Test {
 protected:
  VerifierOptions script(const std::string& text, double timeout = 1000) {
    VerifierOptions o;
    o.command = {"sh", "-c", text, "sh", file_};
    o.timeout = timeout;
    return o;
  }
  /// Answers every line with `answer`.
  VerifierOptions says(const std::string& answer) {
    return script("while read -r line; do cat <<'END'\n" + answer + "\nEND\ndone");
  }
  Verdict verdict(const VerifierOptions& o, const VerifyItem& item = {"r", "t"}) {
    return make_verifier("command", o)->verify(item);
  }
  size_t lines() const {
    const std::string text = slurp(file_);
    return std::count(text.begin(), text.end(), '\n');
  }

  const ScratchFolder scratch_;
  const std::string file_ = scratch_.path() + "/file";
};

size_t open_descriptors() {
  size_t n = 0;
  DIR* folder = opendir("/proc/self/fd");
  while (readdir(folder) != nullptr) ++n;
  closedir(folder);
  return n;
}

/// No child is left, neither running nor as a zombie.
void expect_no_children() {
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

/// Whether a process is gone, or will be once its new parent reaps it.
bool gone(const std::string& pid) {
  const std::string stat = slurp("/proc/" + pid + "/stat");
  return stat.empty() || stat.find(") Z ") != std::string::npos;
}
bool soon_gone(const std::string& pid) {
  for (int i = 0; i < 10000 && !gone(pid); ++i) usleep(10000);  // by itself it would run ten times as long
  return gone(pid);
}

TEST_F(CommandTest, ScoreAccPredAndReasonAreTakenOver) {
  Verdict v = verdict(says(R"({"score": 0.25, "acc": true, "pred": "7", "reason": "close", "more": [1]})"));
  EXPECT_FALSE(v.error) << v.reason;
  EXPECT_EQ(v.score, 0.25f);
  EXPECT_TRUE(v.acc);
  EXPECT_TRUE(v.found);
  EXPECT_EQ(v.pred, "7");
  EXPECT_EQ(v.reason, "close");
  v = verdict(says(R"({"score": 0.25})"));  // acc: a score above 0
  EXPECT_TRUE(v.acc);
  v = verdict(says(R"({"score": -1, "pred": null})"));
  EXPECT_FALSE(v.error);
  EXPECT_FALSE(v.acc);
  EXPECT_FALSE(v.found);
  EXPECT_EQ(v.score, -1);
  VerifierOptions o = says(R"({"acc": true, "pred": 12})");  // score: reward.correct
  o.right = 3;
  v = verdict(o);
  EXPECT_EQ(v.score, 3);
  EXPECT_EQ(v.pred, "12");
}

TEST_F(CommandTest, TheRequestHoldsTheRow) {
  const VerifyItem item{"r\n\"\xff\xc3\xbc", std::string("1") + '\x1f' + "one", "id-1", "What?", "gsm8k"};
  const VerifierOptions o =
      script("while read -r line; do printf '%s\\n' \"$line\" >>$1; echo '{\"acc\": true}'; done");
  const auto v = make_verifier("command", o);
  EXPECT_TRUE(v->verify(item).acc);
  EXPECT_TRUE(v->verify({"second", "2"}).acc);
  const std::string text = slurp(file_);
  const size_t end = text.find('\n');
  const nlohmann::json one = nlohmann::json::parse(text.substr(0, end)), two = nlohmann::json::parse(text.substr(end));
  EXPECT_EQ(one["response"], "r\n\"\xEF\xBF\xBD\xc3\xbc");
  EXPECT_EQ(one["ground_truth"], nlohmann::json({"1", "one"}));
  EXPECT_EQ(one["id"], "id-1");
  EXPECT_EQ(one["prompt"], "What?");
  EXPECT_EQ(one["data_source"], "gsm8k");
  EXPECT_EQ(two["ground_truth"], "2");
}

TEST_F(CommandTest, APoolPassesTheWholeRow) {
  VerifierPool pool(
      make_verifier("command", script("read -r line; printf '%s\\n' \"$line\" >$1; echo '{\"acc\": true}'; "
                                      "read -r line")),
      1);
  EXPECT_TRUE(pool.submit({{"r", "t", "id-1", "What?", "gsm8k"}}).get()[0].acc);
  const nlohmann::json request = nlohmann::json::parse(slurp(file_));
  EXPECT_EQ(request["id"], "id-1");
  EXPECT_EQ(request["prompt"], "What?");
  EXPECT_EQ(request["data_source"], "gsm8k");
}

TEST_F(CommandTest, WhatIsNotAnAnswerIsAnErrorAndSaysWhy) {
  const std::string read = "read -r line; ";
  const struct {
    std::string program;
    double timeout;
    std::string reason;
  } cases[] = {
      {"echo lost module >&2; exit 3", 1000, "ended with exit code 3: lost module"},
      {read + "exit 0", 1000, "ended with exit code 0"},
      {read + "kill -9 $$", 1000, "was killed by signal 9"},
      {read + "echo fine", 1000, "printed what is not JSON: \"fine\"; expected {\"score\": 1.0"},
      {read + "echo '[1]'", 1000, "not a JSON object: \"[1]\""},
      {read + "echo 1.0", 1000, "not a JSON object"},
      {read + "echo '{\"socre\": 1}'", 1000, "neither \"score\" nor \"acc\""},
      {read + "echo '{\"score\": \"1\"}'", 1000, "a \"score\" that is not a number"},
      {read + "echo '{\"score\": NaN}'", 1000, "not JSON"},
      {read + "echo '{\"score\": 1e300}'", 1000, "out of range"},
      {read + "echo '{\"score\": 1, \"acc\": \"yes\"}'", 1000, "an \"acc\" that is not true or false"},
      {read + "echo '{\"error\": \"no sandbox\"}'", 1000, "reports: no sandbox"},
      {read + "printf '{\"score\": 1}\\n{\"score\": 1}\\n'", 1000, "more than one line"},
      {read + "head -c 3000000 /dev/zero | tr '\\0' x; sleep 100", 1000, "more than 1048576 bytes without a line end"},
      {"exec >&-; sleep 100", 1000, "closed its output"},
      {read + "exec <&-; sleep 100", 0.03,
       "gave no answer within 0.3 s (reward.timeout)"},  // ten times as long at first
      {read + "sleep 100", 0.03, "gave no answer within 0.3 s (reward.timeout)"},
  };
  const size_t before = open_descriptors();
  for (const auto& c : cases) {
    const Verdict v = verdict(script(c.program, c.timeout));
    EXPECT_TRUE(v.error) << c.program;
    EXPECT_FALSE(v.acc);
    EXPECT_EQ(v.reason.rfind("error: reward.command \"sh\" ", 0), 0u) << v.reason;
    EXPECT_NE(v.reason.find(c.reason), std::string::npos) << c.program << "\n" << v.reason;
  }
  // requests longer than a pipe holds
  const VerifyItem large{std::string(1 << 18, 'x'), "t"};
  EXPECT_NE(verdict(script("sleep 100", 0.03), large).reason.find("no answer within"), std::string::npos);
  EXPECT_NE(verdict(script("exec <&-; sleep 100"), large).reason.find("closed its input"), std::string::npos);
  EXPECT_NE(verdict(script("echo '{\"score\": 1}'; sleep 100"), large)
                .reason.find("printed before it had read its line of input: \"{\"score\": 1}\""),
            std::string::npos);
  EXPECT_FALSE(verdict(says("{\"acc\": true}"), large).error);
  EXPECT_EQ(open_descriptors(), before);
  expect_no_children();
}

TEST_F(CommandTest, ProgramsThatCannotBeStartedAreErrorsBeforeTheRun) {
  const size_t before = open_descriptors();
  const auto error = [](const std::vector<std::string>& command) -> std::string {
    VerifierOptions o;
    o.command = command;
    try {
      make_verifier("command", o);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), kExitUsage);
      return e.what();
    }
    return "";
  };
  EXPECT_NE(error({"no-such-program-here"}).find("is its name or path right"), std::string::npos);
  EXPECT_NE(error({scratch_.write("plain.py", "print(1)\n")}).find("chmod +x"), std::string::npos);
  EXPECT_NE(error({}).find("reward.command is not set"), std::string::npos);
  EXPECT_NE(error({" "}).find("reward.command is not set"), std::string::npos);
  EXPECT_NE(error({"sh -c 'x"}).find("quote is not closed"), std::string::npos);
  EXPECT_EQ(open_descriptors(), before);
  expect_no_children();
}

TEST_F(CommandTest, OneTextIsCutAtBlanksOutsideQuotes) {
  VerifierOptions o;
  o.timeout = 1000;
  o.command = {"sh -c 'while read -r line; do echo \"{\\\"score\\\": $1}\"; done'  sh \"0.5\""};
  EXPECT_EQ(verdict(o).score, 0.5f) << verdict(o).reason;
}

TEST_F(CommandTest, AProcessThatFailsIsReplaced) {
  // dies at every third line
  const auto v =
      make_verifier("command", script("echo start >>$1; for i in 1 2; do read -r line; echo '{\"score\": 1}'; "
                                      "done; read -r line; exit 1"));
  int errors = 0;
  for (int i = 0; i < 9; ++i) errors += v->verify({"r", "t"}).error;
  EXPECT_EQ(errors, 3);
  EXPECT_EQ(lines(), 3u);
}

TEST_F(CommandTest, AProgramThatFailsAtItsStartIsNotStartedForEveryResponse) {
  VerifierPool pool(make_verifier("command", script("echo start >>$1; exit 3")), 2);
  const auto verdicts = pool.submit(std::vector<VerifyItem>(1000, {"r", "t"})).get();
  for (const Verdict& v : verdicts) EXPECT_NE(v.reason.find("ended with exit code 3"), std::string::npos) << v.reason;
  EXPECT_EQ(pool.counters().errors, 1000u);
  EXPECT_LT(lines(), 50u);
}

TEST_F(CommandTest, ThePoolRunsAProcessForEachWorker) {
  // a process answers once there are three of them
  VerifierPool pool(
      make_verifier("command", script("echo >$1.$$; while read -r line; do while set -- \"$1\" \"$1\".*; [ $# -lt 4 ]; "
                                      "do sleep 0.01; done; echo \"{\\\"acc\\\": true, \\\"pred\\\": $$}\"; done")),
      3);
  std::set<std::string> processes;
  for (const Verdict& v : pool.submit(std::vector<VerifyItem>(9, {"r", "t"})).get()) {
    EXPECT_TRUE(v.acc) << v.reason;
    processes.insert(v.pred);
  }
  EXPECT_EQ(processes.size(), 3u);
}

TEST_F(CommandTest, DestructionDoesNotWaitForAnswersAndLeavesNothingBehind) {
  const size_t before = open_descriptors();
  std::chrono::steady_clock::time_point start;
  {
    VerifierPool pool(make_verifier("command", script("sleep 1000 & echo $! >>$1; read -r line; wait", 100)), 2);
    auto pending = pool.submit(std::vector<VerifyItem>(100, {"r", "t"}));
    while (lines() == 0) usleep(1000);
    start = std::chrono::steady_clock::now();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(100)) << "an answer's time is 1000 s";
  EXPECT_EQ(open_descriptors(), before);
  expect_no_children();
  const std::string grandchild = slurp(file_);
  EXPECT_TRUE(soon_gone(grandchild.substr(0, grandchild.find('\n')))) << grandchild;
}

TEST_F(CommandTest, AnIdleProgramMayFinishItsWorkWhenItsInputEnds) {
  EXPECT_TRUE(verdict(script("while read -r line; do echo '{\"acc\": true}'; done; echo saved >$1")).acc);
  EXPECT_EQ(slurp(file_), "saved\n");
}

TEST_F(CommandTest, TheExampleOfTheDocsWorks) {
  if (std::system("python3 -c 1 >/dev/null 2>&1") != 0) GTEST_SKIP() << "skipped: no python3";
  const std::string docs = slurp("docs/verifiers.md");
  if (docs.empty()) GTEST_SKIP() << "skipped: not run in the project's root";
  const size_t begin = docs.find("```python\n") + 10, end = docs.find("```", begin);
  ASSERT_NE(end, docs.npos);
  VerifierOptions o;
  o.timeout = 1000;
  o.command = {"python3 " + scratch_.write("reward.py", docs.substr(begin, end - begin))};
  const auto v = make_verifier("command", o);
  Verdict right = v->verify({"So x = 42.", "42"}), wrong = v->verify({"So 41", "42"}),
          none = v->verify({"I do not know", "42"});
  EXPECT_FALSE(right.error || wrong.error || none.error) << right.reason << wrong.reason << none.reason;
  EXPECT_TRUE(right.acc);
  EXPECT_EQ(right.pred, "42");
  EXPECT_FALSE(wrong.acc);
  EXPECT_TRUE(wrong.found);
  EXPECT_FALSE(none.found);
  EXPECT_GT(right.score, wrong.score);
}

TEST(Format, PiecesStandInOrderAndOnce) {
  VerifierOptions o;
  o.pattern = "<think>*</think>*<answer>*</answer>";
  const auto v = make_verifier("format", o);
  const auto has = [&](const std::string& text) { return v->verify(text, "-").acc; };
  EXPECT_TRUE(has("<think>a</think>\n<answer>b</answer>"));
  EXPECT_TRUE(has(" <think></think><answer></answer>\n"));
  EXPECT_FALSE(has("x<think>a</think><answer>b</answer>"));
  EXPECT_FALSE(has("<think>a</think><answer>b</answer>x"));
  EXPECT_FALSE(has("<think>a<answer>b</answer></think>"));
  EXPECT_FALSE(has("<think>a</think><answer>b</answer><answer>c</answer>"));
  EXPECT_FALSE(has("<think>a</think><answer>b"));
  EXPECT_FALSE(has(""));
  EXPECT_EQ(v->verify("<think>a", "-").reason, "\"</think>\" is not in its place");
  o.pattern = "*Answer:*";
  EXPECT_TRUE(make_verifier("format", o)->verify("so\nAnswer: 3", "-").acc);
  EXPECT_FALSE(make_verifier("format", o)->verify("Answer: 3 Answer: 4", "-").acc);
  o.pattern = "ab*b";
  EXPECT_FALSE(make_verifier("format", o)->verify("ab", "-").acc);  // the pieces may not overlap
  o.pattern = "yes";
  EXPECT_TRUE(make_verifier("format", o)->verify("yes", "-").acc);
  EXPECT_FALSE(make_verifier("format", o)->verify("yes!", "-").acc);
  o.pattern = "**";
  EXPECT_THROW(make_verifier("format", o), Error);
}

TEST_F(CommandTest, TermsAreAddedWithTheirWeights) {
  const auto weighted = [&](const VerifierOptions& last) {
    std::vector<WeightedVerifier> terms;
    VerifierOptions form{.right = 1, .wrong = 0};
    form.pattern = "Answer:*";
    terms.push_back({make_verifier("format", form), 0.5});
    terms.push_back({make_verifier("command", last), -2});
    return make_weighted(make_verifier("math_dapo"), std::move(terms));
  };
  const auto v = weighted(says("{\"score\": 0.25}"));
  Verdict out = v->verify("Answer: 3", "3");
  EXPECT_EQ(out.terms, (std::vector<float>{1, 1, 0.25}));
  EXPECT_EQ(out.score, 1.0f);  // 1 + 0.5 - 0.5
  EXPECT_TRUE(out.acc);
  EXPECT_EQ(out.pred, "3");
  out = v->verify("x\nAnswer: 4", "3");
  EXPECT_EQ(out.terms, (std::vector<float>{-1, 0, 0.25}));
  EXPECT_EQ(out.score, -1.5f);
  EXPECT_FALSE(out.acc);  // the verifier's: terms do not change it
  out = weighted(says("{}"))->verify("Answer: 3", "3");
  EXPECT_TRUE(out.error);
  EXPECT_NE(out.reason.find("neither"), std::string::npos);
}

}  // namespace
}  // namespace dapo
