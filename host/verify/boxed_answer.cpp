#include "host/verify/boxed_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <tuple>
#include <utility>

#include "host/verify/number.h"
#include "host/verify/terms.h"
#include "host/verify/text.h"

namespace dapo::verify {

namespace {
using Tokens = std::span<const Token>;

/// The tokens verbatim, for what cannot be parsed: equal only to itself.
std::string as_text(Tokens tokens) {
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const Token& t = tokens[i];
    if (t.text == "{" && i + 2 < tokens.size() && tokens[i + 2].is(Tok::close, "}")) continue;  // {5} is 5
    if (t.text == "}" && i >= 2 && tokens[i - 2].is(Tok::open, "{")) continue;
    out.append(out.empty() ? "" : " ").append(t.kind == Tok::degree ? "\u00B0" : t.text);
    if (t.exponent != 0) out += fmt::format("e{}", t.exponent);
  }
  return out;
}

/// Where the bracket that opens at `at` closes; the end if it does not.
size_t closing(Tokens tokens, size_t at) {
  int64_t depth = 0;
  for (size_t i = at; i < tokens.size(); ++i) {
    depth += tokens[i].kind == Tok::open;
    depth -= tokens[i].kind == Tok::close;
    if (depth <= 0) return i;
  }
  return tokens.size();
}

/// Splits at the commas outside brackets.
std::vector<Tokens> split(Tokens tokens) {
  std::vector<Tokens> out;
  size_t begin = 0;
  int64_t depth = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    depth += tokens[i].kind == Tok::open;
    depth -= tokens[i].kind == Tok::close;
    if (depth != 0 || !tokens[i].is(Tok::op, ",")) continue;
    out.push_back(tokens.subspan(begin, i - begin));
    begin = i + 1;
  }
  out.push_back(tokens.subspan(begin));
  if (out.size() > 1) std::erase_if(out, [](Tokens t) { return t.empty(); });  // ", and"
  return out;
}

/// Drops trailing punctuation, and enclosing brackets that change nothing.
Tokens trimmed(Tokens tokens) {
  for (int level = 0; level < 40 && !tokens.empty(); ++level) {
    const Token& last = tokens.back();
    const bool stop = last.kind == Tok::op && (last.text == "." || last.text == ",");
    if (stop) {
      tokens = tokens.first(tokens.size() - 1);
    } else if ((tokens[0].is(Tok::open, "{") || (tokens[0].is(Tok::open, "(") && last.is(Tok::close, ")"))) &&
               closing(tokens, 0) == tokens.size() - 1 &&
               (tokens[0].text == "{" || split(tokens.subspan(1, tokens.size() - 2)).size() == 1)) {
      tokens = tokens.subspan(1, tokens.size() - 2);
    } else {
      break;
    }
  }
  return tokens;
}

/// The name that the tokens are; "" if they are something else.
std::string name_of(Tokens tokens) {
  try {
    const Expression e = read_expression(tokens);
    return e.name ? e.text : "";
  } catch (const Unreadable&) {
    return {};
  }
}

/// Drops a leading "x =" or "x \in", or a trailing "= x", if it is the only relation.
std::string cut_name(Tokens& tokens) {
  size_t found = tokens.size();
  int64_t depth = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    depth += tokens[i].kind == Tok::open;
    depth -= tokens[i].kind == Tok::close;
    if (depth != 0 || tokens[i].kind != Tok::op || (tokens[i].text != "=" && tokens[i].text != "in")) continue;
    if (found != tokens.size()) return {};
    found = i;
  }
  if (found + 1 >= tokens.size()) return {};
  const bool equation = tokens[found].text == "=";
  const Tokens left = tokens.first(found), right = tokens.subspan(found + 1);
  std::string name;
  if (left.empty() ? equation : !(name = name_of(left)).empty())
    tokens = right;
  else if (equation && !left.empty() && !(name = name_of(right)).empty())
    tokens = left;
  return name;
}

/// The element in the tokens, or two of them for \pm.
void read_element(Tokens tokens, std::vector<Element>& out) {
  Element e;
  e.name = cut_name(tokens);
  tokens = trimmed(tokens);
  e.words =
      !tokens.empty() && std::all_of(tokens.begin(), tokens.end(), [](const Token& t) { return t.kind == Tok::word; });
  e.upright = e.words && tokens[0].upright;
  std::vector<Token> without_currency;
  const auto currency =
      std::find_if(tokens.begin(), tokens.end(), [](const Token& t) { return t.kind == Tok::currency; });
  if (currency != tokens.end() && currency - tokens.begin() < 2 && tokens.size() > 1) {
    without_currency.assign(tokens.begin(), tokens.end());
    without_currency.erase(without_currency.begin() + (currency - tokens.begin()));
    tokens = without_currency;
  }
  const size_t left = cut_unit(tokens, e.unit);
  if (!without_currency.empty()) e.unit = {currency->text, left == tokens.size()};  // "$5 per hour" is not a known unit
  tokens = tokens.first(left);
  if (tokens.size() > 1 && tokens.back().kind == Tok::percent) {
    e.percent = true;
    tokens = tokens.first(tokens.size() - 1);
  }
  tokens = trimmed(tokens);
  try {
    const Expression whole = read_expression(tokens);
    e.text = whole.text;
    if (whole.plus_minus == 1) {
      e.text = read_expression(tokens, PlusMinus::plus).text;
      out.push_back(e);
      e.text = read_expression(tokens, PlusMinus::minus).text;
    }
  } catch (const Unreadable&) {
    e.text = as_text(tokens);
  }
  out.push_back(std::move(e));
}

