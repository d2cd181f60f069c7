#include "data/json_row.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/check.h"
#include "data/dataset.h"
#include "data/lines.h"

namespace dapo {
namespace {
using simdjson::dom::element;
using simdjson::dom::element_type;

/// What follows the object with which a line begins, as the reason why the line is not JSON; "" if it does not end.
const char* behind_object(std::string_view text) {
  size_t i = 0;
  bool quoted = false;
  for (int depth = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\') ++i;
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    depth += c == '{';
    depth -= c == '}';
    if (depth == 0) break;
  }
  const size_t next = text.find_first_not_of(" \t\r}", i);
  if (next == text.npos) return "";
  if (text[next] == '{') return "two objects in one line: each needs a line of its own, ended by \\n";
  if (text[next] == ',') return "a comma follows the object: rows are one object per line, or one array of objects";
  return "";
}

std::string reason_of(simdjson::error_code code, std::string_view text) {
  switch (code) {
    case simdjson::DEPTH_ERROR:
      return "nested deeper than 64 levels";
    case simdjson::UTF8_ERROR:
      return "not valid UTF-8";
    case simdjson::UNCLOSED_STRING:
      return "a string is not closed: the line is truncated, or has an unescaped line break";
    case simdjson::UNESCAPED_CHARS:
      return "a control character inside a string: write it as \\u00XX";
    case simdjson::EMPTY:
      return "nothing there";
    case simdjson::MEMALLOC:
      return "out of memory";
    case simdjson::CAPACITY:
      return "too long";
    default:
      break;
  }
  if (text.starts_with('\0')) return "NUL bytes: the file was not written to its end (a crash, a full disk)";
  if (const char* what = behind_object(text); *what != 0) return what;
  if (text.starts_with("{'")) return "single quotes, as Python's str() writes them: use json.dumps";
  if (!text.starts_with('{')) return "it does not begin with {: is the file CSV or plain text? Rows are JSON objects";
  return simdjson::error_message(code);
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// Whether an integer's text fits the integer types of simdjson.
bool fits(std::string_view digits) {
  int64_t i = 0;
  uint64_t u = 0;
  const char *begin = digits.data(), *end = begin + digits.size();
  return std::from_chars(begin, end, i).ec == std::errc() || std::from_chars(begin, end, u).ec == std::errc();
}

/// Rewrites what only Python accepts as JSON; everything else is copied, for the parser to judge.
class Rewriter {
 public:
  Rewriter(std::string_view text, std::string& out) : text_(text), out_(out) {}

  void run() {
    out_.clear();
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"')
        string();
      else if (c == '-' || is_digit(c))
        number();
      else if (!word("NaN", "null") && !word("Infinity", "null"))
        out_ += text_[at_++];
    }
  }

 private:
  bool word(std::string_view from, std::string_view to) {
    if (!text_.substr(at_).starts_with(from)) return false;
    out_ += to;
    at_ += from.size();
    return true;
  }

  void number() {
    if (word("-Infinity", "null")) return;
    const size_t end = std::min(text_.find_first_not_of("+-.0123456789eE", at_ + 1), text_.size());
    const std::string_view token = text_.substr(at_, end - at_);
    at_ = end;
    const std::string_view digits = token.substr(token[0] == '-');
    const bool whole = !digits.empty() && digits.find_first_not_of("0123456789") == digits.npos &&
                       (digits[0] != '0' || digits.size() == 1);
    double value = 0;
    const auto read = std::from_chars(token.data(), token.data() + token.size(), value);
    if (whole && !fits(token))
      ((out_ += '"') += token) += '"';
    else if (!whole && read.ec == std::errc::result_out_of_range && read.ptr == token.data() + token.size())
      out_ += "null";  // 1e999: infinite, as Python reads it
    else
      out_ += token;
  }

  /// The code unit of "\uXXXX" at `at`; nothing if there is none.
  std::optional<uint32_t> unit(size_t at) const {
    uint32_t v = 0;
    if (text_.size() < at + 6 || text_[at] != '\\' || text_[at + 1] != 'u') return std::nullopt;
    const char* end = text_.data() + at + 6;
    return std::from_chars(end - 4, end, v, 16).ptr == end ? std::optional(v) : std::nullopt;
  }

  void string() {
    out_ += text_[at_++];
    while (at_ < text_.size() && text_[at_] != '"') {
      if (text_[at_] != '\\') {
        out_ += text_[at_++];
        continue;
      }
      const auto first = unit(at_);
      size_t length = first ? 6 : 2;
      if (first && *first >= 0xD800 && *first < 0xE000) {
        const auto second = unit(at_ + 6);
        if (*first < 0xDC00 && second && *second >= 0xDC00 && *second < 0xE000) {
          length = 12;
        } else {
          out_ += "\\ufffd";
          at_ += 6;
          continue;
        }
      }
      out_ += text_.substr(at_, length);
      at_ += std::min(length, text_.size() - at_);
    }
    if (at_ < text_.size()) out_ += text_[at_++];
  }

  std::string_view text_;
  std::string& out_;
  size_t at_ = 0;
};

std::string number_text(double v) {
  char text[64];
  const double size = std::abs(v);
  if (v == 0) return "0";
  if (size < 1e-20 || size >= 1e22) return fmt::format("{}", v);
  return std::string(text, std::to_chars(text, text + sizeof text, v, std::chars_format::fixed).ptr);
}
}  // namespace

JsonParser::JsonParser() : parser_(kLineLimit + simdjson::SIMDJSON_PADDING) {}

void JsonParser::reserve(size_t length, std::string_view where) {
  if (length > kLineLimit) fail_input("{}: row is longer than {} MiB", where, kLineLimit >> 20);
  if (prepared_ >= length) return;
  // simdjson sets the depth limit together with the capacity, so both are set here.
  prepared_ = std::max<size_t>(std::max(length, 2 * prepared_), size_t{1} << 16);
  if (const auto error = parser_.allocate(prepared_, kDepthLimit))
    fail(kExitResources, "{}: {}", where, simdjson::error_message(error));
}

element JsonParser::parse(const char* json, size_t length, size_t capacity, std::string_view where) {
  reserve(length, where);
  element value;
  auto error = parser_.parse(json, length, capacity - length < simdjson::SIMDJSON_PADDING).get(value);
  if (error == simdjson::SUCCESS) return value;
  const std::string_view text(json, length);
  if (error != simdjson::DEPTH_ERROR && error != simdjson::UTF8_ERROR && error != simdjson::MEMALLOC) {
    Rewriter(text, plain_).run();
    reserve(plain_.size(), where);
    const size_t size = plain_.size();
    plain_.resize(size + simdjson::SIMDJSON_PADDING);
    error = parser_.parse(plain_.data(), size, false).get(value);
  }
  if (error != simdjson::SUCCESS) fail_input("{}: not valid JSON: {}", where, reason_of(error, text));
  return value;
}

std::string_view type_of(const element& e) {
  switch (e.type()) {
    case element_type::ARRAY:
      return "a list";
    case element_type::OBJECT:
      return "an object";
    case element_type::STRING:
      return "a string";
    case element_type::BOOL:
      return "a bool";
    case element_type::NULL_VALUE:
      return "null";
    default:
      return "a number";
  }
}

namespace {
/// The last member of that name.
bool member(element from, std::string_view key, element& out) {
  simdjson::dom::object object;
  if (from.get(object) != simdjson::SUCCESS) return false;
  bool found = false;
  for (const auto& [name, value] : object)
    if (name == key) out = value, found = true;
  return found;
}
}  // namespace

std::optional<element> field(element from, std::string_view path) {
  element value;
  if (!member(from, path, value)) {
    const size_t dot = path.find('.');
    if (dot == path.npos || !member(from, path.substr(0, dot), value)) return std::nullopt;
    return field(value, path.substr(dot + 1));
  }
  return value.is_null() ? std::nullopt : std::optional(value);
}

namespace {
/// A list of strings stored as text: if it is JSON (Skywork-OR1), that list.
std::string answer_of_text(std::string_view text, std::string_view where, std::string_view key) {
  if (text.starts_with("['") && text.ends_with("']"))
    fail_input("{}: \"{}\" holds a list as Python's str() writes it: store the list itself, or json.dumps of it", where,
               key);
  simdjson::dom::parser parser;
  element list;
  if (!text.starts_with("[\"") || !text.ends_with("\"]") || parser.parse(text).get(list) != simdjson::SUCCESS)
    return std::string(text);
  return answer_text(list, where, key);
}
}  // namespace

std::string answer_text(const element& value, std::string_view where, std::string_view key) {
  switch (value.type()) {
    case element_type::STRING:
      return answer_of_text(value, where, key);
    case element_type::INT64:
      return fmt::format("{}", int64_t{value});
    case element_type::UINT64:
      return fmt::format("{}", uint64_t{value});
    case element_type::DOUBLE:
      return number_text(value);
    case element_type::OBJECT:
      return simdjson::minify(value);
    case element_type::ARRAY: {
      const simdjson::dom::array list = value;
      if (list.size() == 1) return answer_text(list.at(0), where, key);
      std::string out;
      for (const element one : list) {
        if (!one.is_string() || std::string_view(one).empty())
          fail_input(
              "{}: \"{}\" is a list with {} in it: an answer is a string or a number, several accepted ones are a list "
              "of strings",
              where, key, one.is_string() ? "an empty string" : type_of(one));
        if (!out.empty()) out += kAnswerSeparator;
        out += std::string_view(one);
      }
      return out;
    }
    default:
      fail_input("{}: \"{}\" is {}: an answer is a string or a number", where, key, type_of(value));
  }
}

}  // namespace dapo
