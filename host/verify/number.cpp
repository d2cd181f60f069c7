// Numbers by value: exact fractions up to 10^18, decimals of any length as digit strings, in linear time.
#include "host/verify/number.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/verify/text.h"

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

Number decimal(std::string_view text, int64_t exponent) {
  Number n;
  const size_t point = std::min(text.find('.'), text.size());
  const size_t places = text.size() - std::min(point + 1, text.size());
  n.digits.append(text, 0, point).append(text, text.size() - places, places);
  n.exponent = exponent - static_cast<int64_t>(places);
  const size_t end = n.digits.find_last_not_of('0') + 1;  // npos + 1 is 0: all zeros
  n.exponent = end == 0 ? 0 : n.exponent + static_cast<int64_t>(n.digits.size() - end);
  n.digits.erase(end);
  n.digits.erase(0, std::min(n.digits.find_first_not_of('0'), n.digits.size()));
  if (n.digits.size() > 18 || n.exponent < -18 || static_cast<int64_t>(n.digits.size()) + n.exponent > 19) return n;
  Wide num = 0, den = 1;
  for (const char c : n.digits) num = num * 10 + (c - '0');
  for (int64_t i = n.exponent; i > 0; --i) num *= 10;
  for (int64_t i = n.exponent; i < 0; ++i) den *= 10;
  n.value = reduced(num, den);
  return n;
}

Number shifted(const Number& n, int64_t places) {
  if (n.digits.empty() && n.value && n.value->num != 0) {  // a fraction
    Number out;
    const auto f = places >= -18 && places <= 18 ? decimal("1", places).value : std::nullopt;
    if (f) out.value = compute('*', *n.value, *f);
    return out;
  }
  return decimal(n.digits, n.digits.empty() ? 0 : n.exponent + places);
}

std::optional<Fraction> repeating(std::string_view begin, std::string_view again) {
  const size_t point = begin.find('.');
  if (point == begin.npos || again.empty() || begin.size() - point + again.size() > 17) return std::nullopt;
  const auto places = static_cast<int64_t>(begin.size() - point - 1), length = static_cast<int64_t>(again.size());
  const auto head = decimal(begin, 0).value, all = decimal(again, -places).value, period = decimal("1", length).value;
  if (!head || !all || !period) return std::nullopt;
  const auto tail = compute('/', *all, {period->num - 1, 1});
  return tail ? compute('+', *head, *tail) : tail;
}

std::string canonical(const Number& n) {
  if (!n.value) return fmt::format("{}e{}", n.digits, n.exponent);
  return n.value->den == 1 ? fmt::format("{}", n.value->num) : fmt::format("{}/{}", n.value->num, n.value->den);
}

}  // namespace dapo::verify
