#include "model/decode.h"

#include <algorithm>
#include <bit>

#include "core/sizes.h"

namespace dapo {

Decoder::Decoder(ModelMemory& memory)
    : memory_(memory), backend_(memory.backend()), layers_(memory.weights(), memory.constants().rope) {
  CHECK(limits().batch > 0, "the memory has no room for decoding");
}

void Decoder::begin() {
  memory_.use_workspace();
  Arena arena = memory_.give_shared(this);
  buffers_ = lay_rollout(arena, config(), limits(), dtype());
  CHECK_EQ(arena.peak(), memory_.plan().rollout, "the plan differs from the layout");
  staged_ = memory_.staged_inputs(buffers_.inputs);
}

LayerBuffers Decoder::forward(const Tensor& ids, const PagedSequences& sequences) const {
  const LayerBuffers b = buffers_.layer.first(ids.dim(0));
  const AttentionInputs in{.positions = {}, .segments = nullptr, .sequences = &sequences, .cache = buffers_.cache};
  layers_.embed(b, ids, {});
  Tensor delta;
  for (int l = 0; l < config().layers; ++l) {
    layers_.attention_half(l, b, b.x_in, delta, in);
    layers_.mlp_half(l, b);
    delta = b.delta;
  }
  return b;
}

namespace {

/// Few values of PagedSequences::max_length, since a device records a decode step once for each.
constexpr int kLengthStep = 512;

int pages_for(int tokens, int page_size) {
  return ceil_div(tokens, page_size);
}

/// DrawKeys as i32[n, 3].
Tensor stage_keys(StagedInputs& staged, const std::vector<DrawKey>& keys) {
  static_assert(sizeof(DrawKey) == 3 * sizeof(int32_t));
  const std::span<const int32_t> flat(reinterpret_cast<const int32_t*>(keys.data()), keys.size() * 3);
  return staged.put(flat).view({std::ssize(keys), 3});
}

void check_batch(const PagedBatch& batch, const ModelLimits& limits, int vocab) {
  CHECK(!batch.ids.empty());
  CHECK(!batch.row_begin.empty());
  CHECK_EQ(batch.row_begin[0], 0);
  CHECK_EQ(batch.row_begin.back(), std::ssize(batch.ids));
  CHECK_EQ(batch.positions.size(), batch.keys.size());
  CHECK_LE(std::ssize(batch.keys), limits.batch);
  for (const int32_t id : batch.ids) CHECK(id >= 0 && id < vocab, "token {} of {}", id, vocab);
}

}  // namespace

/// Checks the sequences and copies them to the device. The first `callers` are the caller's, the others are padding on
/// the spare page. Pages must have room for `later` tokens more than own_length, whose copy on the device is given.
PagedSequences Decoder::stage_sequences(const PagedBatch& batch, const Tensor& own_length, size_t callers, int max_rows,
                                        int later) {
  const size_t count = batch.prefix_length.size(), max_pages = static_cast<size_t>(batch.max_pages);
  CHECK_EQ(batch.own_length.size(), count);
  CHECK_EQ(batch.row_begin.size(), count + 1);
  CHECK_EQ(batch.pages.size(), count * max_pages);
  CHECK_LE(int64_t{batch.max_pages}, most_sequence_pages(limits()));
  CHECK_LE(std::ssize(batch.prefix_length), limits().batch);
  const int page_size = limits().page_size;
  int longest = 0;
  for (size_t b = 0; b < count; ++b) {
    const int prefix = batch.prefix_length[b], own = batch.own_length[b];
    const int rows = batch.row_begin[b + 1] - batch.row_begin[b];
    CHECK(rows >= 0 && rows <= max_rows && rows <= own, "sequence {}: {} new tokens of {}", b, rows, own);
    if (rows == 0) continue;
    const int length = prefix + own + later, pages = pages_for(prefix, page_size) + pages_for(own + later, page_size);
    CHECK_LE(length, limits().max_length, "sequence {}", b);
    CHECK_LE(pages, batch.max_pages, "sequence {}: {} + {} + {} tokens", b, prefix, own, later);
    const int64_t usable = b < callers ? limits().kv_pages : cache_pages();
    for (const int32_t p : std::span(batch.pages).subspan(b * max_pages).first(static_cast<size_t>(pages)))
      CHECK(p >= 0 && p < usable, "sequence {}: page {} of {}", b, p, usable);
    longest = std::max(longest, length);
  }
  PagedSequences s{};
  s.row_begin = staged_.put(batch.row_begin);
  s.prefix_length = staged_.put(batch.prefix_length);
  s.own_length = own_length;
  s.pages = staged_.put(batch.pages).view({std::ssize(batch.prefix_length), batch.max_pages});
  s.page_size = page_size;
  s.max_rows = max_rows;
  s.max_length = std::min((longest + kLengthStep - 1) / kLengthStep * kLengthStep, limits().max_length);
  return s;
}

void Decoder::prefill(const PagedBatch& batch, const Sampling& sampling, std::span<int32_t> tokens,
                      std::span<float> log_prob) {
  CHECK(memory_.held_by(this), "begin() comes before prefill");
  check_batch(batch, limits(), config().vocab);
  CHECK_LE(std::ssize(batch.ids), buffers_.layer.h.dim(0));
  for (const int32_t r : batch.head_rows)
    CHECK(r >= 0 && r < std::ssize(batch.ids), "head row {} of {}", r, batch.ids.size());
  const int64_t draws = std::ssize(batch.head_rows);
  CHECK_EQ(batch.keys.size(), batch.head_rows.size());
  CHECK(std::ssize(tokens) == draws && std::ssize(log_prob) == draws);
  int max_rows = 0;
  for (size_t b = 0; b + 1 < batch.row_begin.size(); ++b)
    max_rows = std::max(max_rows, batch.row_begin[b + 1] - batch.row_begin[b]);

  staged_.reset();
  const Tensor ids = staged_.put(batch.ids), head_rows = staged_.put(batch.head_rows);
  const PagedSequences sequences =
      stage_sequences(batch, staged_.put(batch.own_length), batch.prefix_length.size(), max_rows, 0);
  const LayerBuffers last = forward(ids, sequences);
  if (draws > 0) {
    const HeadBuffers head = buffers_.head.first(draws, draws, 1);
    layers_.final_norm(head, last, head_rows);
    const Tensor out = buffers_.tokens.rows(0, draws), out_log_prob = buffers_.log_prob.rows(0, draws);
    const Tensor keys = stage_keys(staged_, batch.keys), positions = staged_.put(batch.positions);
    backend_.lm_sample(out, out_log_prob, head.h, layers_.head(), keys, positions, sampling);
    backend_.copy_out(tokens.data(), out);
    backend_.copy_out(log_prob.data(), out_log_prob);
  }
  backend_.synchronize();
}

namespace {

/// Sequences of a decode batch of n, with padding: few values, since a device records a decode step once for each.
size_t padded_count(size_t n, size_t most) {
  const size_t unit = n <= 8 ? std::bit_ceil(n) : n <= 64 ? 8 : n <= 256 ? 16 : 64;
  return std::min(most, round_up(n, unit));
}

/// The batch followed by padding: sequences of one token on page `spare`, whose draws are thrown away.
PagedBatch padded(PagedBatch b, size_t count, int32_t spare) {
  for (size_t i = b.ids.size(); i < count; ++i) {
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

/// Steps with the same key issue the same ops on the same addresses.
uint64_t replay_key(const Tensor& weights, const Tensor& cache, int64_t rows, const PagedSequences& s,
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

void Decoder::decode(const PagedBatch& batch, int steps, const Sampling& sampling, std::span<int32_t> tokens,
                     std::span<float> log_prob) {
  CHECK(memory_.held_by(this), "begin() comes before decode");
  check_batch(batch, limits(), config().vocab);
  CHECK_EQ(batch.prefix_length.size(), batch.ids.size(), "one new token a sequence");
  CHECK_EQ(batch.keys.size(), batch.ids.size());
  CHECK(steps >= 1 && steps <= limits().decode_steps, "{} steps of {}", steps, limits().decode_steps);
  const int64_t callers = std::ssize(batch.ids);
  CHECK(std::ssize(tokens) == steps * callers && tokens.size() == log_prob.size());
  const size_t count = backend_.device() == Device::cpu
                           ? batch.ids.size()
                           : padded_count(batch.ids.size(), static_cast<size_t>(limits().batch));
  const PagedBatch all = padded(batch, count, static_cast<int32_t>(limits().kv_pages));

  staged_.reset();
  const Tensor ids = staged_.put(all.ids);
  // What grows by one with each step lies together: one launch counts it all up.
  std::vector<int32_t> growing = all.own_length;
  growing.insert(growing.end(), all.positions.begin(), all.positions.end());
  const int64_t n = ids.dim(0);
  const Tensor counters = staged_.put(growing), positions = counters.rows(n, n);
  const PagedSequences sequences = stage_sequences(all, counters.rows(0, n), batch.ids.size(), 1, steps - 1);
  const Tensor keys = stage_keys(staged_, all.keys), step_log_prob = buffers_.log_prob.rows(0, n);
  const HeadBuffers head = buffers_.head.first(n, n, 1);
  const uint64_t key = replay_key(memory_.weights().flat(), buffers_.cache, n, sequences, sampling);
  const auto step = [&] {
    const LayerBuffers last = forward(ids, sequences);
    layers_.final_norm(head, last, {});
    backend_.lm_sample(ids, step_log_prob, head.h, layers_.head(), keys, positions, sampling);
    backend_.increment(counters);
  };
  for (int i = 0; i < steps; ++i) {
    memory_.weights().tensor_parallel().recordable() ? backend_.replayable(key, step) : step();
    backend_.copy(buffers_.step_tokens.rows(i * n, n), ids);
    backend_.copy(buffers_.step_log_prob.rows(i * n, n), step_log_prob);
  }
  for (int i = 0; i < steps; ++i) {
    backend_.copy_out(tokens.data() + i * callers, buffers_.step_tokens.rows(i * n, callers));
    backend_.copy_out(log_prob.data() + i * callers, buffers_.step_log_prob.rows(i * n, callers));
  }
  backend_.synchronize();
}

}  // namespace dapo
