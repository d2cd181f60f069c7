// UTF-8 and the few character properties that pre-tokenization needs, in one table built from utf8proc on first use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dapo::unicode {

/// The classes that pre-tokenizers distinguish. Newline: only \r and \n. Space: other White_Space.
enum Class : uint8_t { kLetter = 0, kNumber = 1, kOther = 2, kSpace = 3, kNewline = 4 };
inline bool is_white(Class c) {
  return c >= kSpace;
}

inline constexpr uint8_t kClassMask = 0x07;
inline constexpr uint8_t kMayChange = 0x08;  ///< NFC may change this character, or combine it with the one before it
inline constexpr uint8_t kWord = 0x10;       ///< \w: letters, marks, decimal digits, connectors, joiners

inline constexpr uint32_t kInvalid = 0xFFFFFFFF;

/// One character: its code point (kInvalid for ill-formed bytes) and how many bytes it takes. For ill-formed bytes that
/// is the maximal part that could have begun a character (Unicode 3.9, as Rust and Python replace them).
struct Symbol {
  uint32_t code;
  uint32_t bytes;
};
/// The character at the start of `text` (not empty). `incomplete`, if given, is set if more bytes could complete it.
Symbol decode_one(std::string_view text, bool* incomplete = nullptr);

/// Appends `code` as UTF-8.
void append_utf8(uint32_t code, std::string& out);

/// Moves `bytes` to `out` as valid UTF-8, each maximal ill-formed part as U+FFFD. Unless `final`, an unfinished
/// character at the end stays in `bytes`.
void move_valid(std::string& bytes, bool final, std::string& out);

/// Properties by code point (0..0x10FFFF).
const std::vector<uint8_t>& properties();

/// Class of the character at `text[at]`, and its length in bytes; ill-formed bytes are kOther, one by one.
inline Class class_at(const uint8_t* table, std::string_view text, size_t at, size_t& bytes) {
  const auto c = static_cast<unsigned char>(text[at]);
  if (c < 0x80) {
    bytes = 1;
    return static_cast<Class>(table[c] & kClassMask);
  }
  const Symbol symbol = decode_one(text.substr(at, 4));
  bytes = symbol.code == kInvalid ? 1 : symbol.bytes;
  return symbol.code == kInvalid ? kOther : static_cast<Class>(table[symbol.code] & kClassMask);
}

/// `text` in Unicode normal form C; ill-formed bytes are unchanged. Returns `text` itself if nothing changes,
/// else a view of `storage`. Time n log n (runs of combining marks are sorted).
std::string_view nfc(std::string_view text, std::string& storage);

}  // namespace dapo::unicode
