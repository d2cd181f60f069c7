// Whether a fault's text is the expected one.
#pragma once

#include <regex.h>

#include <string>

/// `expression`: an extended regular expression, found anywhere in the text.
inline bool matches(const std::string& text, const std::string& expression) {
  regex_t r;
  if (regcomp(&r, expression.c_str(), REG_EXTENDED | REG_NOSUB)) return false;
  const bool found = regexec(&r, text.c_str(), 0, nullptr, 0) == 0;
  regfree(&r);
  return found;
}
