// JSONL: lines are read one at a time into one padded buffer, which simdjson then parses in place.
#include <simdjson.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "core/check.h"
#include "data/rows.h"

namespace dapo {

namespace {
class LineReader {
 public:
  explicit LineReader(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "rb")) {
    if (!file_) fail_input("{}: cannot open: {}", path, std::strerror(errno));
  }

  /// The next line without its end, or false at the end of the file. The view holds until the next call, and
  /// SIMDJSON_PADDING bytes behind it are readable.
  bool next(std::string_view& line) {
    ++number_;
    for (size_t scanned = 0;;) {
      const char* from = buffer_.data() + begin_;
      if (const void* end = std::memchr(from + scanned, '\n', end_ - begin_ - scanned)) {
        const size_t length = static_cast<size_t>(static_cast<const char*>(end) - from);
        line = trim(from, length);
        begin_ += length + 1;
        return true;
      }
      scanned = end_ - begin_;
      if (scanned > kLineLimit)
        fail_input("{}:{}: line is longer than {} MiB: one JSON object a line is expected", path_, number_,
                   kLineLimit >> 20);
      if (fill()) continue;
      if (begin_ == end_) return false;
      line = trim(buffer_.data() + begin_, end_ - begin_);
      begin_ = end_;
      return true;
    }
  }
  size_t number() const { return number_; }
  size_t capacity(std::string_view line) const {
    return static_cast<size_t>(buffer_.data() + buffer_.size() - line.data());
  }

 private:
  bool fill() {
    if (begin_ > 0) std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    if (buffer_.size() < end_ + kBlock + simdjson::SIMDJSON_PADDING)
      buffer_.resize(std::max(2 * end_, end_ + kBlock) + simdjson::SIMDJSON_PADDING);
    const size_t got = std::fread(buffer_.data() + end_, 1, kBlock, file_.get());
    if (std::ferror(file_.get())) fail_input("{}: cannot read: {}", path_, std::strerror(errno));
    end_ += got;
    return got > 0;
  }
  std::string_view trim(const char* text, size_t length) const {
    std::string_view line(text, length);
    if (number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
  }

  static constexpr size_t kBlock = size_t{1} << 18;
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::vector<char> buffer_ = std::vector<char>(kBlock + simdjson::SIMDJSON_PADDING);
  size_t begin_ = 0, end_ = 0, number_ = 0;
};
}  // namespace

void read_jsonl(const std::string& path, RowParser& parser, const RowSink& sink) {
  LineReader lines(path);
  for (std::string_view line; lines.next(line);) {
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    sink(parser.parse(line.data(), line.size(), lines.capacity(line), fmt::format("{}:{}", path, lines.number())));
  }
}

}  // namespace dapo
