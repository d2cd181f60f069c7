// Prompts as rows and settings make them, and the tokens that end a response.
#include "host/train/prompts.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/testdata.h"

namespace dapo {
namespace {

using Json = nlohmann::ordered_json;
using Ids = std::vector<int32_t>;

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

constexpr const char* kTurns =
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A model's folder without weights: bytes are tokens, 256 <|endoftext|>, 258 <|im_start|>, 259 <|im_end|>.
class Prompts : public testing::Test {
 protected:
  Prompts() {
    write_byte_tokenizer(folder_.path());
    config({{"eos_token", "<|endoftext|>"}, {"chat_template", kTurns}});
    model_.vocab = 264;
    model_.eos = {256};
  }
  void config(Json json) {
    for (const auto& [id, content] : {std::pair{"258", "<|im_start|>"}, {"259", "<|im_end|>"}})
      json["added_tokens_decoder"][id] = {{"content", content}, {"normalized", false}, {"special", true}};
    folder_.write("tokenizer_config.json", json.dump());
    tokenizer_ = Tokenizer::load(folder_.path());
  }
  PromptEncoder encoder() const { return {data_, folder_.path(), *tokenizer_}; }
  std::string text(const Example& e) const { return tokenizer_->decode(encoder().encode(e), false); }
  Ids stops(const Ids& prompt = {}) const { return encoder().stop_ids(model_, prompt); }
  std::string refusal() const {
    return error_of(kExitUsage, [&] { encoder(); });
  }
  static Example conversation(std::vector<Message> messages) {
    Example e;
    e.messages = std::move(messages);
    return e;
  }
  static Example question(const std::string& text) {
    Example e;
    e.prompt = text;
    return e;
  }

