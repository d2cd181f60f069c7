// Forward over packs and the pieces that rollout shares: the same ops in the same order on the same types, so that a
// sampled token's log-prob is the one that is trained on.
#include <cmath>
#include <numeric>

#include "model/impl.h"

namespace dapo {

std::vector<float> rope_table(const ModelConfig& config, int64_t length) {
  const int64_t half = config.head_dim / 2;
  std::vector<float> inverse(static_cast<size_t>(half)), table(static_cast<size_t>(length * 2 * half));
  for (int64_t i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    const double power =
        std::pow(static_cast<double>(static_cast<float>(config.rope_theta)), static_cast<double>(exponent));
    inverse[static_cast<size_t>(i)] = 1.0f / static_cast<float>(power);
  }
  for (int64_t t = 0; t < length; ++t)
    for (int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(t) * inverse[static_cast<size_t>(i)];
      float* row = table.data() + t * 2 * half;
      row[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      row[half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  return table;
}

void Model::Impl::layer_to_gate_up(int l, const LayerBuffers& b, const Tensor& x, const Tensor& delta,
                                   const AttentionInputs& in) {
  const LayerParams& p = params.layers[static_cast<size_t>(l)];
  const AttentionDims dims = config.attention();
  backend.rmsnorm(b.h, delta ? b.x_in : Tensor(), b.rstd1, x, delta, weight(p.norm1), config.rms_eps);
  backend.matmul(b.qkv, b.h, weight(p.qkv), bias(p));
  backend.rope(b.qkv, constants.rope, in.positions, dims, false);
  if (in.segments) {
    backend.attention(b.att, b.lse, b.qkv, *in.segments, dims);
  } else {
    backend.kv_write(cache(l), b.qkv, *in.sequences, dims);
    backend.paged_attention(b.att, b.qkv, cache(l), *in.sequences, dims);
  }
  backend.matmul(b.delta, b.att, weight(p.o), {});
  model.comm_.all_reduce_sum(b.delta);
  backend.rmsnorm(b.h, b.x_mid, b.rstd2, b.x_in, b.delta, weight(p.norm2), config.rms_eps);
  backend.matmul(b.gate_up, b.h, weight(p.gate_up), {});
}

void Model::Impl::layer_to_delta(int l, const LayerBuffers& b) {
  backend.swiglu(b.act, b.gate_up);
  backend.matmul(b.delta, b.act, weight(params.layers[static_cast<size_t>(l)].down), {});
  model.comm_.all_reduce_sum(b.delta);
}

void Model::Impl::gather_head(const HeadBuffers& head, const Tensor& x, const Tensor& delta, const Tensor& rows) {
  backend.gather_rows(head.x, x, rows);
  backend.gather_rows(head.delta, delta, rows);
  backend.rmsnorm(head.h, head.x, head.rstd, head.x, head.delta, weight(params.norm), config.rms_eps);
}

namespace {

/// rows [0, keys.size()) grouped by key: offsets[keys + 1] and the rows of each key, in ascending order.
struct Groups {
  std::vector<int32_t> offsets, rows;
};
Groups group_by(const std::vector<int32_t>& keys, size_t count) {
  Groups g;
  g.offsets.assign(count + 1, 0);
  g.rows.resize(keys.size());
  for (int32_t k : keys) ++g.offsets[static_cast<size_t>(k) + 1];
  std::partial_sum(g.offsets.begin(), g.offsets.end(), g.offsets.begin());
  std::vector<int32_t> at(g.offsets.begin(), g.offsets.end() - 1);
  for (size_t i = 0; i < keys.size(); ++i)
    g.rows[static_cast<size_t>(at[static_cast<size_t>(keys[i])]++)] = static_cast<int32_t>(i);
  return g;
}

/// The same over the distinct keys alone (tokens of a large vocabulary).
Groups group_distinct(const std::vector<int32_t>& keys, std::vector<int32_t>& unique) {
  Groups g;
  g.rows.resize(keys.size());
  std::iota(g.rows.begin(), g.rows.end(), 0);
  std::stable_sort(g.rows.begin(), g.rows.end(),
                   [&](int32_t a, int32_t b) { return keys[static_cast<size_t>(a)] < keys[static_cast<size_t>(b)]; });
  for (size_t i = 0; i < g.rows.size(); ++i) {
    const int32_t key = keys[static_cast<size_t>(g.rows[i])];
    if (unique.empty() || unique.back() != key) unique.push_back(key), g.offsets.push_back(static_cast<int32_t>(i));
  }
  g.offsets.push_back(static_cast<int32_t>(keys.size()));
  return g;
}

/// Checks the pack's segments and gives each row's position.
std::vector<int32_t> positions_of(const Pack& pack, const ModelLimits& limits) {
  std::vector<int32_t> positions;
  positions.reserve(pack.ids.size());
  for (size_t s = 0; s < pack.segments.size(); ++s) {
    const Segment& g = pack.segments[s];
    CHECK_EQ(g.begin, static_cast<int64_t>(positions.size()), "segment {}", s);
    CHECK_GE(g.length, 1, "segment {}", s);
    CHECK_LT(g.prefix, static_cast<int64_t>(s), "segment {}'s prefix comes before it", s);
    int32_t first = 0;
    if (g.prefix >= 0) {
      const Segment& prefix = pack.segments[static_cast<size_t>(g.prefix)];
      CHECK_LT(prefix.prefix, 0, "segment {}'s prefix has a prefix", s);
      first = prefix.length;
    }
    CHECK_LE(int64_t{first} + g.length, int64_t{limits.max_length}, "segment {}", s);
    for (int32_t i = 0; i < g.length; ++i) positions.push_back(first + i);
  }
  CHECK_EQ(positions.size(), pack.ids.size(), "segments cover the pack");
  return positions;
}

void check_ids(const std::vector<int32_t>& ids, int64_t end, const char* what) {
  for (int32_t id : ids) CHECK(id >= 0 && id < end, "{} {} of {}", what, id, end);
}

}  // namespace

PackInputs Model::Impl::stage(const Pack& pack, bool train) {
  const ModelLimits& limits = model.limits_;
  CHECK(phase == Phase::update, "begin_update() comes before packs");
  CHECK(!pack.ids.empty());
  CHECK_LE(static_cast<int64_t>(pack.ids.size()), limits.pack_tokens);
  CHECK_LE(static_cast<int64_t>(pack.segments.size()), limits.pack_segments);
  CHECK_LE(static_cast<int64_t>(pack.rows.size()), limits.pack_head_rows);
  CHECK_EQ(pack.rows.size(), pack.targets.size());
  check_ids(pack.ids, config.vocab, "token");
  check_ids(pack.targets, config.vocab, "target");
  check_ids(pack.rows, static_cast<int64_t>(pack.ids.size()), "row");
  inputs.reset();
  PackInputs in;
  in.ids = inputs.put(pack.ids);
  in.attention.positions = inputs.put(positions_of(pack, limits));
  in.segments.host = pack.segments;
  static_assert(sizeof(Segment) == 3 * sizeof(int32_t));
  const std::span<const int32_t> flat(reinterpret_cast<const int32_t*>(pack.segments.data()), pack.segments.size() * 3);
  in.segments.device = inputs.put(flat).view({static_cast<int64_t>(pack.segments.size()), 3});
  in.rows = inputs.put(pack.rows);
  in.targets = inputs.put(pack.targets);
  if (!train) return in;
  CHECK(limits.train, "reserve() was told that there is no training");
  CHECK_EQ(pack.advantage.size(), pack.rows.size());
  CHECK_EQ(pack.weight.size(), pack.rows.size());
  CHECK(pack.old_log_prob.empty() || pack.old_log_prob.size() == pack.rows.size());
  if (!pack.old_log_prob.empty()) in.old_log_prob = inputs.put(pack.old_log_prob);
  in.advantage = inputs.put(pack.advantage);
  in.weight = inputs.put(pack.weight);
  std::vector<int32_t> unique;
  const Groups by_id = group_distinct(pack.ids, unique), by_row = group_by(pack.rows, pack.ids.size());
  in.unique = inputs.put(unique);
  in.id_offsets = inputs.put(by_id.offsets);
  in.id_rows = inputs.put(by_id.rows);
  in.head_offsets = inputs.put(by_row.offsets);
  in.head_rows = inputs.put(by_row.rows);
  return in;
}

void Model::Impl::forward_pack(const PackInputs& in) {
  AttentionInputs attention = in.attention;
  attention.segments = &in.segments;
  const int64_t n = in.ids.dim(0);
  Tensor x, delta;
  for (int l = 0; l < config.layers; ++l) {
    const LayerBuffers b = update.layers[static_cast<size_t>(l)].first(n);
    if (l == 0) backend.embedding(x = b.x_in, weight(params.embedding), in.ids, 0);
    layer_to_gate_up(l, b, x, delta, attention);
    layer_to_delta(l, b);
    x = b.x_mid, delta = b.delta;
  }
}

void Model::Impl::gather_pack_head(const PackInputs& in, const Tensor& rows, const HeadBuffers& head) {
  const LayerBuffers last = update.layers.back().first(in.ids.dim(0));
  gather_head(head, last.x_mid, last.delta, rows);
}

void Model::score(Pack& pack, float temperature) {
  Impl& m = *impl_;
  const PackInputs in = m.stage(pack, false);
  const int64_t r = in.rows.dim(0);
  m.forward_pack(in);
  const HeadBuffers head = m.update.head.first(r);
  m.gather_pack_head(in, in.rows, head);
  const Tensor log_prob = m.update.log_prob.rows(0, r), entropy = m.update.entropy.rows(0, r);
  backend_.lm_logprob(log_prob, entropy, head.h, m.weight(params_.head), in.targets, temperature);
  pack.log_prob.resize(pack.rows.size());
  pack.entropy.resize(pack.rows.size());
  backend_.copy_out(pack.log_prob.data(), log_prob);
  backend_.copy_out(pack.entropy.data(), entropy);
  backend_.synchronize();
}

std::vector<float> Model::logits(const Pack& pack) {
  Impl& m = *impl_;
  const PackInputs in = m.stage(pack, false);
  const int64_t n = in.ids.dim(0), v = config_.vocab, step = std::min(n, limits_.pack_head_rows);
  m.forward_pack(in);
  const DType dtype = backend_.dtype();
  Impl::Block block = m.allocate(static_cast<size_t>(step * v) * dtype_size(dtype));
  std::vector<float> out(static_cast<size_t>(n * v));
  std::vector<bf16> half(dtype == DType::bf16 ? static_cast<size_t>(step * v) : 0);
  backend_.synchronize();  // the pack's inputs have left the pinned memory that the rows' indices take
  for (int64_t begin = 0; begin < n; begin += step) {
    const int64_t count = std::min(step, n - begin);
    std::vector<int32_t> index(static_cast<size_t>(count));
    std::iota(index.begin(), index.end(), static_cast<int32_t>(begin));
    m.inputs.reset();
    const Tensor rows = m.inputs.put(index), y(block.data, dtype, {count, v});
    const HeadBuffers head = m.update.head.first(count);
    m.gather_pack_head(in, rows, head);
    backend_.matmul(y, head.h, m.weight(params_.head), {});
    float* to = out.data() + begin * v;
    if (dtype == DType::f32) {
      backend_.copy_out_now(to, y);
    } else {
      backend_.copy_out_now(half.data(), y);
      for (int64_t i = 0; i < count * v; ++i) to[i] = to_float(half[static_cast<size_t>(i)]);
    }
  }
  m.release(block);
  return out;
}

}  // namespace dapo
