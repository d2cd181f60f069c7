// A strict pull reader of JSON text (RFC 8259) for untrusted headers and configs: it needs no memory beyond the text
// (simdjson indexes the whole of it first: 4 bytes a token, 400 MB for a hostile safetensors
// header), its depth is capped, and every error names the file and the byte.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dapo {

class JsonReader {
 public:
  static constexpr int kMaxDepth = 64;
  enum class Kind : uint8_t { object, array, string, number, boolean, null };

  /// Error (exit 2) if the text is not UTF-8. `text` must outlive the reader; `where` (a path) begins every message.
  JsonReader(std::string_view text, std::string where);

  /// Kind of the value that comes next.
  Kind peek();
  /// Enters an object; key() then moves to the next member, whose value must be read or skipped, or leaves the object
  /// and returns false.
  void object();
  bool key(std::string& name);
  /// Enters an array; item() then returns true if one more value follows, or leaves the array and returns false.
  void array();
  bool item();

  std::string string();
  /// A number written without fraction and exponent.
  int64_t integer();
  uint64_t unsigned_integer();
  double number();
  bool boolean();
  void null();
  /// Skips one value of any kind, which must be valid, or one of Python's NaN, Infinity and -Infinity.
  void skip();
  /// Bytes of the text read so far.
  size_t position() const { return at_; }
  /// Only white space may be left.
  void end();

  [[noreturn]] void fail_here(std::string_view what) const;

 private:
  void space();
  bool take(char c);
  void expect(char c, const char* what);
  void literal(std::string_view word);
  std::string_view number_text(bool integral);
  uint32_t hex4();
  void escape(std::string& out);
  void enter(char c, const char* what);
  bool next(char closing);

  std::string_view text_;
  std::string where_;
  size_t at_ = 0;
  int depth_ = 0;
  bool first_ = false;
};

/// `text`, which is one JSON object, with these members (name, JSON value): each replaces the member of that name, or
/// is added at the end; every other byte stays as it is. An Error (exit 2) begins with `where`.
std::string with_members(const std::string& text, const std::string& where,
                         const std::vector<std::pair<std::string, std::string>>& members);

/// Whole text of a regular file of at most `limit` bytes, links followed, without a byte order mark. Error (exit 2)
/// names the path and says what is there instead (core/files.h).
std::string read_text_file(const std::string& path, size_t limit = size_t{64} << 20);

}  // namespace dapo
