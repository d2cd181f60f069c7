// Part of `boxed`: canonical spelling of sums and products.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "host/verify/number.h"

namespace dapo::verify {

enum class Sign : uint8_t { plus, minus, plus_minus, minus_plus };

struct Literal {
  enum Kind : uint8_t { plain, power_of_ten, fraction };
  Number number;
  Kind kind = plain;
};

struct Power {
  std::string base, exponent;  ///< no exponent: 1
  bool letters = false;        ///< adjacent letters keep their order: they may be a word
  bool sum = false;            ///< the base is a sum in parentheses
};

/// A product. Its numbers are multiplied only if together they write one number ("\frac{6}{4}", "1.2*10^3") or if there
/// are other factors ("3*\frac{\sqrt2}{2}").
struct Term {
  Sign sign = Sign::plus;
  std::vector<Literal> numbers;
  std::vector<Power> powers;

  static Term number(Number n, Literal::Kind kind = Literal::plain);
  static Term named(std::string base);
  static Term letters(std::string base);
  /// A sum of one term becomes that term; a longer one becomes a factor in parentheses.
  static Term group(const std::vector<Term>& sum);

  void apply(Sign s);
  void multiply(Term by);
  void divide(const Term& by);
  /// Multiplies by 10^k: shifts the decimal point of a lone number before it.
  void scale(int64_t power_of_ten);
  void raise(const std::string& exponent);
  std::string as_base() const;  ///< in parentheses if needed
};
using Sum = std::vector<Term>;

std::string spelled(const Term& term);
std::string spelled(const Sum& sum);
/// In parentheses, except a lone letter, name or number.
std::string wrapped(std::string_view text);
/// k, if `exponent` is an integer of magnitude up to a million.
std::optional<int64_t> power_of_ten(const Sum& exponent);
/// One letter, f(x), a_n, (x,y).
bool is_name(const Sum& sum);

}  // namespace dapo::verify
