#include "tokenizer/chat.h"

#include <simdjson.h>

#include <filesystem>

#include "core/check.h"
#include "tokenizer/json_file.h"

namespace dapo {

namespace {

namespace dom = simdjson::dom;

constexpr std::string_view kBegin = "<|im_start|>", kEnd = "<|im_end|>\n";
constexpr std::string_view kToolsIntro =
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
constexpr std::string_view kToolsOutro =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";
constexpr std::string_view kDapoHead =
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n";
constexpr std::string_view kDapoTail = "\n\nRemember to put your answer on its own line after \"Answer:\".";

// Hashes of the known templates, freed of spacing and of their default system prompt (see canonical()).
constexpr uint64_t kQwen25Hash = 0xBAFAB447E710C577u;
constexpr uint64_t kSmolLM2Hash = 0x4FAC450E30AB2F77u;
constexpr uint64_t kPlainHash = 0xAD70D358C7C293CAu;  // ChatML without a default system prompt

uint64_t fnv1a(std::string_view text) {
  uint64_t h = 0xCBF29CE484222325u;
  for (const char c : text) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return h;
}

void erase_all(std::string& text, std::string_view what, std::string_view by = "") {
  if (what.empty()) return;
  for (size_t at = 0; (at = text.find(what, at)) != text.npos; at += by.size()) text.replace(at, what.size(), by);
}

/// The default system prompt in a template: what follows "<|im_start|>system\n" within one literal, up to its end
/// marker. "" if there is none.
std::string find_default_system(std::string_view jinja) {
  static constexpr std::string_view kHead = "<|im_start|>system\n", kTail = "<|im_end|>";
  for (size_t at = 0; (at = jinja.find(kHead, at)) != jinja.npos;) {
    at += kHead.size();
    const size_t end = jinja.find(kTail, at), quote = jinja.find('\'', at);
    if (end != jinja.npos && end > at && end < quote) return std::string(jinja.substr(at, end - at));
  }
  return "";
}

/// Strips what does not change the meaning (spacing, trim marks, how a newline is written), and `system`.
std::string canonical(std::string text, const std::string& system) {
  erase_all(text, system);
  for (const std::string_view mark : {"{%-", "{{-"}) erase_all(text, mark, mark.substr(0, 2));
  for (const std::string_view mark : {"-%}", "-}}"}) erase_all(text, mark, mark.substr(1));
  std::erase_if(text, [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; });
  return text;
}

void append_python_string(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20)
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        else
          out += c;
    }
  }
  out += '"';
}

void append_python_json(dom::element element, std::string& out) {
  const char* separator = "";
  switch (element.type()) {
    case dom::element_type::ARRAY:
      out += '[';
      for (const dom::element item : dom::array(element)) {
        out += separator, separator = ", ";
        append_python_json(item, out);
      }
      out += ']';
      break;
    case dom::element_type::OBJECT:
      out += '{';
      for (const auto [key, value] : dom::object(element)) {
        out += separator, separator = ", ";
        append_python_string(key, out);
        out += ": ";
        append_python_json(value, out);
      }
      out += '}';
      break;
    case dom::element_type::DOUBLE: {
      const std::string number = fmt::format("{}", double(element));  // shortest digits, exponents as Python's repr
      out += number;
      if (number.find_first_of(".e") == number.npos) out += ".0";
      break;
    }
    case dom::element_type::STRING:
      append_python_string(std::string_view(element), out);
      break;
    case dom::element_type::INT64:
      out += fmt::format("{}", int64_t(element));
      break;
    case dom::element_type::UINT64:
      out += fmt::format("{}", uint64_t(element));
      break;
    case dom::element_type::BOOL:
      out += bool(element) ? "true" : "false";
      break;
    case dom::element_type::NULL_VALUE:
      out += "null";
      break;
  }
}

/// Parses `text` as a JSON array and gives its items to `use`.
template <class F>
void for_each_item(std::string_view text, std::string_view what, F use) {
  try {
    dom::parser parser;
    const simdjson::padded_string padded(text);
    for (const dom::element item : dom::array(parser.parse(padded).value())) use(item);
  } catch (const simdjson::simdjson_error& error) {
    fail_input("{}: {} (expected a JSON array as Qwen2.5's template takes it)", what, error.what());
  }
}

void append_tool_call(dom::element item, std::string& out) {
  dom::element function;
  const dom::object call = item["function"].get(function) == simdjson::SUCCESS ? function : item;
  out += "\n<tool_call>\n{\"name\": \"";
  out += std::string_view(call["name"]);
  out += "\", \"arguments\": ";
  append_python_json(call["arguments"], out);
  out += "}\n</tool_call>";
}

void append_turn(std::string_view role, std::string_view content, std::string& out) {
  (((out += kBegin) += role) += '\n') += content;
  out += kEnd;
}

/// True for what a template takes for no list: "", null, [].
bool is_blank_list(std::string json) {
  std::erase_if(json, [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; });
  return json.empty() || json == "null" || json == "[]";
}

