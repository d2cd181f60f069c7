// Inside the verifiers: text helpers, numbers by value, and the makers that make_verifier knows.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "host/verify.h"

namespace dapo::verify {

// ---- text; all views are UTF-8; broken bytes never match anything ----------------------------------------

/// The last n code points.
std::string_view tail(std::string_view text, size_t n);
/// Length in bytes of the white space (as Python's str.isspace) at `at`, or 0.
size_t space_at(std::string_view text, size_t at);
/// Without white space at both ends.
std::string_view strip(std::string_view text);
/// As Python's str.isdigit: at least one code point, all of them digits of some script.
bool all_digits(std::string_view text);
/// The code point at `at` and its length in bytes; broken bytes give -1 and 1.
int32_t decode(std::string_view text, size_t at, size_t& length);
/// Length in bytes of the code point at `at`.
size_t length_at(std::string_view text, size_t at);
/// Mathematical characters as TeX commands, full width as ASCII, other spaces as blanks; the rest as it is.
std::string unicode_to_tex(std::string_view text);
/// Replaces every occurrence from left to right, in place where the text does not grow.
void replace_all(std::string& text, std::string_view from, std::string_view to);
/// math_dapo's own: content of the last "\boxed{", by balanced braces; nothing where there is none or it stays open.
std::optional<std::string_view> last_braced_box(std::string_view text);
/// What follows the last "Answer:" up to the end of its line: the last match of (?i)Answer\s*:\s*([^\n]+).
std::optional<std::string_view> last_answer(std::string_view text);

// ---- numbers by value ----------------------------------------------------------------------------------------------

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

// ---- makers --------------------------------------------------------------------------------------------------------

std::unique_ptr<Verifier> make_math_dapo(const VerifierOptions& options);
std::unique_ptr<Verifier> make_gsm8k(const VerifierOptions& options);
std::unique_ptr<Verifier> make_boxed(const VerifierOptions& options);
std::unique_ptr<Verifier> make_countdown(const VerifierOptions& options);
std::unique_ptr<Verifier> make_exact(const VerifierOptions& options);

}  // namespace dapo::verify
