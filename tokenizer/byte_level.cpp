#include "tokenizer/byte_level.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "tokenizer/unicode.h"

namespace dapo {

namespace {

/// Recently seen words and their tokens: one cache per thread for all tokenizers, of fixed size (1 MiB), without locks.
class WordCache {
 public:
  static constexpr size_t kMaxWord = 24, kMaxIds = 8;
  struct Entry {
    std::array<uint64_t, 3> word{};  // padded with zeros
    uint32_t serial = 0;             // of the tokenizer; 0 is empty
    uint16_t size = 0, count = 0;
    std::array<int32_t, kMaxIds> ids{};
  };
  static_assert(sizeof(Entry) == 64, "one cache line");

  static WordCache& of_thread() {
    static thread_local WordCache cache;
    return cache;
  }

  /// The entry for `word` (1 to kMaxWord bytes): true if present, else it can be filled with fill().
  bool find(std::string_view word, uint32_t serial, Entry*& entry) {
    key_ = {};
    std::memcpy(key_.data(), word.data(), word.size());
    uint64_t h = (key_[0] ^ serial) * 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 32 ^ key_[1]) * 0xD6E8FEB86659FD93u;
    h = (h ^ h >> 32 ^ key_[2] ^ word.size()) * 0x9E3779B97F4A7C15u;
    entry = &entries_[h >> (64 - kBits)];
    return entry->word == key_ && entry->size == word.size() && entry->serial == serial;
  }
  void fill(Entry* entry, size_t size, uint32_t serial, const int32_t* ids, size_t count) {
    if (count > kMaxIds) return;
    *entry = {key_, serial, static_cast<uint16_t>(size), static_cast<uint16_t>(count), {}};
    std::copy_n(ids, count, entry->ids.begin());
  }

 private:
  static constexpr int kBits = 14;
  std::vector<Entry> entries_ = std::vector<Entry>(size_t{1} << kBits);
  std::array<uint64_t, 3> key_{};
};

}  // namespace

ByteLevelTokenizer::ByteLevelTokenizer(std::unique_ptr<ByteLevelModel> model) : model_(std::move(model)) {
  static std::atomic<uint32_t> serials{0};
  serial_ = ++serials;
  special_.resize(static_cast<size_t>(ByteLevelTokenizer::vocab_size()));
  for (AddedToken token : model_->added) {
    special_[static_cast<size_t>(token.id)] = token.special;
    if (!token.normalized) {
      in_text_.add(token);
      continue;
    }
    std::string storage;
    if (model_->nfc) token.content = std::string(unicode::nfc(token.content, storage));
    in_normalized_.add(token);
  }
}

std::vector<int32_t> ByteLevelTokenizer::encode(std::string_view text, bool add_special) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  if (add_special) ids = model_->before;
  std::vector<AddedTokenFinder::Part> parts;
  in_text_.split(text, parts);
  for (const auto& part : parts) {
    if (part.id >= 0)
      ids.push_back(part.id);
    else
      encode_text(part.text, ids);
  }
  if (add_special) ids.insert(ids.end(), model_->after.begin(), model_->after.end());
  return ids;
}

void ByteLevelTokenizer::encode_text(std::string_view text, std::vector<int32_t>& out) const {
  std::string storage;
  if (model_->nfc) text = unicode::nfc(text, storage);
  if (in_normalized_.empty()) return encode_words(text, out);
  std::vector<AddedTokenFinder::Part> parts;
  in_normalized_.split(text, parts);
  for (const auto& part : parts) {
    if (part.id >= 0)
      out.push_back(part.id);
    else
      encode_words(part.text, out);
  }
}

void ByteLevelTokenizer::encode_words(std::string_view text, std::vector<int32_t>& out) const {
  std::vector<uint32_t> ends, scratch;
  ends.reserve(text.size() / 4 + 8);
  model_->pre_tokenizer.split(text, ends, scratch);
  WordCache& cache = WordCache::of_thread();
  uint32_t begin = 0;
  for (const uint32_t end : ends) {
    const std::string_view word = text.substr(begin, end - begin);
    begin = end;
    if (word.size() > WordCache::kMaxWord) {
      encode_word(word, out);
      continue;
    }
    WordCache::Entry* entry;
    if (cache.find(word, serial_, entry)) {
      out.insert(out.end(), entry->ids.begin(), entry->ids.begin() + entry->count);
      continue;
    }
    const size_t before = out.size();
    encode_word(word, out);
    cache.fill(entry, word.size(), serial_, out.data() + before, out.size() - before);
  }
}

void ByteLevelTokenizer::encode_word(std::string_view word, std::vector<int32_t>& out) const {
  if (model_->ignore_merges) {
    std::string name;
    for (const char c : word) name += byte_name(static_cast<uint8_t>(c));
    if (const int32_t id = model_->vocabulary.find(name); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  model_->merges.encode(word, out);
}

void ByteLevelTokenizer::append_bytes(int32_t id, bool, std::string& out) const {
  out += model_->vocabulary.bytes_of(id);
}

}  // namespace dapo
