#include "model/buffers.h"

#include <algorithm>

#include "core/sizes.h"

namespace dapo {
namespace {

Tensor cut(const Tensor& t, int64_t n) {
  return t.rank == 0 ? t : t.rows(0, n);
}

HeadBuffers lay_head(Arena& arena, int64_t rows, int64_t hidden, DType dtype) {
  HeadBuffers b;
  b.x = arena.take("head", DType::f32, {rows, hidden});
  b.delta = arena.take("head", dtype, {rows, hidden});
  b.h = arena.take("head", dtype, {rows, hidden});
  b.rstd = arena.take("head", DType::f32, {rows});
  return b;
}

size_t sum_of_pieces(std::initializer_list<int64_t> counts) {
  size_t bytes = 0;
  for (int64_t n : counts) bytes += Inputs::piece(static_cast<size_t>(n) * 4);
  return bytes;
}

}  // namespace

LayerBuffers LayerBuffers::first(int64_t n) const {
  return {cut(x_in, n),  cut(rstd1, n), cut(h, n),       cut(qkv, n), cut(att, n),  cut(lse, n),
          cut(x_mid, n), cut(rstd2, n), cut(gate_up, n), cut(act, n), cut(delta, n)};
}

HeadBuffers HeadBuffers::first(int64_t n) const {
  return {cut(x, n), cut(delta, n), cut(h, n), cut(rstd, n)};
}

int64_t max_pages(const ModelLimits& limits) {
  return ceil_div(limits.max_length, limits.page_size) + 1;  // a prefix ends in the middle of a page
}

RolloutBuffers lay_rollout(Arena& arena, const ModelConfig& c, const ModelLimits& limits, DType dtype) {
  RolloutBuffers b;
  if (limits.batch == 0) return b;
  const AttentionDims a = c.attention();
  const int64_t rows = std::max(limits.batch, limits.prefill_rows), batch = limits.batch;
  const int64_t pages = limits.kv_pages + 1;  // the last one takes what filled-up rows of a decode batch write
  b.cache = arena.take("KV pages", dtype, {c.layers * pages, 2, c.kv_heads, limits.page_size, c.head_dim});
  LayerBuffers& l = b.layer;
  l.x_in = l.x_mid = arena.take("rows", DType::f32, {rows, c.hidden});
  l.h = arena.take("rows", dtype, {rows, c.hidden});
  l.delta = arena.take("rows", dtype, {rows, c.hidden});
  l.qkv = arena.take("rows", dtype, {rows, a.qkv_width()});
  l.att = arena.take("rows", dtype, {rows, a.q_width()});
  l.gate_up = arena.take("rows", dtype, {rows, 2 * int64_t{c.ffn}});
  l.act = arena.take("rows", dtype, {rows, c.ffn});
  b.head = lay_head(arena, batch, c.hidden, dtype);
  b.tokens = arena.take("tokens", DType::i32, {batch});
  b.log_prob = arena.take("tokens", DType::f32, {batch});
  b.step_tokens = arena.take("tokens of a decode run", DType::i32, {batch * limits.decode_steps});
  b.step_log_prob = arena.take("tokens of a decode run", DType::f32, {batch * limits.decode_steps});
  b.inputs = arena.take("inputs", DType::u8,
                        {static_cast<int64_t>(sum_of_pieces({rows, rows, batch + 1, batch, batch,
                                                             batch * max_pages(limits), batch, batch * 3, batch}))});
  return b;
}

UpdateBuffers lay_update(Arena& arena, const ModelConfig& c, const ModelLimits& limits, DType dtype) {
  UpdateBuffers b;
  const int64_t n = limits.pack_tokens, r = limits.pack_head_rows;
  if (n == 0) return b;
  const AttentionDims a = c.attention();
  const bool keep_all = limits.train && !limits.recompute;
  b.layers.resize(static_cast<size_t>(c.layers));
  LayerBuffers shared;
  shared.h = arena.take("activations of one layer", dtype, {n, c.hidden});
  shared.delta = arena.take("activations of one layer", dtype, {n, c.hidden});
  for (int i = 0; i < c.layers; ++i) {
    LayerBuffers& l = b.layers[static_cast<size_t>(i)];
    if (i == 0 || keep_all) {
      const char* what = keep_all ? "activations of all layers" : "activations of one layer";
      l = shared;
      l.rstd1 = arena.take(what, DType::f32, {n});
      l.qkv = arena.take(what, dtype, {n, a.qkv_width()});
      l.att = arena.take(what, dtype, {n, a.q_width()});
      l.lse = arena.take(what, DType::f32, {n, a.heads});
      l.x_mid = arena.take(what, DType::f32, {n, c.hidden});
      l.rstd2 = arena.take(what, DType::f32, {n});
      l.gate_up = arena.take(what, dtype, {n, 2 * int64_t{c.ffn}});
      if (!limits.train) l.x_in = l.x_mid;
    } else {
      l = b.layers[0];
    }
    if (limits.train) l.x_in = arena.take("layer inputs", DType::f32, {n, c.hidden});
  }
  b.log_prob = arena.take("losses", DType::f32, {r});
  b.entropy = arena.take("losses", DType::f32, {r});
  b.loss = arena.take("losses", DType::f32, {r});
  b.clip = arena.take("losses", DType::u8, {r});
  b.inputs = arena.take(
      "inputs", DType::u8,
      {static_cast<int64_t>(sum_of_pieces({n, n, 3 * limits.pack_segments, r, r, r, r, r, n, n + 1, n, n + 1, r}))});
  if (limits.train) b.dx = arena.take("residual's gradient", dtype, {n, c.hidden});
  // From here on the pieces live one after another: the MLP's, the attention's, the head's.
  {
    const ArenaScope scope(arena);
    const Tensor act = arena.take("inside the MLP", dtype, {n, c.ffn});
    for (LayerBuffers& l : b.layers) l.act = act;
    if (limits.train) b.dact = arena.take("inside the MLP", dtype, {n, c.ffn});
  }
  if (limits.train) {
    const ArenaScope scope(arena);
    b.datt = arena.take("inside attention", dtype, {n, a.q_width()});
    b.dqkv = arena.take("inside attention", dtype, {n, a.qkv_width()});
  }
  {
    const ArenaScope scope(arena);
    b.head = lay_head(arena, r, c.hidden, dtype);
  }
  return b;
}

StateBuffers lay_state(Arena& arena, const ParamTable& params, DType dtype) {
  StateBuffers b;
  b.gradients = arena.take("gradients", DType::f32, {params.size});
  b.moment1 = arena.take("first moments", DType::f32, {params.size});
  b.moment2 = arena.take("second moments", DType::f32, {params.size});
  if (dtype == DType::bf16) b.remainders = arena.take("masters' remainders", DType::i16, {params.size});
  return b;
}

ConstantBuffers lay_constants(Arena& arena, const ModelConfig& config, const ModelLimits& limits) {
  return {arena.take("rotary table", DType::f32, {limits.max_length, config.head_dim}),
          arena.take("gradient norm", DType::f64, {1})};
}

WorkspaceNeeds workspace_needs(const ModelConfig& c, const ModelLimits& limits) {
  return {.attention = c.attention(),
          .hidden = c.hidden,
          .ffn = c.ffn,
          .vocab = c.vocab,
          .max_tokens = limits.pack_tokens,
          .max_segments = limits.pack_segments,
          .max_head_rows = limits.pack_head_rows,
          .max_batch = limits.batch,
          .max_rows = limits.batch > 0 ? std::max(limits.batch, limits.prefill_rows) : 0,
          .max_length = limits.max_length};
}

}  // namespace dapo
