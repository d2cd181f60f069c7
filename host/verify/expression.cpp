#include "host/verify/expression.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "host/verify/parser.h"

namespace dapo::verify {

using std::string_view;

namespace {
std::string chained(std::vector<std::string> parts, const std::vector<std::string>& signs) {
  std::string text = std::move(parts[0]);
  for (size_t i = 0; i < signs.size(); ++i) text.append(1, ' ').append(signs[i]).append(1, ' ').append(parts[i + 1]);
  return text;
}
/// Whether there are any, and all are a or b.
bool all(const std::vector<std::string>& signs, string_view a, string_view b) {
  return !signs.empty() && std::all_of(signs.begin(), signs.end(), [&](auto& s) { return s == a || s == b; });
}
}  // namespace

Expression read_expression(std::span<const Token> tokens, PlusMinus plus_minus) {
  return Parser(tokens, plus_minus).whole();
}

Expression Parser::whole() {
  Expression out;
  out.text = relation(&out);
  if (more()) throw Unreadable();
  out.plus_minus = signs_;
  return out;
}

bool Parser::is_whole_number(size_t ahead) const {
  if (at_ + ahead >= tokens_.size()) return false;
  const Token& t = tokens_[at_ + ahead];
  return t.kind == Tok::number && t.exponent == 0 && t.text.find('.') == std::string::npos;
}

bool Parser::take(Tok kind, string_view text) {
  const bool found = is(kind, text);
  at_ += found;
  return found;
}

// ---- relations, unions, lists, sums --------------------------------------------------------------------------------

std::string Parser::relation(Expression* out, Sum* first) {
  static constexpr string_view kRelations[] = {"=",     "!=", "<",       "<=",       ">",        ">=",    "in",
                                               "notin", ":",  "subset",  "subseteq", "approx",   "equiv", "sim",
                                               "cong",  "to", "implies", "iff",      "parallel", "perp",  "|"};
  bool name = false;
  std::vector<std::string> sides = {united(&name, first)}, signs;
  while (is(Tok::op) && std::find(std::begin(kRelations), std::end(kRelations), token().text) != std::end(kRelations)) {
    signs.push_back(token().text);
    ++at_;
    sides.push_back(united(nullptr, nullptr));
  }
  if (out) out->name = name && signs.empty();
  if (all(signs, ">", ">=")) {
    std::reverse(sides.begin(), sides.end());
    std::reverse(signs.begin(), signs.end());
    for (std::string& s : signs) s[0] = '<';
  }
  if (all(signs, "=", "=") || all(signs, "!=", "!=")) std::sort(sides.begin(), sides.end());
  return chained(std::move(sides), signs);
}

std::string Parser::united(bool* name, Sum* first) {
  const Sum begin = first ? std::move(*first) : sum();
  if (name) *name = is_name(begin);
  std::vector<std::string> parts = {spelled(begin)}, signs;
  while (is_op("cup") || is_op("cap") || is_op("minus") || is_op("and") || is_op("or")) {
    signs.push_back(token().text);
    ++at_;
    parts.push_back(spelled(sum()));
    if (name) *name = false;
  }
  if (all(signs, "cup", "cup") || all(signs, "cap", "cap")) std::sort(parts.begin(), parts.end());
  return chained(std::move(parts), signs);
}

std::vector<std::string> Parser::list(Sum* first) {
  std::vector<std::string> items = {relation(nullptr, first)};
  while (take(Tok::op, ",")) items.push_back(relation(nullptr));
  return items;
}

Sum Parser::sum() {
  const Deeper deeper(depth_);
  Sum out;
  do {
    Sign sign = Sign::plus;
    if (take(Tok::op, "-"))
      sign = Sign::minus;
    else if (is_op("+-") || is_op("-+"))
      sign = plus_minus(token().text == "+-"), ++at_;
    else if (!take(Tok::op, "+") && !out.empty())
      break;
    out.push_back(term());
    out.back().apply(sign);
  } while (more());
  return out;
}

Sign Parser::plus_minus(bool plus_first) {
  ++signs_;
  if (plus_minus_ == PlusMinus::keep) return plus_first ? Sign::plus_minus : Sign::minus_plus;
  return (plus_minus_ == PlusMinus::plus) == plus_first ? Sign::plus : Sign::minus;
}

// ---- products ------------------------------------------------------------------------------------------------------

/// A bar after an operand opens an absolute value if another bar follows: "2|x|".
bool Parser::factor_follows() const {
  if (is(Tok::number) || is(Tok::word) || is(Tok::symbol) || is(Tok::command) || is(Tok::open)) return true;
  return bars_ == 0 && is_op("|") &&
         std::any_of(tokens_.begin() + static_cast<std::ptrdiff_t>(at_) + 1, tokens_.end(),
                     [](const Token& t) { return t.is(Tok::op, "|"); });
}

/// Whether the token takes what follows as its argument: every command except those that read braces.
bool Parser::function_follows() const {
  return is(Tok::command) && token().text != "frac" && token().text != "sqrt" && token().text != "root";
}

Term Parser::term() {
  Term out;
  bool divided = false;  // nothing may directly follow a divisor: 1/2x
  factor(out, false);
  while (more()) {
    const bool ten = is(Tok::word, "x") && is(Tok::number, "10", 1) && is(Tok::op, "^", 2);  // 1.2 x 10^3
    if (is_op("*") || (ten && at_ > 0 && tokens_[at_ - 1].kind == Tok::number)) {
      ++at_;
      if (take(Tok::op, "-")) out.apply(Sign::minus);
      factor(out, false);
      divided = false;
    } else if (is_op("/")) {
      if (open_argument_) throw Unreadable();  // \sin x/2: half of a sine, or the sine of a half?
      ++at_;
      if (take(Tok::op, "-")) out.apply(Sign::minus);
      Term by;
      factor(by, true);
      out.divide(by);
      divided = true;
    } else if (factor_follows()) {
      if (divided || is(Tok::number)) throw Unreadable();
      factor(out, false);
    } else {
      break;
    }
  }
  return out;
}

/// A function's argument without parentheses, up to the next function: "2x" in \sin 2x \cos y.
Term Parser::side_by_side() {
  Term out;
  factor(out, true);
  while (factor_follows() && !is(Tok::number) && !function_follows()) factor(out, true);
  return out;
}

/// One factor with its superscript, subscript and postfix, multiplied into `out`. `lone`: no mixed numbers.
void Parser::factor(Term& out, bool lone) {
  const Deeper deeper(depth_);
  const bool calls = function_follows();
  if (is(Tok::number)) {
    number(out, lone);
  } else if (is(Tok::word)) {
    word(out);
  } else {
    Term value = atom();
    postfix(value);
    out.multiply(std::move(value));
  }
  open_argument_ &= calls;
}

void Parser::postfix(Term& value) {
  while (more()) {
    if (take(Tok::op, "^")) {
      value.raise(spelled(script()));
    } else if (take(Tok::op, "_")) {
      value = Term::named(value.as_base() + "_" + wrapped(spelled(script())));
    } else if (is_op("!") || is_op("'")) {
      value = Term::named(value.as_base() + token().text);
      ++at_;
    } else if (is(Tok::degree)) {
      value.multiply(Term::named("\u00B0"));
      ++at_;
    } else {
      break;
    }
  }
}

/// The script after ^ or _: a group, a parenthesis, or one token; an integer also without braces.
Sum Parser::script() {
  const Deeper deeper(depth_);
  const bool minus = take(Tok::op, "-");
  Term out;
  const Token& t = token();
  if (t.kind == Tok::number) {
    ++at_;
    out = Term::number(decimal(t.text, t.exponent));
  } else if (t.kind == Tok::word) {
    if (t.text.size() > 1 && !t.upright) throw Unreadable();
    ++at_;
    out = Term::letters(t.text);
  } else if (t.is(Tok::open, "{")) {
    Sum inner = group();
    if (!minus) return inner;
    out = Term::group(inner);
  } else {
    out = atom();
  }
  if (minus) out.apply(Sign::minus);
  return {out};
}

}  // namespace dapo::verify
