#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "host/verify/parser.h"
#include "host/verify/text.h"

namespace dapo::verify {

using std::string_view;

// ---- numbers and words ---------------------------------------------------------------------------------------------

void Parser::number(Term& out, bool lone) {
  const Token& t = token();
  const bool whole = is_whole_number();
  if (is(Tok::op, "_", 1) || is(Tok::op, "!", 1)) {
    ++at_;
    Term value = Term::named(canonical(decimal(t.text, t.exponent)));
    postfix(value);
    return out.multiply(std::move(value));
  }
  if (!lone && whole && is_whole_number(1) && token(1).spaced && is(Tok::op, "/", 2) && is_whole_number(3)) {
    at_ += 4;  // 3 1/2
    Term part = Term::number(decimal(tokens_[at_ - 3].text, 0));
    part.divide(Term::number(decimal(tokens_[at_ - 1].text, 0)));
    if (factor_follows() || is_op("/")) throw Unreadable();
    return mix(out, t, part);
  }
  ++at_;
  if (take(Tok::command, "overline") || take(Tok::command, "bar")) return repeat(out, t, braced_digits());
  if (take(Tok::command, "dot")) return repeat(out, t, dotted_digits());
  if (t.text.ends_with('.') && take(Tok::open, "(")) {  // 0.(3)
    const std::string again = whole_digits();
    need(Tok::close, ")");
    return repeat(out, t, again);
  }
  Term value = Term::number(decimal(t.text, t.exponent));
  if (!lone && whole && take(Tok::command, "frac")) {  // 3\frac12, or 3\frac{x}{2}
    Term over = fraction();
    if (over.powers.empty() && over.numbers.size() == 1) return mix(out, t, over);
    if (is_op("^") || is_op("_") || is_op("!")) throw Unreadable();
    value.multiply(std::move(over));
    return out.multiply(std::move(value));
  }
  if (t.text == "10" && t.exponent == 0 && take(Tok::op, "^")) {
    const Sum power = script();
    if (const auto ten = power_of_ten(power)) return out.scale(*ten);
    value.raise(spelled(power));
    return out.multiply(std::move(value));
  }
  postfix(value);
  out.multiply(std::move(value));
}

/// whole + part. An improper part is ambiguous.
void Parser::mix(Term& out, const Token& whole, const Term& part) {
  const auto w = decimal(whole.text, 0).value, p = part.numbers[0].number.value;
  const auto sum = w && p && p->num < p->den ? compute('+', *w, *p) : std::nullopt;
  if (!sum || part.sign != Sign::plus || is_op("^") || is_op("_") || is_op("!")) throw Unreadable();
  out.multiply(Term::number(Number::of(*sum), Literal::fraction));
}

/// 0.1\overline{6}
void Parser::repeat(Term& out, const Token& begin, const std::string& again) {
  const auto value = repeating(begin.text, again);
  if (!value || begin.exponent != 0) throw Unreadable();
  out.multiply(Term::number(Number::of(*value), Literal::fraction));
}

std::string Parser::whole_digits() {
  if (!is_whole_number()) throw Unreadable();
  return tokens_[at_++].text;
}

std::string Parser::braced_digits() {
  need(Tok::open, "{");
  std::string digits = whole_digits();
  need(Tok::close, "}");
  return digits;
}

/// \dot{3}, or from the first dot to the last: \dot{1}4285\dot{7}.
std::string Parser::dotted_digits() {
  std::string digits = braced_digits();
  const bool between = is_whole_number() && is(Tok::command, "dot", 1);
  if (between) digits += whole_digits();
  if (take(Tok::command, "dot")) digits += braced_digits();
  return digits;
}

/// Adjacent letters are a word, but a script or argument belongs to the last one: ab^2, nf(x). Not so in \text{cm}^2.
void Parser::word(Term& out) {
  const Token& t = token();
  ++at_;
  std::string name = t.text;
  const bool bound = is_op("^") || is_op("_") || is_op("!") || is_op("'") || is(Tok::open, "(");
  if (!bound) return out.multiply(Term::letters(std::move(name)));
  if (!t.upright) {
    size_t last = name.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(name[last]) & 0xC0) == 0x80) --last;
    if (last > 0) out.multiply(Term::letters(name.substr(0, last)));
    name.erase(0, last);
  }
  const size_t bare = at_;
  std::string function = name;  // f(x), f'(x), f^{-1}(x)
  while (take(Tok::op, "'")) function += '\'';
  if (inverse_follows()) at_ += 5, function += "^-1";
  if (is(Tok::open, "(") && !stands_within(name))
    name = function + bracket();
  else
    at_ = bare;
  Term value = Term::named(std::move(name));
  postfix(value);
  out.multiply(std::move(value));
}

