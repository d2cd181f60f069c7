#include "data/lines.h"

#include <simdjson.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/check.h"

namespace dapo {

static_assert(simdjson::SIMDJSON_PADDING <= kLinePadding);

LineReader::LineReader(const std::string& path) : name_(path == "-" ? "<stdin>" : path) {
  std::error_code ignored;
  if (path != "-" && std::filesystem::is_directory(path, ignored))
    fail_input("{}: is a folder; a file with one JSON object a line is expected", path);
  file_.reset(path == "-" ? stdin : std::fopen(path.c_str(), "rb"));
  if (!file_) fail_input("{}: cannot open: {}", path, std::strerror(errno));
}

bool LineReader::next(std::string_view& line) {
  const auto blank = [](char c) { return c == '\n' || c == ' ' || c == '\r' || c == '\t'; };
  do {
    for (; begin_ < end_ && blank(buffer_[begin_]); ++begin_) at_ += buffer_[begin_] == '\n';
  } while (begin_ == end_ && fill());
  if (begin_ == end_) return false;
  number_ = at_;
  const char* end = nullptr;
  for (size_t scanned = 0; end == nullptr;) {
    const size_t there = end_ - begin_;
    end = static_cast<const char*>(std::memchr(buffer_.data() + begin_ + scanned, '\n', there - scanned));
    if (static_cast<size_t>(end ? end - (buffer_.data() + begin_) : there) > kLineLimit)
      fail_input("{}:{}: line is longer than {} MiB: one JSON object a line is expected", name_, number_,
                 kLineLimit >> 20);
    scanned = there;
    if (end == nullptr && !fill()) end = buffer_.data() + end_;
  }
  const char* from = buffer_.data() + begin_;
  line = {from, static_cast<size_t>(end - from)};
  if (line.ends_with('\r')) line.remove_suffix(1);
  begin_ += static_cast<size_t>(end - from);
  return true;
}

bool LineReader::fill() {
  if (begin_ > 0) std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  if (buffer_.size() < end_ + kBlock + kLinePadding) buffer_.resize(std::max(2 * end_, end_ + kBlock) + kLinePadding);
  const size_t got = std::fread(buffer_.data() + end_, 1, kBlock, file_.get());
  if (std::ferror(file_.get())) fail_input("{}: cannot be read: {}", name_, std::strerror(errno));
  end_ += got;
  if (at_ == 0) {
    at_ = 1;
    if (std::string_view(buffer_.data(), end_).starts_with("\xEF\xBB\xBF")) begin_ = 3;
  }
  return got > 0;
}

}  // namespace dapo
