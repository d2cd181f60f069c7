// Chat templates of model folders, rendered as in transformers (jinja.h), and the other conversions of a prompt to
// text.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja.h"
#include "tokenizer/prompt_style.h"

namespace dapo {

/// One turn. `more` is a JSON object of further fields for the template (tool_calls, name, ...), "" for none.
struct ChatMessage {
  std::string role;  ///< system | user | assistant | tool
  std::string content;
  std::string more = {};
};

/// A template's other arguments, as JSON text; "" for none.
struct ChatExtras {
  std::string tools = {};      ///< a list of functions
  std::string variables = {};  ///< an object, as keyword arguments of apply_chat_template
};

/// How a rendered conversation ends.
enum class ChatEnd {
  prompt,     ///< the assistant's turn has started (add_generation_prompt)
  closed,     ///< after the last message
  continued,  ///< inside the last message, which the model continues (continue_final_message)
};

/// The conversation format of a model's folder.
class ChatTemplate {
 public:
  ChatTemplate() = default;  ///< the model has no chat template

  /// The templates of a Hugging Face folder: chat_template.jinja and additional_chat_templates/, else "chat_template"
  /// of tokenizer_config.json (text or a list), else chat_template.json, else none. Error if one exists but cannot
  /// be used, or if there are several and none is called "default".
  static ChatTemplate load(const std::string& folder);
  /// From a template's text; errors start with `where`. `special`: variables such as bos_token.
  static ChatTemplate parse(std::string_view jinja, const std::string& where, jinja::Dict special = {});

  explicit operator bool() const { return default_ != nullptr; }
  bool shows_date() const { return default_ && (default_->shows_date() || (with_tools_ && with_tools_->shows_date())); }

  /// The conversation as text, ready to encode. Error (exit 2): no template, no messages, an error of the
  /// template, a last message that cannot be continued.
  std::string render(std::span<const ChatMessage> messages, const ChatExtras& extras = {},
                     ChatEnd end = ChatEnd::prompt) const;
  /// The same for messages as JSON, with all their fields.
  std::string render_json(std::string_view messages, const ChatExtras& extras = {},
                          ChatEnd end = ChatEnd::prompt) const;

 private:
  std::string render_values(std::vector<jinja::Value> messages, const ChatExtras& extras, ChatEnd end) const;

  std::shared_ptr<const jinja::Template> default_, with_tools_;  ///< with_tools_: "tool_use", if there is one
  jinja::Dict special_;
};

/// A final assistant message is the beginning of the answer: the text ends inside it.
/// Error if `extras` or tool calls would be lost.
std::string render_prompt(PromptStyle style, const ChatTemplate& chat, std::span<const ChatMessage> messages,
                          const ChatExtras& extras = {});

/// "Solve the following math problem step by step. ...", in the wording of BytedTsinghua-SIA/DAPO.
std::string dapo_prompt(std::string_view problem);

/// A text with a placeholder for the question: "Q: {question}\nA:". {{ and }} are literal braces.
class PromptFormat {
 public:
  /// Error (exit 2), starting with `where`: an unknown placeholder, a brace that is not closed, no {question}.
  PromptFormat(std::string_view format, const std::string& where);
  std::string fill(std::string_view question) const;

 private:
  std::vector<std::string> between_;  // texts around the questions
};

}  // namespace dapo
