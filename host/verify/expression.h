// Part of `boxed`: the canonical spelling of expressions that differ only in notation.
#pragma once

#include <span>
#include <string>

#include "host/verify/tex.h"

namespace dapo::verify {

/// Thrown if the tokens are not an unambiguous expression; the answer is then compared as text.
struct Unreadable {};

enum class PlusMinus { keep, plus, minus };  ///< interpretation of \pm

struct Expression {
  std::string text;    ///< equal texts are equal expressions
  bool name = false;   ///< one letter, f(x), a_n, (x,y): a valid left side of "=" in an answer
  int plus_minus = 0;  ///< occurrences of \pm and \mp
};

/// Parses all of `tokens`. The spelling does not depend on
///  - the order of terms and of factors (but adjacent letters keep theirs: words);
///  - \frac{a}{b}, a/b and a b^{-1}; \sqrt{a} and a^{1/2}; braces, \cdot and parentheses that change nothing;
///  - the order of a set or a union, and the direction of < and <=;
///  - how a number is written: 0.5, 1/2, 2/4; 3 1/2, 3\frac12, 7/2; 1.2\times10^3, 1200; 0.\overline{3}, 1/3.
/// No other arithmetic is done (17*23 is not 391, nor x+x 2x): a response that repeats its problem must not be right.
/// Ambiguous notation (1/2x) is unreadable.
Expression read_expression(std::span<const Token> tokens, PlusMinus plus_minus = PlusMinus::keep);

}  // namespace dapo::verify
