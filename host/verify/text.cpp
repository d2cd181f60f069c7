#include "host/verify/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

namespace dapo::verify {

namespace {
struct Range {
  int32_t low, high;
};
bool within(const Range* begin, const Range* end, int32_t c) {
  return std::any_of(begin, end, [c](Range r) { return c >= r.low && c <= r.high; });
}

bool continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

bool is_space(int32_t c) {  // Python's str.isspace
  static constexpr Range kSpaces[] = {{0x9, 0xD},       {0x1C, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                      {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                      {0x205F, 0x205F}, {0x3000, 0x3000}};
  return within(std::begin(kSpaces), std::end(kSpaces), c);
}

bool is_digit(int32_t c) {  // Python's str.isdigit: decimal digits, and those of Numeric_Type=Digit listed here
  static constexpr Range kDigits[] = {{0xB2, 0xB3},       {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},
                                      {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
                                      {0x2474, 0x247C},   {0x2488, 0x2490},   {0x24EA, 0x24EA},   {0x24F5, 0x24FD},
                                      {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},   {0x278A, 0x2792},
                                      {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A}};
  if (c < 0x80) return c >= '0' && c <= '9';
  return utf8proc_category(c) == UTF8PROC_CATEGORY_ND || within(std::begin(kDigits), std::end(kDigits), c);
}
}  // namespace

int32_t decode(std::string_view text, size_t at, size_t& length) {
  const auto lead = static_cast<unsigned char>(text[at]);
  length = 1;
  if (lead < 0x80) return lead;
  utf8proc_int32_t c = -1;
  const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                                  static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size() - at, 4)), &c);
  if (n <= 0) return -1;
  length = static_cast<size_t>(n);
  return c;
}

std::string_view tail(std::string_view text, size_t n) {
  size_t at = text.size();
  while (n > 0 && at > 0) {
    --at;
    n -= !continuation(text[at]);
  }
  return text.substr(at);
}

size_t length_at(std::string_view text, size_t at) {
  size_t length;
  decode(text, at, length);
  return length;
}

size_t space_at(std::string_view text, size_t at) {
  if (at >= text.size()) return 0;
  size_t length;
  return is_space(decode(text, at, length)) ? length : 0;
}

std::string_view strip(std::string_view text) {
  size_t begin = 0, end = text.size();
  while (const size_t n = space_at(text, begin)) begin += n;
  while (end > begin) {
    size_t at = end - 1;
    while (at > begin && end - at < 4 && continuation(text[at])) --at;
    if (space_at(text, at) != end - at) break;
    end = at;
  }
  return text.substr(begin, end - begin);
}

bool all_digits(std::string_view text) {
  for (size_t at = 0, length; at < text.size(); at += length)
    if (!is_digit(decode(text, at, length))) return false;
  return !text.empty();
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  size_t found = text.find(from);
  if (found == std::string::npos) return;
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (; found != std::string::npos; found = text.find(from, done)) {
    out.append(text, done, found - done).append(to);
    done = found + from.size();
  }
  text = out.append(text, done);
}

std::optional<std::string_view> last_braced_box(std::string_view text) {
  constexpr std::string_view kOpen = "\\boxed{";
  const size_t at = text.rfind(kOpen);
  if (at == std::string_view::npos) return std::nullopt;
  text.remove_prefix(at + kOpen.size());
  size_t open = 1;
  for (size_t i = 0; i < text.size(); ++i) {
    open += text[i] == '{';
    open -= text[i] == '}';
    if (open == 0) return text.substr(0, i);
  }
  return std::nullopt;
}

namespace {
/// Length of a case-insensitive "Answer" at `at`, or 0. Python's case folding includes the long s.
size_t word_answer(std::string_view text, size_t at) {
  const size_t start = at;
  for (const char want : std::string_view("answer")) {
    if (at >= text.size()) return 0;
    if ((text[at] | 0x20) == want)
      at += 1;
    else if (want == 's' && text.substr(at, 2) == "\u017F")
      at += 2;
    else
      return 0;
  }
  return at - start;
}
}  // namespace

std::optional<std::string_view> last_answer(std::string_view text) {
  std::optional<std::string_view> last;
  for (size_t at = 0; at < text.size();) {
    if ((text[at] | 0x20) != 'a') {
      ++at;
      continue;
    }
    size_t i = at + 1;
    if (const size_t word = word_answer(text, at)) {
      i = at + word;
      while (const size_t n = space_at(text, i)) i += n;
      if (i < text.size() && text[i] == ':') {
        size_t not_newline = std::string_view::npos;  // fallback of the match if only white space follows
        ++i;
        for (size_t n; (n = space_at(text, i)) != 0; i += n)
          if (text[i] != '\n') not_newline = i;
        const size_t from = i < text.size() ? i : not_newline;
        if (from != std::string_view::npos) {
          i = std::min(text.find('\n', from), text.size());
          last = text.substr(from, i - from);
        }
      }
    }
    at = i;
  }
  return last;
}

}  // namespace dapo::verify
