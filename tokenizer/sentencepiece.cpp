#include "tokenizer/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "core/check.h"
#include "core/files.h"
#include "core/json.h"

namespace dapo {

namespace {

constexpr size_t kMaxFile = 64 << 20;
/// normalizer_spec { add_dummy_prefix: false }; appended to the model it overrides the model's own.
constexpr std::string_view kNoPrefix("\x1A\x02\x18\x00", 4);

using Prefix = SentencePieceJson::Prefix;

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::string& path, const TokenizerConfig& config,
                         const std::optional<SentencePieceJson>& json) {
    check_format(path);
    const std::string file = read_text_file(path, kMaxFile);
    load(path, file);
    const std::vector<std::string> probe = processor_.EncodeAsPieces("a");
    strips_ = !probe.empty() && probe[0].starts_with(kSpaceMark);
    add_bos_ = config.add_bos.value_or(true) && processor_.bos_id() >= 0;
    add_eos_ = config.add_eos.value_or(false) && processor_.eos_id() >= 0;
    size_ = processor_.GetPieceSize();
    if (json) add_bos_ = json->begins && processor_.bos_id() >= 0, add_eos_ = json->ends && processor_.eos_id() >= 0;
    if (config.present || json) find_added(config, json);
    // A model that collapses spaces has its own rules for the first one, which are kept.
    const bool plain = processor_.EncodeAsIds("a  b") != processor_.EncodeAsIds("a b");
    if ((!config.present && !json) || !plain) return;
    own_prefix_ = false;
    if (json)
      prefix_ = json->prefix;
    else
      prefix_ = !config.prefix_space.value_or(strips_) ? Prefix::never : config.legacy ? Prefix::always : Prefix::first;
    strips_ = prefix_ != Prefix::never;
    load(path, file + std::string(kNoPrefix));
  }

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override {
    std::vector<int32_t> ids;
    if (add_special && add_bos_) ids.push_back(processor_.bos_id());
    std::vector<AddedTokenFinder::Part> parts, inner;
    in_text_.split(text, parts);
    for (const auto& part : parts) {
      if (part.id >= 0) {
        ids.push_back(part.id);
        continue;
      }
      inner.clear();
      in_normalized_.split(part.text, inner);
      for (const auto& piece : inner) {
        if (piece.id >= 0)
          ids.push_back(piece.id);
        else
          encode_text(piece.text, piece.text.data() == text.data(), ids);
      }
    }
    if (add_special && add_eos_) ids.push_back(processor_.eos_id());
    return ids;
  }

  int32_t vocab_size() const override { return size_; }
  int32_t id_of(std::string_view token) const override {
    if (const auto added = added_ids_.find(std::string(token)); added != added_ids_.end()) return added->second;
    const int id = processor_.PieceToId(token);
    return id >= 0 && this->token(id) == token ? id : -1;
  }
  std::string token(int32_t id) const override {
    if (const auto added = added_.find(id); added != added_.end()) return added->second.content;
    return has(id) ? processor_.IdToPiece(id) : "";
  }
  bool is_special(int32_t id) const override {
    if (const auto added = added_.find(id); added != added_.end()) return added->second.special;
    return has(id) && processor_.IsControl(id);
  }

  void append_bytes(int32_t id, bool first, std::string& out) const override {
    if (const auto added = added_.find(id); added != added_.end()) {
      out += added->second.content;
      return;
    }
    if (!has(id)) return;
    std::string_view piece = processor_.IdToPiece(id);
    if (processor_.IsUnknown(id)) {
      out += " \xE2\x81\x87 ";           // as SentencePiece shows what it could not encode
    } else if (processor_.IsByte(id)) {  // "<0x0A>"
      int byte = 0;
      std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
      out += static_cast<char>(byte);
    } else {
      append_piece(piece, first && strips_, out);
    }
  }

 private:
  bool has(int32_t id) const { return id >= 0 && id < processor_.GetPieceSize(); }

  void load(const std::string& path, std::string_view serialized) {
    const auto status = processor_.LoadFromSerializedProto(serialized);
    if (!status.ok()) fail_input("{}: not a SentencePiece model: {}", path, status.ToString());
  }

  /// Added tokens of tokenizer.json, else of the configuration; and its special tokens.
  void find_added(const TokenizerConfig& config, const std::optional<SentencePieceJson>& json) {
    if (json)
      for (const AddedToken& token : json->added) add(token);
    for (AddedToken token : config.added) {
      if (json && added_ids_.contains(token.content)) token.id = added_ids_[token.content];
      add(token);
    }
    config.each_special([&](AddedToken token, bool needed) {
      token.id = id_of(token.content);
      if (token.id < 0 && needed) token.id = size_;
      if (token.id >= 0) add(token);
    });
    for (const auto& [id, token] : added_) (token.normalized ? in_normalized_ : in_text_).add(token);
  }

  void add(AddedToken token) {
    if (const auto old = added_.find(token.id); old != added_.end()) token.special |= old->second.special;
    added_ids_[token.content] = token.id;
    size_ = std::max(size_, token.id + 1);
    added_[token.id] = std::move(token);
  }

  void encode_text(std::string_view text, bool first, std::vector<int32_t>& ids) const {
    std::vector<int> more;
    std::string with_space;
    const bool spaced = text.starts_with(' ') || text.starts_with(kSpaceMark);
    const bool adds = prefix_ == Prefix::doubled || (!spaced && (prefix_ == Prefix::always || first));
    if (!own_prefix_ && prefix_ != Prefix::never && adds) text = with_space = std::string(kSpaceMark).append(text);
    const auto status = processor_.Encode(text, &more);
    if (!status.ok()) fail_input("SentencePiece cannot encode a text: {}", status.ToString());
    ids.insert(ids.end(), more.begin(), more.end());
  }

  sentencepiece::SentencePieceProcessor processor_;
  std::unordered_map<int32_t, AddedToken> added_;
  std::unordered_map<std::string, int32_t> added_ids_;
  AddedTokenFinder in_text_, in_normalized_;
  int32_t size_ = 0;
  bool strips_ = false;     // decoding drops the first space
  bool own_prefix_ = true;  // the library adds the space before a text
  Prefix prefix_ = Prefix::never;
  bool add_bos_ = false, add_eos_ = false;
};

}  // namespace

void append_piece(std::string_view piece, bool strip, std::string& out) {
  if (strip && piece.starts_with(kSpaceMark)) piece.remove_prefix(kSpaceMark.size());
  for (size_t at; (at = piece.find(kSpaceMark)) != piece.npos; piece.remove_prefix(at + kSpaceMark.size())) {
    out.append(piece, 0, at);
    out += ' ';
  }
  out += piece;
}

std::unique_ptr<const Tokenizer> load_sentencepiece(const std::string& path, const TokenizerConfig& config,
                                                    const std::optional<SentencePieceJson>& json) {
  return std::make_unique<SentencePieceTokenizer>(path, config, json);
}

}  // namespace dapo
