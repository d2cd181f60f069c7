// Part of `boxed`: an answer's text as a list of tokens, without pure formatting.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dapo::verify {

enum class Tok : uint8_t {
  number,    ///< text: digits, with at most one point among them; exponent: of ten ("1.2e3")
  word,      ///< adjacent letters, without a space
  symbol,    ///< a command that is a letter or a name (\pi, \infty): text without its backslash
  command,   ///< any other command: text without its backslash
  op,        ///< text: one of + - +- -+ * / ^ _ = != < <= & \\ | ! ' : ... , and the relations and set operations
  open,      ///< text: ( [ < \{ or { (a group)
  close,     ///< text: ) ] > \} or }
  degree,    ///< the degree sign
  percent,   ///< the percent sign
  currency,  ///< text: dollar, euro, or lb for the pound
};

struct Token {
  Tok kind;
  bool upright = false;  ///< inside \text{}, \mathrm{} and the like
  bool spaced = false;   ///< preceded by white space
  std::string text;
  int64_t exponent = 0;

  bool is(Tok k, std::string_view t) const { return kind == k && text == t; }
};

/// Drops dollar signs, spacing, sizes and fonts, and unifies alternative spellings: "\times" and U+00D7 are "*",
/// "\pi" and U+03C0 the symbol pi, "\tfrac" is "\frac". Digits in groups of three ("1,000" outside brackets,
/// "1{,}000", "1\,000", "1 000") are one number; other separated digits stay separate. False if there are more than
/// kMostTokens tokens.
bool read_tokens(std::string_view text, std::vector<Token>& out);
constexpr size_t kMostTokens = 4096;
/// Part of it: "{a \over b}" becomes "\frac{a}{b}", "{n \choose k}" "\binom{n}{k}", and the colon of "\{x : x > 5\}" a bar.
void read_infix(std::vector<Token>& tokens);

}  // namespace dapo::verify
