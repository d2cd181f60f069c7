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

/// Drops a leading "x =" or "x \in" if it is the only relation.
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
  if (found == 0 || found + 1 >= tokens.size()) return {};
  try {
    const Expression left = read_expression(tokens.first(found));
    if (!left.name) return {};
    tokens = tokens.subspan(found + 1);
    return left.text;
  } catch (const Unreadable&) {
    return {};
  }
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
  if (a.words && b.words && (a.upright || b.upright) && a.text.size() > 1) return folded_equal(a.text, b.text);
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

Answer read_answer(std::string_view text) {
  Answer out;
  std::vector<Token> tokens;
  if (!read_tokens(text, tokens)) {
    out.elements.push_back({});
    out.elements[0].text = strip(text);
    return out;
  }
  Tokens all = trimmed(tokens);
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

bool same_answer(const Answer& a, const Answer& b) {
  if (a.elements.empty() || b.elements.empty()) return false;
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