/// The value of a number in its canonical spelling, or nothing.
std::optional<Number> number_in(const std::string& text) {
  const bool minus = text.starts_with('-');
  const std::string_view t = std::string_view(text).substr(minus);
  const size_t slash = t.find('/');
  const auto digits = [](std::string_view s) { return !s.empty() && s.find_first_not_of("0123456789") == s.npos; };
  std::optional<Number> out;
  if (slash == t.npos && digits(t)) {
    out = decimal(t, 0);
  } else if (slash != t.npos && digits(t.substr(0, slash)) && digits(t.substr(slash + 1))) {
    const auto a = decimal(t.substr(0, slash), 0).value, b = decimal(t.substr(slash + 1), 0).value;
    if (const auto f = a && b ? compute('/', *a, *b) : a) out = Number::of(*f);
  }
  return out;
}

bool folded_equal(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

/// Words that differ only in case: where neither is in \text{}, only in that of the first letter, since shorter ones
/// may be products of variables.
bool same_words(const Element& a, const Element& b) {
  if (!a.words || !b.words || a.text.size() < 2 || !folded_equal(a.text, b.text)) return false;
  if (a.upright || b.upright) return true;
  for (const std::string_view word : {"yes", "no", "true", "false", "none"})
    if (folded_equal(a.text, word)) return true;
  return a.text.size() > 2 && a.text.compare(1, a.text.npos, b.text, 1, b.text.npos) == 0;
}

/// A hundredth of a number in its canonical spelling.
std::string hundredth(const std::string& text) {
  const auto n = number_in(text);
  const Number small = n ? shifted(*n, -2) : Number();
  if (!n || (!small.value && small.digits.empty())) return {};
  return (text[0] == '-' ? "-" : "") + canonical(small);
}

bool same_element(const Element& a, const Element& b) {
  if (a.text.empty() || b.text.empty()) return false;
  if (!a.name.empty() && !b.name.empty() && a.name != b.name) return false;
  if (a.unit.known && b.unit.known && a.unit.text != b.unit.text) return false;
  if (a.text == b.text) return true;  // 50% and 50 as well: answers drop the sign
  if (same_words(a, b)) return true;
  if (a.percent != b.percent) return a.percent ? hundredth(a.text) == b.text : a.text == hundredth(b.text);
  return false;
}

bool in_order(const Answer& a) {
  if (!a.open.empty()) return a.open != "\\{";
  return std::any_of(a.elements.begin(), a.elements.end(), [](const Element& e) { return e.words; });
}

std::vector<const Element*> sorted(const Answer& a) {
  std::vector<const Element*> out;
  for (const Element& e : a.elements) out.push_back(&e);
  const auto key = [](const Element* e) { return std::tie(e->name, e->text); };
  std::sort(out.begin(), out.end(), [&](auto* x, auto* y) { return key(x) < key(y); });
  if (a.open == "\\{")
    out.erase(std::unique(out.begin(), out.end(), [&](auto* x, auto* y) { return key(x) == key(y); }), out.end());
  return out;
}

/// Whether all elements have the same name, or none has one.
bool one_name(const Answer& a) {
  return std::all_of(a.elements.begin(), a.elements.end(),
                     [&](const Element& e) { return e.name == a.elements[0].name; });
}
}  // namespace

