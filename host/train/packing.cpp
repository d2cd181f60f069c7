#include "host/train/packing.h"

#include <algorithm>

namespace dapo {
namespace {

/// Responses [begin, end) of a group with their prompt: what goes into one pack.
struct Piece {
  int group, begin, end;
  int64_t tokens, segments;
};

int64_t segments_of(const PackResponse& r) {
  return r.ids.size() > 1 ? 1 : 0;
}

/// A group as few pieces of at most `limits`.
std::vector<Piece> cut_group(int index, const PackGroup& g, const PackLimits& limits) {
  std::vector<Piece> pieces;
  const int64_t prompt = static_cast<int64_t>(g.prompt.size());
  CHECK_GT(prompt, 0, "group {}", index);
  Piece p{index, 0, 0, prompt, 1};
  for (int i = 0; i < static_cast<int>(g.responses.size()); ++i) {
    const PackResponse& r = g.responses[static_cast<size_t>(i)];
    const int64_t tokens = static_cast<int64_t>(r.ids.size());
    if (tokens == 0) continue;
    if (prompt + tokens > limits.tokens || limits.segments < 2)
      fail_input("a prompt of {} tokens with a response of {} exceeds a pack of {}: raise actor.ppo_max_token_len",
                 prompt, tokens, limits.tokens);
    if (p.tokens + tokens > limits.tokens || p.segments + segments_of(r) > limits.segments) {
      pieces.push_back(p);
      p = {index, i, i, prompt, 1};
    }
    p.tokens += tokens;
    p.segments += segments_of(r);
    p.end = i + 1;
  }
  if (p.end > p.begin) pieces.push_back(p);
  return pieces;
}

/// The same where a piece above twice `fill` is cut further, into even ones.
std::vector<Piece> cut_evenly(int index, const PackGroup& g, PackLimits limits) {
  std::vector<Piece> pieces = cut_group(index, g, limits);
  int64_t least = 0;
  for (const PackResponse& r : g.responses)
    least = std::max(least, static_cast<int64_t>(g.prompt.size() + r.ids.size()));
  if (limits.fill <= 0 || pieces.empty()) return pieces;
  limits.tokens = std::max(least, std::min(limits.tokens, 2 * limits.fill));
  const size_t count = cut_group(index, g, limits).size();
  while (least < limits.tokens) {  // the smallest capacity that takes no more of them
    PackLimits tighter = limits;
    tighter.tokens = least + (limits.tokens - least) / 2;
    if (cut_group(index, g, tighter).size() <= count)
      limits = tighter;
    else
      least = tighter.tokens + 1;
  }
  return cut_group(index, g, limits);
}

/// Where packs begin if each takes pieces in order while they fit into `tokens`.
std::vector<size_t> fill(const std::vector<Piece>& pieces, int64_t tokens, int64_t segments) {
  std::vector<size_t> begins;
  int64_t t = 0, s = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (begins.empty() || t + pieces[i].tokens > tokens || s + pieces[i].segments > segments) {
      begins.push_back(i);
      t = s = 0;
    }
    t += pieces[i].tokens;
    s += pieces[i].segments;
  }
  return begins;
}

void append(PackedGroups& out, const PackGroup& g, const Piece& piece) {
  Pack& p = out.pack;
  const int prefix = static_cast<int>(p.segments.size());
  p.segments.push_back({static_cast<int32_t>(p.ids.size()), static_cast<int32_t>(g.prompt.size()), -1});
  p.ids.insert(p.ids.end(), g.prompt.begin(), g.prompt.end());
  const auto head = [&p](size_t row, const PackResponse& r, size_t k) {
    p.head_rows.push_back(static_cast<int32_t>(row));
    p.targets.push_back(r.ids[k]);
    p.advantage.push_back(r.advantage);
    if (!r.old_log_prob.empty()) p.old_log_prob.push_back(r.old_log_prob[k]);
  };
  const size_t last = p.ids.size() - 1, first = out.responses.size();
  for (int i = piece.begin; i < piece.end; ++i) {
    const PackResponse& r = g.responses[static_cast<size_t>(i)];
    if (r.ids.empty()) continue;
    out.responses.push_back({piece.group, i, static_cast<int>(p.head_rows.size()), 0, static_cast<int>(r.ids.size())});
    head(last, r, 0);
  }
  for (size_t i = first; i < out.responses.size(); ++i) {
    const PackResponse& r = g.responses[static_cast<size_t>(out.responses[i].response)];
    out.responses[i].rest = static_cast<int>(p.head_rows.size());
    if (r.ids.size() == 1) continue;
    const size_t begin = p.ids.size();
    p.segments.push_back({static_cast<int32_t>(begin), static_cast<int32_t>(r.ids.size() - 1), prefix});
    p.ids.insert(p.ids.end(), r.ids.begin(), r.ids.end() - 1);
    for (size_t k = 1; k < r.ids.size(); ++k) head(begin + k - 1, r, k);
  }
}

}  // namespace

