#include "host/verify/tex.h"

#include <fmt/format.h>

#include <algorithm>

#include "host/verify/tex_names.h"
#include "host/verify/text.h"

namespace dapo::verify {

namespace {
bool digit(char c) {
  return c >= '0' && c <= '9';
}
bool letter(char c) {  // bytes of other scripts as well
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || static_cast<unsigned char>(c) >= 0x80;
}

class Lexer {
 public:
  Lexer(string_view text, std::vector<Token>& out) : s_(text), out_(out) {}

  bool run() {
    while (at_ < s_.size()) {
      if (out_.size() > kMostTokens) return false;
      const char c = s_[at_];
      if (c == ' ' || c == '~' || (c >= '\t' && c <= '\r')) {
        spaced_ = true;
        ++at_;
      } else if (digit(c) || (c == '.' && at_ + 1 < s_.size() && digit(s_[at_ + 1]))) {
        number();
      } else if (letter(c)) {
        size_t end = at_;
        while (end < s_.size() && letter(s_[end])) ++end;
        const string_view name = s_.substr(at_, end - at_);
        at_ = end;
        word(name);
      } else if (c == '\\') {
        command();
      } else {
        punctuation();
      }
    }
    std::erase_if(out_, [](const Token& t) { return t.kind == Tok::word && t.text.empty(); });
    return true;
  }

 private:
  string_view rest() const { return s_.substr(at_); }
  void put(Tok kind, string_view text) {
    out_.push_back({kind, upright_, spaced_, std::string(text), 0});
    spaced_ = false;
  }
  bool last_is(Tok kind, string_view text, size_t back = 1) const {
    return out_.size() >= back && out_[out_.size() - back].is(kind, text);
  }

  // ---- numbers -----------------------------------------------------------------------------------------------------

  size_t digits_at(size_t at) const {
    size_t end = at;
    while (end < s_.size() && digit(s_[end])) ++end;
    return end - at;
  }

  enum Separator { kNone, kComma, kTightComma, kSpace };
  /// Length of the separator between groups of three digits at `at`.
  size_t separator(size_t at, Separator& kind) const {
    const string_view t = s_.substr(at);
    kind = kTightComma;
    if (t.starts_with("{,}")) return 3;
    if (t.starts_with(",\\!")) return 3 + (t.size() > 3 && t[3] == ' ');
    kind = kComma;
    if (t.starts_with(',')) return brackets_ == 0;  // "(1,234)" has two elements
    kind = kSpace;
    if (t.starts_with(' ') || t.starts_with('~')) return 1;
    for (const string_view thin : {"\\,", "\\ ", "\\;", "\\:"})
      if (t.starts_with(thin)) return 2;
    return 0;
  }

  /// After the first `n` digits: appends the groups of three that follow to `digits` and returns their end, else n.
  size_t groups(size_t n, std::string& digits) {
    const size_t first_end = at_ + n;
    if (n > 3 || s_[at_] == '0' || at_ < ungrouped_until_) return first_end;
    size_t end = first_end;
    Separator used = kNone, kind = kNone;
    while (const size_t gap = separator(end, kind)) {
      const size_t length = digits_at(end + gap);
      if (length == 0 || (used != kNone && kind != used)) break;
      if (length != 3) {  // "1,0000", "12 34": these digits are not groups, nor are any before them
        ungrouped_until_ = end;
        digits.erase(n);
        return first_end;
      }
      used = kind;
      digits.append(s_, end + gap, 3);
      end += gap + 3;
    }
    const size_t next = s_.find_first_not_of(' ', end);
    if (used == kSpace && next != s_.npos && s_[next] == '/') {  // "3 100/200" is a mixed number
      ungrouped_until_ = end;
      digits.erase(n);
      return first_end;
    }
    return end;
  }

