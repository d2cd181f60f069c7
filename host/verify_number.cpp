// Numbers by value, in linear time: decimals are compared as digit strings of any length, fractions exactly within
// 10^18.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/verify_impl.h"

namespace dapo::verify {

namespace {
__extension__ typedef __int128 Wide;
constexpr int64_t kMost = 1'000'000'000'000'000'000;

std::optional<Fraction> reduced(Wide num, Wide den) {
  if (den == 0) return std::nullopt;
  if (den < 0) num = -num, den = -den;
  Wide a = num < 0 ? -num : num, b = den;
  while (b != 0) a = std::exchange(b, a % b);
  num /= a, den /= a;
  if (num > kMost || num < -kMost || den > kMost) return std::nullopt;
  return Fraction{static_cast<int64_t>(num), static_cast<int64_t>(den)};
}

bool digit(char c) {
  return c >= '0' && c <= '9';
}

/// Reads "12", "1,234", "0.5", ".5", "5." at the front of `text` and cuts it off. Commas must stand before groups of
/// three.
bool take_decimal(std::string_view& text, std::string& digits, int64_t& exponent) {
  digits.clear();
  exponent = 0;
  const auto take_run = [&](size_t at) {
    size_t end = at;
    while (end < text.size() && digit(text[end])) ++end;
    digits.append(text, at, end - at);
    return end - at;
  };
  size_t group = take_run(0), at = group;
  bool any = group > 0;
  if (any && group <= 3) {
    while (at < text.size() && text[at] == ',' && at + 3 < text.size() && digit(text[at + 1])) {
      group = take_run(at + 1);
      at += 1 + group;
      if (group != 3) return false;
    }
  }
  if (at < text.size() && text[at] == '.') {
    const size_t decimals = take_run(++at);
    at += decimals;
    any |= decimals > 0;
    exponent = -static_cast<int64_t>(decimals);
  }
  if (!any) return false;
  const size_t end = digits.find_last_not_of('0') + 1;  // npos + 1 is 0: all zeros
  exponent = end == 0 ? 0 : exponent + static_cast<int64_t>(digits.size() - end);
  digits.erase(end);
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
  text.remove_prefix(at);
  return true;
}

std::optional<Fraction> fraction_of(const std::string& digits, int64_t exponent) {
  if (digits.size() > 18 || exponent < -18 || static_cast<int64_t>(digits.size()) + exponent > 19) return std::nullopt;
  Wide num = 0, den = 1;
  for (const char c : digits) num = num * 10 + (c - '0');
  for (int64_t i = exponent; i > 0; --i) num *= 10;
  for (int64_t i = exponent; i < 0; ++i) den *= 10;
  return reduced(num, den);
}

/// Reads "{12}" or a single digit, as \frac takes them.
std::optional<Fraction> take_argument(std::string_view& text) {
  if (text.empty()) return std::nullopt;
  if (digit(text[0])) {
    const Fraction f{text[0] - '0', 1};
    text.remove_prefix(1);
    return f;
  }
  if (text[0] != '{') return std::nullopt;
  text.remove_prefix(1);
  const bool minus = text.starts_with('-');
  text.remove_prefix(minus);
  std::string digits;
  int64_t exponent;
  if (!take_decimal(text, digits, exponent) || !text.starts_with('}')) return std::nullopt;
  text.remove_prefix(1);
  auto f = fraction_of(digits, exponent);
  if (f && minus) f->num = -f->num;
  return f;
}

/// Drops what surrounds a number: spaces, dollars, degrees, units in \text{}. What is left decides whether it is one.
std::string bare(std::string_view text) {
  std::string s(text);
  for (const std::string_view gone :
       {"\\!", "\\,", "\\;", "\\ ", "\\left", "\\right", "\\$", "$", "^\\circ", "^{\\circ}"})
    replace_all(s, gone, "");
  replace_all(s, "{,}", ",");
  replace_all(s, "\\%", "%");
  for (const std::string_view frac : {"dfrac", "tfrac", "cfrac"}) replace_all(s, frac, "frac");
  replace_all(s, "\u2212", "-");
  for (const std::string_view unit : {"\\text{", "\\textbf{", "\\textnormal{", "\\mbox{", "\\mathrm{"})
    if (const size_t at = s.find(unit); at != std::string::npos && at > 0) {
      const size_t end = s.find('}', at);  // what follows the unit is at most a power: "cm}^2"
      if (end == std::string::npos) continue;
      const std::string_view rest = std::string_view(s).substr(end + 1);
      if (rest.empty() || rest == "^2" || rest == "^3" || rest == "^{2}" || rest == "^{3}") s.erase(at);
    }
  std::erase_if(s, [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; });
  return s;
}
}  // namespace

std::optional<Fraction> compute(char op, Fraction a, Fraction b) {
  const Wide an = a.num, ad = a.den, bn = b.num, bd = b.den;
  switch (op) {
    case '+':
      return reduced(an * bd + bn * ad, ad * bd);
    case '-':
      return reduced(an * bd - bn * ad, ad * bd);
    case '*':
      return reduced(an * bn, ad * bd);
    default:
      return reduced(an * bd, ad * bn);
  }
}

std::optional<Number> parse_number(std::string_view text) {
  if (text.find(", ") != text.npos) return std::nullopt;  // a list, not a thousands separator
  const std::string clean = bare(text);
  std::string_view s = clean;
  Number out;
  if (s.starts_with('-') || s.starts_with('+')) {
    out.negative = s[0] == '-';
    s.remove_prefix(1);
  }
  const bool decimal = take_decimal(s, out.digits, out.exponent);
  std::optional<Fraction> whole;
  if (s.starts_with("\\frac")) {  // also after a whole number: 1\frac{1}{2}
    s.remove_prefix(5);
    const auto num = take_argument(s);
    const auto den = num ? take_argument(s) : num;
    auto value = den ? compute('/', *num, *den) : den;
    if (value && decimal) {
      whole = out.exponent < 0 ? std::nullopt : fraction_of(out.digits, out.exponent);
      value = whole && value->num >= 0 ? compute('+', *whole, *value) : std::nullopt;
    }
    if (!value) return std::nullopt;
    out.fraction = true;
    out.value = *value;
  } else if (decimal && s.starts_with('/')) {
    s.remove_prefix(1);
    std::string digits;
    int64_t exponent;
    if (!take_decimal(s, digits, exponent)) return std::nullopt;
    const auto num = fraction_of(out.digits, out.exponent), den = fraction_of(digits, exponent);
    const auto value = num && den ? compute('/', *num, *den) : std::nullopt;
    if (!value) return std::nullopt;
    out.fraction = true;
    out.value = *value;
  } else if (!decimal) {
    return std::nullopt;
  }
  if (s.starts_with('%')) {
    out.percent = true;
    s.remove_prefix(1);
  }
  if (!s.empty()) return std::nullopt;
  if (out.fraction && out.negative) out.value.num = -out.value.num;
  return out;
}

namespace {
std::optional<Fraction> fraction_of(const Number& n) {
  auto f = n.fraction ? std::optional(n.value) : fraction_of(n.digits, n.exponent);
  if (f && !n.fraction && n.negative) f->num = -f->num;
  return f;
}

bool same_face(const Number& a, const Number& b) {
  if (!a.fraction && !b.fraction)
    return a.digits == b.digits && a.exponent == b.exponent && (a.negative == b.negative || a.digits.empty());
  const auto x = fraction_of(a), y = fraction_of(b);
  return x && y && *x == *y;
}

Number hundredth(Number n) {
  n.percent = false;
  if (!n.fraction && !n.digits.empty()) n.exponent -= 2;
  if (n.fraction) {
    const auto f = compute('/', n.value, {100, 1});
    n.value = f.value_or(Fraction{0, 0});  // equal to nothing
  }
  return n;
}
}  // namespace

bool same_number(const Number& a, const Number& b) {
  if (same_face(a, b)) return true;
  if (a.percent == b.percent) return false;
  return a.percent ? same_face(hundredth(a), b) : same_face(a, hundredth(b));
}

std::string canonical(const Number& n) {
  std::string out;
  if (const auto f = fraction_of(n))
    out = f->den == 1 ? fmt::format("{}", f->num) : fmt::format("{}/{}", f->num, f->den);
  else
    out = fmt::format("{}{}e{}", n.negative ? "-" : "", n.digits, n.exponent);
  return n.percent ? out + "%" : out;
}

}  // namespace dapo::verify
