// Lines of a text file, one at a time, in one buffer with room behind it for simdjson.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dapo {

constexpr size_t kLineLimit = size_t{16} << 20;  ///< longest line, in bytes
constexpr size_t kLinePadding = 64;              ///< readable bytes behind a line

/// Memory: the longest line, twice. Time: a blank line costs its bytes and no more.
class LineReader {
 public:
  /// "-": standard input. Error (exit 2) where the file cannot be read.
  explicit LineReader(const std::string& path);
  /// The next line with anything in it but white space, from its first such character, without the line's end; false
  /// at the end of the file. A byte order mark is passed over. The view, and kLinePadding bytes behind it, hold until
  /// the next call. Error (exit 2) names the line that is longer than kLineLimit.
  bool next(std::string_view& line);
  size_t number() const { return number_; }  ///< of the line last read, from 1
  const std::string& name() const { return name_; }

 private:
  bool fill();

  static constexpr size_t kBlock = size_t{1} << 18;
  struct Close {
    void operator()(std::FILE* f) const {
      if (f != stdin) std::fclose(f);
    }
  };
  std::string name_;
  std::unique_ptr<std::FILE, Close> file_;
  std::vector<char> buffer_ = std::vector<char>(kBlock + kLinePadding);
  size_t begin_ = 0, end_ = 0, number_ = 0;
  size_t at_ = 0;  // number of the line that begin_ is in; 0 before the first byte
};

}  // namespace dapo
