#include "model/buffers.h"

#include <algorithm>

#include "core/sizes.h"

namespace dapo {
namespace {

Tensor first_rows(const Tensor& t, int64_t n) {
  return t.rank == 0 ? t : t.rows(0, n);
}

/// The first n tokens of [N, C], or of each part of [P, N, C].
Tensor first_of_parts(const Tensor& parts, int64_t n) {
  if (parts.rank != 3) return first_rows(parts, n);
  CHECK_LE(n, parts.dim(1));
  return Tensor(parts.data, parts.dtype, {parts.dim(0), n, parts.dim(2)});
}

/// What the ranks add to the residual stream.
Tensor take_parts(Arena& arena, const char* what, DType dtype, int64_t ranks, int64_t rows, int64_t hidden) {
  return ranks == 1 ? arena.take(what, dtype, {rows, hidden}) : arena.take(what, dtype, {ranks, rows, hidden});
}

/// norm_rows: of the final norm; ranks: whose parts are gathered.
HeadBuffers lay_head(Arena& arena, int64_t ranks, int64_t head_rows, int64_t norm_rows, int64_t hidden, DType dtype) {
  HeadBuffers b;
  b.x = arena.take("head", DType::f32, {norm_rows, hidden});
  b.delta = take_parts(arena, "head", dtype, ranks, head_rows, hidden);
  b.h = arena.take("head", dtype, {head_rows, hidden});
  b.rstd = arena.take("head", DType::f32, {norm_rows});
  return b;
}

/// Room for inputs of so many elements of 4 bytes each.
Tensor lay_inputs(Arena& arena, std::initializer_list<int64_t> counts) {
  size_t bytes = 0;
  for (int64_t n : counts) bytes += StagedInputs::aligned(static_cast<size_t>(n) * sizeof(int32_t));
  return arena.take("inputs", DType::u8, {static_cast<int64_t>(bytes)});
}

GradientBuffers lay_gradients(Arena& arena, const ParamTable& params, const ModelLimits& limits) {
  GradientBuffers b;
  if (!limits.shards_gradients()) {
    b.all = arena.take("gradients", DType::f32, {params.size});
    return b;
  }
  const Shards shards(params, limits.data_ranks);
  b.own = arena.take("gradients", DType::f32, {shards.most()});
  const auto take = [&](int64_t size) { return arena.take("gradients of a pack", DType::f32, {size}); };
  const int64_t embedding = shards.bucket(Shards::embedding_bucket()).count(),
                last = shards.bucket(shards.last_bucket()).count();
  const bool tied = params.head == params.embedding;  // its gradient begins with the head's and ends with the pack
  b.buckets[GradientBuffers::kEmbedding] = take(tied ? embedding : std::max(embedding, last));
  if (tied) b.buckets[GradientBuffers::kLast] = take(last);
  int64_t layer = 0;
  for (size_t i = 0; i < params.layers.size(); ++i)
    layer = std::max(layer, shards.bucket(Shards::layer_bucket(static_cast<int>(i))).count());
  for (size_t i = 0; i < 2; ++i) b.buckets[GradientBuffers::kLayers + i] = take(layer);
  return b;
}

}  // namespace

Tensor own_part(const Tensor& parts, int rank) {
  return parts.rank == 3 ? parts.rows(rank, 1).view({parts.dim(1), parts.dim(2)}) : parts;
}

Tensor all_rows(const Tensor& parts, int64_t n) {
  return parts.rank == 3 ? parts.view({parts.dim(0) * parts.dim(1), parts.dim(2)}).rows(0, n) : parts.rows(0, n);
}

LayerBuffers LayerBuffers::first(int64_t n) const {
  LayerBuffers b = *this;
  const int64_t own = dealt() ? ceil_div(n, partial.dim(0)) : n;
  for (Tensor* t : {&b.qkv, &b.att, &b.lse, &b.gate_up, &b.act}) *t = first_rows(*t, n);
  for (Tensor* t : {&b.x_in, &b.rstd1, &b.x_mid, &b.rstd2}) *t = first_rows(*t, own);
  for (Tensor* t : {&b.shared_h, &b.delta, &b.partial}) *t = first_of_parts(*t, own);
  b.h = dealt() ? all_rows(b.shared_h, n) : first_rows(h, n);
  return b;
}

HeadBuffers HeadBuffers::first(int64_t r, int64_t n, int64_t deal) const {
  const int64_t norm_rows = deal > 1 ? ceil_div(n, deal) : r;
  return {first_rows(x, norm_rows), first_of_parts(delta, r), first_rows(h, r), first_rows(rstd, norm_rows)};
}

RolloutBuffers lay_rollout(Arena& arena, const ModelConfig& config, const ModelLimits& limits, DType dtype) {
  RolloutBuffers b;
  if (limits.batch == 0) return b;
  const ModelConfig c = local_config(config, limits.tensor);
  const AttentionDims a = c.attention();
  const int64_t tokens = std::max(limits.batch, limits.prefill_tokens), batch = limits.batch;
  const int64_t pages = limits.kv_pages + 1;  // the last one is where padding sequences of a decode batch write
  b.cache = arena.take("KV pages", dtype, {c.layers * pages, 2, c.kv_heads, limits.page_size, c.head_dim});
  LayerBuffers& l = b.layer;
  l.x_in = l.x_mid = arena.take("activations of a call", DType::f32, {tokens, c.hidden});
  l.h = arena.take("activations of a call", dtype, {tokens, c.hidden});
  l.delta = take_parts(arena, "activations of a call", dtype, limits.tensor.ranks, tokens, c.hidden);
  l.qkv = arena.take("activations of a call", dtype, {tokens, a.qkv_width()});
  l.att = arena.take("activations of a call", dtype, {tokens, a.q_width()});
  l.gate_up = arena.take("activations of a call", dtype, {tokens, 2 * int64_t{c.ffn}});
  l.act = arena.take("activations of a call", dtype, {tokens, c.ffn});
  b.head = lay_head(arena, limits.tensor.ranks, batch, batch, c.hidden, dtype);
  b.tokens = arena.take("tokens", DType::i32, {batch});
  b.log_prob = arena.take("tokens", DType::f32, {batch});
  b.step_tokens = arena.take("tokens of a decode", DType::i32, {batch * limits.decode_steps});
  b.step_log_prob = arena.take("tokens of a decode", DType::f32, {batch * limits.decode_steps});
  // What Decoder puts: ids, head rows, PagedSequences, keys, positions of the draws.
  b.inputs = lay_inputs(
      arena, {tokens, batch, batch + 1, batch, batch, batch * most_sequence_pages(limits), batch * 3, batch});
  return b;
}

UpdateBuffers lay_update(Arena& arena, const ModelConfig& config, const ModelLimits& limits, DType dtype) {
  UpdateBuffers b;
  const int64_t n = limits.pack_tokens, r = limits.pack_head_rows;
  if (n == 0) return b;
  if (limits.train) b.gradients = lay_gradients(arena, parameter_table(config, limits.tensor), limits);
  const ModelConfig c = local_config(config, limits.tensor);
  const AttentionDims a = c.attention();
  const bool keep_all = limits.train && !limits.recompute;
  const int64_t ranks = limits.tensor.ranks;
  const bool deal = ranks > 1;
  const int64_t own = ceil_div(n, ranks);  // tokens of a rank between products
  b.layers.resize(static_cast<size_t>(c.layers));
  LayerBuffers shared;
  shared.h = take_parts(arena, "activations of one layer", dtype, ranks, own, c.hidden);
  shared.delta = take_parts(arena, "activations of one layer", dtype, ranks, own, c.hidden);
  if (deal) {
    shared.shared_h = shared.h;
    shared.partial = take_parts(arena, "activations of one layer", dtype, ranks, own, c.hidden);
  }
  for (int i = 0; i < c.layers; ++i) {
    LayerBuffers& l = b.layers[static_cast<size_t>(i)];
    if (i == 0 || keep_all) {
      const char* what = keep_all ? "activations of all layers" : "activations of one layer";
      l = shared;
      l.rstd1 = arena.take(what, DType::f32, {own});
      l.qkv = arena.take(what, dtype, {n, a.qkv_width()});
      l.att = arena.take(what, dtype, {n, a.q_width()});
      l.lse = arena.take(what, DType::f32, {n, a.heads});
      l.x_mid = arena.take(what, DType::f32, {own, c.hidden});
      l.rstd2 = arena.take(what, DType::f32, {own});
      l.gate_up = arena.take(what, dtype, {n, 2 * int64_t{c.ffn}});
      if (!limits.train) l.x_in = l.x_mid;
    } else {
      l = b.layers[0];
    }
    if (limits.train) l.x_in = arena.take("layer inputs", DType::f32, {own, c.hidden});
  }
  b.log_prob = arena.take("losses", DType::f32, {r});
  b.entropy = arena.take("losses", DType::f32, {r});
  b.loss = arena.take("losses", DType::f32, {r});
  b.clip = arena.take("losses", DType::u8, {r});
  // In the order of the Learner's put(): ids, positions, segments, six vectors of head rows, the indices of backward,
  // and for GSPO the ratios.
  b.inputs = lay_inputs(arena, {n, n, 3 * limits.pack_segments, r, r, r, r, r, r, n, n + 1, n, n + 1, r, r});
  if (limits.train) b.dx = arena.take("gradient of the residual stream", dtype, {own, c.hidden});
  // The following pieces are never needed at the same time, so they lie on top of each other.
  {
    const ArenaScope scope(arena);
    const Tensor act = arena.take("inside the MLP", dtype, {n, c.ffn});
    for (LayerBuffers& l : b.layers) l.act = act;
    if (limits.train) b.dact = arena.take("inside the MLP", dtype, {n, c.ffn});
  }
  if (deal) {
    const ArenaScope scope(arena);
    b.embedded = arena.take("embeddings", DType::f32, {ranks * own, c.hidden});
  }
  if (limits.train) {
    const ArenaScope scope(arena);
    b.datt = arena.take("inside attention", dtype, {n, a.q_width()});
    b.dqkv = arena.take("inside attention", dtype, {n, a.qkv_width()});
  }
  {
    const ArenaScope scope(arena);
    b.head = lay_head(arena, 1, r, deal ? own : r, c.hidden, dtype);
  }
  return b;
}

StateBuffers lay_state(Arena& arena, const ParamTable& params, const ModelLimits& limits, DType dtype) {
  StateBuffers b;
  const int64_t own = Shards(params, limits.data_ranks).most();
  b.moment1 = arena.take("first moments", DType::f32, {own});
  b.moment2 = arena.take("second moments", DType::f32, {own});
  if (dtype == DType::bf16) b.remainders = arena.take("remainders of the masters", DType::i16, {own});
  return b;
}

ConstantBuffers lay_constants(Arena& arena, const ParamTable& params, const ModelConfig& config,
                              const ModelLimits& limits) {
  ConstantBuffers b;
  b.rope = arena.take("rotary table", DType::f32, {limits.max_length, config.head_dim});
  b.norm2 = arena.take("gradient norm", DType::f64, {1});
  const auto take_scratch = [&](int64_t elements) {
    return limits.train && elements > 0 ? arena.take("exchange between ranks", DType::f32, {elements}) : Tensor();
  };
  b.exchange = take_scratch(ShardExchange::scratch_size(Shards(params, limits.data_ranks)));
  b.copies = take_scratch(copies_exchange_size(config, limits.tensor));
  return b;
}

WorkspaceNeeds workspace_needs(const ModelConfig& config, const ModelLimits& limits) {
  const ModelConfig c = local_config(config, limits.tensor);
  int64_t most_vocab = 0;
  for (int r = 0; r < limits.tensor.ranks; ++r)
    most_vocab = std::max(most_vocab, tensor_share(config, {limits.tensor.ranks, r}).vocab.count());
  return {.attention = c.attention(),
          .hidden = c.hidden,
          .ffn = c.ffn,
          .vocab = most_vocab,
          .max_tokens = limits.pack_tokens,
          .max_segments = limits.pack_segments,
          .max_head_rows = limits.pack_head_rows,
          .max_batch = limits.batch,
          .max_rows = limits.batch > 0 ? std::max(limits.batch, limits.prefill_tokens) : 0,
          .max_length = limits.max_length,
          .tensor_ranks = limits.tensor.ranks,
          .vocab_size = config.vocab};
}

}  // namespace dapo
