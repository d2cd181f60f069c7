// Chat and prompt templates.
#include "tokenizer/chat.h"

#include "tests/tokenizer/support.h"

namespace dapo {
namespace {

std::string config_template(const std::string& path) {
  return Json::parse(slurp(path))["chat_template"];
}

std::vector<ChatMessage> to_messages(const Json& list) {
  std::vector<ChatMessage> messages;
  for (const Json& m : list) {
    messages.push_back({m["role"], m["content"], m.contains("tool_calls") ? m["tool_calls"].dump() : ""});
  }
  return messages;
}

ChatTemplate instruct(const std::string& path) {
  return ChatTemplate::recognise(config_template(path), path);
}

TEST(Chat, QwenInstructVectors) {
  REQUIRE_DATA(json, kQwenJson);
  REQUIRE_DATA(config, "tokenizer/qwen2.5-7B-Instruct_tokenizer_config.json");
  REQUIRE_DATA(vectors, "tokenizer_vectors/qwen2.5_chat_vectors.jsonl");
  const auto tokenizer = Tokenizer::load(json);
  const ChatTemplate chat = instruct(config);
  const auto rows = json_lines(vectors);
  EXPECT_EQ(rows.size(), 44u);
  for (const Json& row : rows) {
    const std::string tools = row["tools"].is_null() ? "" : row["tools"].dump();
    const std::string text = chat.render(to_messages(row["messages"]), tools, row["add_generation_prompt"]);
    EXPECT_EQ(text, row["rendered"].get<std::string>()) << row["name"];
    EXPECT_EQ(tokenizer->encode(text), row["ids"].get<Ids>()) << row["name"];
  }
}

TEST(Chat, DefaultSystemPrompts) {
  REQUIRE_DATA(base, "tokenizer/qwen2.5-0.5B-base_tokenizer_config.json");
  REQUIRE_DATA(other, "tokenizer/qwen2.5-7B-Instruct_tokenizer_config.json");
  const std::vector<ChatMessage> hello = {{"user", "Hi"}};
  EXPECT_EQ(instruct(base).render(hello),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(instruct(other).default_system, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.");
}

constexpr const char* kSmolLM2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

TEST(Chat, SmolLM2) {
  const ChatTemplate chat = ChatTemplate::recognise(kSmolLM2, "here");
  EXPECT_EQ(chat.kind, ChatTemplate::kChatML);
  const std::vector<ChatMessage> hello = {{"user", "Hi"}};
  EXPECT_EQ(chat.render(hello, "", false),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n");
  const std::vector<ChatMessage> own = {{"system", "S"}, {"user", "Hi"}};
  EXPECT_EQ(chat.render(own),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_NE(error_of(kExitUsage, [&] { chat.render(hello, "[{}]"); }).find("tools"), std::string::npos);
  const std::vector<ChatMessage> tool = {{"tool", "1"}};
  EXPECT_NE(error_of(kExitUsage, [&] { chat.render(tool); }).find("'tool'"), std::string::npos);
}

TEST(Chat, AnotherDefaultPromptIsReadFromTheTemplate) {
  std::string jinja = kSmolLM2;
  const std::string known = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
  jinja.replace(jinja.find(known), known.size(), "Reason step by step, \\\\boxed{}.");
  EXPECT_EQ(ChatTemplate::recognise(jinja, "here").default_system, "Reason step by step, \\boxed{}.");
}

TEST(Chat, OthersAreRefused) {
  const std::string error =
      error_of(kExitUsage, [] { ChatTemplate::recognise(std::string(kSmolLM2) + "<think>", "a/b.json"); });
  EXPECT_NE(error.find("a/b.json"), std::string::npos);
  EXPECT_NE(error.find("Qwen2.5"), std::string::npos);
  EXPECT_NE(error.find("raw"), std::string::npos);
}

TEST(Chat, FoldersWithAndWithout) {
  const ScratchFolder folder;
  EXPECT_EQ(ChatTemplate::load(folder.path()).kind, ChatTemplate::kNone);
  folder.write("tokenizer_config.json", R"({"eos_token": "x"})");
  const ChatTemplate none = ChatTemplate::load(folder.path());
  EXPECT_EQ(none.kind, ChatTemplate::kNone);
  const std::vector<ChatMessage> hello = {{"user", "Hi"}};
  EXPECT_NE(error_of(kExitUsage, [&] { none.render(hello); }).find("raw"), std::string::npos);
  EXPECT_EQ(render_prompt(PromptStyle::raw, none, hello), "Hi");
  EXPECT_EQ(render_prompt(PromptStyle::dapo, none, hello), dapo_prompt("Hi"));
  folder.write("tokenizer_config.json", Json{{"chat_template", kSmolLM2}}.dump());
  EXPECT_EQ(ChatTemplate::load(folder.path()).kind, ChatTemplate::kChatML);
  folder.write("chat_template.jinja", "{{ bos_token }}");
  EXPECT_NE(error_of(kExitUsage, [&] { ChatTemplate::load(folder.path()); }).find("chat_template.jinja"),
            std::string::npos);
}

TEST(Chat, BadConversations) {
  const ChatTemplate chat{ChatTemplate::kQwen25, "S"};
  const std::vector<ChatMessage> none, odd = {{"robot", "x"}}, broken = {{"assistant", "", "[{"}},
                                       nameless = {{"assistant", "", R"([{"arguments": {}}])"}},
                                       hello = {{"user", "x"}};
  EXPECT_NE(error_of(kExitUsage, [&] { chat.render(none); }), "");
  EXPECT_NE(error_of(kExitUsage, [&] { chat.render(odd); }).find("'robot'"), std::string::npos);
  EXPECT_NE(error_of(kExitUsage, [&] { chat.render(broken); }).find("tool_calls"), std::string::npos);
  EXPECT_NE(error_of(kExitUsage, [&] { chat.render(nameless); }).find("tool_calls"), std::string::npos);
  EXPECT_NE(error_of(kExitUsage, [&] { chat.render(hello, "{]"); }).find("tools"), std::string::npos);
}

/// What Python's json.dumps(json.loads(x), ensure_ascii=False) gave.
TEST(Chat, PythonJson) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"a":[1,2.0,-3e5,1e16,1e-5,0.0001,true,null],"b":{}})",
       R"({"a": [1, 2.0, -300000.0, 1e+16, 1e-05, 0.0001, true, null], "b": {}})"},
      {R"(["\u00e9\n\/\"\\\u0001", "北京"])", R"(["é\n/\"\\\u0001", "北京"])"},
      {"[]", "[]"},
      {"18446744073709551615", "18446744073709551615"},
      {"0.1", "0.1"},
      {"123456789012345680.0", "1.2345678901234568e+17"}};
  for (const auto& [in, out] : cases) EXPECT_EQ(python_json(in, "x"), out);
  EXPECT_NE(error_of(kExitUsage, [] { python_json("{", "the tools"); }).find("the tools"), std::string::npos);
}

