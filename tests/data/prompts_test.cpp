// Prompts that something went wrong with before: written as text, or lost.
#include "tests/data/rows_case.h"

namespace dapo {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) out += c == '\n' ? std::string("\\n") : c == '"' ? std::string("\\\"") : std::string(1, c);
  return out + '"';
}

TEST_F(Rows, MessagesAsTextAreNotAPrompt) {
  const std::string question(300, 'x');
  const std::vector<std::string> held = {
      R"([{"role": "user", "content": "1+1"}])",
      R"([ {"role":"user","content":"1+1"} ])",
      "[\n {\n  \"content\": \"" + question + "\",\n  \"role\": \"user\"\n }\n]\n",
      R"([{"from":"human","value":"1+1"}])",
      R"({"role": "user", "content": "1+1"})",
      ("[{'content': '1+1', 'role': 'user'}]"),
      ("{'role': 'user', 'content': '1+1'}"),
      ("array([{'content': '1+1', 'role': 'user'}], dtype=object)"),
      ("[{'content': '1+1', 'role': 'user'}\n {'content': '2', 'role': 'assistant'}]")};
  for (const std::string& text : held)
    for (const char* key : {"prompt", "messages", "question"})
      expect_in(refused("{" + quoted(key) + ":" + quoted(text) + ",\"answer\":\"2\"}", asked()),
                "f.jsonl:1: " + quoted(key) + " is a string that holds messages");
  const std::vector<std::string> plain = {R"([{"role": "user"}] What does this list hold?)",
                                          R"({"name": "x", "role": "y"})",
                                          "[1, 2]",
                                          "{",
                                          "[",
                                          R"(Reply as {"role": "r", "content": "c"})",
                                          R"({"content": "c"})"};
  for (const std::string& text : plain)
    EXPECT_EQ(load("{\"prompt\":" + quoted(text) + ",\"answer\":\"2\"}", asked())[0].prompt, text);
}

TEST_F(Rows, PromptsWithoutAQuestion) {
  expect_in(refused("{\"prompt\":\" \\n \",\"answer\":\"2\"}", asked()), "\"prompt\" is empty");
  const auto turns = [](const std::string& content) {
    return R"({"prompt":[{"role":"system","content":"s"},{"role":"user","content":)" + content + R"(}],"answer":"2"})";
  };
  for (const char* content : {"\"\"", "\" \\n\"", "[]", R"([{"type":"text","text":""}])"})
    expect_in(refused(turns(content), asked()), "");
  expect_in(refused(turns("\" \""), asked()), "f.jsonl:1: \"prompt\"[1], the user's message, is empty");
  EXPECT_EQ(load(turns("\"1+1\""), asked()).size(), 1u);
}

TEST_F(Rows, MissingAnswersOfPandas) {
  for (const char* text : {"<NA>", "NaT", "nan", "NaN"})
    expect_in(refused(R"({"prompt":"1+1","answer":")" + std::string(text) + "\"}", asked()),
              "which programs write for a missing answer");
}

}  // namespace
}  // namespace dapo
