// Text of unknown origin in an HTML page.
#pragma once

#include <string>
#include <string_view>

namespace dapo {

/// Escaped for an element's text and for a quoted attribute. Invalid UTF-8 becomes U+FFFD; control characters, and those
/// that change the direction of the text around them, are shown as symbols. Tabs and line ends stay.
std::string html(std::string_view text);

/// The first `limit` bytes of a text, cut at a character, with "..." if there was more.
std::string shortened(std::string_view text, size_t limit);

}  // namespace dapo
