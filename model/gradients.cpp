#include "model/gradients.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace dapo {

void Gradients::zero() {
  are_zero();
  memory_.backend().zero(flat_);
}

void Gradients::are_zero() {
  CHECK_EQ(mark_, 0u, "sums of gradients run");
  left_ = memory_.shards().buckets();
  packs_ = 0;
  last_pack_ = false;
}

void Gradients::pack_begins() {
  CHECK_EQ(left_, memory_.shards().buckets(), "the gradients have been summed over the ranks");
  last_pack_ = packs_ == 1;
  if (packs_ > 0) --packs_;
}

void Gradients::bucket_done(size_t bucket) {
  if (!last_pack_ || !memory_.limits().overlap || ranks() == nullptr) return;
  CHECK_EQ(bucket + 1, left_, "buckets are done from the last to the first");
  sum_next();
}

void Gradients::sum_next() {
  const size_t bucket = --left_;
  sum_copies(bucket);
  Comm* const comm = ranks();
  if (comm == nullptr) return;
  if (mark_ == 0) sent_ = comm->sent();
  mark_ = memory_.backend().beside([this, comm, bucket] {
    ShardExchange(memory_.backend(), *comm, memory_.shards(), memory_.constants().exchange).reduce(flat_, bucket);
  });
}

void Gradients::end() {
  last_pack_ = false;
  while (left_ > 0) sum_next();
  if (const uint64_t mark = std::exchange(mark_, 0); mark > 0) {
    ranks()->wait_for_others([&] { memory_.backend().join(mark); });
    sent_ = ranks()->sent() - sent_;
  }
}

int64_t copies_exchange_size(const ModelConfig& c, const TensorRank& at) {
  if (at.ranks == 1) return 0;
  const int64_t of_heads = c.kv_heads % at.ranks == 0 ? 0 : 2 * c.attention().kv_width() * (c.hidden + 1);
  return 2 * int64_t{c.hidden} + of_heads;
}

/// What tensor-parallel ranks hold alike in a bucket gets the gradients of all of them, in rank order: each has seen only
/// its own tokens of a norm, and its own query heads of a key/value head.
void Gradients::sum_copies(size_t bucket) {
  Weights& weights = memory_.weights();
  const ModelConfig& config = weights.config();
  const int ranks = weights.tensor_rank().ranks;
  if (ranks == 1 || bucket == Shards::embedding_bucket()) return;
  std::vector<std::pair<int64_t, Tensor>> held;  // by its place in what all hold together
  int64_t size = 0;
  const auto add_norm = [&](int index) {
    held.emplace_back(size, of(index));
    size += config.hidden;
  };
  const auto add_kv = [&](int index, int64_t row_size) {
    const Param& p = params_.at(index);
    const size_t heads = (p.parts.size() - 1) / 2;  // q, then as many parts of k as of v
    const int64_t width = config.attention().kv_width();
    for (size_t i = 1; i < p.parts.size(); ++i) {
      const int64_t row = (i <= heads ? 0 : width) + p.parts[i].tensor_row;
      held.emplace_back(size + row * row_size, of(index).rows(p.parts[i].row_begin, p.parts[i].rows));
    }
    size += 2 * width * row_size;
  };
  if (bucket == memory_.shards().last_bucket()) {
    add_norm(params_.norm);
  } else {
    const LayerParams& l = params_.layers[bucket - Shards::layer_bucket(0)];
    add_norm(l.norm1), add_norm(l.norm2);
    if (config.kv_heads % ranks != 0) {
      add_kv(l.qkv, config.hidden);
      if (l.has_bias()) add_kv(l.qkv_bias, 1);
    }
  }
  Backend& backend = memory_.backend();
  const Tensor all = memory_.constants().copies.rows(0, size);
  backend.zero(all);
  for (const auto& [place, values] : held) backend.copy(all.rows(place, values.numel()), values);
  weights.tensor_parallel().all_reduce_sum(all);
  for (const auto& [place, values] : held) backend.copy(values, all.rows(place, values.numel()));
}

}  // namespace dapo
