// Internal to data/ and for the rows of commands: one JSON object as real programs write it, its fields by name, and
// the text of an answer.
#pragma once

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

namespace dapo {

constexpr size_t kDepthLimit = 64;  ///< deepest nesting of objects and lists

/// Reads JSON and the extensions of Python's json module: NaN, Infinity and -Infinity (as null), integers of any length
/// (beyond 64 bits as the string of their digits), lone surrogates (as U+FFFD).
class JsonParser {
 public:
  JsonParser();
  /// The value is valid until the next call. `capacity` - length bytes after the text are readable (else it is copied).
  /// Error (exit 2), starting with `where`: not JSON, not UTF-8, deeper than kDepthLimit, longer than kLineLimit.
  simdjson::dom::element parse(const char* json, size_t length, size_t capacity, std::string_view where);

 private:
  void reserve(size_t length, std::string_view where);

  simdjson::dom::parser parser_;
  std::string plain_;  // the text with Python's extensions rewritten
  size_t prepared_ = 0;
};

/// "a list", "a string", ... for messages.
std::string_view type_of(const simdjson::dom::element& e);

/// The field at a dotted path (the last one if a key is duplicated; a key that itself contains the dots takes
/// precedence); nothing if it is absent or null.
std::optional<simdjson::dom::element> field(simdjson::dom::element from, std::string_view path);

/// An answer for the verifiers: a string verbatim (JSON text of a list of strings becomes that list); a number in its
/// shortest form without exponent (42.0: "42"); several accepted answers (a list of strings) joined by
/// kAnswerSeparator; an object as JSON. Error (exit 2) for anything else names `where` and `key`.
std::string answer_text(const simdjson::dom::element& value, std::string_view where, std::string_view key);

}  // namespace dapo
