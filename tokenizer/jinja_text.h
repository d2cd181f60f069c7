// Python's str methods, as far as templates need them. Texts are UTF-8; positions and lengths count code points.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dapo::jinja {

/// Number of code points.
size_t length_of(std::string_view text);
/// Byte offset of code point `index` (the text's size if there are fewer).
size_t offset_of(std::string_view text, size_t index);
/// The code points as separate texts.
std::vector<std::string_view> characters_of(std::string_view text);

/// str.isspace of one code point.
bool is_space(uint32_t code);
/// str.strip: white space, or any of `characters` if given.
std::string_view strip(std::string_view text, bool left, bool right, const std::string* characters = nullptr);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
/// Jinja's filter: the first letter of each word in upper case, the others in lower case.
std::string title_filter(std::string_view text);
/// str.title: the first letter of each run of letters in upper case.
std::string title_method(std::string_view text);
std::string capitalize(std::string_view text);
std::string swap_case(std::string_view text);

/// str.replace; `count` < 0: all.
std::string replace(std::string_view text, std::string_view old, std::string_view by, int64_t count);
/// Size of the result of replace().
size_t replaced_size(std::string_view text, std::string_view old, std::string_view by, int64_t count);

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
/// str.split and str.rsplit; no `separator`: by runs of white space. `limit` < 0: none.
std::vector<std::string_view> split(std::string_view text, const std::string* separator, int64_t limit,
                                    bool from_right);

/// Whether there is a code point and every one has the property: d isdigit, a isalpha, n isalnum, s isspace, m
/// isnumeric, c isdecimal.
bool all_are(std::string_view text, char property);
/// str.isupper (or islower): there is a cased code point, and none of the other case.
bool is_case(std::string_view text, bool upper);

/// Quoted as by repr().
void append_quoted(std::string_view text, std::string& out);
/// As JSON; `ascii` writes \uXXXX beyond ASCII.
void append_json_string(std::string_view text, bool ascii, std::string& out);
/// markupsafe.escape
std::string escape_html(std::string_view text);

}  // namespace dapo::jinja
