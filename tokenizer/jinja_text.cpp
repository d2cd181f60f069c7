#include "tokenizer/jinja_text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>

#include "tokenizer/unicode.h"

namespace dapo::jinja {

namespace {

using unicode::append_utf8;
using unicode::decode_one;
using unicode::Symbol;

bool is_continuation(char c) {
  return (static_cast<uint8_t>(c) & 0xC0) == 0x80;
}

template <class F>
void for_each(std::string_view text, F f) {
  while (!text.empty()) {
    const Symbol s = decode_one(text);
    f(s.code, text.substr(0, s.bytes));
    text.remove_prefix(s.bytes);
  }
}

utf8proc_category_t category(uint32_t code) {
  return code == unicode::kInvalid ? UTF8PROC_CATEGORY_CN : utf8proc_category(static_cast<utf8proc_int32_t>(code));
}

bool is_upper(uint32_t code) {
  return category(code) == UTF8PROC_CATEGORY_LU;
}
bool is_lower(uint32_t code) {
  return category(code) == UTF8PROC_CATEGORY_LL;
}
bool is_cased(uint32_t code) {
  const auto c = category(code);
  return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT;
}

enum class Case { upper, lower, title };

void append_case(uint32_t code, std::string_view bytes, Case to, std::string& out) {
  if (code == unicode::kInvalid) {
    out += bytes;
  } else if (code == 0xDF && to != Case::lower) {
    out += to == Case::upper ? "SS" : "Ss";
  } else {
    const auto c = static_cast<utf8proc_int32_t>(code);
    append_utf8(static_cast<uint32_t>(to == Case::upper   ? utf8proc_toupper(c)
                                      : to == Case::lower ? utf8proc_tolower(c)
                                                          : utf8proc_totitle(c)),
                out);
  }
}

std::string mapped(std::string_view text, Case to) {
  std::string out;
  out.reserve(text.size());
  for_each(text, [&](uint32_t code, std::string_view bytes) { append_case(code, bytes, to, out); });
  return out;
}

bool printable(uint32_t code) {
  if (code == ' ') return true;
  switch (category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

/// Where white space begins or ends, from either end.
size_t find_space(std::string_view text, bool want, size_t from) {
  while (from < text.size()) {
    const Symbol s = decode_one(text.substr(from));
    if (is_space(s.code) == want) break;
    from += s.bytes;
  }
  return from;
}

size_t previous(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && is_continuation(text[begin])) --begin;
  return begin;
}

size_t rfind_space(std::string_view text, bool want, size_t end) {
  while (end > 0) {
    const size_t begin = previous(text, end);
    if (is_space(decode_one(text.substr(begin)).code) == want) break;
    end = begin;
  }
  return end;
}

}  // namespace

size_t length_of(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); }));
}

size_t offset_of(std::string_view text, size_t index) {
  size_t at = 0;
  for (; at < text.size(); ++at)
    if (!is_continuation(text[at]) && index-- == 0) break;
  return at;
}

std::vector<std::string_view> characters_of(std::string_view text) {
  std::vector<std::string_view> all;
  for_each(text, [&](uint32_t, std::string_view bytes) { all.push_back(bytes); });
  return all;
}

bool is_space(uint32_t code) {
  if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x1F);
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
         code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

