// A pack's checks, and its inputs on the device.
#include <algorithm>
#include <numeric>
#include <span>

#include "model/learner.h"

namespace dapo {
namespace {

/// For each key its rows, in ascending order: rows[offsets[k], offsets[k + 1]) have key k.
struct RowIndex {
  std::vector<int32_t> offsets, rows;
};

/// Keys 0 ... key_count - 1, of which some may have no rows.
RowIndex index_by(const std::vector<int32_t>& keys, size_t key_count) {
  RowIndex index;
  index.offsets.assign(key_count + 1, 0);
  index.rows.resize(keys.size());
  for (const int32_t k : keys) ++index.offsets[static_cast<size_t>(k) + 1];
  std::partial_sum(index.offsets.begin(), index.offsets.end(), index.offsets.begin());
  std::vector<int32_t> next(index.offsets.begin(), index.offsets.end() - 1);
  int32_t row = 0;
  for (const int32_t k : keys) index.rows[static_cast<size_t>(next[static_cast<size_t>(k)]++)] = row++;
  return index;
}

/// The distinct keys alone, for keys from a large range (a vocabulary); only those that are in `own`, counted from its
/// begin.
RowIndex index_by_distinct(const std::vector<int32_t>& keys, const Range& own, std::vector<int32_t>& distinct) {
  RowIndex index;
  for (int32_t row = 0; row < std::ssize(keys); ++row)
    if (const int32_t k = keys[static_cast<size_t>(row)]; k >= own.begin && k < own.end) index.rows.push_back(row);
  const auto key = [&](int32_t row) { return keys[static_cast<size_t>(row)]; };
  std::stable_sort(index.rows.begin(), index.rows.end(), [&](int32_t a, int32_t b) { return key(a) < key(b); });
  int32_t at = 0;
  for (const int32_t row : index.rows) {
    if (distinct.empty() || distinct.back() != key(row)) distinct.push_back(key(row)), index.offsets.push_back(at);
    ++at;
  }
  index.offsets.push_back(at);
  for (int32_t& k : distinct) k -= static_cast<int32_t>(own.begin);
  return index;
}

/// Checks the segments and returns the position of each token.
std::vector<int32_t> token_positions(const Pack& pack, const ModelLimits& limits) {
  std::vector<int32_t> positions;
  positions.reserve(pack.ids.size());
  for (size_t s = 0; s < pack.segments.size(); ++s) {
    const Segment& segment = pack.segments[s];
    CHECK_EQ(segment.begin, std::ssize(positions), "segment {}", s);
    CHECK_GE(segment.length, 1, "segment {}", s);
    CHECK_LT(segment.prefix, static_cast<int64_t>(s), "segment {} comes before its prefix", s);
    int32_t first = 0;
    if (segment.prefix >= 0) {
      const Segment& prefix = pack.segments[static_cast<size_t>(segment.prefix)];
      CHECK_LT(prefix.prefix, 0, "the prefix of segment {} has a prefix", s);
      first = prefix.length;
    }
    CHECK_LE(first + int64_t{segment.length}, int64_t{limits.max_length}, "segment {}", s);
    for (int32_t i = 0; i < segment.length; ++i) positions.push_back(first + i);
  }
  CHECK_EQ(positions.size(), pack.ids.size(), "segments must cover the pack");
  return positions;
}

void check_range(const std::vector<int32_t>& values, int64_t end, const char* what) {
  for (const int32_t v : values) CHECK(v >= 0 && v < end, "{} {} of {}", what, v, end);
}

}  // namespace

PackInputs Learner::stage(const Pack& pack) {
  CHECK(memory_.held_by(this), "begin() comes before packs");
  CHECK(!pack.ids.empty());
  CHECK_LE(std::ssize(pack.ids), limits().pack_tokens);
  CHECK_LE(std::ssize(pack.segments), limits().pack_segments);
  CHECK_LE(std::ssize(pack.head_rows), limits().pack_head_rows);
  CHECK_EQ(pack.head_rows.size(), pack.targets.size());
  check_range(pack.ids, config().vocab, "token");
  check_range(pack.targets, config().vocab, "target");
  check_range(pack.head_rows, std::ssize(pack.ids), "head row");
  staged_.reset();
  PackInputs in;
  in.ids = staged_.put(pack.ids);
  in.positions = staged_.put(token_positions(pack, limits()));
  in.segments.host = pack.segments;
  static_assert(sizeof(Segment) == 3 * sizeof(int32_t));
  const std::span<const int32_t> flat(reinterpret_cast<const int32_t*>(pack.segments.data()), pack.segments.size() * 3);
  in.segments.device = staged_.put(flat).view({std::ssize(pack.segments), 3});
  in.head_rows = staged_.put(pack.head_rows);
  in.targets = staged_.put(pack.targets);
  return in;
}

void Learner::stage_for_training(const Pack& pack, PackInputs& in) {
  CHECK(limits().train, "the memory has no room for training");
  CHECK_EQ(pack.advantage.size(), pack.head_rows.size());
  CHECK_EQ(pack.weight.size(), pack.head_rows.size());
  CHECK(pack.old_log_prob.empty() || pack.old_log_prob.size() == pack.head_rows.size());
  if (!pack.old_log_prob.empty()) in.old_log_prob = staged_.put(pack.old_log_prob);
  in.advantage = staged_.put(pack.advantage);
  in.weight = staged_.put(pack.weight);
  CHECK(pack.ref_log_prob.empty() || pack.ref_log_prob.size() == pack.head_rows.size());
  if (!pack.ref_log_prob.empty()) in.ref_log_prob = staged_.put(pack.ref_log_prob);
  std::vector<int32_t> distinct;
  const Range own = tensor_share(config(), weights_.tensor_rank()).vocab;
  const RowIndex by_id = index_by_distinct(pack.ids, own, distinct),
                 by_token = index_by(pack.head_rows, pack.ids.size());
  in.tokens_by_id = {staged_.put(distinct), staged_.put(by_id.offsets), staged_.put(by_id.rows)};
  in.heads_by_token = {{}, staged_.put(by_token.offsets), staged_.put(by_token.rows)};
}

}  // namespace dapo