TEST(Prompt, DapoWrapperIsTheDatasets) {
  REQUIRE_DATA(path, "eval/gen_aime-2025_dapo_format.jsonl");
  const auto rows = json_lines(path);
  EXPECT_EQ(rows.size(), 30u);
  const ChatTemplate none;
  for (const Json& row : rows) {
    const std::string text = row["prompt"][0]["content"];
    const std::string problem = row["extra_info"]["raw_problem"];
    EXPECT_EQ(dapo_prompt(problem), text);
    const std::vector<ChatMessage> bare = {{"user", problem}}, wrapped = {{"user", text}};
    EXPECT_EQ(render_prompt(PromptStyle::dapo, none, bare), text);
    EXPECT_EQ(render_prompt(PromptStyle::dapo, none, wrapped), text) << "wrapped once only";
  }
}

TEST(Prompt, Styles) {
  EXPECT_EQ(parse_prompt_style("dapo"), PromptStyle::dapo);
  EXPECT_NE(error_of(kExitUsage, [] { parse_prompt_style("alpaca"); }).find("chatml"), std::string::npos);
  const std::vector<ChatMessage> two = {{"system", "S"}, {"user", "P"}};
  const ChatTemplate chat{ChatTemplate::kQwen25, "D"};
  EXPECT_EQ(render_prompt(PromptStyle::raw, chat, two), "S\nP");
  EXPECT_EQ(render_prompt(PromptStyle::dapo, chat, two), "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n" +
                                                             dapo_prompt("P") + "<|im_end|>\n<|im_start|>assistant\n");
}

}  // namespace
}  // namespace dapo
