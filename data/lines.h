// Rows of a JSON text file, one at a time, in one buffer padded for simdjson. A file is JSONL (one object per line), or
// one JSON array of objects, or a sequence of objects that span several lines each (jq's output); any of them may be
// compressed by gzip.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct gzFile_s;

namespace dapo {

constexpr size_t kLineLimit = size_t{16} << 20;  ///< longest row, in bytes
constexpr size_t kLinePadding = 64;              ///< readable bytes after a row

/// Memory: twice the longest row. Time: a blank line costs only its bytes.
class LineReader {
 public:
  /// "-": standard input. Error (exit 2) if the file cannot be read, or has another format, which the error names.
  explicit LineReader(const std::string& path);
  /// The next row: a nonblank line, without leading white space and line end; or the next element of the array. False
  /// at the end of the file. A byte order mark is skipped. The view, and kLinePadding bytes after it, are valid until
  /// the next call. Error (exit 2): a row longer than kLineLimit, an array that is not closed, compressed data that is
  /// truncated or damaged.
  bool next(std::string_view& row);
  size_t number() const { return number_; }  ///< line in which the last row begins, from 1
  const std::string& name() const { return name_; }

 private:
  enum class Form { unknown, lines, array, values, closed };

  bool fill();
  bool skip_blanks();
  void find_form();
  std::string_view line();
  std::string_view value();
  void too_long() const;

  static constexpr size_t kBlock = size_t{1} << 18;
  struct Close {
    void operator()(gzFile_s* f) const;
  };
  std::string name_;
  std::unique_ptr<gzFile_s, Close> file_;
  std::vector<char> buffer_ = std::vector<char>(kBlock + kLinePadding);
  size_t begin_ = 0, end_ = 0, number_ = 0;
  size_t at_ = 0;  // number of the line of begin_; 0 before the first byte
  Form form_ = Form::unknown;
  bool first_ = true;  // no element of the array has been read yet
};

}  // namespace dapo
