#include "data/dataset.h"

#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "core/check.h"
#include "tests/testdata.h"

namespace dapo {
namespace {

/// A file that lives as long as the test.
struct TempFile {
  explicit TempFile(const std::string& text, const std::string& ending = ".jsonl")
      : path(folder.write("data" + ending, text)) {}
  const ScratchFolder folder;
  const std::string path;
};

Dataset load_text(const std::string& text, const DatasetOptions& options = {}) {
  return Dataset::load(TempFile(text).path, options);
}

/// The message with which loading fails; the exit code must be 2 and the message one line.
std::string error_of(const std::string& text, const DatasetOptions& options = {},
                     const std::string& ending = ".jsonl") {
  const TempFile file(text, ending);
  try {
    Dataset::load(file.path, options);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kExitUsage) << e.what();
    std::string message = e.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    const size_t at = message.find(file.path);
    EXPECT_NE(at, std::string::npos) << message;
    if (at != std::string::npos) message.replace(at, file.path.size(), "F");
    return message;
  }
  return "no error";
}

void expect_error(const std::string& text, const std::string& start, const DatasetOptions& options = {}) {
  const std::string message = error_of(text, options);
  EXPECT_EQ(message.substr(0, start.size()), start) << "for " << text.substr(0, 100);
}

TEST(Dataset, Layouts) {
  const Dataset set = load_text(
      R"({"data_source":"math_dapo","prompt":[{"role":"system","content":"S"},{"role":"user","content":"Q"}],"reward_model":{"ground_truth":"34"}})"
      "\n"
      R"({"question":"q","answer":"a b\n#### 1,234"})"
      "\n"
      R"({"problem":"p","solution":"so \\boxed{x^{2}} is it"})"
      "\n"
      R"({"input":"i","output":"o"})"
      "\n"
      R"({"prompt":"1+1 \n","answer":"2","operations":1})"
      "\n"
      R"({"prompt":"1+1 \n","response":"=2","teacher":"steps"})"
      "\n"
      R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}]})"
      "\n"
      R"({"prompt":"n","answer":70.0})"
      "\n"
      R"({"prompt":"n","answer":-0.25})"
      "\n"
      R"({"prompt":"n","answer":18446744073709551615})"
      "\n"
      R"({"prompt":"n","reward_model":{"ground_truth":{"target": 3, "numbers": [1, 2]}}})");
  ASSERT_EQ(set.size(), 11u);
  EXPECT_EQ(set[0].messages, (std::vector<Message>{{"system", "S"}, {"user", "Q"}}));
  EXPECT_EQ(set[0].text(), "S\n\nQ");
  EXPECT_EQ(set[0].answer, "34");
  EXPECT_EQ(set[0].data_source, "math_dapo");
  EXPECT_EQ(set[1].prompt, "q");
  EXPECT_EQ(set[1].answer, "1234");
  EXPECT_EQ(set[1].solution, "a b\n#### 1,234");
  EXPECT_EQ(set[2].answer, "x^{2}");
  EXPECT_EQ(set[3].prompt + set[3].answer, "io");
  EXPECT_EQ(set[4].prompt, "1+1 \n");
  EXPECT_EQ(set[5].response, "=2");
  EXPECT_EQ(set[6].response, "hello");
  EXPECT_EQ(set[6].messages.size(), 1u);
  EXPECT_EQ(set[7].answer, "70");
  EXPECT_EQ(set[8].answer, "-0.25");
  EXPECT_EQ(set[9].answer, "18446744073709551615");
  EXPECT_EQ(set[10].answer, R"({"target":3,"numbers":[1,2]})");
  EXPECT_EQ(set[4].problem, set[5].problem);
  EXPECT_NE(set[4].id, set[5].id);
  EXPECT_EQ(set[4].id.substr(0, 2), "4-");
}

TEST(Dataset, FieldNamesFromOptions) {
  DatasetOptions o;
  o.prompt_key = "extra.q", o.answer_key = "extra.a", o.response_key = "r";
  const Dataset set = load_text(R"({"prompt":"no","extra":{"q":"Q","a":7},"r":"R"})", o);
  EXPECT_EQ(set[0].prompt, "Q");
  EXPECT_EQ(set[0].answer, "7");
  EXPECT_EQ(set[0].response, "R");
  expect_error(R"({"prompt":"x","extra":{"q":"Q"}})", "F:1: no answer: field \"extra.a\" is expected", o);
  expect_error(R"({"prompt":"x","extra":3})", "F:1: no prompt: field \"extra.q\" is expected", o);
}

