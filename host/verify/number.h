// Numbers by value, exact where 64 bits hold them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dapo::verify {

/// An exact fraction in lowest terms, |num| and den at most 10^18.
struct Fraction {
  int64_t num = 0, den = 1;
  bool operator==(const Fraction&) const = default;
};
/// a op b for op in + - * /. Nothing on division by zero, or where the result does not fit.
std::optional<Fraction> compute(char op, Fraction a, Fraction b);

/// A number that is not negative: its value where a Fraction holds it, else digits * 10^exponent.
struct Number {
  std::optional<Fraction> value;
  std::string digits;  ///< of a decimal: without a zero at either end; empty is zero (or a fraction)
  int64_t exponent = 0;
  static Number of(Fraction f) { return {f, {}, 0}; }
};
/// Digits with at most one point, times 10^exponent.
Number decimal(std::string_view text, int64_t exponent);
/// n * 10^places; without value and digits where a fraction does not fit.
Number shifted(const Number& n, int64_t places);
/// The value of "0.1" with "6" again and again behind it. Nothing without a point, or where it does not fit.
std::optional<Fraction> repeating(std::string_view begin, std::string_view again);
/// One spelling a value: "3", "1/2", "123e40".
std::string canonical(const Number& n);

}  // namespace dapo::verify