/// "^{-1}", the inverse of a function.
bool Parser::inverse_follows() const {
  return is(Tok::op, "^") && is(Tok::open, "{", 1) && is(Tok::op, "-", 2) && is(Tok::number, "1", 3) &&
         is(Tok::close, "}", 4);
}

/// Whether the letter occurs in the parenthesis that opens here: n(n+1) is a product, f(n+1) is not.
bool Parser::stands_within(string_view letter) const {
  int64_t depth = 0;
  for (size_t i = at_; i < tokens_.size(); ++i) {
    depth += tokens_[i].kind == Tok::open;
    depth -= tokens_[i].kind == Tok::close;
    if (depth == 0) return false;
    if (tokens_[i].kind == Tok::word && tokens_[i].text.find(letter) != std::string::npos) return true;
  }
  return false;
}

// ---- atoms ---------------------------------------------------------------------------------------------------------

Term Parser::atom() {
  const Deeper deeper(depth_);
  const Token& t = token();
  if (t.kind == Tok::open) return opened();
  if (t.is(Tok::op, "|")) return absolute();
  if (t.kind != Tok::symbol && t.kind != Tok::command) throw Unreadable();
  ++at_;
  return t.kind == Tok::symbol ? Term::named("\\" + t.text) : command(t.text);
}

Sum Parser::group() {
  need(Tok::open, "{");
  Sum inner = sum();
  if (take(Tok::close, "}")) return inner;
  const auto items = list(&inner);
  need(Tok::close, "}");
  return {Term::named(fmt::format("({})", fmt::join(items, ",")))};
}

Term Parser::opened() {
  const Token& t = token();
  if (t.text == "{") return Term::group(group());
  if (t.text.starts_with("\\begin")) return environment();
  if (t.text != "(") return Term::named(bracket());
  ++at_;
  Sum inner = sum();
  if (take(Tok::close, ")")) return Term::group(inner);
  return Term::named(bracket("(", &inner));
}

/// "(a,b]", "{a,b}" sorted and without duplicates, "floor(x)".
std::string Parser::bracket() {
  const std::string open = token().text;
  ++at_;
  return bracket(open, nullptr);
}
std::string Parser::bracket(const std::string& open, Sum* first) {
  const Deeper deeper(depth_);
  std::vector<std::string> items;
  if (open != "\\{" || !is(Tok::close)) items = list(first);
  const Token& close = token();
  if (close.kind != Tok::close) throw Unreadable();
  ++at_;
  if (open == "\\{" && close.text == "\\}") {
    std::sort(items.begin(), items.end());
    items.erase(std::unique(items.begin(), items.end()), items.end());
    return fmt::format("{{{}}}", fmt::join(items, ","));
  }
  const auto either = [](string_view s, string_view a, string_view b) { return s == a || s == b; };
  if (either(open, "(", "[") && either(close.text, ")", "]")) {
    if (items.size() == 1 && items[0].starts_with("matrix(")) return items[0];
    return fmt::format("{}{}{}", open, fmt::join(items, ","), close.text);
  }
  if ((open == "<" && close.text == ">") || (open == "lfloor" && close.text == "rfloor") ||
      (open == "lceil" && close.text == "rceil"))
    return fmt::format("{}({})", open, fmt::join(items, ","));
  throw Unreadable();
}

