// Inside `boxed`: one spelling for expressions that differ only in how they are written.
#pragma once

#include <span>
#include <string>

#include "host/verify/tex.h"

namespace dapo::verify {

/// Thrown where tokens are no expression that has one reading; the answer is then compared as text.
struct Unreadable {};

enum class PlusMinus { keep, plus, minus };  ///< how \pm is read

struct Expression {
  std::string text;    ///< equal texts are equal expressions
  bool name = false;   ///< one letter, f(x), a_n, (x,y): what may stand before "=" in an answer
  int plus_minus = 0;  ///< occurrences of \pm and \mp
};

/// Reads all of `tokens`. The spelling does not depend on
///  - the order of terms, and of factors (but letters that stand together keep theirs: words);
///  - \frac{a}{b}, a/b and a b^{-1}; \sqrt{a} and a^{1/2}; braces, \cdot and parentheses that change nothing;
///  - the order of a set or a union, and the direction of < and <=;
///  - how a number is written: 0.5, 1/2, 2/4; 3 1/2, 3\frac12, 7/2; 1.2\times10^3, 1200; 0.\overline{3}, 1/3.
/// Arithmetic is not done beyond that (17*23 is not 391, nor x+x 2x): a response that repeats its problem must not be
/// right. What people read in two ways (1/2x) is unreadable.
Expression read_expression(std::span<const Token> tokens, PlusMinus plus_minus = PlusMinus::keep);

}  // namespace dapo::verify
