#include "data/answer.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/last_boxed.h"

namespace dapo {
namespace {

constexpr size_t kLongestAnswer = 500;  // bytes; MATH's longest has 159

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t from = std::min(text.find_first_not_of(kSpace), text.size());
  return text.substr(from, text.find_last_not_of(kSpace) + 1 - from);
}

/// "-1234.5", "3/4", "50%"
bool is_number(std::string_view text) {
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  if (text.ends_with('%')) text.remove_suffix(1);
  const size_t slash = text.find('/');
  if (slash != text.npos) return is_number(text.substr(0, slash)) && is_number(text.substr(slash + 1));
  return text.find_first_not_of("0123456789.") == text.npos && text.find_first_of("0123456789") != text.npos &&
         std::count(text.begin(), text.end(), '.') <= 1;
}

/// Drops `prefix` from the front of the text if it is there.
bool take(std::string_view& text, std::string_view prefix) {
  const bool there = text.starts_with(prefix);
  if (there) text.remove_prefix(prefix.size());
  return there;
}

/// Whether commas stand only between groups of three digits: "1,234", not "2,5", which may be two and a half.
bool grouped(std::string_view number) {
  for (size_t at = number.find(','); at != number.npos; at = number.find(',', at + 1)) {
    const size_t end = std::min(number.find_first_not_of("0123456789", at + 1), number.size());
    if (at == 0 || end - at != 4) return false;
  }
  return true;
}

std::optional<std::string> gsm8k_answer(std::string_view text) {
  const size_t at = text.rfind("####");
  if (at == text.npos || (at > 0 && text[at - 1] == '#')) return std::nullopt;
  std::string_view rest = trimmed(text.substr(at + 4));
  std::string number;
  for (bool more = true; more;) {  // a sign and a currency, in any order
    more = false;
    for (const std::string_view minus : {"-", "\u2212"})
      if (number.empty() && take(rest, minus)) number = "-", more = true;
    for (const std::string_view currency : {"$", "\\$", "\u20AC", "\u00A3"}) more |= take(rest, currency);
    rest = trimmed(rest);
  }
  if (rest.ends_with('$')) rest = trimmed(rest.substr(0, rest.size() - 1));
  if (!grouped(rest)) return std::nullopt;
  number += rest;
  std::erase(number, ',');
  if (number.ends_with('.')) number.pop_back();  // a full stop
  return is_number(number) ? std::optional(number) : std::nullopt;
}

/// What "<answer>" and "</answer>" enclose at the end of a text.
std::optional<std::string_view> tagged_answer(std::string_view text) {
  constexpr std::string_view kOpen = "<answer>", kClose = "</answer>";
  text = trimmed(text);
  const size_t at = text.rfind(kOpen);
  if (at == text.npos || !text.ends_with(kClose)) return std::nullopt;
  text.remove_prefix(at + kOpen.size());
  return trimmed(text.substr(0, text.size() - kClose.size()));
}

/// Where the last line that begins with "####" ends; npos if there is none.
size_t last_heading_end(std::string_view text) {
  size_t at = text.rfind("\n####");
  if (at == text.npos && !text.starts_with("####")) return text.npos;
  return std::min(text.find('\n', at == text.npos ? 0 : at + 1), text.size());
}

}  // namespace

std::optional<std::string> marked_answer(std::string_view text) {
  if (const auto inside = tagged_answer(text)) {
    if (auto marked = marked_answer(*inside)) return marked;
    if (inside->find('\n') == inside->npos) return std::string(*inside);
  }
  if (auto number = gsm8k_answer(text)) return number;
  if (const auto box = last_boxed(text)) return std::string(*box);
  if (const size_t end = last_heading_end(text); end != text.npos)
    if (const auto below = trimmed(text.substr(end)); is_answer(below)) return std::string(below);
  return std::nullopt;
}

bool is_answer(std::string_view text) {
  text = trimmed(text);
  if (text.empty() || text.size() > kLongestAnswer || text.starts_with('#')) return false;
  if (text.find_first_of(" \t\r\n") == text.npos) return true;
  // With spaces it is a formula: no line break, no "=" as in a calculation, and no words but LaTeX commands.
  if (text.find_first_of("\r\n=") != text.npos) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t from = i;
    while (i < text.size() && is_letter(text[i])) ++i;
    if (i - from > 1 && (from == 0 || text[from - 1] != '\\')) return false;
  }
  return true;
}

std::string why_no_answer(std::string_view text, bool worked_solution) {
  for (const std::string_view box : {"\\boxed{", "\\fbox{"})
    if (text.find(box) != text.npos) return fmt::format("has a {} that is not closed", box);
  if (is_answer(text)) return "";
  const auto lines = std::count(text.begin(), text.end(), '\n');
  const char* unmarked = "with no \"#### number\" at its end and no \\boxed{}";
  if (worked_solution || last_heading_end(text) != text.npos) return fmt::format("is a text {}", unmarked);
  if (lines > 0 && trimmed(text).find('\n') != text.npos)
    return fmt::format("is a text of {} lines {}", lines + 1, unmarked);
  if (text.size() > kLongestAnswer) return fmt::format("is a text of {} bytes {}", text.size(), unmarked);
  return "";
}

}  // namespace dapo
