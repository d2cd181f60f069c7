#include "core/json.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>

#include "core/check.h"
#include "core/files.h"

namespace dapo {
namespace {

/// Length of the valid UTF-8 sequence at p, 0 where there is none (RFC 3629: no overlong forms, no surrogates).
size_t utf8_sequence(const unsigned char* p, size_t left) {
  const auto tail = [&](size_t i) { return i < left && (p[i] & 0xc0) == 0x80; };
  if (p[0] < 0x80) return 1;
  if (p[0] >= 0xc2 && p[0] <= 0xdf) return tail(1) ? 2 : 0;
  if (p[0] >= 0xe0 && p[0] <= 0xef) {
    if (!tail(1) || !tail(2) || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)) return 0;
    return 3;
  }
  if (p[0] >= 0xf0 && p[0] <= 0xf4) {
    if (!tail(1) || !tail(2) || !tail(3) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f)) return 0;
    return 4;
  }
  return 0;
}

void append_utf8(std::string& out, uint32_t c) {
  const auto put = [&](uint32_t v) { out += static_cast<char>(v); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6), put(0x80 | (c & 63));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  } else {
    put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 63)), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  }
}

}  // namespace

JsonReader::JsonReader(std::string_view text, std::string where) : text_(text), where_(std::move(where)) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_sequence(p + i, text.size() - i);
    if (n == 0) fail_input("{}: byte {} of the JSON text is not UTF-8", where_, i);
    i += n;
  }
}

void JsonReader::fail_here(std::string_view what) const {
  const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
  if (text_.empty()) fail_input("{}: an empty file, expected JSON: download it again", where_);
  fail_input("{}: JSON, byte {}{}: {}", where_, at_, line > 1 ? fmt::format(" (line {})", line) : "", what);
}

void JsonReader::space() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
    ++at_;
}

bool JsonReader::take(char c) {
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

void JsonReader::expect(char c, const char* what) {
  space();
  if (!take(c)) fail_here(fmt::format("expected {}", what));
}

void JsonReader::literal(std::string_view word) {
  space();
  if (text_.substr(at_, word.size()) != word) fail_here(fmt::format("expected {}", word));
  at_ += word.size();
}

JsonReader::Kind JsonReader::peek() {
  space();
  const char c = at_ < text_.size() ? text_[at_] : '\0';
  switch (c) {
    case '{':
      return Kind::object;
    case '[':
      return Kind::array;
    case '"':
      return Kind::string;
    case 't':
    case 'f':
      return Kind::boolean;
    case 'n':
      return Kind::null;
    default:
      // N, I: NaN and Infinity, as Python writes them
      if (c == '-' || c == 'N' || c == 'I' || (c >= '0' && c <= '9')) return Kind::number;
      fail_here("expected a value");
  }
}

void JsonReader::enter(char c, const char* what) {
  expect(c, what);
  if (++depth_ > kMaxDepth) fail_here(fmt::format("nested more than {} deep", kMaxDepth));
  first_ = true;
}

bool JsonReader::next(char closing) {
  space();
  if (take(closing)) {
    --depth_;
    first_ = false;
    return false;
  }
  if (!first_ && !take(',')) fail_here(fmt::format("expected ',' or '{}'", closing));
  first_ = false;
  return true;
}

void JsonReader::object() {
  enter('{', "an object");
}

void JsonReader::array() {
  enter('[', "an array");
}

bool JsonReader::key(std::string& name) {
  if (!next('}')) return false;
  name = string();
  expect(':', "':'");
  return true;
}

bool JsonReader::item() {
  return next(']');
}

uint32_t JsonReader::hex4() {
  uint32_t v = 0;
  if (text_.size() - at_ < 4) fail_here("expected four hex digits");
  const char* from = text_.data() + at_;
  if (std::from_chars(from, from + 4, v, 16).ptr != from + 4) fail_here("expected four hex digits");
  at_ += 4;
  return v;
}

void JsonReader::escape(std::string& out) {
  static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeaning = "\"\\/\b\f\n\r\t";
  const char c = at_ < text_.size() ? text_[at_++] : '\0';
  if (c != 'u') {
    const size_t i = kLetters.find(c);
    if (i == std::string_view::npos) fail_here("unknown escape");
    out += kMeaning[i];
    return;
  }
  uint32_t v = hex4();
  if (v >= 0xd800 && v < 0xdc00) {
    if (!take('\\') || !take('u')) fail_here("half a surrogate pair");
    const uint32_t low = hex4();
    if (low < 0xdc00 || low > 0xdfff) fail_here("half a surrogate pair");
    v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
  } else if (v >= 0xdc00 && v < 0xe000) {
    fail_here("half a surrogate pair");
  }
  append_utf8(out, v);
}

std::string JsonReader::string() {
  expect('"', "a string");
  std::string out;
  while (true) {
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
           static_cast<unsigned char>(text_[at_]) >= 32)
      ++at_;
    out.append(text_.substr(begin, at_ - begin));
    if (take('"')) return out;
    if (!take('\\')) fail_here("a string does not end, or holds a control character");
    escape(out);
  }
}

