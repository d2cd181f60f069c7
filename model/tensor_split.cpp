#include "model/tensor_split.h"

#include "core/softmax.h"

namespace dapo {
namespace {

/// Columns of the MLP are dealt in units of this many, fewer in a small model: weights stay aligned.
int64_t ffn_unit(int64_t ffn, int ranks) {
  int64_t unit = 64;
  while (unit > 1 && ceil_div(ffn, unit) < ranks) unit /= 2;
  return unit;
}

bool by_group(const ModelConfig& c, int ranks) {
  return c.kv_heads % ranks == 0 || (ranks % c.kv_heads == 0 && c.heads / c.kv_heads >= ranks / c.kv_heads);
}

/// The query heads of a rank.
Range heads_of(const ModelConfig& c, const TensorRank& at) {
  const int64_t group = c.heads / c.kv_heads;
  if (c.kv_heads % at.ranks == 0) {
    const int64_t each = c.heads / at.ranks;
    return {at.rank * each, (at.rank + 1) * each};
  }
  if (by_group(c, at.ranks)) {
    const int each = at.ranks / c.kv_heads, first = at.rank / each;  // ranks of a group, and the group
    const Range part = share_of(group, 1, each, at.rank % each);
    return {first * group + part.begin, first * group + part.end};
  }
  return share_of(c.heads, 1, at.ranks, at.rank);
}

/// The key/value heads that a range of query heads reads.
Range kv_heads_of(const ModelConfig& c, const Range& heads) {
  const int64_t group = c.heads / c.kv_heads;
  return {heads.begin / group, ceil_div(heads.end, group)};
}

}  // namespace

std::string why_not_split(const ModelConfig& c, int ranks) {
  if (ranks == 1) return "";
  if (ranks > c.heads) return fmt::format("it has {} attention heads", c.heads);
  if (ranks > c.ffn) return fmt::format("its MLP has {} columns", c.ffn);
  if (by_group(c, ranks)) return "";
  if (c.heads % ranks != 0)
    return fmt::format("neither its {} key/value heads nor its {} attention heads can be dealt evenly", c.kv_heads,
                       c.heads);
  // Every rank's query heads must be spread evenly over its key/value heads (AttentionDims).
  const int64_t group = c.heads / c.kv_heads, each = c.heads / ranks;
  for (int r = 0; r < ranks; ++r) {
    const Range heads = heads_of(c, {ranks, r}), kv = kv_heads_of(c, heads);
    for (int64_t k = kv.begin; k < kv.end; ++k) {
      const int64_t count = std::min(heads.end, (k + 1) * group) - std::max(heads.begin, k * group);
      if (count * kv.count() != each)
        return fmt::format("a rank would have {} of its {} attention heads, unevenly over {} key/value heads", each,
                           c.heads, kv.count());
    }
  }
  return "";
}

TensorShare tensor_share(const ModelConfig& c, const TensorRank& at) {
  if (const std::string why = why_not_split(c, at.ranks); !why.empty())
    fail_input("parallel.tp = {}: the model cannot be split over so many ranks: {}", at.ranks, why);
  const Range heads = heads_of(c, at);
  return {heads, kv_heads_of(c, heads), share_of(c.ffn, ffn_unit(c.ffn, at.ranks), at.ranks, at.rank),
          share_of(c.vocab, kSoftmaxTile, at.ranks, at.rank)};
}

ModelConfig local_config(const ModelConfig& config, const TensorRank& at) {
  if (at.ranks == 1) return config;
  const TensorShare share = tensor_share(config, at);
  ModelConfig local = config;
  local.heads = static_cast<int>(share.heads.count());
  local.kv_heads = static_cast<int>(share.kv_heads.count());
  local.ffn = static_cast<int>(share.ffn.count());
  local.vocab = static_cast<int>(share.vocab.count());
  return local;
}

Range kv_head_holders(const ModelConfig& config, int ranks, int64_t kv_head) {
  Range holders{ranks, 0};
  for (int r = 0; r < ranks; ++r) {
    const Range kv = kv_heads_of(config, heads_of(config, {ranks, r}));
    if (kv_head < kv.begin || kv_head >= kv.end) continue;
    holders.begin = std::min<int64_t>(holders.begin, r);
    holders.end = r + 1;
  }
  return holders;
}

}  // namespace dapo
