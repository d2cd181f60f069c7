// Text for the verifiers: UTF-8; invalid bytes never match anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dapo::verify {

/// The last n code points.
std::string_view tail(std::string_view text, size_t n);
/// Length in bytes of the white space (as in Python's str.isspace) at `at`, or 0.
size_t space_at(std::string_view text, size_t at);
/// With white space trimmed at both ends.
std::string_view strip(std::string_view text);
/// Like Python's str.isdigit: at least one code point, all of them digits of some script.
bool all_digits(std::string_view text);
/// The code point at `at` and its length in bytes; invalid bytes give -1 and 1.
int32_t decode(std::string_view text, size_t at, size_t& length);
/// Length in bytes of the code point at `at`.
size_t length_at(std::string_view text, size_t at);
/// Mathematical characters become TeX commands, fullwidth forms ASCII, other spaces blanks; the rest is unchanged.
std::string unicode_to_tex(std::string_view text);
/// Replaces every occurrence from left to right, in place if the text does not grow.
void replace_all(std::string& text, std::string_view from, std::string_view to);
/// For math_dapo: content of the last "\boxed{", by balanced braces; nothing if there is none or it is not closed.
std::optional<std::string_view> last_braced_box(std::string_view text);
/// The rest of the line after the last "Answer:", that is, the last match of (?i)Answer\s*:\s*([^\n]+).
std::optional<std::string_view> last_answer(std::string_view text);

}  // namespace dapo::verify