std::string_view strip(std::string_view text, bool left, bool right, const std::string* characters) {
  const auto goes = [&](std::string_view symbol) {
    return characters ? characters->find(symbol) != std::string::npos : is_space(decode_one(symbol).code);
  };
  while (left && !text.empty()) {
    const size_t n = decode_one(text).bytes;
    if (!goes(text.substr(0, n))) break;
    text.remove_prefix(n);
  }
  while (right && !text.empty()) {
    const size_t begin = previous(text, text.size());
    if (!goes(text.substr(begin))) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::string upper(std::string_view text) {
  return mapped(text, Case::upper);
}
std::string lower(std::string_view text) {
  return mapped(text, Case::lower);
}

std::string title_filter(std::string_view text) {
  std::string out;
  bool begins = true;
  for_each(text, [&](uint32_t code, std::string_view bytes) {
    append_case(code, bytes, begins ? Case::upper : Case::lower, out);
    begins = is_space(code) || code == '-' || code == '(' || code == '{' || code == '[' || code == '<';
  });
  return out;
}

std::string title_method(std::string_view text) {
  std::string out;
  bool inside = false;
  for_each(text, [&](uint32_t code, std::string_view bytes) {
    append_case(code, bytes, inside ? Case::lower : Case::title, out);
    inside = is_cased(code);
  });
  return out;
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return "";
  const Symbol first = decode_one(text);
  std::string out;
  append_case(first.code, text.substr(0, first.bytes), Case::title, out);
  return out + lower(text.substr(first.bytes));
}

std::string swap_case(std::string_view text) {
  std::string out;
  for_each(text, [&](uint32_t code, std::string_view bytes) {
    append_case(code, bytes, is_upper(code) ? Case::lower : Case::upper, out);
  });
  return out;
}

std::string replace(std::string_view text, std::string_view old, std::string_view by, int64_t count) {
  std::string out;
  if (old.empty()) {  // between all characters
    for (const std::string_view c : characters_of(text)) {
      if (count != 0) out += by, --count;
      out += c;
    }
    if (count != 0) out += by;
    return out;
  }
  while (count != 0) {
    const size_t at = text.find(old);
    if (at == text.npos) break;
    out.append(text.substr(0, at)).append(by);
    text.remove_prefix(at + old.size());
    --count;
  }
  return out.append(text);
}

size_t replaced_size(std::string_view text, std::string_view old, std::string_view by, int64_t count) {
  size_t n = 0;
  const size_t most = count < 0 ? SIZE_MAX : static_cast<size_t>(count);
  if (old.empty())
    n = std::min(most, length_of(text) + 1);
  else
    for (size_t at = 0; n < most && (at = text.find(old, at)) != text.npos; at += old.size()) ++n;
  return text.size() + n * by.size() - n * old.size();
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Symbol s = decode_one(text.substr(at));
    const size_t end = at;
    at += s.bytes;
    const bool breaks = (s.code >= 10 && s.code <= 13) || (s.code >= 0x1C && s.code <= 0x1E) || s.code == 0x85 ||
                        s.code == 0x2028 || s.code == 0x2029;
    if (!breaks) continue;
    if (s.code == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(begin, (keep_ends ? at : end) - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::vector<std::string_view> split(std::string_view text, const std::string* separator, int64_t limit,
                                    bool from_right) {
  std::vector<std::string_view> parts;
  if (separator && !from_right) {
    for (size_t at; limit != 0 && (at = text.find(*separator)) != text.npos; --limit) {
      parts.push_back(text.substr(0, at));
      text.remove_prefix(at + separator->size());
    }
    parts.push_back(text);
  } else if (separator) {
    for (size_t at; limit != 0 && (at = text.rfind(*separator)) != text.npos; --limit) {
      parts.push_back(text.substr(at + separator->size()));
      text = text.substr(0, at);
    }
    parts.push_back(text);
  } else if (!from_right) {
    for (size_t at; (at = find_space(text, false, 0)) < text.size(); --limit) {
      text.remove_prefix(at);
      if (limit == 0) {
        parts.push_back(text);
        break;
      }
      const size_t end = find_space(text, true, 0);
      parts.push_back(text.substr(0, end));
      text.remove_prefix(end);
    }
  } else {
    for (size_t end; (end = rfind_space(text, false, text.size())) > 0; --limit) {
      text = text.substr(0, end);
      if (limit == 0) {
        parts.push_back(text);
        break;
      }
      const size_t begin = rfind_space(text, true, text.size());
      parts.push_back(text.substr(begin));
      text = text.substr(0, begin);
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

bool all_are(std::string_view text, char property) {
  bool all = !text.empty();
  for_each(text, [&](uint32_t code, std::string_view) {
    const auto c = category(code);
    const bool letter = c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
    const bool decimal = c == UTF8PROC_CATEGORY_ND;
    const bool digit = decimal || code == 0xB2 || code == 0xB3 || code == 0xB9 || (code >= 0x2070 && code <= 0x2089) ||
                       (code >= 0x2460 && code <= 0x2468);
    const bool numeric = digit || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
    all = all && (property == 'd'   ? digit
                  : property == 'a' ? letter
                  : property == 'n' ? letter || numeric
                  : property == 's' ? is_space(code)
                  : property == 'm' ? numeric
                                    : decimal);
  });
  return all;
}

bool is_case(std::string_view text, bool upper) {
  bool found = false, other = false;
  for_each(text, [&](uint32_t code, std::string_view) {
    found |= upper ? is_upper(code) : is_lower(code);
    other |= is_cased(code) && !(upper ? is_upper(code) : is_lower(code));
  });
  return found && !other;
}

void append_quoted(std::string_view text, std::string& out) {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  out += quote;
  for_each(text, [&](uint32_t code, std::string_view bytes) {
    if (code == '\n')
      out += "\\n";
    else if (code == '\r')
      out += "\\r";
    else if (code == '\t')
      out += "\\t";
    else if (code == '\\' || code == static_cast<uint32_t>(quote))
      (out += '\\') += bytes;
    else if (code == unicode::kInvalid || printable(code))
      out += bytes;
    else
      out += code < 0x100     ? fmt::format("\\x{:02x}", code)
             : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                              : fmt::format("\\U{:08x}", code);
  });
  out += quote;
}

void append_json_string(std::string_view text, bool ascii, std::string& out) {
  static constexpr std::string_view kNamed = "\"\\\b\f\n\r\t", kLetters = "\"\\bfnrt";
  out += '"';
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (const size_t named = kNamed.find(c); named != kNamed.npos) {
      (out += '\\') += kLetters[named];
      ++at;
    } else if (static_cast<uint8_t>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
      ++at;
    } else if (static_cast<uint8_t>(c) < 0x80 || !ascii) {
      out += c;
      ++at;
    } else {
      const Symbol s = decode_one(text.substr(at));
      at += s.bytes;
      const uint32_t code = s.code == unicode::kInvalid ? 0xFFFD : s.code;
      out += code < 0x10000 ? fmt::format("\\u{:04x}", code)
                            : fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10),
                                          0xDC00 + ((code - 0x10000) & 0x3FF));
    }
  }
  out += '"';
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  return out;
}

}  // namespace dapo::jinja
