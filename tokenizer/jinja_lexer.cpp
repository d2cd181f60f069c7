#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "core/check.h"
#include "tokenizer/jinja_syntax.h"
#include "tokenizer/jinja_text.h"
#include "tokenizer/unicode.h"

namespace dapo::jinja {

namespace {

constexpr size_t kMaxTokens = 1 << 20;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<uint8_t>(c) >= 0x80;
}

/// Line ends become \n, and a final one is dropped.
std::string normal_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      i += i + 1 < source.size() && source[i + 1] == '\n';
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& name) : source_(normal_lines(source)), name_(name) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text();
    add(Token::Kind::end, "");
    return std::move(tokens_);
  }

 private:
  template <class... A>
  [[noreturn]] void error(fmt::format_string<A...> text, A&&... args) const {
    fail_input("{}:{}: {}", name_, line_, fmt::format(text, std::forward<A>(args)...));
  }
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool next_is(std::string_view text) const { return rest().starts_with(text); }
  void add(Token::Kind kind, std::string text) {
    if (tokens_.size() >= kMaxTokens) error("more than {} tokens", kMaxTokens);
    tokens_.push_back({kind, std::move(text), line_});
  }
  void advance(size_t n) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + n), '\n'));
    at_ += n;
    if (n > 0) line_starting_ = source_[at_ - 1] == '\n';
  }
  void skip_space() { advance(rest().size() - strip(rest(), true, false).size()); }

  /// The text before a tag whose sign ("-", "+" or neither) follows; `trims`: the tag takes the indentation before it.
  std::string_view trimmed(std::string_view text, char sign, bool trims) const {
    if (sign == '-') return strip(text, false, true);
    if (sign == '+' || !trims) return text;
    const size_t begin = text.rfind('\n') + 1;  // 0 if there is none
    if (begin == 0 && !line_starting_) return text;
    return strip(text.substr(begin), true, true).empty() ? text.substr(0, begin) : text;
  }
  char sign_at(size_t at) const {
    const char c = at < source_.size() ? source_[at] : ' ';
    return c == '-' || c == '+' ? c : ' ';
  }

  /// Text up to the next tag, and the tag.
  void text() {
    size_t end = at_;
    do {
      end = source_.find('{', end);
      if (end == std::string::npos) break;
      const char c = end + 1 < source_.size() ? source_[end + 1] : ' ';
      if (c == '%' || c == '{' || c == '#') break;
      ++end;
    } while (true);
    end = std::min(end, source_.size());
    const std::string_view before = std::string_view(source_).substr(at_, end - at_);
    if (end == source_.size()) {
      add(Token::Kind::data, std::string(before));
      return advance(before.size());
    }
    const char sign = sign_at(end + 2), opens = source_[end + 1];
    const std::string_view kept = trimmed(before, sign, opens != '{');
    if (!kept.empty()) add(Token::Kind::data, std::string(kept));
    advance(before.size() + 2 + (sign != ' '));
    if (opens == '#')
      comment();
    else if (opens == '{')
      expression(false);
    else if (const auto raw = word_tag(at_, "raw", false))
      raw_text(*raw);
    else
      expression(true);
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) error("a comment is not closed: #}} expected");
    const char sign = end > at_ ? sign_at(end - 1) : ' ';
    advance(end + 2 - at_);
    after_tag(sign);
  }

  /// White space that a tag removes after it: all with "-", else one newline.
  void after_tag(char sign) {
    if (sign == '-')
      skip_space();
    else if (sign != '+' && next_is("\n"))
      advance(1);
  }

  /// If `word` and the end of a tag come next: the position after them.
  std::optional<size_t> word_tag(size_t at, std::string_view word, bool trims) {
    const auto blank = [&] {
      at +=
          std::string_view(source_).substr(at).size() - strip(std::string_view(source_).substr(at), true, false).size();
    };
    blank();
    if (!std::string_view(source_).substr(at).starts_with(word)) return std::nullopt;
    at += word.size();
    blank();
    const std::string_view left = std::string_view(source_).substr(at);
    if (left.starts_with("-%}")) {
      at += 3;
      blank();
      return at;
    }
    if (trims && left.starts_with("+%}")) return at + 3;
    if (left.starts_with("%}")) return at + 2 + (trims && left.starts_with("%}\n"));
    return std::nullopt;
  }

  void raw_text(size_t begin) {
    advance(begin - at_);
    for (size_t end = at_; (end = source_.find("{%", end)) != std::string::npos; end += 2) {
      const char sign = sign_at(end + 2);
      const auto behind = word_tag(end + 2 + (sign != ' '), "endraw", true);
      if (!behind) continue;
      const auto kept = trimmed(std::string_view(source_).substr(at_, end - at_), sign, true);
      if (!kept.empty()) add(Token::Kind::data, std::string(kept));
      return advance(*behind - at_);
    }
    error("a raw block is not closed: {{% endraw %}} expected");
  }

  /// The content of {{ }} or {% %}.
  void expression(bool tag) {
    const std::string_view close = tag ? "%}" : "}}";
    add(tag ? Token::Kind::tag_begin : Token::Kind::print_begin, "");
    std::string open;  // open brackets, as their closing counterparts
    const int line = line_;
    while (true) {
      skip_space();
      if (at_ == source_.size()) {
        line_ = line;
        error("'{}' expected: a tag is not closed", close);
      }
      const char sign = sign_at(at_);
      const bool signed_end = sign == '-' || (sign == '+' && tag);
      if (open.empty() && (next_is(close) || (signed_end && rest().substr(1).starts_with(close)))) {
        add(tag ? Token::Kind::tag_end : Token::Kind::print_end, "");
        advance(close.size() + (next_is(close) ? 0 : 1));
        if (tag)
          after_tag(signed_end ? sign : ' ');
        else if (signed_end)
          skip_space();
        return;
      }
      const char c = source_[at_];
      if (is_digit(c))
        number();
      else if (c == '"' || c == '\'')
        string(c);
      else if (is_name_start(c))
        name();
      else
        op(open);
    }
  }

  void name() {
    size_t end = at_;
    while (end < source_.size() && (is_name_start(source_[end]) || is_digit(source_[end]))) ++end;
    add(Token::Kind::name, source_.substr(at_, end - at_));
    advance(end - at_);
  }

  void number() {
    size_t end = at_;
    const auto digits = [&] {
      while (end < source_.size() && (is_digit(source_[end]) || (source_[end] == '_' && end > at_))) ++end;
    };
    const bool based = source_[at_] == '0' && at_ + 1 < source_.size() &&
                       std::string_view("xXoObB").find(source_[at_ + 1]) != std::string_view::npos;
    bool real = false;
    if (based) {
      end += 2;
      while (end < source_.size() && (std::isxdigit(static_cast<unsigned char>(source_[end])) || source_[end] == '_'))
        ++end;
    } else {
      digits();
      // "1.": an attribute, not a number's point; so is "x.0.1" after a dot.
      const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
      if (!after_dot && end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
        real = true;
        ++end;
        digits();
      }
      size_t exponent = end;
      if (!after_dot && exponent < source_.size() && (source_[exponent] == 'e' || source_[exponent] == 'E')) {
        ++exponent;
        exponent += exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-');
        if (exponent < source_.size() && is_digit(source_[exponent])) {
          real = true;
          end = exponent;
          digits();
        }
      }
    }
    std::string text = source_.substr(at_, end - at_);
    std::erase(text, '_');
    add(real ? Token::Kind::real : Token::Kind::integer, text);
    advance(end - at_);
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) error("a string is not closed: {} expected", quote);
    const std::string_view inside = std::string_view(source_).substr(at_ + 1, end - at_ - 1);
    std::string value;
    for (size_t i = 0; i < inside.size();) {
      if (inside[i] == '\\')
        escape(inside, i, value);
      else
        value += inside[i++];
    }
    add(Token::Kind::string, std::move(value));
    advance(end + 1 - at_);
  }

  /// One Python escape sequence; unknown ones are kept verbatim.
  void escape(std::string_view s, size_t& i, std::string& out) const {
    static constexpr std::string_view kLetters = "nrtabfv\\'\"", kMeant = "\n\r\t\a\b\f\v\\'\"";
    const char c = s[i + 1];  // exists, as the lexer has checked
    const auto code = [&](size_t from, size_t most, unsigned base, bool exact) {
      uint32_t value = 0;
      size_t n = 0;
      for (; n < most && from + n < s.size(); ++n) {
        const char d = s[from + n];
        const uint32_t digit = is_digit(d)                          ? static_cast<uint32_t>(d - '0')
                               : (d | 32) >= 'a' && (d | 32) <= 'f' ? static_cast<uint32_t>((d | 32) - 'a' + 10)
                                                                    : 99u;
        if (digit >= base) break;
        value = value * base + digit;
      }
      if (exact && n < most) error("a string has the escape \\{} without its {} digits", c, most);
      if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
        error("a string has an escape that is not a character");
      unicode::append_utf8(value, out);
      i = from + n;
    };
    if (const size_t at = kLetters.find(c); at != kLetters.npos) {
      out += kMeant[at];
      i += 2;
    } else if (c == '\n') {
      i += 2;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      code(i + 2, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, true);
    } else if (c >= '0' && c <= '7') {
      code(i + 1, 3, 8, false);
    } else if (c == 'N') {
      error("a string has the escape \\N, which is not supported: write the character itself");
    } else {
      (out += '\\') += c;
      i += 2;
    }
  }

  void op(std::string& open) {
    static constexpr std::string_view kOps[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                                "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const auto found = std::find_if(std::begin(kOps), std::end(kOps), [&](auto o) { return next_is(o); });
    if (found == std::end(kOps))
      error("unexpected character '{}'", rest().substr(0, unicode::decode_one(rest()).bytes));
    const char c = (*found)[0];
    if (c == '(' || c == '[' || c == '{') {
      open += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) error("unexpected '{}'", c);
      open.pop_back();
    }
    add(Token::Kind::op, std::string(*found));
    advance(found->size());
  }

  const std::string source_;
  const std::string& name_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the character before at_ ends a line
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& name) {
  return Lexer(source, name).run();
}

}  // namespace dapo::jinja
