// Rows as real programs write them: layouts, answers inside texts, Python's JSON, arrays, gzip, folders.
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "data/answer.h"
#include "tests/data/rows_case.h"

namespace dapo {
namespace {

TEST_F(Rows, AnswersInsideTexts) {
  // GSM8K's mark: on the last line, followed by a number and nothing else
  EXPECT_EQ(marked_answer("9 + 9 = <<9+9=18>>18.\n#### 1,018"), "1018");
  EXPECT_EQ(marked_answer("#### $-2.50\n"), "-2.50");
  EXPECT_EQ(marked_answer("####7"), "7");
  EXPECT_EQ(marked_answer("a\n#### 3/4"), "3/4");
  // a heading is not an answer
  EXPECT_EQ(marked_answer("#### Step 1\n1 + 1 = 2\n\n#### Conclusion\nIt is $\\boxed{2}$."), "2");
  EXPECT_EQ(marked_answer("#### Final answer\n\n2"), "2");
  EXPECT_EQ(marked_answer("#### Final answer\n\nso it is 2"), std::nullopt);
  EXPECT_EQ(marked_answer("#### Step 1\nWe add.\n#### Step 2\n$\\boxed{7}$, as claimed."), "7");
  EXPECT_EQ(marked_answer("#### 2 apples"), std::nullopt);
  EXPECT_EQ(marked_answer("##### 5"), std::nullopt);
  EXPECT_EQ(marked_answer("a\n#### \\$18"), "18");
  EXPECT_EQ(marked_answer("a\n#### 18."), "18");
  EXPECT_EQ(marked_answer("a\n#### -\u20AC1,234.50"), "-1234.50");
  EXPECT_EQ(marked_answer("a\n#### $\u22125$"), "-5");
  EXPECT_EQ(marked_answer("a\n#### 2,5"), std::nullopt);  // two and a half, or 25?
  EXPECT_EQ(marked_answer("a\n#### 1,2345"), std::nullopt);
  EXPECT_EQ(marked_answer("a\n#### --5"), std::nullopt);
  EXPECT_EQ(marked_answer("<think>\\boxed{3}?</think>\n<answer> 145\u00B0 </answer>\n"), "145\u00B0");
  EXPECT_EQ(marked_answer("<answer>so\nit is $\\boxed{5}$</answer>"), "5");
  EXPECT_EQ(marked_answer("<answer>5</answer> is wrong"), std::nullopt);
  EXPECT_EQ(marked_answer("#### 1.2.3"), std::nullopt);
  EXPECT_EQ(marked_answer("####"), std::nullopt);
  // boxes
  EXPECT_EQ(marked_answer("$1 + 1 = \\boxed 2$."), "2");
  EXPECT_EQ(marked_answer("$1 + 2 = \\fbox{3}$."), "3");
  EXPECT_EQ(marked_answer("34"), std::nullopt);
}

TEST_F(Rows, TextsThatAreAnswersOnTheirOwn) {
  for (const char* text : {"34", "-3/4", "Paris", "x=2", "\\left( 3, \\frac{\\pi}{2} \\right)", "(1, 2)", "3 x + 1"})
    EXPECT_TRUE(is_answer(text)) << text;
  for (const char* text : {"", "2 + 3 = 5", "it is 5", "5\n6", "#### 5", "3 apples"})
    EXPECT_FALSE(is_answer(text)) << text;
}

TEST_F(Rows, ASolutionIsNotAnAnswer) {
  EXPECT_EQ(answer(R"({"problem":"p","solution":"34"})"), "34");
  EXPECT_EQ(answer(R"({"problem":"p","solution":"so $\\boxed 2$."})"), "2");
  EXPECT_EQ(answer(R"({"prompt":"p","answer":"the red one"})"), "the red one");
  EXPECT_EQ(answer(R"({"prompt":"p","answer":"$\\boxed{2}$"})"), "2");
  expect_in(refused(R"({"problem":"p","solution":"We add 1 and 1: it is 2."})", asked()),
            "f.jsonl:1: \"solution\" is a text with no \"#### number\" at its end and no \\boxed{}");
  expect_in(refused(R"({"problem":"p","answer":"#### Conclusion"})", asked()), "\"answer\" is a text with no");
  expect_in(refused(R"({"problem":"p","answer":"first\nthen\nit is 2"})", asked()), "is a text of 3 lines");
  expect_in(refused("{\"problem\":\"p\",\"output\":\"a " + std::string(600, 'a') + "\"}", asked()), "602 bytes");
  // if answers are not needed, or the user selects the column, it is taken verbatim
  EXPECT_EQ(load(R"({"problem":"p","answer":"first\nthen"})")[0].answer, "first\nthen");
  DatasetOptions named = asked();
  named.answer_key = "text";
  EXPECT_EQ(load(R"({"problem":"p","text":"first\nthen"})", named)[0].answer, "first\nthen");
  EXPECT_EQ(answer(R"({"prompt":"p","reward_model":{"ground_truth":"first\nthen"}})"), "first\nthen");
}

TEST_F(Rows, AnswersOfOtherTypes) {
  const auto of = [&](const std::string& json) { return answer("{\"prompt\":\"p\",\"answer\":" + json + "}"); };
  EXPECT_EQ(of("42.0"), "42");
  EXPECT_EQ(of("-0.0"), "0");
  EXPECT_EQ(of("1e20"), "100000000000000000000");
  EXPECT_EQ(of("0.0000001"), "0.0000001");
  EXPECT_EQ(of("1267650600228229401496703205376"), "1267650600228229401496703205376");
  EXPECT_EQ(of("-1267650600228229401496703205376"), "-1267650600228229401496703205376");
  EXPECT_EQ(of("[\"2\"]"), "2");
  EXPECT_EQ(of("[2.0]"), "2");
  EXPECT_EQ(of("[\"2\",\"two\"]"), std::string("2") + kAnswerSeparator + "two");
  EXPECT_EQ(of(R"({"target":3,"numbers":[1,2]})"), R"({"target":3,"numbers":[1,2]})");
  const auto wrong = [&](const std::string& json) {
    return refused("{\"prompt\":\"p\",\"answer\":" + json + "}", asked());
  };
  expect_in(wrong("[1,2]"), "\"answer\" is a list with a number in it");
  expect_in(wrong("[\"1\",\"\"]"), "a list with an empty string in it");
  expect_in(wrong("[]"), "\"answer\" is empty");
  expect_in(wrong("true"), "\"answer\" is a bool");
}

TEST_F(Rows, PythonsExtensionsOfJson) {
  const Dataset set = load(
      "{\"prompt\":\"NaN \\\"Infinity\",\"answer\":\"1\",\"x\":NaN}\n"
      "{\"prompt\":\"b\",\"answer\":\"2\",\"x\":[Infinity,-Infinity,{\"y\":NaN}]}\n"
      "{\"x\":340282366920938463463374607431768211456,\"prompt\":\"c\",\"answer\":-5}\n"
      "{\"prompt\":\"\\ud83d\\ude00 \\ud800\",\"answer\":\"4\"}\n"
      "{\"prompt\":\"first\",\"prompt\":\"last\",\"answer\":\"5\"}\n");
  ASSERT_EQ(set.size(), 5u);
  EXPECT_EQ(set[0].prompt, "NaN \"Infinity");
  EXPECT_EQ(set[2].answer, "-5");
  EXPECT_EQ(set[3].prompt, "\xF0\x9F\x98\x80 \xEF\xBF\xBD");
  EXPECT_EQ(set[4].prompt, "last");
  for (const char* bad : {"{\"prompt\":\"a\",\"x\":NAN}", "{\"prompt\":\"a\",\"x\":+1}", "{\"prompt\":\"a\",\"x\":01}",
                          "{\"prompt\":\"a\",\"x\":012345678901234567890123}", "{\"prompt\":\"a\",\"x\":NaNa}",
                          "{\"prompt\":\"a\",\"x\":-}"})
    expect_in(refused(bad), "f.jsonl:1: not valid JSON: ");
}

TEST_F(Rows, Instructions) {
  const std::string row = R"({"instruction":"Add.","input":"1 and 1","output":"2"})";
  EXPECT_EQ(load(row, asked())[0].prompt, "Add.\n\n1 and 1");
  EXPECT_EQ(load(row, asked())[0].answer, "2");
  EXPECT_EQ(load(row, tuned())[0].response, "2");
  EXPECT_EQ(load(R"({"instruction":"Add 1 and 1.","input":"","output":"2"})")[0].prompt, "Add 1 and 1.");
  EXPECT_EQ(load(R"({"instruction":"Solve.","question":"1+1","answer":"2"})")[0].prompt, "Solve.\n\n1+1");
  const Dataset set =
      load(R"({"system":"Be brief.","instruction":"Go on.","input":"","output":"3","history":[["1","2"]]})", tuned());
  EXPECT_EQ(set[0].messages,
            (std::vector<Message>{{"system", "Be brief."}, {"user", "1"}, {"assistant", "2"}, {"user", "Go on."}}));
  EXPECT_EQ(set[0].response, "3");
  EXPECT_EQ(set[0].prompt, "");
}

TEST_F(Rows, Conversations) {
  const std::string turns = R"([{"from":"human","value":"1+1"},{"from":"gpt","value":"2"}])";
  const Dataset set = load("{\"conversations\":" + turns + ",\"system\":\"Add.\"}", tuned());
  EXPECT_EQ(set[0].messages, (std::vector<Message>{{"system", "Add."}, {"user", "1+1"}}));
  EXPECT_EQ(set[0].response, "2");
  const Dataset parts = load(
      R"({"prompt":[{"role":"user","tool_calls":[],"content":[{"type":"text","text":"1"},{"type":"text","text":"+1"}]}],"completion":[{"role":"assistant","content":"2"}]})",
      tuned());
  EXPECT_EQ(parts[0].messages, (std::vector<Message>{{"user", "1+1"}}));
  EXPECT_EQ(parts[0].response, "2");
  expect_in(refused(R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null}]})"),
            "\"messages\"[1] lacks");
  expect_in(refused(R"({"prompt":[{"role":"user","content":[{"type":"image","url":"u"}]}]})"),
            "only text is supported");
  expect_in(refused(R"({"prompt":"[{\"role\": \"user\", \"content\": \"1+1\"}]"})"), "a string that holds messages");
}

TEST_F(Rows, OtherArgumentsOfChatTemplates) {
  const std::string tool = R"({"type":"function","function":{"name":"f"}})", begin = R"({"prompt":"1+1","answer":"2")";
  EXPECT_EQ(load(begin + "}", asked())[0].tools, "");
  EXPECT_EQ(load(begin + ",\"tools\":[" + tool + "]}", asked())[0].tools, "[" + tool + "]");
  EXPECT_EQ(load(begin + R"(,"tools":"[{\"name\": \"f\"}]"})", asked())[0].tools, R"([{"name":"f"}])")
      << "as JSON text";
  EXPECT_EQ(load(begin + R"(,"tools":""})", asked())[0].tools, "");
  EXPECT_NE(load(begin + ",\"tools\":[" + tool + "]}", asked())[0].problem, load(begin + "}", asked())[0].problem);
  expect_in(refused(begin + R"(,"tools":["hammer"]})", asked()), "f.jsonl:1: \"tools\"[0] is a string");
  expect_in(refused(begin + R"(,"tools":{"a":1}})", asked()), "\"tools\" is an object");
  expect_in(refused(begin + R"(,"tools":"[{"})", asked()), "f.jsonl:1: the text in \"tools\": not valid JSON");
  EXPECT_EQ(load(begin + R"(,"chat_template_kwargs":{"enable_thinking":false}})", asked())[0].variables,
            R"({"enable_thinking":false})");
  expect_in(refused(begin + R"(,"chat_template_kwargs":[1]})", asked()), "\"chat_template_kwargs\" is a list");
  // messages keep fields other than role and content, for the template
  const std::string call = R"({"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f"}}]})";
  const std::string turns =
      R"([{"role":"user","content":"a"},)" + call + R"(,{"role":"tool","name":"f","content":"3"}])";
  const Dataset set = load("{\"prompt\":" + turns + ",\"answer\":\"3\"}", asked());
  ASSERT_EQ(set[0].messages.size(), 3u);
  EXPECT_EQ(set[0].messages[0].more, "");
  EXPECT_EQ(set[0].messages[1], (Message{"assistant", "", call}));
  EXPECT_EQ(set[0].messages[2], (Message{"tool", "3", R"({"role":"tool","name":"f","content":"3"})"}));
}

TEST_F(Rows, AResponseIsOnlyItsText) {
  const std::string asks = R"({"role":"user","content":"1+1"})", row = "{\"messages\":[" + asks + ",";
  expect_in(refused(row + R"({"role":"assistant","content":"2","thinking":"1+1=2"}]})", tuned()),
            "f.jsonl:1: the response in \"messages\" has \"thinking\"");
  expect_in(refused(row + R"({"role":"assistant","content":"","tool_calls":[{"function":{}}]}]})", tuned()),
            "tool_calls");
  expect_in(refused("{\"prompt\":[" + asks +
                        R"(],"completion":[{"role":"assistant","content":"2","reasoning_content":"r"}]})",
                    tuned()),
            "\"completion\" has \"reasoning_content\"");
  EXPECT_EQ(load(row + R"({"role":"assistant","content":"2","thinking":null,"tool_calls":[],"weight":1}]})", tuned())[0]
                .response,
            "2");
}

TEST_F(Rows, AResponseAfterAnAssistantMessage) {
  const std::string begun = R"([{"role":"user","content":"1+1"},{"role":"assistant","content":"Let me see: "}])";
  const std::vector<Message> prompt = {{"user", "1+1"}, {"assistant", "Let me see: "}};
  // the response continues the prompt's last message, as in training
  const Dataset set = load("{\"prompt\":" + begun + R"(,"response":"2"})", tuned());
  EXPECT_EQ(set[0].messages, prompt);
  EXPECT_EQ(set[0].response, "2");
  // a conversation already has a response: the same one, or not
  const Dataset same = load("{\"messages\":" + begun + R"(,"response":"Let me see: "})", tuned());
  EXPECT_EQ(same[0].messages.size(), 1u);
  EXPECT_EQ(same[0].response, "Let me see: ");
  expect_in(refused("{\"messages\":" + begun + R"(,"response":"2"})", tuned()),
            "f.jsonl:1: \"messages\" ends with the assistant's turn, and \"response\" is another one");
  expect_in(refused("{\"prompt\":" + begun + R"(,"completion":[{"role":"assistant","content":"2"}]})", tuned()),
            "\"completion\" is another one");
}

TEST_F(Rows, IfAnswersAreNeededAFinalAssistantMessageIsAPrefill) {
  const std::string turns = R"([{"role":"user","content":"1+1"},{"role":"assistant","content":"<think>"}])";
  const Dataset set = load("{\"prompt\":" + turns + ",\"answer\":\"2\"}", asked());
  EXPECT_EQ(set[0].messages, (std::vector<Message>{{"user", "1+1"}, {"assistant", "<think>"}}));
  EXPECT_EQ(set[0].response, "");
  // a finished conversation is not a prompt
  const std::string row = "{\"messages\":" + turns + ",\"answer\":\"2\"";
  expect_in(refused(row + "}", asked()), "ends with the assistant's turn");
  EXPECT_EQ(load(row + ",\"problem\":\"p\"}", asked())[0].prompt, "p");
  DatasetOptions named = asked();
  named.prompt_key = "messages";
  EXPECT_EQ(load(row + "}", named)[0].messages.size(), 2u);
  EXPECT_EQ(load(row + "}", tuned())[0].response, "<think>");
}

TEST_F(Rows, ChoicesThatThePromptDoesNotShow) {
  const std::string row = R"({"question":"Which?","choices":["a","b"],"answer":1})";
  expect_in(refused(row, asked()), "\"choices\" has answer choices");
  DatasetOptions named = asked();
  named.prompt_key = "question";
  EXPECT_EQ(load(row, named)[0].answer, "1");
}

TEST_F(Rows, ListsOfAnswersAsText) {
  EXPECT_EQ(answer(R"({"prompt":"1+1","reward_model":{"ground_truth":"[\"2\"]"}})"), "2") << "Skywork-OR1";
  EXPECT_EQ(answer(R"({"prompt":"1+1","answer":"[\"2\", \"two\"]"})"), std::string("2") + kAnswerSeparator + "two");
  EXPECT_EQ(answer(R"({"prompt":"1+1","answer":"[1, 2]"})"), "[1, 2]") << "an interval";
  expect_in(refused(R"({"prompt":"1+1","answer":"['2', 'two']"})", asked()),
            "f.jsonl:1: \"answer\" holds a list as Python");
  expect_in(refused(R"({"prompt":"1+1","answer":"NaN"})", asked()), "\"answer\" is the text \"NaN\"");
}

TEST_F(Rows, ImagesAreRefused) {
  const std::string row = R"({"prompt":"<image>How many?","answer":"2","images":)";
  expect_in(refused(row + R"(["a.png"]})", asked()), "f.jsonl:1: the prompt comes with \"images\"");
  EXPECT_EQ(load(row + "[]}", asked()).size(), 1u);
  EXPECT_EQ(load(row + "null}", asked()).size(), 1u);
}

TEST_F(Rows, OtherShapesAreNamed) {
  expect_in(refused(R"([{"from":"human","value":"1+1"},{"from":"gpt","value":"2"}])", asked(), "f.json"),
            "this row is one turn of a conversation");
  expect_in(refused(R"({"data":[{"prompt":"1+1","answer":"2"}]})", asked(), "f.json"), "the rows are inside \"data\"");
  expect_in(refused(R"({"0":{"prompt":"a","answer":"2"},"1":{"prompt":"b","answer":"3"}})", asked(), "f.json"),
            "the rows are the values of one object");
  expect_in(refused(R"({"Problem":"1+1","Answer":2})", asked()), "set data.prompt_key = \"Problem\" to use that field");
  DatasetOptions named = asked();
  named.prompt_key = "Problem";
  expect_in(refused(R"({"Problem":"1+1","Answer":2})", named), "set data.answer_key = \"Answer\" to use that field");
  named.answer_key = "Correct Answer";
  EXPECT_EQ(load(R"({"Problem":"1+1","Correct Answer":"2"})", named)[0].answer, "2");
  expect_in(refused(R"({"prompt":"1+1","reward_model":"{\"ground_truth\": \"2\"}"})", asked()),
            "\"reward_model\" is a text: store the object itself");
}

TEST_F(Rows, ErrorsAboutMissingFieldsListThePresentOnes) {
  expect_in(refused(R"({"prompt":"p","Answer":"2","answer":null})", asked()),
            "the row has prompt, Answer, answer (null or NaN)");
  EXPECT_EQ(load(R"({"reward_model.ground_truth":"7","prompt":"p"})", asked())[0].answer, "7");
}

TEST_F(Rows, JsonArrays) {
  const std::string a = R"({"prompt":"a]}","answer":"\"1"})", b = "{\n  \"prompt\": \"b\",\n  \"x\": [[1, 2], {}]\n}";
  for (const std::string& text :
       {"[" + a + "," + b + "]", "\xEF\xBB\xBF [\n" + a + ",\r\n" + b + "\n]\n\n", "[" + a + "\n,\n" + b + " ] "}) {
    const Dataset set = load(text, {}, "f.json");
    ASSERT_EQ(set.size(), 2u) << text;
    EXPECT_EQ(set[0].prompt, "a]}");
    EXPECT_EQ(set[1].prompt, "b");
  }
  const Dataset spread = load(b + "\n" + b + b);
  EXPECT_EQ(spread.size(), 3u);
  expect_in(refused("[]"), "no rows");
  expect_in(refused("["), "f.jsonl:1: the JSON array is not closed");
  expect_in(refused("[\n" + a), "f.jsonl:2: the JSON array is not closed");
  expect_in(refused("[\n" + a + ",\n"), "f.jsonl:3: the JSON array is not closed");
  expect_in(refused("[\n" + a + "\n" + a + "]"), "f.jsonl:3: expected , or ]");
  expect_in(refused("[" + a + ",]"), "f.jsonl:1: expected a JSON object");
  expect_in(refused("[" + a + ",\n{\"prompt\":\"a"), "f.jsonl:2: the object that begins here is not closed");
  expect_in(refused("[" + a + "]\n[" + a + "]"), "f.jsonl:2: text after the JSON array");
  expect_in(refused("[" + a + ",\n\n{\"prompt\":}]"), "f.jsonl:3: not valid JSON");
  expect_in(refused("[" + a + ",\"x\"]"), "a string instead of an object");
  expect_in(refused("{\n\"prompt\": \"a\"\n"), "f.jsonl:1: the object that begins here is not closed");
}

/// Rows and strings that cross the reader's block boundaries (256 KiB).
TEST_F(Rows, LargeArrays) {
  std::string text = "[";
  for (int i = 0; i < 2000; ++i)
    text += fmt::format("{}\n{{\"prompt\":\"{}\",\"answer\":\"{}\\\\\"}}", i ? "," : "", std::string(997, '{'), i);
  const Dataset set = load(text + "]");
  ASSERT_EQ(set.size(), 2000u);
  for (size_t i = 0; i < set.size(); ++i) ASSERT_EQ(set[i].answer, fmt::format("{}\\", i));
  expect_in(refused("[\n{\"prompt\":\"" + std::string(17 << 20, 'x') + "\"}]"), "f.jsonl:2: the row that begins here");
}

TEST_F(Rows, Gzip) {
  const std::string path = scratch_.path("f.jsonl.gz");
  const auto zip = [&](const std::string& text, const char* mode) {
    gzFile f = gzopen(path.c_str(), mode);
    gzwrite(f, text.data(), static_cast<unsigned>(text.size()));
    gzclose(f);
  };
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += fmt::format("{{\"prompt\":\"row {}\"}}\n", i);
  zip(text, "wb");
  zip("{\"prompt\":\"another member\"}\n", "ab");
  const Dataset set = Dataset::load(path);
  ASSERT_EQ(set.size(), 20'001u);
  EXPECT_EQ(set[20'000].prompt, "another member");
  std::ifstream file(path, std::ios::binary);  // packed, as slurp() would not leave it
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  expect_in(refused(bytes.substr(0, bytes.size() / 2), {}, "f.gz"), "the compressed data is truncated");
  bytes[bytes.size() - 8] ^= 0x55;  // the last member's checksum
  expect_in(refused(bytes, {}, "f.gz"), "the compressed data is damaged");
}

TEST_F(Rows, OtherFormatsAreNamed) {
  expect_in(refused("a,b\n", {}, "f.csv"), "a CSV file");
  expect_in(refused("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"), "a Git LFS pointer");
  expect_in(refused("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", {}, "f.parquet"),
            "a Git LFS pointer");
  expect_in(refused("\x28\xB5\x2F\xFD..."), "zstd");
  expect_in(refused("PAR1..."), "a Parquet file");
  expect_in(refused(std::string("\xFF\xFE{\0", 4)), "UTF-16");
  expect_in(refused("<!DOCTYPE html>"), "an HTML page");
  std::filesystem::create_symlink("nowhere.jsonl", scratch_.path("link.jsonl"));
  expect_in(error_of(kExitUsage, [&] { Dataset::load(scratch_.path("link.jsonl")); }), "a link to nowhere.jsonl");
}

TEST_F(Rows, FoldersAndPatterns) {
  const auto put = [&](const std::string& name, const std::string& prompt) {
    scratch_.write(name, "{\"prompt\":\"" + prompt + "\"}\n");
  };
  put("s/train-00001-of-00002.jsonl", "b");
  put("s/train-00000-of-00002.jsonl", "a");
  scratch_.write("s/README.md", "text");
  for (const char* path : {"s", "s/", "s/train*", "s/train-0000?-of-*.jsonl"}) {
    const Dataset set = Dataset::load(scratch_.path(path));
    ASSERT_EQ(set.size(), 2u) << path;
    EXPECT_EQ(set[1].prompt, "b");
  }
  put("s/test-00000-of-00001.jsonl", "c");
  const auto error = [&](const char* path) {
    return error_of(kExitUsage, [&] { Dataset::load(scratch_.path(path)); });
  };
  expect_in(error("s"), "several splits (test-00000-of-00001.jsonl, train-");
  expect_in(error("s/none*"), "no file matches this pattern");
  put("t/a.jsonl", "a");
  put("t/b.json", "a");
  expect_in(error("t"), "several formats");
  put("u/data/train.jsonl", "a");
  expect_in(error("u"), "a folder without data files (.jsonl, .json, .parquet); it has the folders data");
  put("w/odd[1].jsonl", "a");
  EXPECT_EQ(Dataset::load(scratch_.path("w/odd[1].jsonl")).size(), 1u);
  setenv("HOME", scratch_.path().c_str(), 1);
  EXPECT_EQ(Dataset::load(std::string("~/w")).size(), 1u);
}

TEST_F(Rows, AnswersThatNoResponseEqualsAreRejected) {
  expect_in(refused("{\"prompt\":\"a\",\"answer\":\" \\n\"}", asked()), "\"answer\" is empty");
  expect_in(refused("{\"prompt\":\"a\",\"solution\":\"$\\\\boxed{5\"}", asked()), "has a \\boxed{ that is not closed");
  expect_in(refused("{\"prompt\":\"a\",\"answer\":\"$\\\\fbox{5\"}", asked()), "has a \\fbox{ that is not closed");
}

TEST_F(Rows, MessagesSayWhatIsWrongWithALine) {
  const std::string row = "{\"prompt\":\"a}{\\\"\",\"answer\":\"1\"}";
  expect_in(refused(row + row + "\n"), "f.jsonl:1: not valid JSON: two objects in one line");
  expect_in(refused(row + "\r" + row + "\r"), "two objects in one line");
  expect_in(refused(row + "\n" + row + ",\n"), "f.jsonl:2: not valid JSON: a comma follows the object");
  expect_in(refused(row + "\n" + std::string(3, '\0')), "f.jsonl:2: not valid JSON: NUL bytes");
  expect_in(refused("[" + row + ",\n" + row + ",\n]\n", {}, "f.json"),
            "f.json:3: expected a JSON object; remove the comma");
}

}  // namespace
}  // namespace dapo