std::string_view JsonReader::number_text(bool integral) {
  space();
  const size_t begin = at_;
  const auto digits = [&] {
    const size_t from = at_;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
    return at_ - from;
  };
  take('-');
  if (!take('0') && digits() == 0) fail_here("expected a number");
  if (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') fail_here("a number begins with 0");
  const size_t whole = at_;
  if (take('.') && digits() == 0) fail_here("expected a digit");
  if (take('e') || take('E')) {
    if (!take('+')) take('-');
    if (digits() == 0) fail_here("expected a digit");
  }
  if (integral && at_ != whole) fail_here("expected an integer");
  return text_.substr(begin, at_ - begin);
}

int64_t JsonReader::integer() {
  const std::string_view s = number_text(true);
  int64_t v = 0;
  if (std::from_chars(s.data(), s.data() + s.size(), v).ec != std::errc()) fail_here("an integer out of range");
  return v;
}

uint64_t JsonReader::unsigned_integer() {
  const std::string_view s = number_text(true);
  uint64_t v = 0;
  if (s[0] == '-' || std::from_chars(s.data(), s.data() + s.size(), v).ec != std::errc())
    fail_here("an integer out of range");
  return v;
}

double JsonReader::number() {
  const std::string_view s = number_text(false);
  double v = 0;
  if (std::from_chars(s.data(), s.data() + s.size(), v).ec != std::errc()) fail_here("a number out of range");
  return v;
}

bool JsonReader::boolean() {
  space();
  const bool v = at_ < text_.size() && text_[at_] == 't';
  literal(v ? "true" : "false");
  return v;
}

void JsonReader::null() {
  literal("null");
}

void JsonReader::skip() {
  std::string name;
  space();
  for (const std::string_view word : {"NaN", "Infinity", "-Infinity"})
    if (text_.substr(at_).starts_with(word)) return void(at_ += word.size());
  switch (peek()) {
    case Kind::object:
      for (object(); key(name);) skip();
      break;
    case Kind::array:
      for (array(); item();) skip();
      break;
    case Kind::string:
      string();
      break;
    case Kind::number:
      number_text(false);
      break;
    case Kind::boolean:
      boolean();
      break;
    case Kind::null:
      null();
      break;
  }
}

void JsonReader::end() {
  space();
  if (at_ != text_.size()) fail_here("text after the value");
}

std::string with_members(const std::string& text, const std::string& where,
                         const std::vector<std::pair<std::string, std::string>>& members) {
  JsonReader json(text, where);
  std::vector<bool> done(members.size(), false);
  std::string out, key;
  size_t copied = 0;
  bool empty = true;
  for (json.object(); json.key(key); empty = false) {
    const size_t begin = text.find_first_not_of(" \t\r\n", json.position());
    json.skip();
    for (size_t i = 0; i < members.size(); ++i)
      if (members[i].first == key) {
        out.append(text, copied, begin - copied) += members[i].second;
        copied = json.position();
        done[i] = true;
      }
  }
  const size_t closing = json.position() - 1;
  json.end();
  out.append(text, copied, closing - copied);
  if (std::find(done.begin(), done.end(), false) == done.end()) return out.append(text, closing);
  while (!out.empty() && std::string_view(" \t\r\n").find(out.back()) != std::string_view::npos) out.pop_back();
  for (size_t i = 0; i < members.size(); ++i)
    if (!done[i]) {
      out += fmt::format("{}\n  \"{}\": {}", empty ? "" : ",", members[i].first, members[i].second);
      empty = false;
    }
  return out + "\n}\n";
}

std::string read_text_file(const std::string& path, size_t limit) {
  uint64_t size = 0;
  const int fd = open_regular(path, size);
  struct Close {
    int fd;
    ~Close() { ::close(fd); }
  } const close{fd};
  if (size > limit) fail_input("{}: {} bytes, more than the {} that such a file may have", path, size, limit);
  std::string text(size, '\0');
  size_t got = 0;
  while (got < text.size()) {
    const ssize_t n = ::read(fd, text.data() + got, text.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_input("{}: {}", path, std::strerror(errno));
    if (n == 0) break;
    got += static_cast<size_t>(n);
  }
  text.resize(got);
  if (const auto format = foreign_format(text); !format.empty()) fail_input("{}: {}", path, format);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  return text;
}

}  // namespace dapo
