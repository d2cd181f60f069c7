#include "tokenizer/json_file.h"

#include <simdjson.h>

#include <filesystem>

#include "core/check.h"
#include "core/json.h"

namespace dapo {

namespace {

constexpr size_t kLimit = 8 << 20;

/// Gives `use` the object in a file; false where there is no such file. (The strings live in the parser.)
template <class F>
bool with_object(const std::string& path, F use) {
  if (!std::filesystem::exists(path)) return false;
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (const auto error = parser.parse(simdjson::padded_string(read_small_file(path, kLimit))).get(object)) {
    fail_input("{}: not a JSON object ({})", path, simdjson::error_message(error));
  }
  return use(object);
}

}  // namespace

std::string read_small_file(const std::string& path, size_t limit) {
  return read_text_file(path, limit);
}

std::optional<bool> json_flag(const std::string& path, const char* key) {
  bool value = false;
  const bool there = with_object(path, [&](auto object) { return object[key].get(value) == simdjson::SUCCESS; });
  return there ? std::optional(value) : std::nullopt;
}

std::optional<std::string> json_string(const std::string& path, const char* key) {
  std::string value;
  const bool there = with_object(path, [&](auto object) {
    std::string_view view;
    if (object[key].get(view) != simdjson::SUCCESS) return false;
    value = view;
    return true;
  });
  return there ? std::optional(value) : std::nullopt;
}

}  // namespace dapo
