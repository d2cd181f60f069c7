// SentencePiece's BPE from tokenizer.json (TinyLlama, Mistral, Gemma): characters, bytes for characters that the
// vocabulary lacks, merges by rank.
#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "core/check.h"
#include "core/json.h"
#include "tokenizer/sentencepiece.h"
#include "tokenizer/unicode.h"

namespace dapo {

namespace {

namespace ondemand = simdjson::ondemand;
using Prefix = SentencePieceJson::Prefix;

constexpr size_t kMaxFile = 64 << 20;  // Gemma 3's has 33 MB

/// The model part: vocabulary, merges, ignore_merges.
void read_pieces(const std::string& path, ByteLevelModel& model) {
  const simdjson::padded_string text(read_text_file(path, kMaxFile));
  ondemand::parser parser;
  ondemand::document document = parser.iterate(text);
  MergeNames merges;
  for (auto part : document.find_field_unordered("model").get_object()) {
    const std::string_view key = part.unescaped_key();
    ondemand::value value = part.value();
    if (key == "vocab")
      read_vocabulary(value, model.vocabulary);
    else if (key == "merges")
      read_merges(value, merges);
    else if (key == "ignore_merges")
      model.ignore_merges = value.get_bool();
  }
  if (model.vocabulary.size() == 0) fail_input("model: 'vocab' is absent or empty");
  add_merges(model, merges);
}

std::string spaces_marked(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 16);
  for (const char c : text) c == ' ' ? out += kSpaceMark : out += c;
  return out;
}

class PieceTokenizer : public Tokenizer {
 public:
  PieceTokenizer(std::unique_ptr<ByteLevelModel> model, SentencePieceJson json)
      : model_(std::move(model)), json_(std::move(json)) {
    const Vocabulary& vocabulary = model_->vocabulary;
    for (size_t b = 0; b < 256; ++b) {
      bytes_[b] = vocabulary.find(fmt::format("<0x{:02X}>", b));
      if (bytes_[b] < 0)
        fail_input(
            "model: the vocabulary lacks the byte <0x{:02X}>: put the model's tokenizer.model in the same folder", b);
    }
    special_.resize(static_cast<size_t>(vocabulary.size()));
    for (AddedToken token : model_->added) {
      special_[static_cast<size_t>(token.id)] = token.special;
      if (token.normalized) token.content = normalized(token.content);
      (token.normalized ? in_normalized_ : in_text_).add(token);
      added_[token.id] = token;
    }
    for (const auto* ids : {&json_.before, &json_.after})
      for (const int32_t id : *ids)
        if (!vocabulary.has(id)) fail_input("post_processor: id {} is not a token", id);
  }

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override {
    std::vector<int32_t> ids;
    if (add_special) ids = json_.before;
    std::vector<AddedTokenFinder::Part> parts, inner;
    in_text_.split(text, parts);
    for (const auto& part : parts) {
      if (part.id >= 0) {
        ids.push_back(part.id);
        continue;
      }
      const std::string plain = normalized(part.text);
      inner.clear();
      in_normalized_.split(plain, inner);
      for (const auto& piece : inner) {
        if (piece.id >= 0)
          ids.push_back(piece.id);
        else
          encode_text(piece.text, part.text.data() == text.data() && piece.text.data() == plain.data(), ids);
      }
    }
    if (add_special) ids.insert(ids.end(), json_.after.begin(), json_.after.end());
    return ids;
  }

  int32_t vocab_size() const override { return model_->vocabulary.size(); }
  int32_t id_of(std::string_view token) const override { return model_->vocabulary.find(token); }
  std::string token(int32_t id) const override { return std::string(model_->vocabulary.name(id)); }
  bool is_special(int32_t id) const override {
    return id >= 0 && static_cast<size_t>(id) < special_.size() && special_[static_cast<size_t>(id)];
  }

  void append_bytes(int32_t id, bool first, std::string& out) const override {
    const std::string_view name = model_->vocabulary.name(id);
    int byte = 0;
    if (const auto added = added_.find(id); added != added_.end()) {
      if (added->second.normalized)
        append_piece(added->second.content, first && json_.strips, out);
      else
        out += name;
    } else if (name.size() == 6 && name.starts_with("<0x") && name[5] == '>' &&
               std::from_chars(name.data() + 3, name.data() + 5, byte, 16).ptr == name.data() + 5) {
      out += static_cast<char>(byte);
    } else {
      append_piece(name, first && json_.strips, out);
    }
  }

 private:
  std::string normalized(std::string_view text) const {
    std::string out = json_.replaces ? spaces_marked(text) : std::string(text);
    return json_.prefix == Prefix::doubled && !out.empty() ? std::string(kSpaceMark) + out : out;
  }

  /// Between added tokens; `first`: the text begins here.
  void encode_text(std::string_view text, bool first, std::vector<int32_t>& ids) const {
    std::string marked;
    if (json_.metaspace) {
      marked = spaces_marked(text);
      const bool adds = json_.prefix == Prefix::always || (json_.prefix == Prefix::first && first);
      if (adds && !marked.starts_with(kSpaceMark)) marked.insert(0, kSpaceMark);
      text = marked;
    }
    while (json_.splits) {
      const size_t next = text.find(kSpaceMark, std::min<size_t>(1, text.size()));
      if (next == text.npos) break;
      encode_word(text.substr(0, next), ids);
      text.remove_prefix(next);
    }
    encode_word(text, ids);
  }

  void encode_word(std::string_view word, std::vector<int32_t>& ids) const {
    const Vocabulary& vocabulary = model_->vocabulary;
    if (model_->ignore_merges)
      if (const int32_t whole = vocabulary.find(word); whole >= 0) return ids.push_back(whole);
    std::vector<int32_t> symbols;
    symbols.reserve(word.size());
    while (!word.empty()) {
      const std::string_view c = word.substr(0, unicode::decode_one(word.substr(0, 4)).bytes);
      word.remove_prefix(c.size());
      if (const int32_t id = vocabulary.find(c); id >= 0)
        symbols.push_back(id);
      else
        for (const char byte : c) symbols.push_back(bytes_[static_cast<unsigned char>(byte)]);
    }
    model_->merges.merge(symbols, ids);
  }

  std::unique_ptr<ByteLevelModel> model_;
  SentencePieceJson json_;
  AddedTokenFinder in_text_, in_normalized_;
  std::array<int32_t, 256> bytes_{};
  std::vector<bool> special_;
  std::unordered_map<int32_t, AddedToken> added_;
};

}  // namespace

std::unique_ptr<const Tokenizer> load_pieces(const std::string& path, const TokenizerConfig& config,
                                             SentencePieceJson json) {
  if (!json.odd.empty())
    fail_input(
        "{}: a {} needs the model's tokenizer.model (SentencePiece) in the same folder: copy it from the same download",
        path, json.odd);
  try {
    auto model = std::make_unique<ByteLevelModel>();
    read_pieces(path, *model);
    model->added = json.added;
    place_added_tokens(*model);
    add_config_tokens(*model, config, path);
    return std::make_unique<PieceTokenizer>(std::move(model), std::move(json));
  } catch (const simdjson::simdjson_error& error) {
    fail_input("{}: not a tokenizer.json: {}; download it again", path, error.what());
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", path, error.what()));
  }
}

}  // namespace dapo
