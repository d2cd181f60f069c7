#include "tokenizer/sentencepiece.h"

#include <sentencepiece_processor.h>

#include <charconv>
#include <filesystem>

#include "core/check.h"
#include "core/files.h"
#include "tokenizer/json_file.h"

namespace dapo {

namespace {

constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581 stands for a space

class SentencePieceTokenizer : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::string& path) {
    check_format(path);
    const auto status = processor_.Load(path);
    if (!status.ok()) fail_input("{}: not a SentencePiece model: {}", path, status.ToString());
    const std::vector<std::string> probe = processor_.EncodeAsPieces("a");
    dummy_prefix_ = !probe.empty() && probe[0].starts_with(kSpaceMark);
    const auto config = std::filesystem::path(path).parent_path() / "tokenizer_config.json";
    add_bos_ = json_flag(config.string(), "add_bos_token").value_or(true) && processor_.bos_id() >= 0;
    add_eos_ = json_flag(config.string(), "add_eos_token").value_or(false) && processor_.eos_id() >= 0;
  }

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override {
    std::vector<int> ids;
    const auto status = processor_.Encode(text, &ids);
    if (!status.ok()) fail_input("SentencePiece cannot encode a text: {}", status.ToString());
    if (add_special && add_bos_) ids.insert(ids.begin(), processor_.bos_id());
    if (add_special && add_eos_) ids.push_back(processor_.eos_id());
    return ids;
  }

  int32_t vocab_size() const override { return processor_.GetPieceSize(); }
  int32_t id_of(std::string_view token) const override {
    const int id = processor_.PieceToId(token);
    return id >= 0 && this->token(id) == token ? id : -1;
  }
  std::string token(int32_t id) const override { return has(id) ? processor_.IdToPiece(id) : ""; }
  bool is_special(int32_t id) const override { return has(id) && processor_.IsControl(id); }

  void append_bytes(int32_t id, bool first, std::string& out) const override {
    if (!has(id)) return;
    std::string_view piece = processor_.IdToPiece(id);
    if (processor_.IsUnknown(id)) {
      out += " \xE2\x81\x87 ";           // as SentencePiece shows what it could not encode
    } else if (processor_.IsByte(id)) {  // "<0x0A>"
      int byte = 0;
      std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
      out += static_cast<char>(byte);
    } else {
      if (first && dummy_prefix_ && piece.starts_with(kSpaceMark)) piece.remove_prefix(kSpaceMark.size());
      for (size_t at; (at = piece.find(kSpaceMark)) != piece.npos; piece.remove_prefix(at + kSpaceMark.size())) {
        out.append(piece, 0, at);
        out += ' ';
      }
      out += piece;
    }
  }

 private:
  bool has(int32_t id) const { return id >= 0 && id < vocab_size(); }

  sentencepiece::SentencePieceProcessor processor_;
  bool dummy_prefix_ = false, add_bos_ = false, add_eos_ = false;
};

}  // namespace

std::unique_ptr<const Tokenizer> load_sentencepiece(const std::string& path) {
  return std::make_unique<SentencePieceTokenizer>(path);
}

}  // namespace dapo
