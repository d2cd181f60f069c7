#include "host/prompts.h"

#include "core/check.h"
#include "tokenizer/chat.h"

namespace dapo {

DatasetOptions question_options(const DataSection& data) {
  DatasetOptions options;
  options.format = data.format;
  options.prompt_key = data.prompt_key;
  options.answer_key = data.answer_key;
  options.need_answer = true;
  return options;
}

struct PromptEncoder::Impl {
  const Tokenizer& tokenizer;
  ChatTemplate chat;
  PromptStyle style;
  std::string suffix;
};

PromptEncoder::PromptEncoder(const DataSection& data, const std::string& model_folder, const Tokenizer& tokenizer) {
  ChatTemplate chat;
  std::string name = data.prompt_template;
  if (name != "raw") chat = ChatTemplate::load(model_folder);
  if (name == "auto") name = chat.kind == ChatTemplate::kNone ? "raw" : "chatml";
  if (name == "chatml" && chat.kind == ChatTemplate::kNone)
    fail_input("data.prompt_template = \"chatml\": {} has no chat template; use raw or dapo", model_folder);
  if (name == "raw" && !data.system_prompt.empty())
    fail_input("data.system_prompt: the raw template has no system message; use chatml, or leave it out");
  if (!data.system_prompt.empty()) chat.default_system = data.system_prompt;
  impl_ = std::make_unique<Impl>(Impl{tokenizer, chat, parse_prompt_style(name), data.prompt_suffix});
}

PromptEncoder::~PromptEncoder() = default;

std::vector<int32_t> PromptEncoder::encode(const Example& example) const {
  std::vector<ChatMessage> turns;
  for (const Message& m : example.messages) turns.push_back({m.role, m.content});
  if (turns.empty()) turns.push_back({"user", example.prompt});
  turns.back().content += impl_->suffix;
  // A text without a template gets what the tokenizer puts before every text; templates write it themselves.
  const bool bare = impl_->style == PromptStyle::raw || impl_->chat.kind == ChatTemplate::kNone;
  return impl_->tokenizer.encode(render_prompt(impl_->style, impl_->chat, turns), bare);
}

std::vector<int32_t> PromptEncoder::encode(std::string_view text) const {
  Example example;
  example.prompt = text;
  return encode(example);
}

std::string shown_tokens(const std::string& name, const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  std::string out = fmt::format("{}, {} tokens:\n  | ", name, ids.size());
  for (const char c : tokenizer.decode(ids, false)) {
    out += c;
    if (c == '\n') out += "  | ";
  }
  return out + fmt::format("\n  ids: [{}]", fmt::join(ids, ", "));
}

}  // namespace dapo
