// Inside `boxed`: an answer as it is compared.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host/verify/expression.h"

namespace dapo::verify {

/// What stands behind a value. Answers with and without one are equal, two known ones that differ are not.
struct Unit {
  std::string text;
  bool known = false;  ///< every word of it is in the table
};
/// The number of tokens before a unit, or all of them.
size_t cut_unit(std::span<const Token> tokens, Unit& unit);

struct Element {
  std::string name;  ///< what stands before "=", where that is a name
  std::string text;  ///< one spelling for all that is equal; empty: nothing can be read
  Unit unit;
  bool percent = false;
  bool words = false;    ///< nothing but words
  bool upright = false;  ///< in \text{} or the like
};

/// One element, or several: (a,b], {a,b}, or without brackets "a, b" and "a \pm b".
struct Answer {
  std::string open, close;  ///< "" without brackets, and around one element in parentheses
  std::string name;
  std::vector<Element> elements;
};

Answer read_answer(std::string_view text);
bool same_answer(const Answer& a, const Answer& b);
/// One spelling for an answer, without names and units.
std::string spelled(const Answer& answer);

}  // namespace dapo::verify
