// Chat templates of folders, and the conversion of prompts to text.
#include "tokenizer/chat.h"

#include "tests/tokenizer/support.h"

namespace dapo {
namespace {

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

const std::vector<ChatMessage> kHello = {{"user", "Hi"}};

/// Typical of small models: a default system message, turns between markers.
constexpr const char* kMarked =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
constexpr const char* kHelloMarked =
    "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";

ChatTemplate of_config(const std::string& path) {
  return ChatTemplate::parse(Json::parse(slurp(path))["chat_template"].get<std::string>(), path);
}

void expect_conversations(const std::string& json, const std::string& config, const std::string& vectors,
                          size_t expected_rows) {
  const auto tokenizer = Tokenizer::load(json);
  const ChatTemplate chat = of_config(config);
  const auto rows = json_lines(vectors);
  EXPECT_EQ(rows.size(), expected_rows);
  for (const Json& row : rows) {
    const ChatExtras tools{row["tools"].is_null() ? "" : row["tools"].dump()};
    const ChatEnd end = row["add_generation_prompt"].get<bool>() ? ChatEnd::prompt : ChatEnd::closed;
    const std::string text = chat.render_json(row["messages"].dump(), tools, end);
    EXPECT_EQ(text, row["rendered"].get<std::string>()) << row["name"];
    EXPECT_EQ(tokenizer->encode(text), row["ids"].get<Ids>()) << row["name"];
  }
}

TEST(Chat, ConversationsAreRenderedAsInTransformers) {
  const std::string own = "tokenizer/bpe/";
  expect_conversations(golden(kOwnJson), golden(own + "tokenizer_config.json"), golden(own + "chat_vectors.jsonl"), 28);
  const std::string json = test_data(kQwenJson), base = test_data("tokenizer/qwen2.5-0.5B-base_tokenizer_config.json");
  if (json.empty()) return;
  expect_conversations(json, test_data("tokenizer/qwen2.5-7B-Instruct_tokenizer_config.json"),
                       test_data("tokenizer_vectors/qwen2.5_chat_vectors.jsonl"), 44);
  EXPECT_EQ(of_config(base).render(kHello),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\n");
}

/// A folder with one file changed, and its template's rendering of a greeting.
class ChatFolder : public testing::Test {
 protected:
  void config(const Json& json) { folder_.write("tokenizer_config.json", json.dump()); }
  std::string hello() const { return ChatTemplate::load(folder_.path()).render(kHello); }
  std::string refusal() const {
    return error_of(kExitUsage, [&] { ChatTemplate::load(folder_.path()); });
  }
  const ScratchFolder folder_;
};

TEST_F(ChatFolder, WithoutATemplate) {
  EXPECT_FALSE(ChatTemplate::load(folder_.path()));
  config({{"eos_token", "x"}});
  EXPECT_FALSE(ChatTemplate::load(folder_.path()));
  config({{"chat_template", nullptr}});
  const ChatTemplate none = ChatTemplate::load(folder_.path());
  EXPECT_FALSE(none);
  EXPECT_SAYS(error_of(kExitUsage, [&] { none.render(kHello); }), "raw");
  EXPECT_EQ(render_prompt(PromptStyle::raw, none, kHello), "Hi");
  EXPECT_EQ(render_prompt(PromptStyle::dapo, none, kHello), dapo_prompt("Hi"));
}

TEST_F(ChatFolder, TextOrListOfNamedOnes) {
  config({{"chat_template", kMarked}});
  EXPECT_EQ(hello(), kHelloMarked);
  config({{"chat_template",
           {{{"name", "tool_use"}, {"template", "T{{ tools|length }}"}},
            {{"name", "default"}, {"template", "D{{ messages[0].content }}"}}}}});
  EXPECT_EQ(hello(), "DHi");
  const ChatTemplate chat = ChatTemplate::load(folder_.path());
  EXPECT_EQ(chat.render(kHello, {.tools = R"([{"name": "f"}])"}), "T1")
      << "transformers: tool_use where there are tools";
  EXPECT_EQ(chat.render(kHello, {.tools = "null"}), "DHi");
}

TEST_F(ChatFolder, FilesTakePrecedenceOverTheKey) {
  config({{"chat_template", "key"}});
  folder_.write("chat_template.json", R"({"chat_template": "json"})");
  EXPECT_EQ(hello(), "key");
  config({{"eos_token", "x"}});
  EXPECT_EQ(hello(), "json");
  folder_.write("chat_template.jinja",
                "\xEF\xBB\xBF"
                "file");
  config({{"chat_template", "key"}});
  EXPECT_EQ(hello(), "file") << "and a byte order mark is not part of it";
  folder_.write("additional_chat_templates/tool_use.jinja", "tools");
  EXPECT_EQ(hello(), "file");
  EXPECT_EQ(ChatTemplate::load(folder_.path()).render(kHello, {.tools = "[{}]"}), "tools");
}

TEST_F(ChatFolder, InvalidTemplatesAreNamed) {
  for (const Json& bad : {Json(5), Json(true), Json(""), Json(Json::array()), Json(Json::object()), Json({1, 2}),
                          Json({{{"name", "default"}}}), Json({{{"name", "default"}, {"template", 3}}})}) {
    config({{"chat_template", bad}});
    const std::string error = refusal();
    EXPECT_SAYS(error, "tokenizer_config.json");
    EXPECT_SAYS(error, "chat_template");
  }
  config({{"chat_template", {{{"name", "rag"}, {"template", "x"}}, {{"name", "tool_use"}, {"template", "x"}}}}});
  EXPECT_SAYS(refusal(), "'rag', 'tool_use'");
  config({{"chat_template", "{% if %}"}});
  EXPECT_SAYS(refusal(), "tokenizer_config.json:1:");
  folder_.write("tokenizer_config.json", "[]");
  EXPECT_SAYS(refusal(), "tokenizer_config.json");
  folder_.write("tokenizer_config.json", "{");
  EXPECT_SAYS(refusal(), "tokenizer_config.json");
  folder_.write("tokenizer_config.json", "{}");
  folder_.write("chat_template.jinja", "");
  EXPECT_SAYS(refusal(), "chat_template.jinja: is empty");
  folder_.write("chat_template.jinja", "{{ x.y }}");
  EXPECT_SAYS(error_of(kExitUsage, [&] { hello(); }), "chat_template.jinja:1:");
}

TEST_F(ChatFolder, SpecialTokensAreVariables) {
  config({{"bos_token", {{"__type", "AddedToken"}, {"content", "<s>"}}},
          {"eos_token", "</s>"},
          {"pad_token", nullptr},
          {"chat_template", "{{ bos_token }}|{{ eos_token }}|{{ pad_token is defined }}|{{ tools is none }}"}});
  EXPECT_EQ(hello(), "<s>|</s>|False|True");
  folder_.write("special_tokens_map.json", R"({"eos_token": {"content": "<end>"}})");
  EXPECT_EQ(hello(), "<s>|<end>|False|True") << "of folders without added_tokens_decoder";
  config({{"eos_token", 5}, {"chat_template", "x"}});
  EXPECT_SAYS(refusal(), "\"eos_token\"");
}

TEST(Chat, ALastMessageIsContinued) {
  const ChatTemplate chat = ChatTemplate::parse(kMarked, "t");
  const std::vector<ChatMessage> begun = {{"system", "S"}, {"user", "1+1"}, {"assistant", "Step by step. <think>"}};
  const std::string expected =
      "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\nStep by step. <think>";
  EXPECT_EQ(chat.render(begun, {}, ChatEnd::continued), expected);
  EXPECT_EQ(render_prompt(PromptStyle::chatml, chat, begun), expected) << "no end of the turn, and no new one";
  EXPECT_EQ(render_prompt(PromptStyle::raw, chat, begun), "S\n1+1\nStep by step. <think>");
  const std::vector<ChatMessage> spaced = {{"user", "a"}, {"assistant", "b \n"}};
  EXPECT_TRUE(chat.render(spaced, {}, ChatEnd::continued).ends_with("assistant\nb \n"));
  // As in transformers, if the template trims: without the space.
  const ChatTemplate trims = ChatTemplate::parse("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", "t");
  EXPECT_EQ(trims.render(spaced, {}, ChatEnd::continued), "[a][b");
  const ChatTemplate drops = ChatTemplate::parse("{{ messages[0].content }}", "t");
  EXPECT_SAYS(error_of(kExitUsage, [&] { drops.render(spaced, {}, ChatEnd::continued); }), "cannot be continued");
  const std::string parts =
      R"([{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"}]}])";
  const ChatTemplate lists = ChatTemplate::parse("{{ messages[-1].content[0].text }}!", "t");
  EXPECT_EQ(lists.render_json(parts, {}, ChatEnd::continued), "b");
}

