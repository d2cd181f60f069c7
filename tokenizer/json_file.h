// Small JSON files beside a model.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace dapo {

/// A whole file; Error where it is absent, no regular file, or longer than `limit` bytes.
std::string read_small_file(const std::string& path, size_t limit);

/// A top-level key of a JSON object in a file; nothing where the file or the key is absent or of another type. A file
/// that is no JSON object is an Error.
std::optional<bool> json_flag(const std::string& path, const char* key);
std::optional<std::string> json_string(const std::string& path, const char* key);

}  // namespace dapo
