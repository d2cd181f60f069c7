#include "tests/tokenizer/support.h"

#include <bit>
#include <cmath>

#include "tokenizer/unicode.h"

namespace dapo {

namespace {

/// The first 32 bits of the fractional part of the cube root of the nth prime.
std::array<uint32_t, 64> round_constants() {
  std::array<uint32_t, 64> k;
  size_t n = 0;
  for (uint32_t p = 2; n < k.size(); ++p) {
    bool prime = true;
    for (uint32_t d = 2; d * d <= p; ++d) prime &= p % d != 0;
    if (!prime) continue;
    const long double root = std::cbrt(static_cast<long double>(p));
    k[n++] = static_cast<uint32_t>((root - std::floor(root)) * 4294967296.0L);
  }
  return k;
}

}  // namespace

void Sha256::block(const uint8_t* p) {
  static const std::array<uint32_t, 64> k = round_constants();
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; ++i, p += 4) w[i] = uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | p[3];
  for (int i = 16; i < 64; ++i) {
    const uint32_t a = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
    const uint32_t b = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  std::copy(h_, h_ + 8, s);
  for (size_t i = 0; i < 64; ++i) {
    const uint32_t e = std::rotr(s[4], 6) ^ std::rotr(s[4], 11) ^ std::rotr(s[4], 25);
    const uint32_t t = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
    const uint32_t a = std::rotr(s[0], 2) ^ std::rotr(s[0], 13) ^ std::rotr(s[0], 22);
    const uint32_t u = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    std::copy_backward(s, s + 7, s + 8);
    s[4] += t;
    s[0] = t + u;
  }
  for (int i = 0; i < 8; ++i) h_[i] += s[i];
}

void Sha256::update(const void* data, size_t size) {
  pending_.append(static_cast<const char*>(data), size);
  total_ += size;
  size_t at = 0;
  for (; at + 64 <= pending_.size(); at += 64) block(reinterpret_cast<const uint8_t*>(pending_.data()) + at);
  pending_.erase(0, at);
}

std::string Sha256::hex() {
  const uint64_t bits = total_ * 8;
  std::string tail = "\x80";
  while ((pending_.size() + tail.size()) % 64 != 56) tail += '\0';
  for (int i = 7; i >= 0; --i) tail += static_cast<char>(bits >> (8 * i));
  update(tail.data(), tail.size());
  std::string out;
  for (const uint32_t h : h_) out += fmt::format("{:08x}", h);
  return out;
}

std::string random_text(std::mt19937_64& random, size_t max_characters) {
  static const std::vector<std::string> kBits = {"'s",
                                                 "'S",
                                                 "'\u017F",
                                                 "'ll",
                                                 "'Re",
                                                 "'",
                                                 " ",
                                                 "  ",
                                                 "\n",
                                                 "\r\n",
                                                 "\t",
                                                 " \n ",
                                                 "\u00A0",
                                                 "\u3000",
                                                 "\u0085",
                                                 "the",
                                                 " and",
                                                 "123",
                                                 "\u00BD",
                                                 "\u0660",
                                                 "e\u0301",
                                                 "\u0301",
                                                 "\u0323",
                                                 "\uAC00",
                                                 "\u1100\u1161\u11A8",
                                                 "<|im_end|>",
                                                 "<tool_call>",
                                                 "<|im_",
                                                 "\u4E2D\u6587",
                                                 "\U0001F999",
                                                 "\U0001F468\u200D\U0001F469",
                                                 "\u180E",
                                                 "\u2028",
                                                 "$x^2$",
                                                 "\\boxed{}",
                                                 "...",
                                                 "\u212B",
                                                 "\uFB01",
                                                 "\u0958",
                                                 "\u09C7\u09BE",
                                                 "A",
                                                 "b",
                                                 "_",
                                                 "\u00E9"};
  std::uniform_int_distribution<size_t> length(0, max_characters), bit(0, kBits.size() - 1);
  std::uniform_int_distribution<int> kind(0, 9);
  std::uniform_int_distribution<uint32_t> ascii(32, 126), low(0x80, 0x2FFF), any(0x80, 0x1FFFF);
  std::string text;
  for (size_t n = length(random); n > 0; --n) {
    const int k = kind(random);
    if (k < 6)
      text += kBits[bit(random)];
    else if (k < 8)
      text += static_cast<char>(ascii(random));
    else {
      uint32_t code = k == 8 ? low(random) : any(random);
      if (code >= 0xD800 && code < 0xE000) code -= 0x800;
      unicode::append_utf8(code, text);
    }
  }
  return text;
}

}  // namespace dapo