  void number() {
    std::string digits(s_.substr(at_, digits_at(at_)));
    size_t end = digits.empty() ? at_ : groups(digits.size(), digits);
    if (end < s_.size() && s_[end] == '.' && !s_.substr(end).starts_with("..")) {
      const size_t n = digits_at(end + 1);
      // "0.\\overline{3}" and "0.(3)" need their point; else it may end a sentence
      if (n > 0 || repeats_at(end + 1)) digits.append(s_, end, n + 1);
      end += n + 1;
    }
    const int64_t exponent = exponent_at(end, digits.find('.') != digits.npos);
    at_ = end;
    put(Tok::number, digits);
    out_.back().exponent = exponent;
  }

  /// Whether what follows a point at `at` is the repeating part of a decimal.
  bool repeats_at(size_t at) const {
    const string_view t = s_.substr(at);
    const size_t n = t.starts_with('(') ? digits_at(at + 1) : 0;
    return t.starts_with("\\overline") || t.starts_with("\\bar") || t.starts_with("\\dot{") ||
           (n > 0 && t.substr(n + 1).starts_with(')'));
  }

  /// Reads "e5" at `end` and moves it behind. With a sign as programs print it: two digits ("1e-05"), or a mantissa with
  /// a point ("1.5e-7"); "2e+3" is a sum.
  int64_t exponent_at(size_t& end, bool point) const {
    if (end + 1 >= s_.size() || (s_[end] != 'e' && s_[end] != 'E')) return 0;
    const bool sign = s_[end + 1] == '-' || s_[end + 1] == '+';
    const size_t begin = end + 1 + sign, n = digits_at(begin), after = begin + n;
    if (n == 0 || n > 6 || (sign && n < 2 && !point)) return 0;
    if (after < s_.size() && (letter(s_[after]) || s_[after] == '.')) return 0;
    int64_t exponent = 0;
    for (size_t i = begin; i < after; ++i) exponent = exponent * 10 + (s_[i] - '0');
    exponent = s_[end + 1] == '-' ? -exponent : exponent;
    end = after;
    return exponent;
  }

  // ---- words and commands ------------------------------------------------------------------------------------------

  void word(string_view name) {
    if (name == "and" || name == "or") return put(Tok::op, ",");
    if (any_of({"percent", "pct", "percentage"}, name)) return put(Tok::percent, "%");
    if (any_of({"point", "points"}, name) && !out_.empty() && out_.back().kind == Tok::percent) return;
    if (const Alias* a = find(kCurrencies, name); a && name != "pounds") {
      if (rest().starts_with('.')) ++at_;  // "Rs. 5"
      return put(Tok::currency, a->is);
    }
    if (any_of({"degree", "degrees"}, name)) return put(Tok::degree, "");
    if (any_of({"a", "p", "A", "P"}, name) && (rest().starts_with(".m.") || rest().starts_with(".M."))) {
      at_ += 3;
      return put(Tok::word, any_of({"a", "A"}, name) ? "am" : "pm");
    }
    if (name == "sqrt") return put(Tok::command, "root");
    if (has(kFunctions, name) && !minutes(name)) return put(Tok::command, name);
    if (name.size() > 1 && !any_of({"mu", "nu", "xi", "ell"}, name)) {
      if (const Alias* a = find(kSpellings, name); a && has(kSymbols, a->is)) return put(Tok::symbol, a->is);
      if (has(kSymbols, name)) return put(Tok::symbol, name);
    }
    put(Tok::word, name);
  }

  /// "10 min", but not "2 min(a, b)".
  bool minutes(string_view name) const {
    if (name != "min") return false;
    const size_t next = s_.find_first_not_of(' ', at_);
    const bool ends = next == s_.npos || string_view(".,)}/").find(s_[next]) != string_view::npos;
    return upright_ || (ends && !out_.empty() && out_.back().kind == Tok::number);
  }

  void skip_spaces() {
    while (at_ < s_.size() && (s_[at_] == ' ' || s_[at_] == '\n')) ++at_;
  }
  /// Consumes "{...}" at this place, without nested braces.
  string_view plain_group() {
    skip_spaces();
    const size_t end = s_.find('}', at_);
    if (at_ >= s_.size() || s_[at_] != '{' || end == s_.npos || end - at_ > 40) return {};
    const string_view inner = s_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return inner;
  }

