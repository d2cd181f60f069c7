// Cuts text into words, inside which BPE merges. The patterns of Qwen2 and GPT-2 are scanned by hand, in linear time
// for any input; whatever else a tokenizer.json brings goes through PCRE2.
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
/// The pattern that "ByteLevel" with use_regex stands for.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// One step: cuts a piece into smaller ones. Adjacent, none empty, covering the piece.
class Splitter {
 public:
  virtual ~Splitter() = default;
  /// Appends to `ends` the end of each piece of `text`, plus `base`. The pattern does not look beyond `text`.
  virtual void split(std::string_view text, uint32_t base, std::vector<uint32_t>& ends) const = 0;
};

/// Matches of a pattern and what lies between them are the pieces (behavior "Isolated").
std::unique_ptr<const Splitter> make_qwen2_splitter();
std::unique_ptr<const Splitter> make_gpt2_splitter();
/// Digits: each character of \p{N} alone (`individual`), or runs of them.
std::unique_ptr<const Splitter> make_digits_splitter(bool individual);
/// PCRE2 with JIT where it is there. `\s` means White_Space, as in Hugging Face. A pattern that does not compile is an
/// Error; so is, when splitting, one that needs more steps than PCRE2's limit.
std::unique_ptr<const Splitter> make_regex_splitter(std::string_view pattern);
/// The scanner for the patterns above, PCRE2 for others.
std::unique_ptr<const Splitter> make_pattern_splitter(std::string_view pattern);

/// Steps one after another, each cutting the pieces of the one before.
class PreTokenizer {
 public:
  void add(std::unique_ptr<const Splitter> step) { steps_.push_back(std::move(step)); }
  /// Ends of the words of `text` (less than 4 GiB), into `ends`; `scratch` is working memory.
  void split(std::string_view text, std::vector<uint32_t>& ends, std::vector<uint32_t>& scratch) const;

 private:
  std::vector<std::unique_ptr<const Splitter>> steps_;
};

}  // namespace dapo
