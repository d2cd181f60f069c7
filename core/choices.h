// Settings and flags that take one of a few words: an enum, and beside it the one list of its words, from which
// reading, writing and every message follow.
//
//   enum class Surplus : uint8_t { automatic, bank, drop };
//   constexpr std::string_view choices(Surplus) { return "auto|bank|drop"; }  // in the order of the values
#pragma once

#include <cstdlib>
#include <string>
#include <string_view>

#include "core/check.h"

namespace dapo {

/// Position of `word` in a list "a|b|c"; -1 if it is not there.
constexpr int choice_index(std::string_view list, std::string_view word) {
  for (int i = 0;; ++i) {
    const size_t end = list.find('|');
    if (list.substr(0, end) == word) return i;
    if (end == std::string_view::npos) return -1;
    list.remove_prefix(end + 1);
  }
}

/// The list with another separator: "a, b, c".
inline std::string choice_list(std::string_view list, std::string_view separator) {
  std::string text;
  for (const char c : list) c == '|' ? text += separator : text += c;
  return text;
}

/// The word of a value.
template <class E>
constexpr std::string_view choice_name(E value) {
  std::string_view list = choices(E{});
  for (int i = static_cast<int>(value); i > 0; --i) list.remove_prefix(list.find('|') + 1);
  return list.substr(0, list.find('|'));
}

/// The value of a flag. Error (exit 2) if `word` is not one of its choices.
template <class E>
E parse_choice(std::string_view flag, std::string_view word) {
  const int index = choice_index(choices(E{}), word);
  if (index < 0) fail_input("{} {}: not known; one of {}", flag, word, choice_list(choices(E{}), ", "));
  return static_cast<E>(index);
}

/// The value of an environment variable, `automatic` without it. Error as parse_choice.
template <class E>
E environment_choice(const char* name) {
  const char* word = std::getenv(name);
  return word == nullptr ? E::automatic : parse_choice<E>(name, word);
}

}  // namespace dapo
