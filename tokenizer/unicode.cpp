#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "core/check.h"

namespace dapo::unicode {

namespace {

constexpr uint32_t kCodePoints = 0x110000;

struct Range {
  uint32_t first, last;
};
// Letters and numbers that Unicode 15.1 and 16 added: Hugging Face's regular expressions include them, an older
// utf8proc (2.8 in Debian 12) does not.
constexpr Range kNewLetters[] = {{0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3},
                                 {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389},
                                 {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
                                 {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA},
                                 {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
                                 {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
constexpr Range kNewNumbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139},
                                 {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};

/// Full canonical decomposition of one character; how many characters it has.
size_t decompose(uint32_t code, std::array<utf8proc_int32_t, 16>& out) {
  int boundary = 0;
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code), out.data(),
                                         static_cast<utf8proc_ssize_t>(out.size()), UTF8PROC_DECOMPOSE, &boundary);
  CHECK(n >= 1 && n <= static_cast<utf8proc_ssize_t>(out.size()));
  return static_cast<size_t>(n);
}

size_t compose(utf8proc_int32_t* text, size_t n) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);
  const auto m = utf8proc_normalize_utf32(text, static_cast<utf8proc_ssize_t>(n), options);
  CHECK_GE(m, 0);
  return static_cast<size_t>(m);
}

uint8_t classify(uint32_t code) {
  if (code == '\r' || code == '\n') return kNewline;
  // White_Space: the separators and six controls. U+180E is not one since Unicode 6.3.
  if ((code >= 9 && code <= 13) || code == 0x85) return kSpace;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetter | kWord;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      return kNumber | kWord;
    case UTF8PROC_CATEGORY_NO:
      return kNumber;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return kSpace;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
      return kOther | kWord;
    default:
      return code == 0x200C || code == 0x200D ? kOther | kWord : kOther;
  }
}

std::vector<uint8_t> build_properties() {
  std::vector<uint8_t> table(kCodePoints, kOther);
  std::array<utf8proc_int32_t, 16> parts;
  for (uint32_t code = 0; code < kCodePoints; ++code) {
    if (code == 0x40000) code = 0xE0000;  // planes 4 to 13 are unassigned,
    if (code == 0xE0200) break;           // and the last two private
    table[code] = static_cast<uint8_t>(table[code] & kMayChange) | classify(code);
    if (code < 0x80) continue;
    if (utf8proc_get_property(static_cast<utf8proc_int32_t>(code))->combining_class != 0) table[code] |= kMayChange;
    const size_t n = decompose(code, parts);
    if (n == 1 && parts[0] == static_cast<utf8proc_int32_t>(code)) continue;
    // A character that follows another one in a decomposition may combine with its predecessor (marks, Hangul vowels, ...).
    for (size_t i = 1; i < n; ++i) table[static_cast<size_t>(parts[i])] |= kMayChange;
    if (compose(parts.data(), n) != 1 || parts[0] != static_cast<utf8proc_int32_t>(code)) table[code] |= kMayChange;
  }
  const auto set_class = [&](const Range& range, uint8_t value) {
    for (uint32_t c = range.first; c <= range.last; ++c) table[c] = static_cast<uint8_t>(table[c] & kMayChange) | value;
  };
  for (const Range& range : kNewLetters) set_class(range, kLetter | kWord);
  for (const Range& range : kNewNumbers) set_class(range, kNumber | kWord);
  return table;
}

/// Normalizes one well-formed stretch and appends it to `out`.
void append_nfc(std::string_view text, std::vector<utf8proc_int32_t>& buffer, std::string& out) {
  buffer.clear();
  std::array<utf8proc_int32_t, 16> parts;
  for (size_t at = 0; at < text.size();) {
    const Symbol symbol = decode_one(text.substr(at, 4));
    const size_t n = decompose(symbol.code, parts);
    buffer.insert(buffer.end(), parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(n));
    at += symbol.bytes;
  }
  const auto combining = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  // utf8proc's own reordering is quadratic in a run of marks, so the runs are sorted here.
  for (auto i = buffer.begin(); i != buffer.end();) {
    const auto end = std::find_if(i, buffer.end(), [&](auto c) { return combining(c) == 0; });
    std::stable_sort(i, end, [&](auto a, auto b) { return combining(a) < combining(b); });
    i = end == buffer.end() ? end : end + 1;
  }
  buffer.resize(compose(buffer.data(), buffer.size()));
  for (const auto c : buffer) append_utf8(static_cast<uint32_t>(c), out);
}

}  // namespace

const std::vector<uint8_t>& properties() {
  static const std::vector<uint8_t> table = build_properties();
  return table;
}

Symbol decode_one(std::string_view text, bool* incomplete) {
  if (incomplete) *incomplete = false;
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xC2 || lead > 0xF4) return {kInvalid, 1};
  const uint32_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and code points above U+10FFFF.
  uint32_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  uint32_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  uint32_t code = lead & (0x7Fu >> length);
  for (uint32_t i = 1; i < length; ++i) {
    if (i >= text.size()) {
      if (incomplete) *incomplete = true;
      return {kInvalid, i};
    }
    if (byte(i) < low || byte(i) > high) return {kInvalid, i};
    code = code << 6 | (byte(i) & 0x3F);
    low = 0x80, high = 0xBF;
  }
  return {code, length};
}

void append_utf8(uint32_t code, std::string& out) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

void move_valid(std::string& bytes, bool final, std::string& out) {
  const std::string_view text = bytes;
  size_t at = 0, copied = 0;
  while (at < text.size()) {
    bool incomplete = false;
    const Symbol symbol = decode_one(text.substr(at, 4), &incomplete);
    if (symbol.code == kInvalid) {
      out.append(text, copied, at - copied);
      copied = at;
      if (incomplete && !final) break;
      out += "\xEF\xBF\xBD";
      copied = at + symbol.bytes;
    }
    at += symbol.bytes;
  }
  if (at >= text.size() && copied < text.size()) out.append(text, copied), copied = text.size();
  bytes.erase(0, copied);
}

// Hugging Face's NFC uses Unicode 9 and does not reorder 108 newer combining marks (U+1DFA, U+1AC8, ...); here they are
// ordered as in current Unicode. This is the only known difference between its ids and ours for Qwen2.5.
std::string_view nfc(std::string_view text, std::string& storage) {
  const uint8_t* table = properties().data();
  std::vector<utf8proc_int32_t> buffer;
  bool changed = false;
  size_t copied = 0;    // storage holds text[0, copied) once something changed
  size_t previous = 0;  // the last character that no later one can combine across
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      previous = at++;
      continue;
    }
    Symbol symbol = decode_one(text.substr(at, 4));
    if (symbol.code == kInvalid || !(table[symbol.code] & kMayChange)) {
      at += symbol.code == kInvalid ? 1 : symbol.bytes;
      previous = symbol.code == kInvalid ? at : at - symbol.bytes;
      continue;
    }
    size_t end = at;
    while (end < text.size()) {
      symbol = decode_one(text.substr(end, 4));
      if (symbol.code == kInvalid || !(table[symbol.code] & kMayChange)) break;
      end += symbol.bytes;
    }
    if (!changed) storage.clear(), changed = true;
    storage.append(text, copied, previous - copied);
    append_nfc(text.substr(previous, end - previous), buffer, storage);
    copied = previous = at = end;
  }
  if (!changed) return text;
  storage.append(text, copied);
  return storage;
}

}  // namespace dapo::unicode