TEST(Chat, BadConversations) {
  const ChatTemplate chat = ChatTemplate::parse("{{ messages }}{{ tools }}", "t");
  const std::vector<ChatMessage> broken = {{"assistant", "", "[{"}};
  EXPECT_SAYS(error_of(kExitUsage, [&] { chat.render({}); }), "without messages");
  EXPECT_SAYS(error_of(kExitUsage, [&] { chat.render(broken); }), "a message");
  EXPECT_SAYS(error_of(kExitUsage, [&] { chat.render(kHello, {.tools = "{]"}); }), "tools");
  EXPECT_SAYS(error_of(kExitUsage, [&] { chat.render(kHello, {.tools = "{}"}); }), "tools");
  EXPECT_SAYS(error_of(kExitUsage, [&] { chat.render_json("{}"); }), "messages");
  EXPECT_SAYS(error_of(kExitUsage, [&] { chat.render_json("[1]"); }), "message");
  EXPECT_EQ(chat.render_json(R"([{"role":"user","content":null,"x":[1]}])"), "[{'role': 'user', 'x': [1]}]None")
      << "keys that are null are left out";
  EXPECT_EQ(chat.render_json(R"([{"role":"a","reasoning":"r"}])"),
            "[{'thinking': 'r', 'role': 'a', 'reasoning': 'r', 'reasoning_content': 'r'}]None");
}

