#include "core/boxed.h"

namespace dapo {

namespace {
bool letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && space(s.front())) s.remove_prefix(1);
  while (!s.empty() && space(s.back())) s.remove_suffix(1);
  return s;
}

/// What follows the last `command` (not a longer one that begins so).
std::optional<std::string_view> after_last(std::string_view text, std::string_view command) {
  for (size_t end = text.size(); (end = text.substr(0, end).rfind(command)) != text.npos;) {
    const std::string_view rest = text.substr(end + command.size());
    if (rest.empty() || !letter(rest[0])) return rest;
  }
  return std::nullopt;
}

/// Up to the brace that closes what is open at the beginning.
std::optional<std::string_view> to_closing_brace(std::string_view s) {
  size_t open = 1;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] == '\\')
      ++i;
    else if (s[i] == '{')
      ++open;
    else if (s[i] == '}' && --open == 0)
      return s.substr(0, i);
  }
  return std::nullopt;
}

std::string_view to_end_of_formula(std::string_view s) {
  size_t open = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    const char c = s[i];
    if (c == '$' || c == '\n' || (c == '}' && open == 0)) return s.substr(0, i);
    open += c == '{';
    open -= c == '}';
    if (c != '\\') continue;
    const std::string_view rest = s.substr(i + 1);
    if (rest.starts_with(')') || rest.starts_with(']') || rest.starts_with('\\') || rest.starts_with("end{"))
      return s.substr(0, i);
    ++i;
  }
  return s;
}
}  // namespace

std::optional<std::string_view> last_boxed(std::string_view text) {
  auto rest = after_last(text, "\\boxed");
  if (!rest) rest = after_last(text, "\\fbox");
  if (!rest) return std::nullopt;
  while (!rest->empty() && space((*rest)[0])) rest->remove_prefix(1);
  if (rest->empty()) return std::nullopt;
  if (rest->starts_with('{')) {
    const auto content = to_closing_brace(rest->substr(1));
    return content ? std::optional(trimmed(*content)) : std::nullopt;
  }
  return trimmed(to_end_of_formula(*rest));
}

}  // namespace dapo