TEST(Dataset, TolerantOfByteOrderMarkCrlfAndBlankLines) {
  const Dataset set = load_text("\xEF\xBB\xBF{\"prompt\":\"a\"}\r\n\r\n{\"prompt\":\"b\"}\r\n \t\n\n\n");
  ASSERT_EQ(set.size(), 2u);
  EXPECT_EQ(set[1].prompt, "b");
}

TEST(Dataset, ErrorsNameTheLine) {
  const std::string good = "{\"prompt\":\"a\"}\n";
  expect_error("", "F: no rows");
  expect_error("\n \n", "F: no rows");
  expect_error(good + "{\"prompt\":\"a\"", "F:2: not valid JSON: ");
  expect_error(good + good + "{\"prompt\":\"a}\n" + good, "F:3: not valid JSON: a string is not closed");
  expect_error(good + "{} x", "F:2: not valid JSON: ");
  expect_error(good + "{\"prompt\":\"\xC3\x28\"}", "F:2: not valid JSON: not valid UTF-8");
  expect_error(good + "{\"prompt\":\"\xED\xA0\x80\"}", "F:2: not valid JSON: not valid UTF-8");
  expect_error("{\"prompt\":\"\x01\"}", "F:1: not valid JSON: a control character");
  expect_error("{'prompt': 'a'}", "F:1: not valid JSON: single quotes, as Python's str() writes them");
  expect_error("prompt,answer\n1+1,2\n", "F:1: not valid JSON: it does not begin with {: is the file CSV");
  expect_error("[1,2]", "F:1: a number instead of an object");
  expect_error("[[1],[2]]", "F:1: a list instead of an object");
  expect_error("\"x\"", "F:1: a string instead of an object");
  expect_error("{\"answer\":\"1\"}", "F:1: no prompt: one of prompt, messages, conversations");
  expect_error("{\"prompt\":\"\"}", "F:1: \"prompt\" is empty");
  expect_error("{\"prompt\":3}", "F:1: \"prompt\" is a number: expected a string");
  expect_error("{\"prompt\":[]}", "F:1: \"prompt\" is an empty list");
  expect_error("{\"prompt\":[{\"role\":\"user\"}]}", "F:1: \"prompt\"[0] lacks");
  expect_error("{\"prompt\":[{\"role\":\"user\",\"content\":7}]}", "F:1: \"content\" is a number");
  expect_error("{\"prompt\":\"a\",\"answer\":true}", "F:1: \"answer\" is a bool");
  expect_error("{\"prompt\":\"a\",\"response\":1}", "F:1: \"response\" is a number");
  DatasetOptions need;
  need.need_answer = true;
  expect_error(good, "F:1: no answer: ", need);
  expect_error("{\"prompt\":\"a\",\"answer\":\"\"}", "F:1: \"answer\" is empty", need);
  for (const char* none : {"NaN", "-Infinity", "1e999", "null"})
    EXPECT_NE(error_of(fmt::format("{{\"prompt\":\"a\",\"answer\":{}}}", none), need).find("answer (null or NaN)"),
              std::string::npos);
  need = {};
  need.need_response = true;
  expect_error(good, "F:1: no response: ", need);
  EXPECT_THROW(Dataset::load("/nonexistent/file.jsonl"), Error);
  EXPECT_THROW(Dataset::load(std::filesystem::temp_directory_path().string()), Error);
  EXPECT_THROW(Dataset::load(std::vector<std::string>{}), Error);
}

TEST(Dataset, DepthIsCappedAndSmallDepthIsNot) {
  const auto nested = [](size_t n) {
    return "{\"prompt\":\"a\",\"x\":" + std::string(n, '[') + std::string(n, ']') + "}";
  };
  EXPECT_EQ(load_text(nested(60)).size(), 1u);
  expect_error(nested(64), "F:1: not valid JSON: nested deeper than 64 levels");
  expect_error("{\"prompt\":\"a\"}\n" + nested(5'000'000), "F:2: not valid JSON: nested deeper than 64 levels");
}

[[maybe_unused]] size_t peak_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoul(line.substr(6));
  return 0;
}

