#include "tokenizer/json_file.h"

#include <simdjson.h>

#include <filesystem>
#include <fstream>

#include "core/check.h"

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
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) fail_input("{}: no such file", path);
  const auto size = std::filesystem::file_size(path, error);
  if (error) fail_input("{}: cannot be read: {}", path, error.message());
  if (size > limit) fail_input("{}: {} bytes, more than the {} that such a file may have", path, size, limit);
  std::string text(size, '\0');
  std::ifstream in(path, std::ios::binary);
  if (!in.read(text.data(), static_cast<std::streamsize>(size))) fail_input("{}: cannot be read", path);
  return text;
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
