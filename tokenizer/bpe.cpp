#include "tokenizer/bpe.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <queue>
#include <utility>

#include "core/check.h"
#include "tokenizer/unicode.h"

namespace dapo {

namespace {

constexpr uint64_t kMix = 0x9E3779B97F4A7C15u;

uint64_t hash_text(std::string_view text) {
  uint64_t h = text.size();
  for (size_t i = 0; i < text.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + i, std::min<size_t>(8, text.size() - i));
    h = (h ^ word) * kMix;
    h ^= h >> 29;
  }
  return h * kMix;
}

/// Code point of each byte in GPT-2's alphabet, and the inverse (-1 outside).
struct Alphabet {
  std::array<uint32_t, 256> code{};
  std::array<int16_t, 512> byte{};
  constexpr Alphabet() {
    byte.fill(-1);
    uint32_t next = 256;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      code[b] = printable ? b : next++;
      byte[code[b]] = static_cast<int16_t>(b);
    }
  }
};
constexpr Alphabet kAlphabet;

/// Positions by rank, then from left to right. Positions of one rank mostly arrive in order (and are then read in
/// order, which makes long words fast); the others go through a heap.
class MergeQueue {
 public:
  bool empty() const { return ranks_.empty(); }
  void push(int32_t rank, uint32_t place) {
    Places& p = ranks_[rank];
    if (p.run.empty() || place > p.run.back())
      p.run.push_back(place);
    else
      p.late.push(place);
  }
  std::pair<int32_t, uint32_t> pop() {
    const auto first = ranks_.begin();
    const int32_t rank = first->first;
    Places& p = first->second;
    uint32_t place;
    if (p.next < p.run.size() && (p.late.empty() || p.run[p.next] <= p.late.top())) {
      place = p.run[p.next++];
    } else {
      place = p.late.top();
      p.late.pop();
    }
    if (p.next == p.run.size() && p.late.empty()) ranks_.erase(first);
    return {rank, place};
  }

 private:
  struct Places {
    std::vector<uint32_t> run;  // ascending, read up to `next`
    size_t next = 0;
    std::priority_queue<uint32_t, std::vector<uint32_t>, std::greater<>> late;
  };
  std::map<int32_t, Places> ranks_;
};

}  // namespace

std::string byte_name(uint8_t byte) {
  std::string name;
  unicode::append_utf8(kAlphabet.code[byte], name);
  return name;
}

Vocabulary::Vocabulary() : slots_(1024, -1) {}

size_t Vocabulary::slot_of(std::string_view name) const {
  const size_t mask = slots_.size() - 1;
  size_t slot = hash_text(name) >> 20 & mask;
  while (slots_[slot] >= 0 && view(names_[static_cast<size_t>(slots_[slot])]) != name) slot = (slot + 1) & mask;
  return slot;
}

void Vocabulary::grow() {
  std::vector<int32_t> old(slots_.size() * 4, -1);
  old.swap(slots_);
  for (const int32_t id : old)
    if (id >= 0) slots_[slot_of(view(names_[static_cast<size_t>(id)]))] = id;
}

void Vocabulary::add(std::string_view name, int64_t id) {
  if (id < 0 || id >= kMaxIds) fail_input("token '{}' has id {}, outside 0..{}", name, id, kMaxIds - 1);
  if (has(static_cast<int32_t>(id))) {
    fail_input("tokens '{}' and '{}' have the same id {}", this->name(static_cast<int32_t>(id)), name, id);
  }
  if ((used_ + 1) * 2 > slots_.size()) grow();
  const size_t slot = slot_of(name);
  if (slots_[slot] >= 0) fail_input("token '{}' is defined twice, with ids {} and {}", name, slots_[slot], id);
  const auto index = static_cast<size_t>(id);
  if (index >= names_.size()) names_.resize(index + 1), bytes_.resize(index + 1);
  CHECK_LT(text_.size() + 2 * name.size(), size_t{UINT32_MAX});
  names_[index] = {static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(name.size())};
  text_ += name;
  slots_[slot] = static_cast<int32_t>(id);
  ++used_;

  const size_t begin = text_.size();
  for (size_t at = 0; at < name.size();) {
    const unicode::Symbol symbol = unicode::decode_one(name.substr(at, 4));
    const int byte = symbol.code < kAlphabet.byte.size() ? kAlphabet.byte[symbol.code] : -1;
    if (byte < 0) {
      text_.resize(begin);
      bytes_[index] = names_[index];
      return;
    }
    text_ += static_cast<char>(byte);
    at += symbol.bytes;
  }
  bytes_[index] = {static_cast<uint32_t>(begin), static_cast<uint32_t>(text_.size() - begin)};
}

