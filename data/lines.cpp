#include "data/lines.h"

#include <fcntl.h>
#include <simdjson.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/check.h"
#include "core/files.h"

namespace dapo {

static_assert(simdjson::SIMDJSON_PADDING <= kLinePadding);

void LineReader::Close::operator()(gzFile_s* f) const {
  gzclose_r(f);
}

LineReader::LineReader(const std::string& path) : name_(path == "-" ? "<stdin>" : path) {
  for (const char* ending : {".csv", ".tsv", ".csv.gz", ".tsv.gz"})
    if (path.ends_with(ending))
      fail_input(
          "{}: a CSV file, which is not supported: convert it to JSONL with python3 -c \"import pandas; "
          "pandas.read_csv('{}').to_json('rows.jsonl', orient='records', lines=True)\"",
          path, path);
  // A pipe (standard input, the shell's <(...)) works like a file here.
  const int fd = path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_input("{}: cannot open: {}", name_, open_error(path, errno));
  struct stat st {};
  if (::fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
    ::close(fd);
    fail_input("{}: is a folder; expected a file with one JSON object per line", name_);
  }
  file_.reset(gzdopen(fd, "rb"));  // reads uncompressed files unchanged
  if (!file_) {
    ::close(fd);
    fail(kExitResources, "{}: out of memory while reading it", name_);
  }
}

bool LineReader::next(std::string_view& row) {
  if (!skip_blanks()) {
    if (form_ == Form::array) fail_input("{}:{}: the JSON array is not closed: the file is truncated", name_, at_);
    return false;
  }
  if (form_ == Form::unknown) find_form();
  if (form_ == Form::array) {
    const auto take = [this](char c) { return buffer_[begin_] == c && ++begin_ > 0; };
    if (take(']')) {
      form_ = Form::closed;
      if (!skip_blanks()) return false;
    } else {
      if (!first_ && !take(',')) fail_input("{}:{}: expected , or ] after an element of the JSON array", name_, at_);
      if (!skip_blanks()) return next(row);
    }
    first_ = false;
  }
  if (form_ == Form::closed)
    fail_input("{}:{}: text after the JSON array: a file is one array of objects, or one object per line", name_, at_);
  number_ = at_;
  row = form_ == Form::lines ? line() : value();
  return true;
}

/// Skips white space; false at the end of the file.
bool LineReader::skip_blanks() {
  const auto blank = [](char c) { return c == '\n' || c == ' ' || c == '\r' || c == '\t'; };
  do {
    for (; begin_ < end_ && blank(buffer_[begin_]); ++begin_) at_ += buffer_[begin_] == '\n';
  } while (begin_ == end_ && fill());
  return begin_ < end_;
}

void LineReader::find_form() {
  form_ = Form::lines;
  if (buffer_[begin_] == '[') {
    form_ = Form::array;
    ++begin_;
    skip_blanks();
  } else if (buffer_[begin_] == '{') {  // alone on its line: the object continues on the next lines
    size_t i = 1;
    while (begin_ + i < end_ || fill())
      if (const char c = buffer_[begin_ + i++]; c != ' ' && c != '\r' && c != '\t') {
        if (c == '\n') form_ = Form::values;
        return;
      }
  }
}

void LineReader::too_long() const {
  fail_input("{}:{}: line is longer than {} MiB: expected one JSON object per line", name_, number_, kLineLimit >> 20);
}

std::string_view LineReader::line() {
  const char* end = nullptr;
  for (size_t scanned = 0; end == nullptr;) {
    const size_t there = end_ - begin_;
    end = static_cast<const char*>(std::memchr(buffer_.data() + begin_ + scanned, '\n', there - scanned));
    if (static_cast<size_t>(end ? end - (buffer_.data() + begin_) : there) > kLineLimit) too_long();
    scanned = there;
    if (end == nullptr && !fill()) end = buffer_.data() + end_;
  }
  const char* from = buffer_.data() + begin_;
  std::string_view line{from, static_cast<size_t>(end - from)};
  begin_ += line.size();
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

/// The JSON value at begin_, found by its brackets and quotes.
std::string_view LineReader::value() {
  size_t i = 0, depth = 0;
  bool quoted = false;
  for (; begin_ + i < end_ || fill(); ++i) {
    const char c = buffer_[begin_ + i];
    at_ += c == '\n';
    if (i > kLineLimit)
      fail_input("{}:{}: the row that begins here is longer than {} MiB", name_, number_, kLineLimit >> 20);
    if (quoted) {
      if (c != '"' && c != '\\') {  // the rest of the string in one go
        const char *from = buffer_.data() + begin_ + i, *end = buffer_.data() + end_, *to = from;
        while (to < end && *to != '"' && *to != '\\') ++to;
        i += static_cast<size_t>(to - from) - 1;
        continue;
      }
      if (c == '\\' && (begin_ + i + 1 < end_ || fill())) ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth <= 1) {
        i += depth;  // an element without brackets ends before the array's closing bracket
        depth = 0;
        break;
      }
      --depth;
    } else if (c == ',' && depth == 0) {
      break;
    }
  }
  if (depth > 0 || quoted)
    fail_input("{}:{}: the object that begins here is not closed: the file is truncated", name_, number_);
  const std::string_view row(buffer_.data() + begin_, i);
  begin_ += i;
  if (row.empty())
    fail_input("{}:{}: expected a JSON object{}", name_, number_,
               buffer_[begin_] == ']' ? "; remove the comma before the ] that ends the array" : "");
  return row;
}

bool LineReader::fill() {
  if (begin_ > 0) std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  if (buffer_.size() < end_ + kBlock + kLinePadding) buffer_.resize(std::max(2 * end_, end_ + kBlock) + kLinePadding);
  const int got = gzread(file_.get(), buffer_.data() + end_, kBlock);
  int error = Z_OK;
  const char* what = gzerror(file_.get(), &error);
  if (error == Z_ERRNO) fail_input("{}: cannot be read: {}", name_, std::strerror(errno));
  if (error == Z_BUF_ERROR) fail_input("{}: the compressed data is truncated: download it again", name_);
  if (got < 0 || error < 0) fail_input("{}: the compressed data is damaged ({}): download it again", name_, what);
  end_ += static_cast<size_t>(got);
  if (at_ == 0) {
    at_ = 1;
    const std::string_view head(buffer_.data(), end_);
    if (const auto format = foreign_format(head); !format.empty()) fail_input("{}: {}", name_, format);
    if (head.starts_with("\xEF\xBB\xBF")) begin_ = 3;
  }
  return got > 0;
}

}  // namespace dapo