/// "matrix(a&b;c&d)"
Term Parser::environment() {
  const std::string name = token().text;
  ++at_;
  std::string text, row;
  while (true) {
    if (!is_op("&") && !is_op("\\\\") && !is(Tok::close)) row += fmt::format("{}", fmt::join(list(), ","));
    if (take(Tok::op, "&")) {
      row += '&';
      continue;
    }
    if (!row.empty()) text.append(text.empty() ? "" : ";").append(row);
    row.clear();
    if (take(Tok::op, "\\\\")) continue;
    need(Tok::close, name);
    return Term::named(fmt::format("{}({})", name.substr(name.find(' ') + 1), text));
  }
}

Term Parser::absolute() {
  if (++bars_ > 1) throw Unreadable();  // which bar closes which?
  ++at_;
  const std::string inner = spelled(sum());
  need(Tok::op, "|");
  --bars_;
  return Term::named(fmt::format("|{}|", inner));
}

// ---- commands ------------------------------------------------------------------------------------------------------

/// A command that is not a listed symbol keeps its arguments in order: \binom{5}{2}, \sin 2x, \overline{AB}.
Term Parser::command(const std::string& name) {
  if (name == "frac") return fraction();
  if (name == "sqrt" || name == "root") return root(name == "sqrt");
  std::string base = "\\" + name, exponent;
  if (take(Tok::op, "_")) base += "_" + wrapped(spelled(script()));
  if (take(Tok::op, "^")) exponent = spelled(script());
  if (take(Tok::op, "_")) base += "_" + wrapped(spelled(script()));
  if (exponent == "-1") base += "^-1", exponent.clear();  // the inverse, not the reciprocal
  open_argument_ = false;
  if (is(Tok::open, "{")) {
    std::string arguments;
    while (is(Tok::open, "{")) arguments.append(arguments.empty() ? "" : ";").append(spelled(group()));
    base += "(" + arguments + ")";
  } else if (is(Tok::open, "(")) {
    const std::string text = bracket();
    base += text.back() == ')' ? text : "(" + text + ")";
  } else if (factor_follows()) {
    base += "(" + spelled(Sum{side_by_side()}) + ")";
    open_argument_ = true;
  }
  Term out = Term::named(std::move(base));
  if (!exponent.empty()) out.raise(exponent);
  return out;
}

/// An argument of \frac: a group or a single digit, letter or symbol.
Term Parser::fraction() {
  const Sum num = argument(), den = argument();
  if (taken_ != 0) throw Unreadable();  // \frac123
  Term out = Term::group(num);
  out.divide(Term::group(den));
  return out;
}

Sum Parser::argument() {
  const Token& t = token();
  if (t.kind == Tok::number || (t.kind == Tok::word && !t.upright)) {  // \frac12, \frac1{72}, \frac ab
    if (t.kind == Tok::number && !is_whole_number()) throw Unreadable();
    const std::string one = t.text.substr(taken_, length_at(t.text, taken_));
    taken_ += one.size();
    if (taken_ == t.text.size()) ++at_, taken_ = 0;
    return {t.kind == Tok::number ? Term::number(decimal(one, 0)) : Term::letters(one)};
  }
  if (taken_ != 0) throw Unreadable();
  if (t.is(Tok::open, "{")) return group();
  return {atom()};
}

/// \sqrt[n]{a}; with `tex`, not \sqrt12: in TeX that is \sqrt{1}2, but the writer may mean either.
Term Parser::root(bool tex) {
  std::string degree = "2";
  if (tex && is(Tok::open, "[")) {
    ++at_;
    degree = spelled(sum());
    need(Tok::close, "]");
  }
  Sum inner;
  const Token& t = token();
  if (t.is(Tok::open, "{")) {
    inner = group();
  } else if (t.kind == Tok::number || t.kind == Tok::word) {
    if (t.text.size() > 1 && (tex || t.kind == Tok::word)) throw Unreadable();
    inner = {t.kind == Tok::number ? Term::number(decimal(t.text, t.exponent)) : Term::letters(t.text)};
    ++at_;
  } else {
    inner = {atom()};
  }
  Term out = Term::group(inner);
  out.raise("1/" + wrapped(degree));
  return out;
}

}  // namespace dapo::verify
