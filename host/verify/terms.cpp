#include "host/verify/terms.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace dapo::verify {

namespace {
std::optional<Number> combined(char op, const Number& a, const Number& b) {
  const auto f = a.value && b.value ? compute(op, *a.value, *b.value) : std::nullopt;
  return f ? std::optional(Number::of(*f)) : std::nullopt;
}

bool simple(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           static_cast<unsigned char>(c) >= 0x80;
  });
}

bool is_one(const Literal& l) {
  return l.number.value == Fraction{1, 1};
}

std::string negated(const std::string& exponent) {
  if (exponent.empty()) return "-1";
  const bool several = exponent.find_first_of("+-", 1) != std::string::npos;
  if (several) return "-(" + exponent + ")";
  return exponent == "-1" ? "" : exponent[0] == '-' ? exponent.substr(1) : "-" + exponent;
}
}  // namespace

std::string wrapped(std::string_view text) {
  return simple(text) ? std::string(text) : fmt::format("({})", text);
}

Term Term::number(Number n, Literal::Kind kind) {
  Term t;
  t.numbers.push_back({std::move(n), kind});
  return t;
}
Term Term::named(std::string base) {
  Term t;
  t.powers.push_back({std::move(base), {}, false, false});
  return t;
}
Term Term::letters(std::string base) {
  Term t = named(std::move(base));
  t.powers[0].letters = true;
  return t;
}
Term Term::group(const Sum& sum) {
  if (sum.size() == 1 && (sum[0].sign == Sign::plus || sum[0].sign == Sign::minus)) return sum[0];
  Term t = named("(" + spelled(sum) + ")");
  t.powers[0].sum = true;
  return t;
}

void Term::apply(Sign s) {
  if (s == Sign::minus) {
    static constexpr Sign kOpposite[] = {Sign::minus, Sign::plus, Sign::minus_plus, Sign::plus_minus};
    sign = kOpposite[static_cast<size_t>(sign)];
  } else if (s != Sign::plus) {
    if (sign == Sign::minus)
      sign = s == Sign::plus_minus ? Sign::minus_plus : Sign::plus_minus;
    else
      sign = s;
  }
}

void Term::multiply(Term by) {
  if (by.sign == Sign::minus) apply(Sign::minus);
  auto from = by.powers.begin();
  if (from != by.powers.end() && from->letters && by.numbers.empty()) {  // all letters of a term are one word
    const auto word = std::find_if(powers.begin(), powers.end(), [](const Power& p) { return p.letters; });
    if (word != powers.end()) word->base += from++->base;
  }
  numbers.insert(numbers.end(), std::make_move_iterator(by.numbers.begin()), std::make_move_iterator(by.numbers.end()));
  powers.insert(powers.end(), std::make_move_iterator(from), std::make_move_iterator(by.powers.end()));
}

void Term::divide(const Term& by) {
  if (by.sign == Sign::minus) apply(Sign::minus);
  std::optional<Number> ratio;
  const auto written = [](const Literal& l) { return l.kind != Literal::fraction; };
  if (by.numbers.size() == 1 && numbers.size() <= 1 && written(by.numbers[0]) &&
      (numbers.empty() || written(numbers[0])))
    ratio = combined('/', numbers.empty() ? Number::of({1, 1}) : numbers[0].number, by.numbers[0].number);
  const bool alone = powers.empty() && by.powers.empty();
  if (ratio && !alone && ratio->value == Fraction{1, 1})
    numbers.clear();
  else if (ratio)
    numbers = {{std::move(*ratio), Literal::fraction}};
  else if (numbers.size() == 1 && is_one(numbers[0]) && powers.empty() && !by.powers.empty())
    numbers.clear();
  if (!ratio)
    for (const Literal& l : by.numbers) powers.push_back({wrapped(canonical(l.number)), "-1", false, false});
  for (const Power& p : by.powers) powers.push_back({p.base, negated(p.exponent), false, p.sum});
}

void Term::scale(int64_t power_of_ten) {
  if (numbers.size() == 1 && powers.empty() && numbers[0].kind == Literal::plain)
    numbers[0] = {shifted(numbers[0].number, power_of_ten), Literal::power_of_ten};
  else
    numbers.push_back({decimal("1", power_of_ten), Literal::power_of_ten});
}

void Term::raise(const std::string& exponent) {
  if (exponent == "1") return;
  const bool sum = powers.size() == 1 && powers[0].sum;
  *this = named(as_base());
  powers[0].exponent = exponent;
  powers[0].sum = sum;
}

std::string Term::as_base() const {
  if (sign == Sign::plus && numbers.empty() && powers.size() == 1 && powers[0].exponent.empty()) return powers[0].base;
  const std::string text = spelled(*this);
  return wrapped(text);
}

std::string spelled(const Term& term) {
  std::vector<std::string> parts;
  for (const Power& p : term.powers) parts.push_back(p.exponent.empty() ? p.base : p.base + "^" + wrapped(p.exponent));
  std::sort(parts.begin(), parts.end());
  std::optional<Number> product;
  for (const Literal& l : term.numbers) {
    if (product)
      product = combined('*', *product, l.number);
    else
      product = l.number;
    if (!product) break;
  }
  if (product && (term.numbers.size() == 1 || !parts.empty())) {
    parts.insert(parts.begin(), canonical(*product));
  } else {
    std::vector<std::string> numbers;
    for (const Literal& l : term.numbers) numbers.push_back(canonical(l.number));
    std::sort(numbers.begin(), numbers.end());
    parts.insert(parts.begin(), std::make_move_iterator(numbers.begin()), std::make_move_iterator(numbers.end()));
  }
  static constexpr std::string_view kSigns[] = {"", "-", "\u00B1", "\u2213"};
  const bool zero = term.numbers.size() == 1 && parts.size() == 1 && parts[0] == "0";
  return fmt::format("{}{}", zero ? "" : kSigns[static_cast<size_t>(term.sign)], fmt::join(parts, "*"));
}

std::string spelled(const Sum& sum) {
  if (sum.size() == 1) {
    const Term& t = sum[0];
    const bool bare = t.sign == Sign::plus && t.numbers.empty() && t.powers.size() == 1 && t.powers[0].exponent.empty();
    if (bare && t.powers[0].sum) return t.powers[0].base.substr(1, t.powers[0].base.size() - 2);
    return spelled(t);
  }
  std::vector<std::string> terms;
  for (const Term& t : sum) terms.push_back(spelled(t));
  std::sort(terms.begin(), terms.end());
  std::string out;
  for (const std::string& t : terms) {
    const bool signed_text = t[0] == '-' || t.starts_with("\u00B1") || t.starts_with("\u2213");
    out.append(out.empty() || signed_text ? "" : "+").append(t);
  }
  return out;
}

std::optional<int64_t> power_of_ten(const Sum& exponent) {
  if (exponent.size() != 1 || exponent[0].numbers.size() != 1 || !exponent[0].powers.empty()) return std::nullopt;
  const Term& t = exponent[0];
  const auto f = t.numbers[0].number.value;
  if (!f || f->den != 1 || f->num > 1'000'000) return std::nullopt;
  if (t.sign != Sign::plus && t.sign != Sign::minus) return std::nullopt;
  return t.sign == Sign::minus ? -f->num : f->num;
}

bool is_name(const Sum& sum) {
  if (sum.size() != 1 || sum[0].sign != Sign::plus || !sum[0].numbers.empty() || sum[0].powers.size() != 1)
    return false;
  const Power& p = sum[0].powers[0];
  return p.exponent.empty() && !p.sum && p.base[0] != '|' && p.base.back() != '!';
}

}  // namespace dapo::verify
