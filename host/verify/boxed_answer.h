// Part of `boxed`: the form in which answers are compared.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host/verify/expression.h"

namespace dapo::verify {

/// The unit after a value. An answer with a unit equals one without; two different known units are unequal.
struct Unit {
  std::string text;
  bool known = false;  ///< all of its words are in the table
};
/// The number of tokens before the unit, or all of them if there is none.
size_t cut_unit(std::span<const Token> tokens, Unit& unit);

struct Element {
  std::string name;  ///< the left side of "=", if that is a name
  std::string text;  ///< canonical spelling, the same for equal elements; empty: cannot be parsed
  Unit unit;
  bool percent = false;
  bool words = false;    ///< only words
  bool upright = false;  ///< in \text{} or the like
};

/// One element or several: (a,b], {a,b}, or without brackets "a, b" and "a \pm b".
struct Answer {
  std::string open, close;  ///< "" without brackets, and around one element in parentheses
  std::string name;
  std::string choice;  ///< the letter before the text of a choice: "B" in "(B) 12", which equals "B" and "12"
  std::vector<Element> elements;
};

Answer read_answer(std::string_view text);
bool same_answer(const Answer& a, const Answer& b);
/// The canonical spelling of an answer, without names and units.
std::string spelled(const Answer& answer);

}  // namespace dapo::verify
