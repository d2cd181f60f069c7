#include "tokenizer/chat.h"

#include <fmt/format.h>

#include "core/check.h"
#include "tokenizer/jinja_text.h"
#include "tokenizer/tokenizer_config.h"

namespace dapo {

namespace {

using jinja::Dict;
using jinja::Value;

constexpr std::string_view kDapoHead =
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n";
constexpr std::string_view kDapoTail = "\n\nRemember to put your answer on its own line after \"Answer:\".";
constexpr std::string_view kContinue = "CONTINUE_FINAL_MESSAGE_TAG ";  // transformers' mark

/// A message as transformers passes it to templates: without null keys, reasoning under each of its names.
Value as_given(const Value& message) {
  if (!message.is_dict()) fail_input("a message is {}: expected {{\"role\", \"content\"}}", message.type_name());
  Dict out;
  const Value* reasoning = nullptr;
  for (const char* name : {"reasoning_content", "thinking", "reasoning"})
    if (const Value* value = message.dict().find_name(name); value && !value->is_none() && !reasoning)
      reasoning = value;
  if (reasoning) out.set("thinking", *reasoning);
  for (const auto& [key, value] : message.dict().items)
    if (!value.is_none()) out.set(key, value);
  if (reasoning) out.set("reasoning_content", *reasoning);
  return out;
}

Dict object_from(const std::string& json, const char* what) {
  const Value value = jinja::from_json(json, what);
  if (!value.is_dict()) fail_input("{} is {}: expected an object", what, value.type_name());
  return value.dict();
}

Value with(const Value& dict, const char* key, Value value) {
  Dict out = dict.dict();
  out.set(key, std::move(value));
  return out;
}

/// `message` with the mark appended to its text; `text` receives the original.
Value marked(const Value& message, std::string& text) {
  const Value* content = message.dict().find_name("content");
  if (content && content->is_string()) {
    text = content->text();
    return with(message, "content", text + std::string(kContinue));
  }
  if (content && content->is(jinja::Kind::list)) {
    std::vector<Value> parts = content->items();
    for (size_t i = parts.size(); i-- > 0;) {
      const Value* part = parts[i].is_dict() ? parts[i].dict().find_name("text") : nullptr;
      if (!part || !part->is_string()) continue;
      text = part->text();
      parts[i] = with(parts[i], "text", text + std::string(kContinue));
      return with(message, "content", Value::sequence(jinja::Kind::list, std::move(parts)));
    }
  }
  fail_input("the last message has no text to continue");
}

/// Truncates a rendered conversation at the end of the last message's text.
std::string cut_at_mark(std::string rendered, const std::string& text) {
  const std::string_view mark = jinja::strip(kContinue, true, true);
  const size_t at = rendered.rfind(mark);
  if (at == std::string::npos || rendered.find(jinja::strip(text, true, true)) == std::string::npos)
    fail_input(
        "the chat template changes the last message, so that it cannot be continued: leave the assistant's "
        "message out, or write the prompt as plain text");
  const bool spacing = std::string_view(rendered).substr(at).starts_with(kContinue);
  rendered.resize(at);
  return spacing ? rendered : std::string(jinja::strip(rendered, false, true));
}

}  // namespace

ChatTemplate ChatTemplate::load(const std::string& folder) {
  const TokenizerConfig config = TokenizerConfig::load(folder, true);
  if (config.templates.empty()) return {};
  const auto chosen = config.templates.find("default");
  if (chosen == config.templates.end()) {
    std::string names;
    for (const auto& [name, text] : config.templates) names += (names.empty() ? "'" : ", '") + name + "'";
    fail_input("{}: the chat templates are called {}: one must be called 'default'", config.templates_from, names);
  }
  Dict special;
  for (const auto* names : {&config.defaults, &config.named})
    for (const auto& [name, token] : *names)
      if (const std::string text = config.special(name); !text.empty()) special.set(name, text);
  ChatTemplate out = parse(chosen->second, config.templates_from, std::move(special));
  if (const auto tools = config.templates.find("tool_use"); tools != config.templates.end())
    out.with_tools_ = std::make_shared<const jinja::Template>(tools->second, config.templates_from + " (tool_use)");
  return out;
}

ChatTemplate ChatTemplate::parse(std::string_view jinja, const std::string& where, Dict special) {
  ChatTemplate out;
  out.default_ = std::make_shared<const jinja::Template>(jinja, where);
  out.special_ = std::move(special);
  return out;
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, const ChatExtras& extras, ChatEnd end) const {
  std::vector<Value> values;
  for (const ChatMessage& m : messages) {
    Dict out;
    if (!m.more.empty()) out = object_from(m.more, "a message");
    out.set("role", m.role);
    out.set("content", m.content);
    values.emplace_back(std::move(out));
  }
  return render_values(std::move(values), extras, end);
}

std::string ChatTemplate::render_json(std::string_view messages, const ChatExtras& extras, ChatEnd end) const {
  const Value list = jinja::from_json(messages, "messages");
  if (!list.is(jinja::Kind::list)) fail_input("\"messages\" is {}: expected a list", list.type_name());
  return render_values(list.items(), extras, end);
}

std::string ChatTemplate::render_values(std::vector<Value> messages, const ChatExtras& extras, ChatEnd end) const {
  if (!*this) fail_input("this model has no chat template (tokenizer_config.json): use the prompt template 'raw'");
  if (messages.empty()) fail_input("a conversation without messages: give at least one {{\"role\", \"content\"}}");
  for (Value& message : messages) message = as_given(message);
  std::string text;
  if (end == ChatEnd::continued) messages.back() = marked(messages.back(), text);
  const Value functions = extras.tools.empty() ? Value::none() : jinja::from_json(extras.tools, "tools");
  if (!functions.is_none() && !functions.is(jinja::Kind::list))
    fail_input("\"tools\" is {}: expected a list of functions", functions.type_name());
  Dict variables = special_;
  variables.set("messages", Value::sequence(jinja::Kind::list, std::move(messages)));
  variables.set("tools", functions);
  variables.set("documents", Value::none());
  variables.set("add_generation_prompt", end == ChatEnd::prompt);
  if (!extras.variables.empty())
    for (const auto& [key, value] : object_from(extras.variables, "chat_template_kwargs").items) {
      if (variables.find(key) != nullptr && !special_.find(key))
        fail_input("chat_template_kwargs: \"{}\" is not a variable that can be set", key.text());
      variables.set(key, value);
    }
  const auto& chosen = with_tools_ && !functions.is_none() ? with_tools_ : default_;
  std::string out = chosen->render(variables);
  return end == ChatEnd::continued ? cut_at_mark(std::move(out), text) : out;
}

namespace {
/// Error (exit 2) if a message's text does not reach the rendered prompt. A message that is not there as it is may have
/// been changed by the template (without its reasoning, say): then the result depends on it.
void refuse_lost_messages(const ChatTemplate& chat, const std::vector<ChatMessage>& turns, const ChatExtras& extras,
                          ChatEnd end, const std::string& rendered) {
  for (size_t i = 0; i < turns.size(); ++i) {
    const std::string_view text = jinja::strip(turns[i].content, true, true);
    if (rendered.find(text) != std::string::npos) continue;
    std::vector<ChatMessage> other = turns;
    other[i].content += "\nAnother text.";
    if (chat.render(other, extras, end) == rendered)
      fail_input(
          "the chat template does not show message {} (role \"{}\"): \"{}\"; correct the role (most templates know "
          "system, user, assistant and tool), or leave the message out",
          i, turns[i].role, text.size() > 60 ? std::string(text.substr(0, 57)) + "..." : std::string(text));
  }
}
}  // namespace

std::string dapo_prompt(std::string_view problem) {
  return fmt::format("{}{}{}", kDapoHead, problem, kDapoTail);
}

std::string render_prompt(PromptStyle style, const ChatTemplate& chat, std::span<const ChatMessage> messages,
                          const ChatExtras& extras) {
  std::vector<ChatMessage> turns(messages.begin(), messages.end());
  if (style == PromptStyle::dapo) {
    for (size_t i = turns.size(); i-- > 0;) {
      if (turns[i].role != "user") continue;
      if (!turns[i].content.starts_with(kDapoHead)) turns[i].content = dapo_prompt(turns[i].content);
      break;
    }
  }
  if (style == PromptStyle::chatml || (style != PromptStyle::raw && chat)) {
    const bool begun = !turns.empty() && turns.back().role == "assistant";
    const ChatEnd end = begun ? ChatEnd::continued : ChatEnd::prompt;
    std::string out = chat.render(turns, extras, end);
    refuse_lost_messages(chat, turns, extras, end, out);
    if (extras.tools.size() > 2 && out == chat.render(turns, {"", extras.variables}, end))
      fail_input("the prompt comes with \"tools\", and the chat template does not show them: leave them out");
    return out;
  }
  if (extras.tools.size() > 2)
    fail_input(
        "the prompt comes with \"tools\", which plain text does not show: use a chat template, or leave them out");
  if (!extras.variables.empty())
    fail_input("the prompt comes with \"chat_template_kwargs\", and no chat template is in use: leave them out");
  std::string out;
  for (const ChatMessage& m : turns) {
    if (m.more.find("\"tool_calls\"") != m.more.npos)
      fail_input("a message has \"tool_calls\", which plain text does not show: use a chat template");
    (out += out.empty() ? "" : "\n") += m.content;
  }
  return out;
}

PromptFormat::PromptFormat(std::string_view format, const std::string& where) : between_(1) {
  static constexpr std::string_view kPlace = "{question}";
  for (size_t i = 0; i < format.size();) {
    const std::string_view rest = format.substr(i);
    if (rest.starts_with("{{") || rest.starts_with("}}")) {
      between_.back() += rest[0];
      i += 2;
    } else if (rest.starts_with(kPlace)) {
      between_.emplace_back();
      i += kPlace.size();
    } else if (rest[0] == '{' || rest[0] == '}') {
      const size_t end = rest.find('}');
      fail_input("{}: '{}' is not {{question}}; write {{{{ and }}}} for literal braces", where,
                 rest.substr(0, rest[0] == '}' || end == rest.npos ? 1 : end + 1));
    } else {
      between_.back() += format[i++];
    }
  }
  if (between_.size() == 1) fail_input("{}: has no {{question}}, so that every prompt would be the same", where);
}

std::string PromptFormat::fill(std::string_view question) const {
  return fmt::format("{}", fmt::join(between_, question));
}

}  // namespace dapo
