// Splits text into words, within which BPE merges. The patterns of Qwen2 and GPT-2 have hand-written scanners, linear
// for any input; other patterns of a tokenizer.json use PCRE2.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dapo {

/// The pattern in the tokenizer.json of Qwen2, Qwen2.5 and Qwen3.
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
/// The pattern of "ByteLevel" with use_regex.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// One step: splits a piece into adjacent, nonempty ones that cover it.
class Splitter {
 public:
  virtual ~Splitter() = default;
  /// Appends to `ends` the end of each piece of `text`, plus `base`. The pattern does not look beyond `text`.
  virtual void split(std::string_view text, uint32_t base, std::vector<uint32_t>& ends) const = 0;
};

/// Matches of a pattern and the text between them are the pieces (behavior "Isolated").
std::unique_ptr<const Splitter> make_qwen2_splitter();
std::unique_ptr<const Splitter> make_gpt2_splitter();
/// Digits: each character of \p{N} alone (`individual`), or runs of them.
std::unique_ptr<const Splitter> make_digits_splitter(bool individual);
/// PCRE2, with JIT if available. `\s` means White_Space, as in Hugging Face. Error if a pattern does not compile or,
/// when splitting, exceeds PCRE2's step limit.
std::unique_ptr<const Splitter> make_regex_splitter(std::string_view pattern);
/// The scanner for the patterns above, PCRE2 for others.
std::unique_ptr<const Splitter> make_pattern_splitter(std::string_view pattern);

/// A sequence of steps, each splitting the pieces of the previous one.
class PreTokenizer {
 public:
  void add(std::unique_ptr<const Splitter> step) { steps_.push_back(std::move(step)); }
  /// Ends of the words of `text` (less than 4 GiB), into `ends`; `scratch` is working memory.
  void split(std::string_view text, std::vector<uint32_t>& ends, std::vector<uint32_t>& scratch) const;

 private:
  std::vector<std::unique_ptr<const Splitter>> steps_;
};

}  // namespace dapo
