// The vocabulary and the merges of byte-level BPE.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dapo {

/// Tokens by id and by name. Names are spelled as in tokenizer.json: bytes in the alphabet of GPT-2, where a space is
/// "Ġ"; bytes_of() gives the bytes.
class Vocabulary {
 public:
  static constexpr int64_t kMaxIds = 1 << 21;  ///< ids at or above this are rejected

  Vocabulary();

  /// Adds a token; Error if the id is out of range or taken, or the name exists already.
  void add(std::string_view name, int64_t id);
  int32_t find(std::string_view name) const;                            ///< or -1
  int32_t size() const { return static_cast<int32_t>(names_.size()); }  ///< largest id + 1
  bool has(int32_t id) const { return id >= 0 && id < size() && names_[static_cast<size_t>(id)].size != kNone; }
  std::string_view name(int32_t id) const { return has(id) ? view(names_[static_cast<size_t>(id)]) : ""; }
  /// The bytes of a token; a name with a character outside the alphabet stands for itself (as in Hugging Face).
  std::string_view bytes_of(int32_t id) const { return has(id) ? view(bytes_[static_cast<size_t>(id)]) : ""; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Span {
    uint32_t begin = 0, size = kNone;
  };
  std::string_view view(Span s) const { return std::string_view(text_).substr(s.begin, s.size); }
  size_t slot_of(std::string_view name) const;  // its slot, or the empty slot for it
  void grow();

  std::string text_;
  std::vector<Span> names_, bytes_;  // by id
  std::vector<int32_t> slots_;       // open addressing, -1 is empty
  size_t used_ = 0;
};

/// Name of a byte in the alphabet of GPT-2: itself if it is a printable Latin-1 character, else from U+0100 on.
std::string byte_name(uint8_t byte);

/// Merges of pairs of tokens, and the encoding of words with them.
class Merges {
 public:
  Merges();

  /// The pair (left, right), of this rank (lower merges first), becomes `merged`. A repeated pair takes the new rank.
  void add(int32_t left, int32_t right, int32_t rank, int32_t merged);
  /// Ids of the 256 bytes, -1 if the vocabulary lacks one: such bytes are dropped, as in Hugging Face.
  void set_bytes(const std::array<int32_t, 256>& ids) { byte_ids_ = ids; }

  /// Appends the tokens of one word: repeatedly merges the pair of lowest rank, the leftmost among equals. n log n.
  void encode(std::string_view word, std::vector<int32_t>& out) const;
  /// The same for symbols that are already tokens.
  void merge(std::span<const int32_t> symbols, std::vector<int32_t>& out) const;

 private:
  struct Entry {
    uint64_t pair;
    int32_t rank, merged;
  };
  static constexpr uint64_t kEmpty = UINT64_MAX;
  static constexpr int32_t kNoRank = INT32_MAX;
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  const Entry& find(int32_t left, int32_t right) const;  // rank kNoRank if there is no such merge
  void grow();
  static constexpr size_t kShort = 64;  // symbols
  void merge_short(std::span<const int32_t> symbols, std::vector<int32_t>& out) const;
  void merge_long(std::span<const int32_t> symbols, std::vector<int32_t>& out) const;

  std::vector<Entry> slots_;
  size_t used_ = 0;
  int shift_;  // 64 - log2(slots)
  std::array<int32_t, 256> byte_ids_;
};

}  // namespace dapo
