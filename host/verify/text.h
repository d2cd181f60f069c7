// Text as the verifiers read it: UTF-8; broken bytes never match anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dapo::verify {

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

}  // namespace dapo::verify
