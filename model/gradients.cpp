#include "model/gradients.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace dapo {

Gradients::Gradients(ModelMemory& memory) : memory_(memory), params_(memory.weights().params()) {
  are_zero();
}

void Gradients::zero() {
  are_zero();
  memory_.backend().zero(flat());
}

void Gradients::are_zero() {
  CHECK_EQ(mark_, 0u, "sums of gradients run");
  left_ = sharded() ? 0 : memory_.shards().buckets();
  packs_ = rounds_ = 0;
  last_pack_ = false;
}

Tensor Gradients::of(int index) const {
  if (!sharded()) return params_.view(buffers_.all, index);
  const size_t bucket = memory_.shards().bucket_of(params_.at(index).offset);
  const Param& p = params_.at(index);
  const Tensor t = bucket_values(bucket).rows(p.offset - memory_.shards().bucket(bucket).begin, p.numel());
  return p.matrix ? t.view({p.rows, p.columns}) : t;
}

/// The gradients of a bucket that this rank's packs add to.
Tensor Gradients::bucket_values(size_t bucket) const {
  const Range range = memory_.shards().bucket(bucket);
  if (!sharded()) return buffers_.all.rows(range.begin, range.count());
  return buffers_.buckets[slot(bucket)].rows(0, range.count());
}

/// Stage 2: which buffer holds a bucket. Layers take turns in two, so that one is summed while the next is computed.
size_t Gradients::slot(size_t bucket) const {
  if (bucket == Shards::embedding_bucket()) return GradientBuffers::kEmbedding;
  if (bucket == memory_.shards().last_bucket())  // an embedding of its own comes when the head is done
    return params_.head == params_.embedding ? GradientBuffers::kLast : GradientBuffers::kEmbedding;
  return GradientBuffers::kLayers + bucket % 2;
}

/// Stage 2: makes a bucket's buffer zero, after the sum that reads it.
void Gradients::clear(size_t bucket) {
  wait(std::exchange(marks_[slot(bucket)], 0));
  memory_.backend().zero(bucket_values(bucket));
}

void Gradients::begin(size_t packs, size_t most) {
  packs_ = packs;
  rounds_ = sharded() ? most : 0;
}

void Gradients::pack_begins() {
  if (sharded()) {
    CHECK(rounds_ > 0 && packs_ > 0, "begin_gradients() counts the packs of a mini-batch, where gradients are sharded");
    --rounds_;
    left_ = memory_.shards().buckets();
    clear(memory_.shards().last_bucket());
    if (params_.head == params_.embedding) clear(Shards::embedding_bucket());
  }
  CHECK_EQ(left_, memory_.shards().buckets(), "the gradients have been summed over the ranks");
  last_pack_ = packs_ == 1;
  if (packs_ > 0) --packs_;
}

void Gradients::bucket_begins(size_t bucket) {
  const bool begun = bucket == Shards::embedding_bucket() && params_.head == params_.embedding;
  if (sharded() && !begun) clear(bucket);
}

void Gradients::bucket_done(size_t bucket) {
  if (!sharded() && (!last_pack_ || !memory_.limits().overlap || ranks() == nullptr)) return;
  CHECK_EQ(bucket + 1, left_, "buckets are done from the last to the first");
  sum_next();
  if (!memory_.limits().overlap) wait(mark_);
}

void Gradients::sum_next() {
  const size_t bucket = --left_;
  sum_copies(bucket);
  Comm* const comm = ranks();
  if (comm == nullptr) return;
  if (mark_ == 0) sent_ = comm->sent();
  const ShardSlice own = memory_.shards().slice(bucket, comm->rank());
  mark_ = memory_.backend().beside([this, comm, bucket, values = bucket_values(bucket), to = sums(own)] {
    const ShardExchange exchange(memory_.backend(), *comm, memory_.shards(), memory_.constants().exchange,
                                 memory_.limits().reduce_dtype);
    exchange.reduce(to, values, bucket, sharded());
  });
  if (sharded()) marks_[slot(bucket)] = mark_;
}

void Gradients::wait(uint64_t mark) {
  if (mark > 0) ranks()->wait_for_others([&] { memory_.backend().join(mark); });
}

void Gradients::end() {
  last_pack_ = false;
  for (;;) {
    for (; left_ > 0; sum_next())
      if (sharded()) clear(left_ - 1);
    if (rounds_ == 0) break;
    --rounds_;
    left_ = memory_.shards().buckets();
  }
  if (mark_ == 0) return;
  wait(std::exchange(mark_, 0));
  marks_ = {};
  sent_ = ranks()->sent() - sent_;
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
