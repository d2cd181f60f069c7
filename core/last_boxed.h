// The final answer of a solution as MATH writes it, for the verifiers and for the reader of data: one rule for both.
#pragma once

#include <optional>
#include <string_view>

namespace dapo {

/// Content of the last \boxed of a text, else of the last \fbox; nullopt if there is none, or if its brace stays open.
/// "\boxed{5}" and "\boxed {5}" go to the matching brace (\{ and \} do not count). "\boxed 5" goes, as in MATH's
/// checker, to the end of the formula: $, \), \], \\, \end, or a brace that closes what was open before. Where none of
/// these follows on its line it is one word without its full stop, or, if that begins with a letter, no box but prose
/// ("use \boxed for it"). White space at both ends is dropped, so an empty box gives "".
std::optional<std::string_view> last_boxed(std::string_view text);

}  // namespace dapo
