// Numbers by value, exact if they fit in 64 bits.
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
/// a op b for op in + - * /. Nothing on division by zero, or if the result does not fit.
std::optional<Fraction> compute(char op, Fraction a, Fraction b);

/// A nonnegative number: its value if it fits in a Fraction, else digits * 10^exponent.
struct Number {
  std::optional<Fraction> value;
  std::string digits;  ///< of a decimal: without a zero at either end; empty is zero (or a fraction)
  int64_t exponent = 0;
  static Number of(Fraction f) { return {f, {}, 0}; }
};
/// Digits with at most one point, times 10^exponent.
Number decimal(std::string_view text, int64_t exponent);
/// n * 10^places; without value and digits if a fraction does not fit.
Number shifted(const Number& n, int64_t places);
/// The value of "0.1" followed by "6" repeating. Nothing without a decimal point, or if it does not fit.
std::optional<Fraction> repeating(std::string_view begin, std::string_view again);
/// The canonical spelling of a value: "3", "1/2", "123e40".
std::string canonical(const Number& n);

}  // namespace dapo::verify
