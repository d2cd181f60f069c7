// The final answer in a text: how worked solutions mark it, and which texts are answers on their own.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dapo {

/// The answer that a text marks: what <answer></answer> encloses at its end, else the number after GSM8K's "####" if
/// nothing else follows it (commas between thousands and currency signs dropped), else the content of the last \boxed or
/// \fbox, else the text below its last heading if that is an answer on its own. "####" is also a fourth-level heading in markdown; a heading is never an answer. Nothing if there is no
/// such mark.
std::optional<std::string> marked_answer(std::string_view text);

/// Whether a text is an answer and not a derivation: a single word or formula ("34", "x=2", "(1, 2)").
bool is_answer(std::string_view text);

/// Reason why a text without a marked answer cannot be one, as a clause for an error message; empty if it can.
std::string why_no_answer(std::string_view text, bool worked_solution);

}  // namespace dapo
