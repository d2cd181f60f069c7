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

/// Merges of tokens by name, lowest rank first, into the model, whose vocabulary is complete. Error for a merge that
/// needs a token which is not there.
void resolve_merges(ByteLevelModel& model, const std::vector<std::pair<std::string_view, std::string_view>>& merges);

/// What a tokenizer.json says of a SentencePiece model (BPE with bytes as fallback): all but the pieces themselves.
struct SentencePieceJson {
  std::vector<AddedToken> added;
  enum class Prefix { never, first, always, doubled } prefix = Prefix::never;  ///< the space before a text
  bool begins = false, ends = false;  ///< add_special puts the begin- and end-of-text tokens there
};
/// Nothing where the file is of byte-level BPE, or of another kind that this is not.
std::optional<SentencePieceJson> read_sentencepiece_json(const std::string& path);

}  // namespace dapo
