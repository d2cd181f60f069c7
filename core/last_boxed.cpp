#include "core/last_boxed.h"

#include <algorithm>

namespace dapo {

namespace {
using std::string_view;

bool letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

string_view trimmed(string_view s) {
  while (!s.empty() && space(s.front())) s.remove_prefix(1);
  while (!s.empty() && space(s.back())) s.remove_suffix(1);
  return s;
}

/// The text up to the brace that closes the one before it.
std::optional<string_view> to_closing_brace(string_view s) {
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

/// The content of a box without braces; empty if it is prose.
string_view without_braces(string_view s) {
  size_t open = 0, i = 0;
  for (; i < s.size() && s[i] != '\n'; ++i) {
    const char c = s[i];
    if (c == '$' || (c == '}' && open == 0)) return trimmed(s.substr(0, i));
    open += c == '{';
    open -= c == '}';
    if (c != '\\') continue;
    const string_view rest = s.substr(i + 1);
    for (const string_view end : {")", "]", "\\", "end{"})
      if (rest.starts_with(end)) return trimmed(s.substr(0, i));
    ++i;
  }
  size_t end = 0;
  while (end < s.size() && !space(s[end])) ++end;
  while (end > 0 && (s[end - 1] == '.' || s[end - 1] == ',')) --end;
  return end > 0 && letter(s[0]) ? string_view() : s.substr(0, end);
}
}  // namespace

std::optional<string_view> last_boxed(string_view text) {
  for (const string_view command : {"\\boxed", "\\fbox"}) {
    size_t next = text.size();
    for (size_t at = next; (at = text.substr(0, at).rfind(command)) != text.npos; next = at) {
      string_view rest = text.substr(at + command.size());
      if (!rest.empty() && letter(rest[0])) continue;  // a longer command
      while (!rest.empty() && space(rest[0])) rest.remove_prefix(1);
      if (rest.starts_with('{')) {
        const auto content = to_closing_brace(rest.substr(1));
        return content ? std::optional(trimmed(*content)) : std::nullopt;
      }
      rest = rest.substr(0, next - std::min(next, text.size() - rest.size()));  // no byte is read twice
      if (const string_view content = without_braces(rest); !content.empty()) return content;
    }
  }
  return std::nullopt;
}

}  // namespace dapo
