#include "tokenizer/tokenizer.h"

#include <filesystem>
#include <utility>

#include "core/check.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/sentencepiece.h"
#include "tokenizer/unicode.h"

namespace dapo {

std::unique_ptr<const Tokenizer> Tokenizer::load(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const auto is_file = [&](const fs::path& p) { return fs::is_regular_file(p, ignored); };
  fs::path file = path;
  if (fs::is_directory(file, ignored)) {
    file /= is_file(file / "tokenizer.model") ? "tokenizer.model" : "tokenizer.json";
  }
  if (!is_file(file)) {
    fail_input("{}: no such file; a model folder needs tokenizer.json or tokenizer.model (download it with the model)",
               file.string());
  }
  if (file.extension() == ".model") return load_sentencepiece(file.string());
  return std::make_unique<ByteLevelTokenizer>(read_tokenizer_json(file.string()));
}

std::string Tokenizer::decode_bytes(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  bool first = true;
  for (const int32_t id : ids)
    if (!skip_special || !is_special(id)) append_bytes(id, std::exchange(first, false), bytes);
  return bytes;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes = decode_bytes(ids, skip_special), text;
  text.reserve(bytes.size());
  unicode::move_valid(bytes, true, text);
  return text;
}

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) return "";
  tokenizer_.append_bytes(id, std::exchange(first_, false), held_);
  std::string text;
  unicode::move_valid(held_, false, text);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  unicode::move_valid(held_, true, text);
  first_ = true;
  return text;
}

}  // namespace dapo
