// Byte-level BPE as tokenizer.json describes it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"

namespace dapo {

/// The supported content of a tokenizer.json.
struct ByteLevelModel {
  Vocabulary vocabulary;
  Merges merges;
  bool ignore_merges = false;  ///< a word that is a token is not split
  bool nfc = false;            ///< normalizer NFC (else none)
  PreTokenizer pre_tokenizer;
  std::vector<AddedToken> added;
  std::vector<int32_t> before, after;  ///< ids that the post-processor puts around a text
};

/// Reads a tokenizer.json (at most 32 MiB). Anything unknown, missing, duplicated or out of range is an Error.
std::unique_ptr<ByteLevelModel> read_tokenizer_json(const std::string& path);

/// The same from vocab.json and merges.txt, with the pre-tokenizer of config.tokenizer_class.
std::unique_ptr<ByteLevelModel> read_vocab_and_merges(const std::string& folder, const TokenizerConfig& config);
/// Adds the tokens of tokenizer_config.json and its companion files, as transformers does: existing tokens take the
/// flags given there. Errors start with `where`.
void add_config_tokens(ByteLevelModel& model, const TokenizerConfig& config, const std::string& where);

class ByteLevelTokenizer : public Tokenizer {
 public:
  explicit ByteLevelTokenizer(std::unique_ptr<ByteLevelModel> model);

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override;
  int32_t vocab_size() const override { return model_->vocabulary.size(); }
  int32_t id_of(std::string_view token) const override { return model_->vocabulary.find(token); }
  std::string token(int32_t id) const override { return std::string(model_->vocabulary.name(id)); }
  bool is_special(int32_t id) const override {
    return id >= 0 && static_cast<size_t>(id) < special_.size() && special_[static_cast<size_t>(id)];
  }
  void append_bytes(int32_t id, bool first, std::string& out) const override;

 private:
  void encode_text(std::string_view text, std::vector<int32_t>& out) const;  // between added tokens
  void encode_words(std::string_view text, std::vector<int32_t>& out) const;
  void encode_word(std::string_view word, std::vector<int32_t>& out) const;

  std::unique_ptr<ByteLevelModel> model_;
  AddedTokenFinder in_text_, in_normalized_;
  std::vector<bool> special_;
  uint32_t serial_;  // distinguishes this tokenizer's words from others' in a thread's cache
};

}  // namespace dapo
