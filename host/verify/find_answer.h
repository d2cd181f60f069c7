// Part of `math`: where the answer stands in a response that may have no box.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dapo::verify {

/// Content of the last \boxed{} of a text, after the boxes that stand before it in one list ("and", "or" and commas
/// between them): "1, 2".
std::optional<std::string> boxes_in(std::string_view text);

struct FoundAnswer {
  std::string text;
  std::string value;  ///< if the text is a chain of equations outside a box, its last right side; else the text
};

/// The answer of a response: its last \boxed{} (several of them, if only "and", "or" and commas stand between); else
/// what follows the last "answer is" or "answer:"; else the whole, if it is one short line; else the last formula or
/// number. Nothing if there is none of these. Linear in its length.
std::optional<FoundAnswer> find_answer(std::string_view response);

}  // namespace dapo::verify