TEST(Dataset, LongLines) {
  const std::string long_text(10 << 20, 'x');
  const Dataset set = load_text("{\"prompt\":\"" + long_text + "\"}\n{\"prompt\":\"b\"}\n");
  ASSERT_EQ(set.size(), 2u);
  EXPECT_EQ(set[0].prompt, long_text);
  EXPECT_EQ(set[1].prompt, "b");
  const std::clock_t start = std::clock();  // CPU time: other programs run at the same time
  expect_error("{\"prompt\":\"b\"}\n" + std::string(40 << 20, '['), "F:2: line is longer than 16 MiB");
  expect_error(std::string(16 << 20, '['), "F:1: the object that begins here is not closed");
  expect_error(std::string(1 << 20, '\0'), "F:1: not valid JSON: ");
  std::string commas = "{\"prompt\":\"a\",\"x\":[0";
  for (int i = 0; i < 5'000'000; ++i) commas += ",0";
  EXPECT_EQ(load_text(commas + "]}").size(), 1u);
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  RecordProperty("seconds", std::to_string(seconds));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(seconds, 4.0);
  EXPECT_LT(peak_kib(), 400u << 10);  // with the 40 MB texts of this test
#endif
}

TEST(Dataset, BlankLinesCostOnlyTheirBytes) {
  for (const std::string line : {"\n", "\r\n", " "}) {
    std::string text;
    while (text.size() < 50'000'000) text += line;
    const std::clock_t start = std::clock();
    expect_error(text, "F: no rows");
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 0.5);
#else
    (void)start;
#endif
  }
  expect_error(std::string(1000, '\n') + "x", "F:1001: not valid JSON: ");
}

TEST(Dataset, DedupeReportsCopiesAndConflicts) {
  const std::string kRows = R"({"prompt":"a","answer":"1"}
{"prompt":"b","answer":"2"}
{"prompt":"a","answer":"1"}
{"prompt":"b","answer":"3"})";
  Dataset set = load_text(kRows);
  const DedupeReport before = set.duplicates();
  EXPECT_EQ(set.size(), 4u);
  const DedupeReport report = set.dedupe();
  EXPECT_EQ(before.text(), report.text());
  EXPECT_EQ(report.rows, 4u);
  EXPECT_EQ(report.problems, 2u);
  EXPECT_EQ(report.copies, 2u);
  ASSERT_EQ(report.conflicts.size(), 1u);
  EXPECT_EQ(report.conflicts[0].answers, (std::vector<std::string>{"2", "3"}));
  ASSERT_EQ(set.size(), 2u);
  EXPECT_EQ(set[1].answer, "2");
  EXPECT_EQ(set.left_out().rows, 0u);
  DatasetOptions unique;
  unique.unique = true;
  const Dataset read = load_text(kRows, unique);
  EXPECT_EQ(read.fingerprint(), set.fingerprint());
  EXPECT_EQ(read.left_out().text(), report.text());
  EXPECT_EQ(set.duplicates().text(), "2 rows, no duplicate prompts");
}

TEST(Dataset, FingerprintSeesEveryChange) {
  const std::string a = "{\"prompt\":\"a\",\"answer\":\"1\"}\n", b = "{\"prompt\":\"b\",\"answer\":\"1\"}\n";
  std::set<uint64_t> seen;
  for (const std::string& text : {a + b, b + a, a, b, a + a, std::string("{\"prompt\":\"a\",\"answer\":\"2\"}\n"),
                                  std::string("{\"prompt\":\"a\",\"answer\":\"1\",\"response\":\"r\"}\n")})
    seen.insert(load_text(text).fingerprint());
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_EQ(load_text(a).fingerprint(), load_text(a + "\n").fingerprint());
}

struct FileCase {
  const char *path, *prompt, *answer;
  size_t rows;
};
void expect_file(const std::string& path, const FileCase& c) {
  DatasetOptions need;
  need.need_answer = true;
  const Dataset set = Dataset::load(path, need);
  ASSERT_EQ(set.size(), c.rows) << c.path;
  EXPECT_TRUE(set[0].text().starts_with(c.prompt)) << set[0].text();
  EXPECT_EQ(set[0].answer, c.answer) << c.path;
  for (const Example& e : set) EXPECT_EQ(e.answer.find("####"), std::string::npos);
}

