// The final answer in a text: how worked solutions mark it, and what counts as an answer by itself.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dapo {

/// The answer that a text marks: the number behind GSM8K's "####" where nothing else follows it (commas and dollars
/// dropped), else the content of the last \boxed or \fbox, else what stands below its last heading where that is an
/// answer by itself. "####" is markdown's fourth heading as well; a heading is never an answer. Nothing where there is
/// no such mark.
std::optional<std::string> marked_answer(std::string_view text);

/// Whether a text is an answer and not the way to one: a single word or formula ("34", "x=2", "(1, 2)").
bool is_answer(std::string_view text);

/// Why a text in which no answer is marked cannot be one, as a clause for an error message; empty where it can.
std::string why_no_answer(std::string_view text, bool worked_solution);

}  // namespace dapo
