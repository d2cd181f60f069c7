#include "host/train/prompts.h"

#include <algorithm>
#include <ctime>
#include <optional>

#include "core/check.h"
#include "core/choices.h"
#include "tokenizer/chat.h"
#include "tokenizer/tokenizer_config.h"

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
  std::string folder;
  ChatTemplate chat;
  PromptStyle style;
  std::string system, suffix;
  std::optional<PromptFormat> format;

  bool templated() const { return style != PromptStyle::raw && chat; }
  std::string render(std::vector<ChatMessage> turns, const ChatExtras& extras) const;
  int32_t turn_end() const;
};

PromptEncoder::PromptEncoder(const DataSection& data, const std::string& model_folder, const Tokenizer& tokenizer) {
  ChatTemplate chat;
  PromptStyle style = data.prompt_template;
  std::optional<PromptFormat> format;
  if (!data.prompt_format.empty()) {
    if (style != PromptStyle::automatic && style != PromptStyle::raw)
      fail_input("data.prompt_format and data.prompt_template = \"{}\" both say how prompts are written: set one",
                 choice_name(style));
    format.emplace(data.prompt_format, "data.prompt_format");
    style = PromptStyle::raw;
  }
  if (style != PromptStyle::raw) chat = ChatTemplate::load(model_folder);
  if (style == PromptStyle::automatic) style = chat ? PromptStyle::chatml : PromptStyle::raw;
  if (style == PromptStyle::chatml && !chat)
    fail_input("data.prompt_template = \"chatml\": {} has no chat template; use raw or dapo", model_folder);
  if (!data.system_prompt.empty() && (style == PromptStyle::raw || !chat))
    fail_input("data.system_prompt: {}; use chatml, or leave it out",
               format                      ? "data.prompt_format has no system message"
               : style == PromptStyle::raw ? "the raw template has no system message"
                                           : "the model has no chat template that could hold it");
  impl_ = std::make_unique<Impl>(
      Impl{tokenizer, model_folder, chat, style, data.system_prompt, data.prompt_suffix, std::move(format)});
}

PromptEncoder::~PromptEncoder() = default;

std::string PromptEncoder::Impl::render(std::vector<ChatMessage> turns, const ChatExtras& extras) const {
  const bool begun = turns.back().role == "assistant";
  if (!begun || turns.size() > 1) turns[turns.size() - (begun ? 2 : 1)].content += suffix;
  if (format) {
    std::string begin;
    if (begun) {
      begin = std::move(turns.back().content);
      turns.pop_back();
    }
    return format->fill(render_prompt(PromptStyle::raw, {}, turns, extras)) + begin;
  }
  if (!system.empty() && turns[0].role != "system") turns.insert(turns.begin(), {"system", system});
  return render_prompt(style, chat, turns, extras);
}

std::vector<int32_t> PromptEncoder::encode(const Example& example) const {
  std::vector<ChatMessage> turns;
  for (const Message& m : example.messages) turns.push_back({m.role, m.content, m.more});
  if (turns.empty()) turns.push_back({"user", example.prompt});
  try {
    // A text without a template gets what the tokenizer puts before every text; templates write it themselves.
    return impl_->tokenizer.encode(impl_->render(std::move(turns), {example.tools, example.variables}),
                                   !impl_->templated());
  } catch (const Error& e) {
    if (example.id.empty()) throw;
    throw Error(e.code(), fmt::format("row {}: {}", example.id, e.what()));
  }
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

/// The token that the chat template puts behind an assistant's message, or -1: where it is one token by itself.
int32_t PromptEncoder::Impl::turn_end() const {
  static constexpr const char* kAnswer = "An answer.";
  if (!templated()) return -1;
  std::string text;
  try {
    const std::vector<ChatMessage> turns = {{"user", "A question."}, {"assistant", kAnswer}};
    text = chat.render(turns, {}, ChatEnd::closed);
  } catch (const Error&) {
    return -1;  // a template for other conversations
  }
  const size_t at = text.rfind(kAnswer);
  if (at == std::string::npos) return -1;
  text = text.substr(at + std::string_view(kAnswer).size());
  const std::vector<int32_t> ids = tokenizer.encode(text);
  if (ids.empty()) return -1;
  const std::string name = tokenizer.token(ids[0]);
  const bool marker = tokenizer.is_special(ids[0]) || (name.size() > 2 && name[0] == '<' && name.ends_with('>'));
  return marker && text.starts_with(name) ? ids[0] : -1;
}

std::vector<int32_t> PromptEncoder::stop_ids(const ModelConfig& model, std::span<const int32_t> prompt) const {
  const Tokenizer& tokenizer = impl_->tokenizer;
  std::vector<int32_t> ids = model.eos;
  const auto add = [&](int32_t id) {
    if (id >= 0 && id < model.vocab && std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  if (const std::string end = TokenizerConfig::load(impl_->folder).special("eos_token"); !end.empty())
    add(tokenizer.id_of(end));
  add(impl_->turn_end());
  // A prompt that was written as a conversation by whoever made the data.
  const int32_t opens = tokenizer.id_of("<|im_start|>"), closes = tokenizer.id_of("<|im_end|>");
  const auto last =
      std::find_if(prompt.rbegin(), prompt.rend(), [&](int32_t id) { return id == opens || id == closes; });
  if (last != prompt.rend() && *last == opens) add(closes);
  if (ids.empty())
    fail_input("{}: the model names no end id: put \"eos_token_id\" into its generation_config.json", impl_->folder);
  return ids;
}

std::string PromptEncoder::date_text() const {
  if (!impl_->templated() || !impl_->chat.shows_date()) return "";
  const std::time_t now = jinja::template_time();
  std::tm local{};
  char date[40];
  std::strftime(date, sizeof date, "%Y-%m-%d %H:%M", localtime_r(&now, &local));
  return fmt::format("the chat template writes the date into prompts: {}, the same for the whole run", date);
}

std::string stop_text(std::span<const int32_t> ids, const Tokenizer& tokenizer) {
  if (ids.empty()) return "no token ends a response: each runs to its limit";
  std::string out;
  for (const int32_t id : ids) out += fmt::format("{} {} {}", out.empty() ? "stops at" : ",", id, tokenizer.token(id));
  return out;
}

}  // namespace dapo