int32_t Vocabulary::find(std::string_view name) const {
  return slots_[slot_of(name)];
}

Merges::Merges() : slots_(1024, Entry{kEmpty, kNoRank, -1}), shift_(64 - 10) {
  byte_ids_.fill(-1);
}

const Merges::Entry& Merges::find(int32_t left, int32_t right) const {
  const uint64_t pair = key(left, right);
  const size_t mask = slots_.size() - 1;
  size_t slot = pair * kMix >> shift_;
  while (slots_[slot].pair != pair && slots_[slot].pair != kEmpty) slot = (slot + 1) & mask;
  return slots_[slot];
}

void Merges::grow() {
  std::vector<Entry> old(slots_.size() * 4, Entry{kEmpty, kNoRank, -1});
  old.swap(slots_);
  shift_ -= 2;
  for (const Entry& e : old)
    if (e.pair != kEmpty)
      const_cast<Entry&>(find(static_cast<int32_t>(e.pair >> 32), static_cast<int32_t>(e.pair))) = e;
}

void Merges::add(int32_t left, int32_t right, int32_t rank, int32_t merged) {
  if ((used_ + 1) * 2 > slots_.size()) grow();
  Entry& entry = const_cast<Entry&>(find(left, right));
  used_ += entry.pair == kEmpty;
  entry = {key(left, right), rank, merged};
}

void Merges::encode(std::string_view word, std::vector<int32_t>& out) const {
  std::array<int32_t, kShort> few;
  std::vector<int32_t> many(word.size() > kShort ? word.size() : 0);
  int32_t* ids = many.empty() ? few.data() : many.data();
  size_t n = 0;
  for (const char c : word)
    if (const int32_t id = byte_ids_[static_cast<unsigned char>(c)]; id >= 0) ids[n++] = id;
  merge({ids, n}, out);
}

void Merges::merge(std::span<const int32_t> symbols, std::vector<int32_t>& out) const {
  if (symbols.size() <= kShort)
    merge_short(symbols, out);
  else
    merge_long(symbols, out);
}

void Merges::merge_short(std::span<const int32_t> given, std::vector<int32_t>& out) const {
  std::array<int32_t, kShort + 1> ids, ranks, merged;  // ranks[i], merged[i]: of the pair (i, i + 1)
  size_t n = given.size();
  std::copy(given.begin(), given.end(), ids.begin());
  const auto look_up = [&](size_t i) {
    const Entry& e = find(ids[i], ids[i + 1]);
    ranks[i] = e.rank;
    merged[i] = e.merged;
  };
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  while (n > 1) {
    const auto best = static_cast<size_t>(std::min_element(ranks.begin(), ranks.begin() + (n - 1)) - ranks.begin());
    if (ranks[best] == kNoRank) break;
    ids[best] = merged[best];
    --n;
    for (size_t i = best + 1; i < n; ++i) ids[i] = ids[i + 1], ranks[i] = ranks[i + 1], merged[i] = merged[i + 1];
    if (best + 1 < n) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n));
}

void Merges::merge_long(std::span<const int32_t> given, std::vector<int32_t>& out) const {
  struct Symbol {
    int32_t id;  // -1: merged into the one before
    int32_t rank, merged;
    uint32_t previous, next;
  };
  constexpr uint32_t kEnd = UINT32_MAX;
  std::vector<Symbol> symbols;
  symbols.reserve(given.size());
  for (const int32_t id : given) {
    const auto i = static_cast<uint32_t>(symbols.size());
    symbols.push_back({id, kNoRank, -1, i == 0 ? kEnd : i - 1, i + 1});
  }
  symbols.back().next = kEnd;

  MergeQueue queue;
  const auto look_up = [&](uint32_t i) {
    Symbol& s = symbols[i];
    s.rank = kNoRank;
    if (s.next == kEnd) return;
    const Entry& e = find(s.id, symbols[s.next].id);
    s.rank = e.rank, s.merged = e.merged;
    if (e.rank != kNoRank) queue.push(e.rank, i);
  };
  for (uint32_t i = 0; i < symbols.size(); ++i) look_up(i);
  while (!queue.empty()) {
    const auto [rank, i] = queue.pop();
    Symbol& s = symbols[i];
    if (s.id < 0 || s.rank != rank) continue;  // its pair has changed in the meantime
    Symbol& gone = symbols[s.next];
    s.id = s.merged;
    s.next = gone.next;
    gone.id = -1;
    if (s.next != kEnd) symbols[s.next].previous = i;
    look_up(i);
    if (s.previous != kEnd) look_up(s.previous);
  }
  for (uint32_t i = 0; i != kEnd; i = symbols[i].next) out.push_back(symbols[i].id);
}

}  // namespace dapo
