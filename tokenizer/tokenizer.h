// Text to token ids and back, as in Hugging Face, for the tokenizers of Qwen2.5 and models of the same shape.
//
//   auto tokenizer = Tokenizer::load("qwen2.5-0.5b");         // a Hugging Face folder
//   std::vector<int32_t> ids = tokenizer->encode("2 + 2 =");
//   std::string text = tokenizer->decode(ids);
//
// Three implementations: byte-level BPE from tokenizer.json (byte_level.h: added tokens -> NFC -> pre-tokenizer ->
// merges), SentencePiece from tokenizer.model (sentencepiece.cpp) and its BPE from tokenizer.json (pieces.cpp). Chat
// templates are in chat.h. Encoding takes linear time in the text, n log n in the length of one word. Everything const
// is safe to call from many threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dapo {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Reads a Hugging Face folder as transformers does: tokenizer.json; else tokenizer.model (SentencePiece); else
  /// vocab.json and merges.txt. Where tokenizer.json describes a SentencePiece model, the pieces are those of the
  /// tokenizer.model beside it, if there is one.
  /// Added tokens of tokenizer_config.json and the files beside it count in each case. `path` may also name a
  /// tokenizer.json or .model itself. An unsupported feature is an Error that names it (exit code 2).
  static std::unique_ptr<const Tokenizer> load(const std::string& path);

  /// Ids of `text`. Added tokens ("<|im_end|>") in it become their ids, as in Hugging Face. `add_special` puts the
  /// tokens that the model expects around a text (begin-of-text for Llama; none for Qwen2.5 and SmolLM2). Any bytes are
  /// accepted: invalid UTF-8 is passed through.
  virtual std::vector<int32_t> encode(std::string_view text, bool add_special = false) const = 0;

  /// Text of `ids`, always valid UTF-8: each maximal ill-formed part becomes U+FFFD. Ids without a token (a model's
  /// padded vocabulary has some) give no text. `skip_special` drops tokens marked special.
  std::string decode(std::span<const int32_t> ids, bool skip_special = true) const;

  /// The same without the repair of ill-formed UTF-8: decode_bytes(encode(x)) == x if the vocabulary has all bytes.
  std::string decode_bytes(std::span<const int32_t> ids, bool skip_special = true) const;

  /// Largest id + 1. A model's embedding must have at least as many rows.
  virtual int32_t vocab_size() const = 0;
  /// Id of a token as the vocabulary writes it ("<|im_end|>", "Ġthe"), or -1.
  virtual int32_t id_of(std::string_view token) const = 0;
  /// The token as the vocabulary writes it; "" for an id that has none.
  virtual std::string token(int32_t id) const = 0;
  /// True for tokens that decode(skip_special) drops.
  virtual bool is_special(int32_t id) const = 0;

  /// Appends the bytes of `id`; `first`: no token came before (SentencePiece drops a space there).
  virtual void append_bytes(int32_t id, bool first, std::string& out) const = 0;
};

/// Decodes tokens one by one. The concatenated results equal decode() of all ids; a character whose bytes are spread
/// over several tokens is held back until it is complete.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  /// Text that became certain with this token; may be empty.
  std::string push(int32_t id);
  /// The bytes held back (U+FFFD if a character never became complete); resets the decoder.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  bool first_ = true;
  std::string held_;  // at most 3 bytes between calls
};

/// Writes tokenizer.json and tokenizer_config.json of the demo's byte tokenizer into `folder` (created if absent): ids
/// 0..255 are the bytes, 256 "<|endoftext|>" ends a text, 257 "<|pad|>" pads. Hugging Face reads them.
void write_byte_tokenizer(const std::string& folder);

}  // namespace dapo
