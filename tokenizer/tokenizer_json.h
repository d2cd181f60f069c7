// Parts of tokenizer.json that several readers share.
#pragma once

#include <simdjson.h>

#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/byte_level.h"

namespace dapo {

/// One entry of "added_tokens".
AddedToken read_added_token(simdjson::ondemand::object entry);

/// "vocab" and "merges" of the model; the views live as long as the parser that the value comes from.
using MergeNames = std::vector<std::pair<std::string_view, std::string_view>>;
void read_vocabulary(simdjson::ondemand::value value, Vocabulary& vocabulary);
void read_merges(simdjson::ondemand::value value, MergeNames& merges);

/// Adds merges, given by token names, lowest rank first, to the model, whose vocabulary is complete. Error for a merge
/// that needs a missing token.
void add_merges(ByteLevelModel& model, const MergeNames& merges);
/// The same, plus the tokens of the 256 bytes.
void resolve_merges(ByteLevelModel& model, const MergeNames& merges);

/// Adds added tokens to the vocabulary, which may already have them. Error if two have the same id.
void place_added_tokens(ByteLevelModel& model);

/// The content of a SentencePiece model's tokenizer.json (BPE with byte fallback, or Unigram), except the pieces.
struct SentencePieceJson {
  std::vector<AddedToken> added;
  enum class Prefix { never, first, always, doubled } prefix = Prefix::never;  ///< the space before a text
  bool begins = false, ends = false;   ///< add_special puts the begin- and end-of-text tokens there,
  std::vector<int32_t> before, after;  ///< which are these
  bool replaces = false;               ///< a normalizer turns spaces into U+2581
  bool metaspace = false;              ///< a pre-tokenizer does,
  bool splits = false;                 ///< and splits the text before each
  bool strips = false;                 ///< decoding drops the first space
  std::string odd;                     ///< the first component that needs tokenizer.model; "" if all are supported
};
/// Nothing if the file is for byte-level BPE or any other kind of model.
std::optional<SentencePieceJson> read_sentencepiece_json(const std::string& path);

}  // namespace dapo
