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

/// Merges of tokens by name, lowest rank first, into the model, whose vocabulary is complete. Error for a merge that
/// needs a token which is not there.
void add_merges(ByteLevelModel& model, const MergeNames& merges);
/// The same, and the tokens of the 256 bytes.
void resolve_merges(ByteLevelModel& model, const MergeNames& merges);

/// Puts added tokens into the vocabulary, which may hold them already. Error for an id that two have.
void place_added_tokens(ByteLevelModel& model);

/// What a tokenizer.json says of a SentencePiece model (BPE with bytes as fallback, or Unigram): all but the pieces.
struct SentencePieceJson {
  std::vector<AddedToken> added;
  enum class Prefix { never, first, always, doubled } prefix = Prefix::never;  ///< the space before a text
  bool begins = false, ends = false;   ///< add_special puts the begin- and end-of-text tokens there,
  std::vector<int32_t> before, after;  ///< which are these
  bool replaces = false;               ///< a normalizer turns spaces into U+2581
  bool metaspace = false;              ///< a pre-tokenizer does,
  bool splits = false;                 ///< and cuts the text before each
  bool strips = false;                 ///< decoding drops the first space
  std::string odd;  ///< the first component that only tokenizer.model can stand for; "" where all is known here
};
/// Nothing where the file is of byte-level BPE, or of another kind that this is not.
std::optional<SentencePieceJson> read_sentencepiece_json(const std::string& path);

}  // namespace dapo