std::vector<PackedGroups> pack_groups(std::span<const PackGroup> groups, const PackLimits& limits) {
  std::vector<Piece> pieces;
  for (size_t g = 0; g < groups.size(); ++g) {
    const std::vector<Piece> cut = cut_evenly(static_cast<int>(g), groups[g], limits);
    pieces.insert(pieces.end(), cut.begin(), cut.end());
  }
  // The smallest capacity that needs no more packs than the limit does: even packs, the groups' order kept.
  int64_t low = 0, high = limits.fill > 0 ? std::min(limits.fill, limits.tokens) : limits.tokens;
  for (const Piece& p : pieces) low = std::max(low, p.tokens);
  high = std::max(low, high);
  std::vector<size_t> begins = fill(pieces, high, limits.segments);
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (fill(pieces, middle, limits.segments).size() <= begins.size())
      high = middle;
    else
      low = middle + 1;
  }
  begins = fill(pieces, high, limits.segments);

  std::vector<PackedGroups> packs(begins.size());
  for (size_t b = 0; b < begins.size(); ++b) {
    const size_t end = b + 1 < begins.size() ? begins[b + 1] : pieces.size();
    for (size_t i = begins[b]; i < end; ++i) append(packs[b], groups[static_cast<size_t>(pieces[i].group)], pieces[i]);
    Pack& p = packs[b].pack;
    const size_t rows = p.head_rows.size();
    p.weight.assign(rows, 1.0f);
    p.log_prob.resize(rows);
    p.entropy.resize(rows);
    p.loss.resize(rows);
    p.clip.resize(rows);
  }
  return packs;
}

void set_weights(PackedGroups& packed, std::span<const double> weights) {
  CHECK_EQ(weights.size(), packed.responses.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const PackedResponse& r = packed.responses[i];
    for (int k = 0; k < r.length; ++k)
      packed.pack.weight[static_cast<size_t>(r.head_row(k))] = static_cast<float>(weights[i]);
  }
}

double attention_pairs(const Pack& pack) {
  double pairs = 0;
  for (const Segment& s : pack.segments) {
    const double n = s.length;
    pairs += n * (n + 1) / 2;
    if (s.prefix >= 0) pairs += n * pack.segments[static_cast<size_t>(s.prefix)].length;
  }
  return pairs;
}

void check_pack(const Pack& pack) {
  int32_t row = 0;
  for (size_t i = 0; i < pack.segments.size(); ++i) {
    const Segment& s = pack.segments[i];
    CHECK_EQ(s.begin, row, "segment {}", i);
    CHECK_GE(s.length, 1, "segment {}", i);
    CHECK_LT(s.prefix, static_cast<int32_t>(i), "segment {}", i);
    if (s.prefix >= 0) CHECK_EQ(pack.segments[static_cast<size_t>(s.prefix)].prefix, -1, "segment {}", i);
    row += s.length;
  }
  CHECK_EQ(static_cast<size_t>(row), pack.ids.size());
  for (int32_t r : pack.head_rows) CHECK(r >= 0 && r < row, "head row {} of {}", r, row);
  const size_t rows = pack.head_rows.size();
  CHECK_EQ(pack.targets.size(), rows);
  CHECK_EQ(pack.advantage.size(), rows);
  CHECK_EQ(pack.weight.size(), rows);
  CHECK(pack.old_log_prob.empty() || pack.old_log_prob.size() == rows);
}

}  // namespace dapo
