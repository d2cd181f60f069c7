// SentencePiece models (tokenizer.model: Llama 2 and its kin) through libsentencepiece.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/tokenizer_json.h"

namespace dapo {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  ///< U+2581 stands for a space
/// Appends a piece's text; `strip`: without a space that it begins with.
void append_piece(std::string_view piece, bool strip, std::string& out);

/// BPE with bytes as fallback from tokenizer.json alone, `json` being what read_sentencepiece_json made of it. Error
/// for the kinds that need tokenizer.model.
std::unique_ptr<const Tokenizer> load_pieces(const std::string& path, const TokenizerConfig& config,
                                             SentencePieceJson json);

/// Reads a .model file. Alone it is what the library makes of it. With a tokenizer_config.json beside it, or `json` (of
/// the tokenizer.json beside it, which then counts), texts are encoded as transformers does: added tokens are found in
/// them, and a space is put before the text, or before every text between added tokens (`legacy`), unless it begins
/// with one. add_special puts the begin-of-text token before a text (add_bos_token; absent: where the model has one)
/// and the end-of-text token behind it (add_eos_token; absent: no).
std::unique_ptr<const Tokenizer> load_sentencepiece(const std::string& path, const TokenizerConfig& config,
                                                    const std::optional<SentencePieceJson>& json);

}  // namespace dapo