  void command() {
    ++at_;
    if (at_ >= s_.size()) return;
    size_t end = at_;
    while (end < s_.size() && letter(s_[end]) && static_cast<unsigned char>(s_[end]) < 0x80) ++end;
    if (end == at_) return escaped(s_[at_++]);
    string_view name = s_.substr(at_, end - at_);
    at_ = end;
    if (const Alias* a = find(kSpellings, name)) name = a->is;
    named(name);
  }

  void escaped(char c) {
    if (string_view(", ;:>\n\t").find(c) != string_view::npos)
      spaced_ = true;
    else if (c == '{')
      ++brackets_, put(Tok::open, "\\{");
    else if (c == '}')
      --brackets_, put(Tok::close, "\\}");
    else if (c == '$')
      put(Tok::currency, "dollar");
    else if (c == '%')
      put(Tok::percent, "%");
    else if (c == '|')
      put(Tok::op, "||");
    else if (c == '\\' && environments_ > 0)
      put(Tok::op, "\\\\");
    else if (c == '\\' && at_ < s_.size() && letter(s_[at_]))
      --at_, command();  // a backslash escaped twice
    else if (c == '\\')
      spaced_ = true;
    else if (string_view("!/()[]").find(c) == string_view::npos)
      put(Tok::op, string_view(&c, 1));
  }

  void named(string_view name) {
    if (has(kNothing, name) || has(kSpaces, name)) {
      spaced_ |= has(kSpaces, name);
      if (!any_of({"left", "right", "middle"}, name)) return;
      skip_spaces();
      if (rest().starts_with('.')) ++at_;
      if (rest().starts_with('<')) ++at_, ++brackets_, put(Tok::open, "<");
      if (rest().starts_with('>')) ++at_, --brackets_, put(Tok::close, ">");
      return;
    }
    if (name == "rm") return void(upright_ = true);
    if (has(kIgnoredArgument, name)) return void(plain_group());
    const bool upright = has(kUprightFonts, name);
    if (upright || has(kMathFonts, name)) {
      if (rest().starts_with('*')) ++at_;
      skip_spaces();
      if (rest().starts_with('{')) open_group(true, upright || upright_);
      return;
    }
    if (any_of({"mathbb", "mathcal", "mathfrak", "mathscr"}, name)) return blackboard(name);
    if (name == "begin" || name == "end") return environment(name == "begin");
    if (name == "circ") return circle();
    if (name == "degree" || name == "textdegree") return degree();
    if (name == "emptyset" || name == "varnothing") return put(Tok::open, "\\{"), put(Tok::close, "\\}");
    if (const Alias* a = find(kCurrencies, name)) return put(Tok::currency, a->is);
    if (any_of({"dots", "ldots", "cdots", "vdots"}, name)) return put(Tok::op, "dots");
    if (const Alias* a = find(kOperators, name)) return put(Tok::op, a->is);
    if (const Alias* a = find(kOpening, name)) return ++brackets_, put(Tok::open, a->is);
    if (const Alias* a = find(kClosing, name)) return --brackets_, put(Tok::close, a->is);
    if (has(kSymbols, name)) return put(Tok::symbol, name);
    const string_view all_but_one = name.substr(0, name.size() - 1);
    if (name.size() < 3 || has(kFunctions, name) || !has(kFunctions, all_but_one)) return put(Tok::command, name);
    put(Tok::command, all_but_one);  // "\\cotx": not a TeX command
    put(Tok::word, name.substr(name.size() - 1));
  }

  void blackboard(string_view name) {  // a font that changes the meaning
    skip_spaces();
    string_view of = rest().substr(0, 1);
    if (of == "{")
      of = plain_group();
    else
      at_ += of.size();
    put(Tok::symbol, fmt::format("{}{{{}}}", name, of));
  }

  void environment(bool begin) {
    string_view name = plain_group();
    if (name == "array") {
      if (begin) plain_group();
      name = "matrix";
    }
    if (any_of({"pmatrix", "bmatrix", "Bmatrix", "smallmatrix"}, name)) name = "matrix";
    environments_ += begin ? 1 : -1;
    brackets_ += begin ? 1 : -1;
    put(begin ? Tok::open : Tok::close, fmt::format("\\begin {}", name));
  }