void expect_wrapped(const std::string& path) {
  SCOPED_TRACE(path);
  const auto rows = json_lines(path);
  EXPECT_GE(rows.size(), 4u);
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

TEST(Prompt, DapoWrapperIsTheDatasets) {
  for (const std::string& path : golden_files("files/dapo_format.jsonl", "eval/gen_aime-2025_dapo_format.jsonl"))
    expect_wrapped(path);
}

TEST(Prompt, Styles) {
  const std::vector<ChatMessage> two = {{"system", "S"}, {"user", "P"}};
  const ChatTemplate chat = ChatTemplate::parse(kMarked, "t");
  EXPECT_EQ(render_prompt(PromptStyle::raw, chat, two), "S\nP");
  EXPECT_EQ(render_prompt(PromptStyle::automatic, {}, two), "S\nP");
  EXPECT_EQ(render_prompt(PromptStyle::automatic, chat, two), render_prompt(PromptStyle::chatml, chat, two));
  EXPECT_EQ(render_prompt(PromptStyle::dapo, chat, two), "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n" +
                                                             dapo_prompt("P") + "<|im_end|>\n<|im_start|>assistant\n");
}

/// A template that knows three roles writes nothing for others.
TEST(Prompt, MessagesThatTheTemplateDrops) {
  const ChatTemplate chat = ChatTemplate::parse(
      "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}[{{ m.content.split('</think>')[-1] }}]{% endif "
      "%}"
      "{% endfor %}",
      "t");
  const auto render = [&](const std::vector<ChatMessage>& turns) {
    return render_prompt(PromptStyle::automatic, chat, turns);
  };
  EXPECT_EQ(render({{"user", "P"}}), "[P]");
  EXPECT_EQ(render({{"user", "P"}, {"assistant", "<think>x</think>A"}, {"user", "Q"}}), "[P][A][Q]") << "changed";
  for (const char* role : {"developer", "User", "hummany", "system"})
    EXPECT_SAYS(error_of(kExitUsage,
                         [&] {
                           render({{role, "S"}, {"user", "P"}});
                         }),
                "does not show message 0 (role \"" + std::string(role) + "\"): \"S\"");
  EXPECT_EQ(render({{"system", ""}, {"user", "P"}}), "[P]") << "nothing is lost";
}

TEST(Prompt, Formats) {
  EXPECT_EQ(PromptFormat("Q: {question}\nA:", "x").fill("1+1"), "Q: 1+1\nA:");
  EXPECT_EQ(PromptFormat("{{{question}}} {question}", "x").fill("{q}"), "{{q}} {q}");
  EXPECT_EQ(PromptFormat("\\boxed{{}} {question}", "x").fill("q"), "\\boxed{} q");
  const auto refused = [](const char* format) {
    return error_of(kExitUsage, [&] { PromptFormat(format, "data.prompt_format"); });
  };
  EXPECT_SAYS(refused("Q: {problem}"), "data.prompt_format: '{problem}'");
  EXPECT_SAYS(refused("Q: {question} {"), "'{'");
  EXPECT_SAYS(refused("Q: {question} }"), "'}'");
  EXPECT_SAYS(refused("Q: {}"), "'{}'");
  EXPECT_SAYS(refused("Q: {{question}}"), "no {question}");
}

}  // namespace
}  // namespace dapo
