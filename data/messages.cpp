#include "data/messages.h"

#include <algorithm>
#include <array>
#include <optional>

#include "core/check.h"
#include "data/json_row.h"

namespace dapo {
namespace {
using simdjson::dom::element;

constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kRoles = {{{"human", "user"},
                                                                                  {"gpt", "assistant"},
                                                                                  {"chatgpt", "assistant"},
                                                                                  {"bot", "assistant"},
                                                                                  {"model", "assistant"},
                                                                                  {"observation", "tool"}}};

/// A message's content: text, or parts of text ([{"type": "text", "text": ...}]).
std::string content_of(const element& content, std::string_view where) {
  if (!content.is_array()) return string_of(content, "content", where);
  std::string out;
  for (const element part : simdjson::dom::array(content)) {
    const auto text = field(part, "text");
    if (!text) fail_input("{}: a message's \"content\" has a part without \"text\": only text is supported", where);
    out += string_of(*text, "text", where);
  }
  return out;
}

std::optional<Message> message_of(const element& e, std::string_view where) {
  std::optional<element> role, content;
  bool calls = false, more = false;
  simdjson::dom::object object;
  if (e.get(object) != simdjson::SUCCESS) return std::nullopt;
  for (const auto& [key, value] : object) {
    if (value.is_null() || (value.is_array() && simdjson::dom::array(value).size() == 0)) continue;
    if (key == "role" || key == "from")
      role = value;
    else if (key == "content" || key == "value")
      content = value;
    else
      more = true, calls |= key == "tool_calls";
  }
  if (!role || (!content && !calls)) return std::nullopt;
  Message m{string_of(*role, "role", where), content ? content_of(*content, where) : "",
            more ? simdjson::minify(object) : ""};
  for (const auto& [from, to] : kRoles)
    if (m.role == from) m.role = to;
  return m;
}

/// Calls f with the value, or with the JSON parsed from its text; not for an empty text.
template <class F>
void with_json(const element& value, std::string_view key, std::string_view where, F f) {
  if (!value.is_string()) return f(value);
  const std::string_view text = value;
  if (text.empty()) return;
  JsonParser parser;
  f(parser.parse(text.data(), text.size(), text.size(), fmt::format("{}: the text in \"{}\"", where, key)));
}
}  // namespace

std::string string_of(const element& value, std::string_view key, std::string_view where) {
  std::string_view s;
  if (value.get(s) != simdjson::SUCCESS) fail_input("{}: \"{}\" is {}: expected a string", where, key, type_of(value));
  return std::string(s);
}

std::vector<Message> messages_of(const element& list, std::string_view key, std::string_view where) {
  std::vector<Message> out;
  for (const element e : simdjson::dom::array(list)) {
    auto m = message_of(e, where);
    if (!m)
      fail_input("{}: \"{}\"[{}] lacks \"role\" or \"content\": messages are {{\"role\", \"content\"}} objects", where,
                 key, out.size());
    out.push_back(std::move(*m));
  }
  if (out.empty()) fail_input("{}: \"{}\" is an empty list: expected at least one message", where, key);
  return out;
}

bool holds_messages(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const auto skip = [&] { text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size())); };
  const auto take = [&](std::string_view prefix) {
    skip();
    const bool there = text.starts_with(prefix);
    if (there) text.remove_prefix(prefix.size());
    return there;
  };
  text = text.substr(0, text.find_last_not_of(kSpace) + 1);
  const bool array = take("array("), list = take("[");
  if (!text.ends_with(array ? ')' : list ? ']' : '}') || !take("{")) return false;
  skip();
  const auto quoted = [](char quote, std::string_view name) { return fmt::format("{0}{1}{0}", quote, name); };
  for (const char quote : {'"', '\''})
    for (const auto& [role, content] : {std::pair("role", "content"), std::pair("from", "value")})
      if (text.starts_with(quoted(quote, role)) || text.starts_with(quoted(quote, content)))
        return text.find(quoted(quote, role)) != text.npos;
  return false;
}

std::string response_of(Message message, std::string_view key, std::string_view where) {
  JsonParser parser;
  if (!message.more.empty()) {
    const element all = parser.parse(message.more.data(), message.more.size(), message.more.size(), where);
    for (const char* lost : {"tool_calls", "function_call", "reasoning_content", "reasoning", "thinking"})
      if (const auto v = field(all, lost); v && !(v->is_array() && simdjson::dom::array(*v).size() == 0) &&
                                           !(v->is_string() && std::string_view(*v).empty()))
        fail_input(
            "{}: the response in \"{}\" has \"{}\" beside its text, which would be left out: write it into \"content\" "
            "as "
            "the model should, or leave such rows out",
            where, key, lost);
  }
  return std::move(message.content);
}

std::string tools_of(const element& value, std::string_view where) {
  std::string out;
  with_json(value, "tools", where, [&](const element& list) {
    if (!list.is_array())
      fail_input("{}: \"tools\" is {}: expected a list of JSON schemas of functions", where, type_of(list));
    size_t i = 0;
    for (const element one : simdjson::dom::array(list)) {
      if (!one.is_object())
        fail_input(
            "{}: \"tools\"[{}] is {}: a chat template takes a JSON schema, {{\"type\": \"function\", \"function\": "
            "{{...}}}}; rename the column if it is something else",
            where, i, type_of(one));
      ++i;
    }
    out = simdjson::minify(list);
  });
  return out;
}

std::string variables_of(const element& value, std::string_view where) {
  std::string out;
  with_json(value, "chat_template_kwargs", where, [&](const element& object) {
    if (!object.is_object())
      fail_input("{}: \"chat_template_kwargs\" is {}: expected an object", where, type_of(object));
    if (simdjson::dom::object(object).size() > 0) out = simdjson::minify(object);
  });
  return out;
}

}  // namespace dapo
