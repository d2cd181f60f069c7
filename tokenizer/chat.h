// Chat templates without a template engine: the few that this family of models ships are known by their text, and
// rendered character for character as Hugging Face renders them. Others are refused.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dapo {

/// One turn. `tool_calls` is JSON text, "" for none: an array of {"name", "arguments"} or {"function": {...}} objects.
struct ChatMessage {
  std::string role;  ///< system | user | assistant | tool
  std::string content;
  std::string tool_calls = {};
};

/// How a model's folder wants conversations written.
struct ChatTemplate {
  enum Kind {
    kNone,    ///< the model has no chat template
    kQwen25,  ///< ChatML with tools, as in Qwen2.5's base and instruct models
    kChatML,  ///< plain ChatML, as in SmolLM2-Instruct
  };
  Kind kind = kNone;
  /// What stands in for an absent system message ("You are Qwen, ..."); with kChatML "" means none.
  std::string default_system;

  /// The template of a Hugging Face folder: chat_template.jinja, else "chat_template" of tokenizer_config.json, else
  /// kNone. A template that is none of ours is an Error which names those that are.
  static ChatTemplate load(const std::string& folder);
  /// Recognises the text of a template; `where` is for the message.
  static ChatTemplate recognise(std::string_view jinja, const std::string& where);

  /// The conversation as text, ready to encode. `tools` is a JSON array as text, "" for none (kQwen25 only). With
  /// `add_generation_prompt` the assistant's turn is begun. kNone, no messages and unknown roles are Errors.
  std::string render(std::span<const ChatMessage> messages, std::string_view tools = "",
                     bool add_generation_prompt = true) const;
};

/// How a dataset's prompt becomes the text that is encoded.
enum class PromptStyle {
  raw,     ///< the contents as they are, joined by newlines
  chatml,  ///< through the model's chat template
  dapo,    ///< the last user turn in the DAPO wrapper (unless it is already), then as chatml where the model has a
           ///< template, else as raw
};
PromptStyle parse_prompt_style(std::string_view name);  ///< "raw", "chatml", "dapo"; Error for others

std::string render_prompt(PromptStyle style, const ChatTemplate& chat, std::span<const ChatMessage> messages);

/// "Solve the following math problem step by step. ...", as BytedTsinghua-SIA/DAPO words it.
std::string dapo_prompt(std::string_view problem);

/// JSON text as Python's json.dumps(json.loads(text), ensure_ascii=False) writes it, which is what templates show of
/// tools: ", " and ": " between, key order kept. `what` names the text where it is no JSON (an Error).
std::string python_json(std::string_view text, std::string_view what);

}  // namespace dapo