void append_qwen25(const ChatTemplate& chat, std::span<const ChatMessage> messages, std::string_view tools,
                   std::string& out) {
  const bool own_system = messages[0].role == "system";
  std::string system = own_system ? messages[0].content : chat.default_system;
  if (!is_blank_list(std::string(tools))) {
    system += kToolsIntro;
    for_each_item(tools, "tools", [&](dom::element tool) { append_python_json(tool, system += '\n'); });
    system += kToolsOutro;
  }
  append_turn("system", system, out);
  for (size_t i = own_system; i < messages.size(); ++i) {
    const ChatMessage& m = messages[i];
    if (m.role == "tool") {
      if (i == 0 || messages[i - 1].role != "tool") (out += kBegin) += "user";
      ((out += "\n<tool_response>\n") += m.content) += "\n</tool_response>";
      if (i + 1 == messages.size() || messages[i + 1].role != "tool") out += kEnd;
    } else if (m.role == "assistant" && !is_blank_list(m.tool_calls)) {
      (out += kBegin) += m.role;
      if (!m.content.empty()) (out += '\n') += m.content;
      for_each_item(m.tool_calls, "tool_calls", [&](dom::element call) { append_tool_call(call, out); });
      out += kEnd;
    } else {
      append_turn(m.role, m.content, out);
    }
  }
}

}  // namespace

ChatTemplate ChatTemplate::load(const std::string& folder) {
  const std::filesystem::path jinja = std::filesystem::path(folder) / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) return recognise(read_small_file(jinja.string(), 1 << 20), jinja.string());
  const std::string config = (std::filesystem::path(folder) / "tokenizer_config.json").string();
  const auto text = json_string(config, "chat_template");
  return text ? recognise(*text, config) : ChatTemplate{};
}

ChatTemplate ChatTemplate::recognise(std::string_view jinja, const std::string& where) {
  std::string text(jinja);
  erase_all(text, "\\n", "\n");
  std::string system = find_default_system(text);
  const uint64_t hash = fnv1a(canonical(text, system));
  erase_all(system, "\\\\", "\\");
  if (hash == kQwen25Hash) return {kQwen25, system};
  if (hash == kSmolLM2Hash || hash == kPlainHash) return {kChatML, system};
  fail_input(
      "{}: this chat template is not supported (Qwen2.5's and SmolLM2's are, with any default system prompt); "
      "use the prompt template 'raw', or put one of theirs there",
      where);
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, std::string_view tools,
                                 bool add_generation_prompt) const {
  if (kind == kNone)
    fail_input("this model has no chat template (tokenizer_config.json): use the prompt template 'raw'");
  if (messages.empty()) fail_input("a conversation without messages: give at least one {{\"role\", \"content\"}}");
  for (const ChatMessage& m : messages) {
    const bool plain = m.role == "system" || m.role == "user" || m.role == "assistant";
    if (!plain && !(kind == kQwen25 && m.role == "tool")) {
      fail_input("a message has the role '{}': system, user, assistant{} are known", m.role,
                 kind == kQwen25 ? " and tool" : "");
    }
  }
  std::string out;
  if (kind == kQwen25) {
    append_qwen25(*this, messages, tools, out);
  } else {
    if (!is_blank_list(std::string(tools))) fail_input("this model's chat template takes no tools");
    if (messages[0].role != "system" && !default_system.empty()) append_turn("system", default_system, out);
    for (const ChatMessage& m : messages) append_turn(m.role, m.content, out);
  }
  if (add_generation_prompt) (out += kBegin) += "assistant\n";
  return out;
}

PromptStyle parse_prompt_style(std::string_view name) {
  if (name == "raw") return PromptStyle::raw;
  if (name == "chatml") return PromptStyle::chatml;
  if (name == "dapo") return PromptStyle::dapo;
  fail_input("prompt template '{}' is not known: raw, chatml or dapo", name);
}

std::string dapo_prompt(std::string_view problem) {
  return fmt::format("{}{}{}", kDapoHead, problem, kDapoTail);
}

std::string render_prompt(PromptStyle style, const ChatTemplate& chat, std::span<const ChatMessage> messages) {
  std::vector<ChatMessage> turns(messages.begin(), messages.end());
  if (style == PromptStyle::dapo) {
    for (size_t i = turns.size(); i-- > 0;) {
      if (turns[i].role != "user") continue;
      if (!turns[i].content.starts_with(kDapoHead)) turns[i].content = dapo_prompt(turns[i].content);
      break;
    }
  }
  if (style == PromptStyle::chatml || (style == PromptStyle::dapo && chat.kind != ChatTemplate::kNone)) {
    return chat.render(turns);
  }
  std::string out;
  for (const ChatMessage& m : turns) (out += out.empty() ? "" : "\n") += m.content;
  return out;
}

std::string python_json(std::string_view text, std::string_view what) {
  dom::parser parser;
  dom::element element;
  if (const auto error = parser.parse(simdjson::padded_string(text)).get(element)) {
    fail_input("{}: not JSON ({})", what, simdjson::error_message(error));
  }
  std::string out;
  append_python_json(element, out);
  return out;
}

}  // namespace dapo
