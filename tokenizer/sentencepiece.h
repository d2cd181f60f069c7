// SentencePiece models (tokenizer.model: Llama 2 and similar) through libsentencepiece.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/tokenizer_json.h"

namespace dapo {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  ///< U+2581 stands for a space
/// Appends a piece's text; `strip`: without a leading space.
void append_piece(std::string_view piece, bool strip, std::string& out);

/// BPE with byte fallback from tokenizer.json alone; `json` is the result of read_sentencepiece_json. Error for the
/// kinds that need tokenizer.model.
std::unique_ptr<const Tokenizer> load_pieces(const std::string& path, const TokenizerConfig& config,
                                             SentencePieceJson json);

/// Reads a .model file. Alone it is used as the library does. With a tokenizer_config.json in the folder, or `json` (of
/// the folder's tokenizer.json, which takes precedence), texts are encoded as in transformers: added tokens are
/// matched, and a space is put before the text, or before every text between added tokens (`legacy`), unless it starts
/// with one. add_special puts the begin-of-text token before a text (add_bos_token; default: if the model has one) and
/// the end-of-text token after it (add_eos_token; default: no).
std::unique_ptr<const Tokenizer> load_sentencepiece(const std::string& path, const TokenizerConfig& config,
                                                    const std::optional<SentencePieceJson>& json);

}  // namespace dapo