TEST(Dataset, FilesInKnownLayouts) {
  for (const FileCase& c : {FileCase{"files/gsm8k.jsonl", "Nr. 1: Nina\u2019s shop sells 10 pens", "1400", 12},
                            {"files/math.jsonl", "Halve $\\frac{3}{7}$.", "\\frac{3}{14}", 6},
                            {"files/countdown.jsonl", "3,8,4", "15", 4},
                            {"files/dapo_format.jsonl", "Solve the following math problem", "16", 4},
                            {"files/dapo.jsonl.gz", "Nr. 1: Nina\u2019s shop", "140", 60}})
    expect_file(golden(c.path), c);
  for (const FileCase& c :
       {FileCase{"eval/aime25.jsonl", "Find the sum of all integer bases", "70", 30},
        FileCase{"eval/gen_aime-2025_dapo_format.jsonl", "Solve the following math problem", "70", 30},
        FileCase{"eval/amc23.jsonl", "Cities $A$ and $B$", "27", 40},
        FileCase{"eval/gsm8k_test.jsonl", "Janet\u2019s ducks", "18", 1319},
        FileCase{"eval/math500.jsonl", "Convert the point", "\\left( 3, \\frac{\\pi}{2} \\right)", 500},
        FileCase{"train/gsm8k_train.jsonl", "Natalia sold clips", "72", 7473},
        FileCase{"chain/train.jsonl", "2+4+1+1-2+2  ", "3", 8192},
        FileCase{"countdown/countdown_cd3_test.jsonl", "30,100,93", "23", 256}}) {
    if (const std::string path = test_data(c.path); !path.empty()) expect_file(path, c);
  }
  DatasetOptions need;
  need.need_answer = true;
  if (const std::string arith = test_data("safetensors/arith_train.rows.jsonl"); !arith.empty()) {
    EXPECT_EQ(Dataset::load(arith).size(), 800u);
    EXPECT_THROW(Dataset::load(arith, need), Error);
  }
  need = {};
  need.need_response = true;
  const auto crowds = golden_files("chain/crowd.jsonl.gz", "chain/crowd.jsonl");
  for (const std::string& crowd : crowds)
    for (const Example& e : Dataset::load(crowd, need)) ASSERT_NE(e.response.find("Answer: "), std::string::npos);
  for (const std::string& gsm8k : golden_files("files/gsm8k.jsonl", "eval/gsm8k_test.jsonl"))
    for (const Example& e : Dataset::load(gsm8k)) {
      EXPECT_TRUE(e.solution.size() > e.answer.size());
      EXPECT_EQ(e.answer.find_first_not_of("-0123456789."), std::string::npos) << e.answer;
    }
}

TEST(Dataset, CountdownFormat) {
  DatasetOptions o;
  o.format = RowFormat::countdown;
  const auto expect = [&](const std::string& path, size_t rows, const std::string& answer, const std::string& text) {
    const Dataset set = Dataset::load(path, o);
    ASSERT_EQ(set.size(), rows) << path;
    EXPECT_EQ(set[0].answer, answer);
    EXPECT_NE(set[0].text().find(text), std::string::npos) << set[0].text();
  };
  expect(golden("files/countdown.jsonl"), 4, R"({"target":15,"numbers":[3,8,4]})",
         "Reach 15 with the numbers 3, 8, 4.");
  if (const std::string path = test_data("countdown/countdown_cd3_test.jsonl"); !path.empty())
    expect(path, 256, R"({"target":23,"numbers":[30,100,93]})", "Reach 23 with the numbers 30, 100, 93.");
  expect_error(R"({"input":"a,b","output":"3"})", "F:1: \"input\" is not a list", o);
  expect_error(R"({"input":"1,2"})", "F:1: a countdown row", o);
}

TEST(Dataset, SeveralFilesAreOneDataset) {
  const TempFile a("{\"prompt\":\"a\"}\n"), b("{\"prompt\":\"b\"}\n"), none("\n");
  const Dataset set = Dataset::load({a.path, b.path, a.path});
  ASSERT_EQ(set.size(), 3u);
  EXPECT_EQ(set[2].id.substr(0, 2), "2-");
  EXPECT_EQ(set.duplicates().problems, 2u);
  EXPECT_THROW(Dataset::load({a.path, none.path}), Error);
}

}  // namespace
}  // namespace dapo
