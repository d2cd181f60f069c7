// JSON lines in and out for the command line: a file or "-", errors with line numbers, output files complete or absent.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace dapo {

/// One object of a JSONL file. Every accessor's Error (exit 2) names file, line and field.
class JsonRow {
 public:
  struct Impl;
  explicit JsonRow(Impl& impl) : impl_(impl) {}
  bool has(const char* field) const;
  bool is_text(const char* field) const;      ///< a string or a number
  std::string text(const char* field) const;  ///< a string; numbers verbatim
  std::string text_or(const char* field, const std::string& absent) const;
  int64_t integer(const char* field) const;
  bool flag(const char* field) const;
  std::vector<int32_t> ids(const char* field) const;
  /// The value as JSON text.
  std::string json(const char* field) const;
  /// A ground truth, parsed as in the rows of a dataset (data/json_row.h).
  std::string answer(const char* field) const;
  /// Messages, and the chat template's other arguments ("" if the row has none), as in the rows of a dataset.
  std::vector<Message> messages(const char* field) const;
  std::string tools() const;
  std::string variables() const;
  /// Calls f on each object of an array.
  void each(const char* field, const std::function<void(const JsonRow&)>& f) const;
  [[noreturn]] void fail_here(const std::string& what) const;

 private:
  Impl& impl_;
};

/// Calls f on each object of a JSONL file or JSON array (data/lines.h; "-": standard input) in order; blank lines are
/// skipped. Error (exit 2) names the line: not an object, not UTF-8, nested deeper than 64, longer than 16 MiB; also if
/// there are no rows at all.
void read_rows(const std::string& path, const std::function<void(const JsonRow&)>& f);

/// Error (exit 2) if `out` ("" or "-": standard output) is a file that a command may not replace: one of its inputs, or
/// one that holds anything but rows that these commands write, such as weights or a dataset.
void check_output(const std::string& out, const std::vector<std::string>& inputs);

/// Writes lines to standard output ("-" or ""), or to a file that appears, complete, when commit() is called.
class LineWriter {
 public:
  explicit LineWriter(const std::string& path);
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;
  void line(std::string_view text);
  void flush();
  /// Error (exit 3) if the write fails.
  void commit();
  /// Closes an incomplete file: the lines are then in "FILE.partial". Returns that name, or "<stdout>".
  std::string commit_partial();

 private:
  [[noreturn]] void refused(int error) const;
  void commit_as(const std::string& path);

  std::string path_, fresh_;
  std::FILE* file_ = nullptr;
};

/// A JSON object written field by field, on one line. Invalid UTF-8 becomes U+FFFD, non-finite numbers null.
class JsonLine {
 public:
  JsonLine& add(std::string_view key, std::string_view text);
  JsonLine& add(std::string_view key, const char* text) { return add(key, std::string_view(text)); }
  JsonLine& add(std::string_view key, double number);
  JsonLine& add(std::string_view key, float number);
  JsonLine& add(std::string_view key, bool value);
  JsonLine& add(std::string_view key, int64_t number);
  JsonLine& add(std::string_view key, int number) { return add(key, int64_t{number}); }
  JsonLine& add(std::string_view key, const std::vector<int32_t>& list);
  JsonLine& add(std::string_view key, const std::vector<float>& list);
  JsonLine& add(std::string_view key, const std::vector<std::string>& list);
  std::string str() const { return text_ + "}"; }

 private:
  std::string& begin(std::string_view key);
  std::string text_ = "{";
};

}  // namespace dapo
