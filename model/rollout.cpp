// Prefill and decode over KV pages.
#include <algorithm>
#include <bit>

#include "core/sizes.h"
#include "model/impl.h"

namespace dapo {

void Model::Impl::forward_paged(const Tensor& ids, const AttentionInputs& in, const Tensor& rows,
                                const HeadBuffers& head) {
  const LayerBuffers b = rollout.layer.first(ids.dim(0));
  backend.embedding(b.x_in, weight(params.embedding), ids, 0);
  Tensor delta;
  for (int l = 0; l < config.layers; ++l) {
    layer_to_gate_up(l, b, b.x_in, delta, in);
    layer_to_delta(l, b);
    delta = b.delta;
  }
  if (rows.dim(0) > 0) gather_head(head, b.x_mid, b.delta, rows);
}

PagedSequences Model::Impl::put_sequences(const PagedBatch& batch, size_t asked, int max_rows, int extra) {
  const size_t count = batch.prefix_length.size();
  CHECK_EQ(batch.own_length.size(), count);
  CHECK_EQ(batch.row_begin.size(), count + 1);
  CHECK_EQ(batch.pages.size(), count * static_cast<size_t>(batch.max_pages));
  CHECK_LE(static_cast<int64_t>(batch.max_pages), max_pages(model.limits_));
  CHECK_LE(count, static_cast<size_t>(model.limits_.batch));
  const int page = model.limits_.page_size;
  int longest = 0;
  for (size_t b = 0; b < count; ++b) {
    const int prefix = batch.prefix_length[b], own = batch.own_length[b];
    const int rows = batch.row_begin[b + 1] - batch.row_begin[b];
    CHECK(rows >= 0 && rows <= max_rows && rows <= own, "sequence {}: {} rows of {}", b, rows, own);
    if (rows == 0) continue;
    const int length = prefix + own + extra, pages = ceil_div(prefix, page) + ceil_div(own + extra, page);
    CHECK_LE(length, model.limits_.max_length, "sequence {}", b);
    CHECK_LE(pages, batch.max_pages, "sequence {}: {} + {} + {} tokens", b, prefix, own, extra);
    for (int i = 0; i < pages; ++i) {
      const int32_t p = batch.pages[b * static_cast<size_t>(batch.max_pages) + static_cast<size_t>(i)];
      const int64_t there = b < asked ? model.limits_.kv_pages : cache_pages();
      CHECK(p >= 0 && p < there, "sequence {}: page {} of {}", b, p, there);
    }
    longest = std::max(longest, length);
  }
  PagedSequences s{};
  s.row_begin = inputs.put(batch.row_begin);
  s.prefix_length = inputs.put(batch.prefix_length);
  s.own_length = inputs.put(batch.own_length);
  s.pages = inputs.put(batch.pages).view({static_cast<int64_t>(count), batch.max_pages});
  s.page_size = page;
  s.max_rows = max_rows;
  s.max_length = std::min((longest + 511) / 512 * 512, model.limits_.max_length);  // few values: graphs are kept by it
  return s;
}

namespace {

/// Position of each new row: the new rows are the last of their sequence.
std::vector<int32_t> row_positions(const PagedBatch& batch) {
  std::vector<int32_t> positions;
  for (size_t b = 0; b < batch.prefix_length.size(); ++b) {
    const int32_t rows = batch.row_begin[b + 1] - batch.row_begin[b];
    for (int32_t i = 0; i < rows; ++i) positions.push_back(batch.prefix_length[b] + batch.own_length[b] - rows + i);
  }
  return positions;
}

std::span<const int32_t> flat(const std::vector<DrawKey>& keys) {
  static_assert(sizeof(DrawKey) == 3 * sizeof(int32_t));
  return {reinterpret_cast<const int32_t*>(keys.data()), keys.size() * 3};
}

void check_batch(const PagedBatch& batch, const ModelLimits& limits, int64_t vocab) {
  const size_t rows = batch.ids.size(), draws = batch.keys.size();
  CHECK(!batch.row_begin.empty());
  CHECK_EQ(batch.row_begin[0], 0);
  CHECK_EQ(batch.row_begin.back(), static_cast<int64_t>(rows));
  CHECK_EQ(batch.positions.size(), draws);
  CHECK_LE(draws, static_cast<size_t>(limits.batch));
  for (int32_t id : batch.ids) CHECK(id >= 0 && id < vocab, "token {} of {}", id, vocab);
}

}  // namespace

void Model::prefill(const PagedBatch& batch, const Sampling& sampling, std::span<int32_t> tokens,
                    std::span<float> log_prob) {
  Impl& m = *impl_;
  CHECK(m.phase == Impl::Phase::rollout, "begin_rollout() comes before prefill");
  CHECK(!batch.ids.empty());
  CHECK_LE(batch.ids.size(), static_cast<size_t>(m.rollout.layer.h.dim(0)));
  check_batch(batch, limits_, config_.vocab);
  for (int32_t r : batch.sample_rows)
    CHECK(r >= 0 && static_cast<size_t>(r) < batch.ids.size(), "row {} of {}", r, batch.ids.size());
  const int64_t draws = static_cast<int64_t>(batch.sample_rows.size());
  CHECK_EQ(batch.keys.size(), batch.sample_rows.size());
  CHECK(tokens.size() == batch.sample_rows.size() && log_prob.size() == batch.sample_rows.size());
  int max_rows = 0;
  for (size_t b = 0; b + 1 < batch.row_begin.size(); ++b)
    max_rows = std::max(max_rows, batch.row_begin[b + 1] - batch.row_begin[b]);
  m.decode_rows = 0;
  m.inputs.reset();
  const Tensor ids = m.inputs.put(batch.ids), rows = m.inputs.put(batch.sample_rows);
  const PagedSequences sequences = m.put_sequences(batch, batch.prefix_length.size(), max_rows, 0);
  const AttentionInputs in{m.inputs.put(row_positions(batch)), nullptr, &sequences};
  const HeadBuffers head = m.rollout.head.first(draws);
  m.forward_paged(ids, in, rows, head);
  if (draws > 0) {
    const Tensor out = m.rollout.tokens.rows(0, draws), out_log_prob = m.rollout.log_prob.rows(0, draws);
    const Tensor keys = m.inputs.put(flat(batch.keys)).view({draws, 3}), positions = m.inputs.put(batch.positions);
    backend_.lm_sample(out, out_log_prob, head.h, m.weight(params_.head), keys, positions, sampling);
    backend_.copy_out(tokens.data(), out);
    backend_.copy_out(log_prob.data(), out_log_prob);
  }
  backend_.synchronize();
}

namespace {

/// Rows of a decode batch of n sequences: few numbers, for a GPU records a decode step once for each.
size_t decode_bucket(size_t n, size_t most) {
  const size_t unit = n <= 8 ? std::bit_ceil(n) : n <= 64 ? 8 : n <= 256 ? 16 : 64;
  return std::min(most, round_up(n, unit));
}

/// The batch with sequences of one token behind it, which live on page `spare` and are thrown away.
PagedBatch filled_up(PagedBatch b, size_t rows, int32_t spare) {
  for (size_t i = b.ids.size(); i < rows; ++i) {
    b.ids.push_back(0);
    b.row_begin.push_back(b.row_begin.back() + 1);
    b.prefix_length.push_back(0);
    b.own_length.push_back(1);
    b.pages.insert(b.pages.end(), static_cast<size_t>(b.max_pages), spare);
    b.keys.push_back({});
    b.positions.push_back(0);
  }
  return b;
}

}  // namespace

void Model::decode_begin(const PagedBatch& asked, int max_steps) {
  Impl& m = *impl_;
  CHECK(m.phase == Impl::Phase::rollout, "begin_rollout() comes before decode");
  check_batch(asked, limits_, config_.vocab);
  m.decode_sequence_count = static_cast<int64_t>(asked.ids.size());
  CHECK_EQ(asked.prefix_length.size(), asked.ids.size(), "one row a sequence");
  CHECK_EQ(asked.keys.size(), asked.ids.size());
  CHECK_GE(asked.ids.size(), size_t{1});
  const size_t count = backend_.device() == Device::cpu
                           ? asked.ids.size()
                           : decode_bucket(asked.ids.size(), static_cast<size_t>(limits_.batch));
  const PagedBatch batch = filled_up(asked, count, static_cast<int32_t>(limits_.kv_pages));
  CHECK(max_steps >= 1 && max_steps <= limits_.decode_steps, "{} steps of {}", max_steps, limits_.decode_steps);
  m.inputs.reset();
  m.decode_ids = m.inputs.put(batch.ids);
  m.decode_sequences = m.put_sequences(batch, asked.ids.size(), 1, max_steps - 1);
  m.decode_row_positions = m.inputs.put(row_positions(batch));
  m.decode_keys = m.inputs.put(flat(batch.keys)).view({static_cast<int64_t>(count), 3});
  m.decode_positions = m.inputs.put(batch.positions);
  m.decode_rows = static_cast<int64_t>(count);
  m.decode_steps = max_steps;
}

namespace {

/// Calls with the same key issue the same ops on the same addresses.
uint64_t decode_key(const Tensor& weights, const Tensor& cache, int64_t rows, const PagedSequences& s,
                    const Sampling& p) {
  uint64_t key = 0;
  const auto mix = [&](uint64_t v) { key = (key ^ v) * 0x9E3779B97F4A7C15u, key ^= key >> 29; };
  for (const Tensor* t : {&weights, &cache, &s.pages}) mix(reinterpret_cast<uintptr_t>(t->data));
  for (const uint64_t v : {static_cast<uint64_t>(rows), static_cast<uint64_t>(s.pages.dim(1)),
                           static_cast<uint64_t>(s.max_length), static_cast<uint64_t>(p.top_k), p.seed})
    mix(v);
  for (const float v : {p.temperature, p.top_p, p.min_p}) mix(float_bits(v));
  return key;
}

}  // namespace

void Model::decode_step(int i, const Sampling& sampling) {
  Impl& m = *impl_;
  CHECK(m.decode_rows > 0, "decode_begin() comes before decode_step");
  CHECK(i >= 0 && i < m.decode_steps, "step {} of {}", i, m.decode_steps);
  const int64_t n = m.decode_rows;
  const Tensor log_prob = m.rollout.log_prob.rows(0, n);
  backend_.replayable(decode_key(weights_, m.rollout.cache, n, m.decode_sequences, sampling), [&] {
    const AttentionInputs in{m.decode_row_positions, nullptr, &m.decode_sequences};
    // Every row is sampled from: row_begin, 0 to n, lists them.
    const HeadBuffers head = m.rollout.head.first(n);
    m.forward_paged(m.decode_ids, in, m.decode_sequences.row_begin.rows(0, n), head);
    backend_.lm_sample(m.decode_ids, log_prob, head.h, m.weight(params_.head), m.decode_keys, m.decode_positions,
                       sampling);
    backend_.increment(m.decode_sequences.own_length);
    backend_.increment(m.decode_row_positions);
    backend_.increment(m.decode_positions);
  });
  backend_.copy(m.rollout.step_tokens.rows(i * n, n), m.decode_ids);
  backend_.copy(m.rollout.step_log_prob.rows(i * n, n), log_prob);
}

void Model::decode_collect(int n, std::span<int32_t> tokens, std::span<float> log_prob) {
  Impl& m = *impl_;
  CHECK(n >= 0 && n <= m.decode_steps, "{} steps of {}", n, m.decode_steps);
  const int64_t count = m.decode_sequence_count;
  CHECK(tokens.size() == static_cast<size_t>(n * count) && log_prob.size() == tokens.size());
  for (int i = 0; i < n; ++i) {
    backend_.copy_out(tokens.data() + i * count, m.rollout.step_tokens.rows(i * m.decode_rows, count));
    backend_.copy_out(log_prob.data() + i * count, m.rollout.step_log_prob.rows(i * m.decode_rows, count));
  }
  backend_.synchronize();
}

}  // namespace dapo
