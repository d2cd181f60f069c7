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
/// Length in bytes of the code point at `at`.
size_t length_at(std::string_view text, size_t at);
/// Replaces every occurrence from left to right, in place where the text does not grow.
void replace_all(std::string& text, std::string_view from, std::string_view to);
/// Content of the last \boxed{...}, by balanced braces; nothing where there is none or it stays open.
std::optional<std::string_view> last_boxed(std::string_view text);
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

/// A number as answers write it: "1,000", "-0.50", "3/4", "\frac{3}{4}", "1\frac12", "\$5", "50\%", "90^\circ",
/// "3\text{ cm}".
struct Number {
  bool negative = false, percent = false;
  std::string digits;    ///< decimal: significant digits, no zero at either end; empty is zero
  int64_t exponent = 0;  ///< decimal: value = digits * 10^exponent
  bool fraction = false;
  Fraction value;  ///< where `fraction`
};
std::optional<Number> parse_number(std::string_view text);
/// Equal by value; "50%" equals "1/2" and also "50", since answers drop the sign.
bool same_number(const Number& a, const Number& b);
/// One spelling a value: "3", "-1/2", "50%"; decimals as fractions, "123e40" where those would not fit.
std::string canonical(const Number& n);

// ---- makers --------------------------------------------------------------------------------------------------------

std::unique_ptr<Verifier> make_math_dapo(const VerifierOptions& options);
std::unique_ptr<Verifier> make_gsm8k(const VerifierOptions& options);
std::unique_ptr<Verifier> make_boxed(const VerifierOptions& options);
std::unique_ptr<Verifier> make_countdown(const VerifierOptions& options);
std::unique_ptr<Verifier> make_exact(const VerifierOptions& options);

}  // namespace dapo::verify