  /// "^\circ" and "^{\circ}" are the degree sign.
  void circle() {
    if (last_is(Tok::op, "^")) {
      out_.pop_back();
      return put(Tok::degree, "");
    }
    if (last_is(Tok::open, "{") && last_is(Tok::op, "^", 2)) {
      const size_t next = s_.find_first_not_of(' ', at_);
      if (next != s_.npos && s_[next] == '}') {
        out_.resize(out_.size() - 2);
        groups_.pop_back();
        at_ = next + 1;
        return put(Tok::degree, "");
      }
    }
    put(Tok::command, "circ");
  }
  void degree() {
    if (last_is(Tok::op, "^")) out_.pop_back();
    put(Tok::degree, "");
  }

  // ---- others ------------------------------------------------------------------------------------------------------

  void open_group(bool font, bool upright) {
    ++at_;
    groups_.push_back({out_.size(), font, upright_});
    upright_ = upright;  // so are the braces
    put(Tok::open, "{");
  }

  void close_group() {
    ++at_;
    if (groups_.empty()) return put(Tok::close, "}");
    const Group g = groups_.back();
    groups_.pop_back();
    const auto begin = out_.begin() + static_cast<std::ptrdiff_t>(g.token) + 1;
    const bool words = std::all_of(begin, out_.end(), [](const Token& t) { return t.kind == Tok::word && t.upright; });
    const bool single = out_.end() - begin == 1 && (begin->kind != Tok::word || begin->text.size() == 1);
    const bool dropped = g.font && (words || single);
    if (!dropped) put(Tok::close, "}");
    upright_ = g.upright_before;
    if (!dropped) return;
    Token& open = out_[g.token];  // a font around one token, or around words, changes nothing: an empty word goes later
    if (open.spaced && begin != out_.end()) begin->spaced = true;
    open.kind = Tok::word;
    open.text.clear();
  }

  void punctuation() {
    const string_view t = rest();
    for (const Alias& a : std::initializer_list<Alias>{{"+/-", "+-"},
                                                       {"**", "^"},
                                                       {"==", "="},
                                                       {"<=", "<="},
                                                       {">=", ">="},
                                                       {"||", "||"},
                                                       {"{,}", "{,}"},
                                                       {";", ","}})
      if (t.starts_with(a.name)) {
        at_ += a.name.size();
        return put(Tok::op, a.is);
      }
    if (t.starts_with("...")) {
      at_ += 3;
      return put(Tok::op, "dots");
    }
    if (t.starts_with("!=") && spaced_) {  // "x != 3"; but "5!=120"
      at_ += 2;
      return put(Tok::op, "!=");
    }
    const char c = t[0];
    if (c == '{') return open_group(false, upright_);
    if (c == '}') return close_group();
    ++at_;
    if (c == '$' || c == '"' || (c == '.' && upright_)) return;
    if (c == '(' || c == '[') return ++brackets_, put(Tok::open, t.substr(0, 1));
    if (c == ')' || c == ']') return --brackets_, put(Tok::close, t.substr(0, 1));
    if (c == '%') return put(Tok::percent, "%");
    put(Tok::op, t.substr(0, 1));
  }

  struct Group {
    size_t token;  ///< of the opening brace
    bool font;
    bool upright_before;
  };
  const string_view s_;
  std::vector<Token>& out_;
  size_t at_ = 0, ungrouped_until_ = 0;
  bool spaced_ = false, upright_ = false;
  int64_t brackets_ = 0, environments_ = 0;
  std::vector<Group> groups_;
};
}  // namespace

bool read_tokens(string_view text, std::vector<Token>& out) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  const std::string tex = ascii ? std::string() : unicode_to_tex(text);
  if (!Lexer(ascii ? text : string_view(tex), out).run()) return false;
  read_infix(out);
  return true;
}

}  // namespace dapo::verify
