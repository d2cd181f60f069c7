// Inside data/ and for the commands' rows: one JSON object as programs write it, its fields by name, and an answer's
// text.
#pragma once

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

namespace dapo {

constexpr size_t kDepthLimit = 64;  ///< deepest nesting of objects and lists

/// Reads JSON and what Python's json module writes and reads beyond it: NaN, Infinity and -Infinity (read as null),
/// integers of any length (beyond 64 bits as the string of their digits), halves of surrogate pairs (U+FFFD).
class JsonParser {
 public:
  JsonParser();
  /// The value lives until the next call. `capacity` - length bytes after the text are readable (else it is copied).
  /// Error (exit 2) opens with `where`: not JSON, not UTF-8, deeper than kDepthLimit, longer than a row may be.
  simdjson::dom::element parse(const char* json, size_t length, size_t capacity, std::string_view where);

 private:
  void reserve(size_t length, std::string_view where);

  simdjson::dom::parser parser_;
  std::string plain_;  // the text with what is not JSON rewritten
  size_t prepared_ = 0;
};

/// "a list", "a string", ... for messages.
std::string_view type_of(const simdjson::dom::element& e);

/// The field at a dotted path (the last one, where a key comes twice; a key that itself holds the dots counts first);
/// nothing where it is absent or null.
std::optional<simdjson::dom::element> field(simdjson::dom::element from, std::string_view path);

/// An answer as the verifiers take it: a string as it is (JSON text of a list of strings is that list); a number
/// written shortest and without exponent (42.0: "42"); several accepted answers (a list of strings) joined by
/// kAnswerSeparator; an object as JSON. Error (exit 2) for anything else names `where` and `key`.
std::string answer_text(const simdjson::dom::element& value, std::string_view where, std::string_view key);

}  // namespace dapo
