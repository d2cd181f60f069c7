// SentencePiece models (tokenizer.model: Llama 2 and its kin) through libsentencepiece.
#pragma once

#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"

namespace dapo {

/// Reads a .model file; tokenizer_config.json beside it, if any, says whether texts begin with the begin-of-text token
/// (add_bos_token; absent: yes where the model has one) and end with the end-of-text one (add_eos_token; absent: no).
std::unique_ptr<const Tokenizer> load_sentencepiece(const std::string& path);

}  // namespace dapo
