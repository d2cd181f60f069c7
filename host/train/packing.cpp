#include "host/train/packing.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "core/sizes.h"

namespace dapo {
namespace {

constexpr int32_t kNoPrefix = -1;  // Segment::prefix

int64_t segments_of(const PackResponse& r) {
  return r.ids.size() > 1 ? 1 : 0;
}

/// Splits a group into as few pieces as the limits allow.
std::vector<PackPiece> cut_group(int index, const PackInput& g, const PackLimits& limits) {
  std::vector<PackPiece> pieces;
  const int64_t prompt = g.prompt.size();
  CHECK_GT(prompt, 0, "group {}", index);
  PackPiece p{index, 0, 0, prompt, 1};
  for (int i = 0; i < std::ssize(g.responses); ++i) {
    const PackResponse& r = g.responses[i];
    const int64_t tokens = r.ids.size();
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

/// The same, but pieces of over twice limits.wanted tokens, or of over `share`, are split further, evenly. 0: no limit.
std::vector<PackPiece> cut_evenly(int index, const PackInput& g, PackLimits limits, int64_t share) {
  std::vector<PackPiece> pieces = cut_group(index, g, limits);
  int64_t least = 0;
  for (const PackResponse& r : g.responses) least = std::max<int64_t>(least, g.prompt.size() + r.ids.size());
  if ((limits.wanted <= 0 && share <= 0) || pieces.empty()) return pieces;
  int64_t most = limits.tokens;
  if (limits.wanted > 0) most = std::min(most, 2 * limits.wanted);
  if (share > 0) most = std::min(most, share);
  limits.tokens = std::max(least, most);
  const size_t count = cut_group(index, g, limits).size();
  while (least < limits.tokens) {  // find the smallest capacity that needs no more pieces
    PackLimits tighter = limits;
    tighter.tokens = least + (limits.tokens - least) / 2;
    if (cut_group(index, g, tighter).size() <= count)
      limits = tighter;
    else
      least = tighter.tokens + 1;
  }
  return cut_group(index, g, limits);
}

/// First piece of each pack, if packs take pieces in order while they fit into `tokens`.
std::vector<size_t> first_pieces(const std::vector<PackPiece>& pieces, int64_t tokens, int64_t segments) {
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

void append(MicroBatch& out, const PackInput& g, const PackPiece& piece) {
  Pack& p = out.pack;
  const int32_t prefix = p.segments.size(), prompt_begin = p.ids.size(), prompt_length = g.prompt.size();
  p.segments.push_back({.begin = prompt_begin, .length = prompt_length, .prefix = kNoPrefix});
  p.ids.insert(p.ids.end(), g.prompt.begin(), g.prompt.end());
  const auto head = [&p](size_t row, const PackResponse& r, size_t k, size_t placement) {
    p.head_rows.push_back(row);
    p.targets.push_back(r.ids[k]);
    p.advantage.push_back(r.advantage);
    p.sequence.push_back(placement);
    if (!r.ref_log_prob.empty()) p.ref_log_prob.push_back(r.ref_log_prob[k]);
    if (!r.old_log_prob.empty()) p.old_log_prob.push_back(r.old_log_prob[k]);
  };
  const size_t last = p.ids.size() - 1, first = out.placements.size();
  for (int i = piece.begin; i < piece.end; ++i) {
    const PackResponse& r = g.responses[i];
    if (r.ids.empty()) continue;
    const int head_row = p.head_rows.size(), length = r.ids.size();
    out.placements.push_back({.group = piece.group, .response = i, .first = head_row, .rest = 0, .length = length});
    head(last, r, 0, out.placements.size() - 1);
  }
  for (size_t i = first; i < out.placements.size(); ++i) {
    const PackResponse& r = g.responses[out.placements[i].response];
    out.placements[i].rest = p.head_rows.size();
    if (r.ids.size() == 1) continue;
    const int32_t begin = p.ids.size(), length = r.ids.size() - 1;
    p.segments.push_back({.begin = begin, .length = length, .prefix = prefix});
    p.ids.insert(p.ids.end(), r.ids.begin(), r.ids.end() - 1);
    for (size_t k = 1; k < r.ids.size(); ++k) head(begin + k - 1, r, k, i);
  }
}

}  // namespace

namespace {

/// Tokens of a piece, and its pairs at their price.
double cost_of(const PackPiece& piece, const PackInput& g, double pair_cost) {
  const double prompt = g.prompt.size();
  double pairs = prompt * (prompt + 1) / 2;
  for (int i = piece.begin; i < piece.end; ++i) {
    const double n = std::max<int64_t>(0, std::ssize(g.responses[i].ids) - 1);
    pairs += n * prompt + n * (n + 1) / 2;
  }
  return piece.tokens + pair_cost * pairs;
}

/// The pieces of each rank, in order.
std::vector<std::vector<PackPiece>> deal(std::span<const PackInput> groups, const std::vector<PackPiece>& pieces,
                                         double pair_cost, int ranks) {
  std::vector<double> cost;
  cost.reserve(pieces.size());
  for (const PackPiece& p : pieces) cost.push_back(cost_of(p, groups[p.group], pair_cost));
  std::vector<size_t> order(pieces.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), [&](size_t i) { return cost[i]; });
  std::vector<double> load(ranks, 0);
  std::vector<int> rank_of(pieces.size());
  for (size_t i : order) {
    rank_of[i] = std::ranges::min_element(load) - load.begin();
    load[rank_of[i]] += cost[i];
  }
  std::vector<std::vector<PackPiece>> dealt(ranks);
  for (size_t i = 0; i < pieces.size(); ++i) dealt[rank_of[i]].push_back(pieces[i]);
  return dealt;
}

/// As few and then as even packs as the order of the pieces allows.
void add_packs(std::vector<PackPlan>& out, int rank, const std::vector<PackPiece>& pieces, const PackLimits& limits) {
  // The smallest capacity that needs no more packs than the limit does gives even packs.
  int64_t low = 0, high = limits.wanted > 0 ? std::min(limits.wanted, limits.tokens) : limits.tokens;
  for (const PackPiece& p : pieces) low = std::max(low, p.tokens);
  high = std::max(low, high);
  std::vector<size_t> begins = first_pieces(pieces, high, limits.segments);
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (first_pieces(pieces, middle, limits.segments).size() <= begins.size())
      high = middle;
    else
      low = middle + 1;
  }
  begins = first_pieces(pieces, high, limits.segments);
  for (size_t b = 0; b < begins.size(); ++b) {
    const size_t end = b + 1 < begins.size() ? begins[b + 1] : pieces.size();
    out.push_back({rank, {pieces.begin() + begins[b], pieces.begin() + end}});
  }
}

}  // namespace

std::vector<PackPlan> plan_packs(std::span<const PackInput> groups, const PackLimits& limits, int ranks) {
  int64_t total = 0;
  for (const PackInput& g : groups) {
    int64_t tokens = 0;
    for (const PackResponse& r : g.responses) tokens += r.ids.size();
    if (tokens > 0) total += tokens + g.prompt.size();
  }
  std::vector<PackPiece> pieces;
  for (size_t g = 0; g < groups.size(); ++g) {
    const std::vector<PackPiece> cut = cut_evenly(g, groups[g], limits, ranks > 1 ? ceil_div(total, ranks) : 0);
    pieces.insert(pieces.end(), cut.begin(), cut.end());
  }
  std::vector<PackPlan> packs;
  const std::vector<std::vector<PackPiece>> dealt = deal(groups, pieces, limits.pair_cost, ranks);
  for (int r = 0; r < ranks; ++r) add_packs(packs, r, dealt[r], limits);
  return packs;
}

MicroBatch build_pack(std::span<const PackInput> groups, const PackPlan& plan) {
  MicroBatch out;
  for (const PackPiece& piece : plan.pieces) append(out, groups[piece.group], piece);
  const size_t head_rows = out.pack.head_rows.size();
  out.pack.weight.assign(head_rows, 1.0f);
  out.pack.log_prob.resize(head_rows);
  out.pack.entropy.resize(head_rows);
  out.pack.loss.resize(head_rows);
  out.pack.clip.resize(head_rows);
  return out;
}

std::vector<MicroBatch> pack_groups(std::span<const PackInput> groups, const PackLimits& limits) {
  std::vector<MicroBatch> packs;
  for (const PackPlan& plan : plan_packs(groups, limits, 1)) packs.push_back(build_pack(groups, plan));
  return packs;
}

void set_weights(MicroBatch& packed, std::span<const double> weights) {
  CHECK_EQ(weights.size(), packed.placements.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const Placement& p = packed.placements[i];
    for (int k = 0; k < p.length; ++k) packed.pack.weight[p.head_row(k)] = weights[i];
  }
}

double attention_pairs(const Pack& pack) {
  double pairs = 0;
  for (const Segment& s : pack.segments) {
    const double n = s.length;
    pairs += n * (n + 1) / 2;
    if (s.prefix != kNoPrefix) pairs += n * pack.segments[s.prefix].length;
  }
  return pairs;
}

void check_pack(const Pack& pack) {
  int32_t tokens = 0;
  for (int i = 0; i < std::ssize(pack.segments); ++i) {
    const Segment& s = pack.segments[i];
    CHECK_EQ(s.begin, tokens, "segment {}", i);
    CHECK_GE(s.length, 1, "segment {}", i);
    CHECK(s.prefix >= kNoPrefix && s.prefix < i, "segment {}: prefix {}", i, s.prefix);
    if (s.prefix != kNoPrefix) CHECK_EQ(pack.segments[s.prefix].prefix, kNoPrefix, "segment {}", i);
    tokens += s.length;
  }
  CHECK_EQ(tokens, std::ssize(pack.ids));
  for (int32_t r : pack.head_rows) CHECK(r >= 0 && r < tokens, "head row at token {} of {}", r, tokens);
  const size_t head_rows = pack.head_rows.size();
  CHECK_EQ(pack.targets.size(), head_rows);
  CHECK_EQ(pack.advantage.size(), head_rows);
  CHECK_EQ(pack.weight.size(), head_rows);
  CHECK_EQ(pack.sequence.size(), head_rows);
  CHECK(pack.old_log_prob.empty() || pack.old_log_prob.size() == head_rows);
}

}  // namespace dapo
