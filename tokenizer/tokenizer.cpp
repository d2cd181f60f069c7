#include "tokenizer/tokenizer.h"

#include <cerrno>
#include <filesystem>
#include <utility>

#include "core/check.h"
#include "core/files.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/sentencepiece.h"
#include "tokenizer/unicode.h"

namespace dapo {

std::unique_ptr<const Tokenizer> Tokenizer::load(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const auto is_file = [&](const fs::path& p) {
    const bool there = fs::is_regular_file(p, ignored);
    if (!there && has_entry(p)) fail_input("{}: {}", p.string(), open_error(p.string(), ENOENT));
    return there;
  };
  const bool folder = fs::is_directory(path, ignored);
  if (!folder && !has_entry(path))
    fail_input("{}: no such file or folder; a model folder holds tokenizer.json or tokenizer.model", path);
  const fs::path home = folder ? fs::path(path) : fs::path(path).parent_path();
  const TokenizerConfig config = TokenizerConfig::load(home.string());
  const fs::path json = folder ? home / "tokenizer.json" : fs::path(path), pieces = home / "tokenizer.model";
  if (!folder && json.extension() == ".model") return load_sentencepiece(json.string(), config, std::nullopt);
  if (is_file(json)) {
    if (auto found = read_sentencepiece_json(json.string()))
      return is_file(pieces) ? load_sentencepiece(pieces.string(), config, found)
                             : load_pieces(json.string(), config, std::move(*found));
    auto model = read_tokenizer_json(json.string());
    add_config_tokens(*model, config, home.string());
    return std::make_unique<ByteLevelTokenizer>(std::move(model));
  }
  if (is_file(pieces)) return load_sentencepiece(pieces.string(), config, std::nullopt);
  if (is_file(home / "vocab.json") && is_file(home / "merges.txt")) {
    auto model = read_vocab_and_merges(home.string(), config);
    add_config_tokens(*model, config, home.string());
    return std::make_unique<ByteLevelTokenizer>(std::move(model));
  }
  fail_input(
      "{}: no tokenizer.json, tokenizer.model, or vocab.json with merges.txt in it; a model's tokenizer comes with "
      "its download",
      path);
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
