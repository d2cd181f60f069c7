// Rows of a JSON text file, one at a time, in one buffer with room behind it for simdjson. A file is JSONL (one object
// a line), or one JSON array of objects, or objects written over several lines one after another (jq's output); any of
// them may be compressed by gzip.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct gzFile_s;

namespace dapo {

constexpr size_t kLineLimit = size_t{16} << 20;  ///< longest row, in bytes
constexpr size_t kLinePadding = 64;              ///< readable bytes behind a row

/// Memory: the longest row, twice. Time: a blank line costs its bytes and no more.
class LineReader {
 public:
  /// "-": standard input. Error (exit 2) where the file cannot be read, or is of another format, which is named.
  explicit LineReader(const std::string& path);
  /// The next row: a line with anything in it but white space, from its first such character, without the line's end;
  /// or the next element of the array. False at the end of the file. A byte order mark is skipped. The view, and
  /// kLinePadding bytes behind it, hold until the next call. Error (exit 2) names the row that is longer than
  /// kLineLimit, an array that is not closed, and compressed data that is cut off or damaged.
  bool next(std::string_view& row);
  size_t number() const { return number_; }  ///< line that the last row begins in, from 1
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
  size_t at_ = 0;  // number of the line that begin_ is in; 0 before the first byte
  Form form_ = Form::unknown;
  bool first_ = true;  // no element of the array was read yet
};

}  // namespace dapo
