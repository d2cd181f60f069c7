#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "core/check.h"
#include "tokenizer/unicode.h"

namespace dapo {

namespace {

uint8_t byte_at(std::string_view text, size_t i) {
  return static_cast<uint8_t>(text[i]);
}

/// Start of the character that ends at `end`.
size_t previous(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && (byte_at(text, begin) & 0xC0) == 0x80) --begin;
  return begin;
}

uint8_t property_at(std::string_view text, size_t at) {
  const unicode::Symbol symbol = unicode::decode_one(text.substr(at, 4));
  return symbol.code == unicode::kInvalid ? uint8_t{unicode::kOther} : unicode::properties()[symbol.code];
}

bool white_at(std::string_view text, size_t at) {
  return unicode::is_white(static_cast<unicode::Class>(property_at(text, at) & unicode::kClassMask));
}

}  // namespace

void AddedTokenFinder::add(const AddedToken& token) {
  CHECK(!token.content.empty());
  starts_[byte_at(token.content, 0)] = true;
  int32_t node = 0;
  for (const char c : token.content) {
    const auto byte = static_cast<uint8_t>(c);
    int32_t child = child_of(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(trie_.size());
      trie_.push_back({byte, -1, trie_[static_cast<size_t>(node)].child, -1});
      trie_[static_cast<size_t>(node)].child = child;
    }
    node = child;
  }
  trie_[static_cast<size_t>(node)].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

int32_t AddedTokenFinder::child_of(int32_t node, uint8_t byte) const {
  int32_t child = trie_[static_cast<size_t>(node)].child;
  while (child >= 0 && trie_[static_cast<size_t>(child)].byte != byte)
    child = trie_[static_cast<size_t>(child)].sibling;
  return child;
}

int32_t AddedTokenFinder::longest_at(std::string_view text, size_t at) const {
  int32_t found = -1;
  for (int32_t node = 0; at < text.size(); ++at) {
    node = child_of(node, byte_at(text, at));
    if (node < 0) break;
    if (trie_[static_cast<size_t>(node)].token >= 0) found = trie_[static_cast<size_t>(node)].token;
  }
  return found;
}

bool AddedTokenFinder::stands_alone(std::string_view text, size_t begin, size_t end) const {
  if (begin > 0 && property_at(text, previous(text, begin)) & unicode::kWord) return false;
  return end == text.size() || !(property_at(text, end) & unicode::kWord);
}

void AddedTokenFinder::split(std::string_view text, std::vector<Part>& parts) const {
  size_t done = 0;
  if (!tokens_.empty()) {
    for (size_t at = 0; at < text.size();) {
      const int32_t index = starts_[byte_at(text, at)] ? longest_at(text, at) : -1;
      if (index < 0) {
        ++at;
        continue;
      }
      const AddedToken& token = tokens_[static_cast<size_t>(index)];
      size_t begin = at, end = at + token.content.size();
      at = end;
      if (token.single_word && !stands_alone(text, begin, end)) continue;
      if (token.lstrip) {
        for (size_t p; begin > done && white_at(text, p = previous(text, begin)); begin = p) {
        }
        begin = std::max(begin, done);
      }
      if (token.rstrip) {
        while (end < text.size() && white_at(text, end)) end += unicode::decode_one(text.substr(end, 4)).bytes;
      }
      if (begin > done) parts.push_back({-1, text.substr(done, begin - done)});
      parts.push_back({token.id, text.substr(begin, end - begin)});
      done = end;
      at = std::max(at, end);
    }
  }
  if (done < text.size()) parts.push_back({-1, text.substr(done)});
}

}  // namespace dapo