namespace {
/// Without markdown's emphasis around all of it: "**5**", "`5`".
std::string_view without_emphasis(std::string_view text) {
  text = strip(text);
  for (const std::string_view mark : {"**", "__", "`"}) {
    const size_t n = mark.size();
    if (text.size() > 2 * n && text.starts_with(mark) && text.ends_with(mark) &&
        text.substr(n, text.size() - 2 * n).find(mark) == text.npos)
      text = strip(text.substr(n, text.size() - 2 * n));
  }
  return text;
}

bool choice_letter(const Token& t) {
  return t.kind == Tok::word && t.text.size() == 1 && t.text[0] >= 'A' && t.text[0] <= 'J';
}

/// Cuts the letter of a choice before its text, "(B) 12", "\\textbf{(B)}\\ x", "B. 12"; "" if there is none. Without a
/// font only before a number or a word: "(A) x" may be a product.
std::string cut_choice(Tokens& tokens) {
  size_t i = 0;
  const auto next = [&](Tok kind, std::string_view text) {
    return i < tokens.size() && tokens[i].is(kind, text) && ++i;
  };
  const bool font = next(Tok::open, "{"), bracket = next(Tok::open, "(");
  if (i >= tokens.size() || !choice_letter(tokens[i])) return {};
  const std::string letter = tokens[i++].text;
  if (!next(Tok::close, ")") && (bracket || (!next(Tok::op, ".") && !next(Tok::op, ":")))) return {};
  const bool alone = font && next(Tok::close, "}");
  if (i == tokens.size()) return {};
  const Token& t = tokens[i];
  const bool value = t.kind == Tok::number || t.kind == Tok::currency || (t.kind == Tok::word && t.text.size() > 2);
  if (!alone && (font || !t.spaced || !value)) return {};
  tokens = tokens.subspan(i);
  return letter;
}
/// Leaves the letter alone of "A)", "Option A" and "Choice (A)".
void cut_option(Tokens& tokens) {
  if (tokens.size() == 2 && choice_letter(tokens[0]) && tokens[1].is(Tok::close, ")")) tokens = tokens.first(1);
  if (tokens.size() < 2 || tokens[0].kind != Tok::word || !tokens[1].spaced) return;
  if (!folded_equal(tokens[0].text, "option") && !folded_equal(tokens[0].text, "choice")) return;
  const Tokens rest = trimmed(tokens.subspan(1));
  if (rest.size() == 1 && choice_letter(rest[0])) tokens = rest;
}
}  // namespace

Answer read_answer(std::string_view text) {
  Answer out;
  std::vector<Token> tokens;
  text = without_emphasis(text);
  if (!read_tokens(text, tokens)) {
    out.elements.push_back({});
    out.elements[0].text = strip(text);
    return out;
  }
  Tokens all = trimmed(tokens);
  cut_option(all);
  out.choice = cut_choice(all);
  if (split(all).size() == 1) out.name = cut_name(all);
  all = trimmed(all);
  if (all.size() >= 2 && all[0].kind == Tok::open && !all[0].text.starts_with("\\begin") &&
      closing(all, 0) == all.size() - 1) {
    const Tokens inner = all.subspan(1, all.size() - 2);
    const bool set = all[0].text == "\\{" && all.back().text == "\\}";
    const bool interval =
        (all[0].text == "(" || all[0].text == "[") && (all.back().text == ")" || all.back().text == "]");
    if ((set || interval) && (set ? !inner.empty() : split(inner).size() > 1)) {
      out.open = all[0].text;
      out.close = all.back().text;
      all = inner;
    }
  }
  for (const Tokens part : split(all)) read_element(part, out.elements);
  if (out.open == "(" || out.open == "[") {  // (1 \pm 2, 3) is not a triple
    if (out.elements.size() != split(all).size()) {
      out.elements.assign(1, {});
      out.elements[0].text = as_text(all);
    }
  }
  if (out.elements.size() == 1 && out.elements[0].name.empty()) out.elements[0].name = std::exchange(out.name, {});
  return out;
}

namespace {
bool is_letter(const Answer& a, const std::string& letter) {
  return a.open.empty() && a.elements.size() == 1 && a.elements[0].text == letter;
}
}  // namespace

bool same_answer(const Answer& a, const Answer& b) {
  if (a.elements.empty() || b.elements.empty()) return false;
  if (!a.choice.empty() && !b.choice.empty() && a.choice != b.choice) return false;
  if (a.choice.empty() != b.choice.empty() && (a.choice.empty() ? is_letter(a, b.choice) : is_letter(b, a.choice)))
    return true;
  if (!a.name.empty() && !b.name.empty() && a.name != b.name) return false;
  const bool set = (a.open.empty() || a.open == "\\{") && (b.open.empty() || b.open == "\\{");
  if (!set && (a.open != b.open || a.close != b.close)) return false;
  const bool ordered = in_order(a) || in_order(b) || one_name(a) != one_name(b);
  if (ordered && a.open != "\\{" && b.open != "\\{")
    return std::equal(a.elements.begin(), a.elements.end(), b.elements.begin(), b.elements.end(), same_element);
  const auto x = sorted(a), y = sorted(b);
  return std::equal(x.begin(), x.end(), y.begin(), y.end(), [](auto* p, auto* q) { return same_element(*p, *q); });
}

std::string spelled(const Answer& answer) {
  std::vector<const Element*> list;
  if (in_order(answer))
    for (const Element& e : answer.elements) list.push_back(&e);
  else
    list = sorted(answer);
  std::string out;
  for (const Element* e : list) out.append(out.empty() ? "" : ",").append(e->text).append(e->percent ? "%" : "");
  return answer.open == "\\{" ? out : answer.open + out + answer.close;
}

}  // namespace dapo::verify