  const ScratchFolder folder_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  DataSection data_;
  ModelConfig model_;
};

TEST_F(Prompts, TheAssistantsBeginningIsContinued) {
  const Example begun = conversation({{"user", "1+1"}, {"assistant", "Step by step. <think>"}});
  EXPECT_EQ(text(begun), "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\nStep by step. <think>");
  data_.prompt_suffix = "!";
  data_.system_prompt = "S";
  EXPECT_EQ(text(begun),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1+1!<|im_end|>\n<|im_start|>assistant\nStep by step. "
            "<think>");
  EXPECT_EQ(text(question("1+1")),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1+1!<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(text(conversation({{"system", "own"}, {"user", "1+1"}})),
            "<|im_start|>system\nown<|im_end|>\n<|im_start|>user\n1+1!<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(Prompts, ToolsAndVariablesGoToTheTemplate) {
  const std::string shows =
      "{% if tools %}{% for t in tools %}[{{ t.name }}]{% endfor %}{% endif %}{{ mode | default('plain') }}:";
  config({{"chat_template", shows + kTurns}});
  Example e =
      conversation({{"user", "1+1"}, {"assistant", "", R"({"role": "assistant", "tool_calls": [1]})"}, {"tool", "2"}});
  const std::string turns = text(e);
  EXPECT_EQ(turns.substr(0, 6), "plain:");
  e.tools = R"([{"name":"f"},{"name":"g"}])";
  e.variables = R"({"mode":"long"})";
  EXPECT_EQ(text(e), "[f][g]long:" + turns.substr(6));
  e.variables = R"({"messages":[]})";
  EXPECT_SAYS(error_of(kExitUsage, [&] { text(e); }), "\"messages\" is not a variable");
  e.variables = "";
  e.id = "3-ab";
  config({{"chat_template", kTurns}});
  EXPECT_SAYS(error_of(kExitUsage, [&] { text(e); }), "row 3-ab: the prompt comes with \"tools\"");
  data_.prompt_template = PromptStyle::raw;
  EXPECT_SAYS(error_of(kExitUsage, [&] { text(e); }), "which plain text does not show");
  e.tools = "[]";
  EXPECT_SAYS(error_of(kExitUsage, [&] { text(e); }), "\"tool_calls\"");
  e.messages[1].more = "";
  e.variables = R"({"mode":"long"})";
  EXPECT_SAYS(error_of(kExitUsage, [&] { text(e); }), "chat_template_kwargs");
  e.variables = "";
  EXPECT_EQ(text(e), "1+1\n\n2");
}

TEST_F(Prompts, DatesAreNamed) {
  EXPECT_EQ(encoder().date_text(), "");
  config({{"chat_template", std::string("{{ strftime_now('%Y') }}") + kTurns}});
  EXPECT_SAYS(encoder().date_text(), "the chat template writes the date into prompts: 2");
  data_.prompt_template = PromptStyle::raw;
  EXPECT_EQ(encoder().date_text(), "");
}

TEST_F(Prompts, FormatsForBaseModels) {
  data_.prompt_format = "Q: {question}\nA:";
  EXPECT_EQ(text(question("1+1")), "Q: 1+1\nA:");
  EXPECT_EQ(text(conversation({{"user", "1+1"}, {"assistant", " Let me"}})), "Q: 1+1\nA: Let me");
  data_.prompt_suffix = "?";
  EXPECT_EQ(text(question("1+1")), "Q: 1+1?\nA:");
  EXPECT_EQ(stops(), Ids{256}) << "no turn, and so no end of one";
  data_.prompt_template = PromptStyle::chatml;
  EXPECT_SAYS(refusal(), "data.prompt_template = \"chatml\"");
  data_.prompt_template = PromptStyle::raw;
  data_.system_prompt = "S";
  EXPECT_SAYS(refusal(), "data.system_prompt");
  data_.system_prompt = "";
  data_.prompt_format = "Q: {problem}";
  EXPECT_SAYS(refusal(), "data.prompt_format: '{problem}'");
}

TEST_F(Prompts, ATemplateThatCannotBeUsedIsAnErrorAndNotRawText) {
  config({{"chat_template", 5}});
  EXPECT_SAYS(refusal(), "chat_template");
  config({{"chat_template", "{% if %}"}});
  EXPECT_SAYS(refusal(), "tokenizer_config.json:1:");
  config({{"chat_template", "{{ raise_exception('no system role') }}"}});
  Example e = question("1+1");
  e.id = "7-ab";
  EXPECT_SAYS(error_of(kExitUsage, [&] { text(e); }), "row 7-ab: ");
  EXPECT_SAYS(error_of(kExitUsage, [&] { text(e); }), "no system role");
  data_.prompt_template = PromptStyle::raw;
  EXPECT_EQ(text(e), "1+1");
}

TEST_F(Prompts, SystemMessagesNeedATemplate) {
  config({{"eos_token", "<|endoftext|>"}});
  EXPECT_EQ(text(question("1+1")), "1+1");
  data_.prompt_template = PromptStyle::dapo;
  data_.system_prompt = "S";
  EXPECT_SAYS(refusal(), "data.system_prompt");
}

// What the base models' two JSON files say: 256 alone.
TEST_F(Prompts, AConversationsTurnEndStops) {
  EXPECT_EQ(stops(), (Ids{256, 259}));
  EXPECT_EQ(stop_text(stops(), *tokenizer_), "stops at 256 <|endoftext|>, 259 <|im_end|>");
  data_.prompt_template = PromptStyle::raw;
  EXPECT_EQ(stops(), Ids{256});
  EXPECT_EQ(stops(tokenizer_->encode("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n")), (Ids{256, 259}));
  EXPECT_EQ(stops(tokenizer_->encode("<|im_start|>user\nq<|im_end|>\n")), Ids{256});
}

TEST_F(Prompts, OtherTemplatesEndTurnsOtherwise) {
  config({{"chat_template", "{% for m in messages %}[{{ m.content }}]<|pad|>{% endfor %}"}});
  EXPECT_EQ(stops(), Ids{256}) << "what follows the answer is not one token";
  config({{"chat_template", "{% for m in messages %}{{ m.content }}<|pad|>{% endfor %}"}});
  EXPECT_EQ(stops(), (Ids{256, 257}));
  config({{"chat_template", "{{ raise_exception('not this one') }}"}});
  EXPECT_EQ(stops(), Ids{256});
}

TEST_F(Prompts, TheTokenizersEndTokenStops) {
  data_.prompt_template = PromptStyle::raw;
  model_.eos = {257};
  EXPECT_EQ(stops(), (Ids{257, 256})) << "the model's own is the first, with which fine-tuning ends";
  config({{"eos_token", {{"content", "<|im_end|>"}}}});
  EXPECT_EQ(stops(), (Ids{257, 259}));
  config({{"eos_token", nullptr}});
  EXPECT_EQ(stops(), Ids{257});
  model_.eos = {};
  EXPECT_SAYS(error_of(kExitUsage, [&] { stops(); }), "eos_token_id");
  config({{"eos_token", "<|im_end|>"}});
  EXPECT_EQ(stops(), Ids{259});
  model_.vocab = 259;
  EXPECT_SAYS(error_of(kExitUsage, [&] { stops(); }), "eos_token_id") << "an id that the model has no row for";
}

}  // namespace
}  // namespace dapo
