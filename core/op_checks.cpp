#include "core/op_checks.h"

#include "core/softmax.h"

namespace dapo {
namespace {

constexpr DType f32 = DType::f32, i32 = DType::i32;

/// A tensor of this type and of any shape.
void expect_type(const char* op, const char* argument, const Tensor& t, DType dtype) {
  if (t.dtype != dtype || (t.empty() && t.numel() > 0)) [[unlikely]]
    fail(kExitInternal, "{}: {}: expected {}, got {}{}", op, argument, dtype_name(dtype), t.describe(),
         t.empty() ? " (empty)" : "");
}

void check_dims(const char* op, const AttentionDims& d) {
  CHECK(d.heads >= 1 && d.kv_heads >= 1 && d.heads % d.kv_heads == 0 && d.head_dim >= 1,
        "{}: dims: {} heads, {} kv_heads, head_dim {}", op, d.heads, d.kv_heads, d.head_dim);
}

void check_segments(const char* op, const Segments& segments, int64_t tokens) {
  const std::span<const Segment> s = segments.host;
  expect(op, "segments.device", segments.device, i32, {std::ssize(s), 3});
  int64_t next = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    CHECK(s[i].begin == next && s[i].length >= 1, "{}: segment {} is [{}, +{}), the one before it ends at {}", op, i,
          s[i].begin, s[i].length, next);
    CHECK(s[i].prefix < 0 || (s[i].prefix < std::ssize(s) && size_t(s[i].prefix) < i && s[s[i].prefix].prefix < 0),
          "{}: segment {} has prefix {}, which is not an earlier segment without a prefix", op, i, s[i].prefix);
    next += s[i].length;
  }
  CHECK_EQ(next, tokens, "{}: segments must cover the pack", op);
}

void check_pages(const char* op, DType T, const Tensor& cache, const PagedSequences& seqs, const AttentionDims& dims) {
  check_dims(op, dims);
  CHECK(seqs.page_size > 0 && seqs.page_size % kKvTile == 0, "{}: seqs.page_size {}: expected a multiple of {}", op,
        seqs.page_size, kKvTile);
  const int64_t count = seqs.own_length.dim(0);
  expect(op, "cache", cache, T, {cache.dim(0), 2, dims.kv_heads, seqs.page_size, dims.head_dim});
  expect(op, "seqs.own_length", seqs.own_length, i32, {count});
  expect(op, "seqs.prefix_length", seqs.prefix_length, i32, {count});
  expect(op, "seqs.row_begin", seqs.row_begin, i32, {count + 1});
  expect(op, "seqs.pages", seqs.pages, i32, {count, seqs.pages.dim(1)});
}

void check_temperature(const char* op, float temperature, bool or_zero) {
  CHECK(temperature > 0.0f || (or_zero && temperature == 0.0f), "{}: temperature {}", op, temperature);
}

void check_head(const char* op, DType T, const Tensor& x, const Tensor& head, const VocabularySplit& split) {
  const int64_t hidden = head.dim(1), vocab = split.ranks == nullptr ? head.dim(0) : split.size;
  expect(op, "head", head, T, {split.ranks == nullptr ? vocab : split.of(split.own()).count(), hidden});
  expect(op, "x", x, T, {x.dim(0), hidden});
  CHECK(vocab >= 1 && vocab <= kSoftmaxColumns, "{}: a vocabulary of {}: expected 1 to {}", op, vocab, kSoftmaxColumns);
}

}  // namespace

void check_embedding(DType T, const Tensor& x, const Tensor& table, const Tensor& ids) {
  const int64_t tokens = ids.dim(0), hidden = table.dim(1);
  expect("embedding", "ids", ids, i32, {tokens});
  expect("embedding", "table", table, T, {table.dim(0), hidden});
  expect("embedding", "x", x, f32, {tokens, hidden});
}

void check_embedding_backward(DType T, const Tensor& dtable, const Tensor& dx, const Tensor& unique,
                              const Tensor& offsets, const Tensor& rows) {
  const int64_t count = unique.dim(0), hidden = dtable.dim(1);
  expect("embedding_backward", "dtable", dtable, f32, {dtable.dim(0), hidden});
  expect("embedding_backward", "dx", dx, T, {dx.dim(0), hidden});
  expect("embedding_backward", "unique", unique, i32, {count});
  expect("embedding_backward", "offsets", offsets, i32, {count + 1});
  expect("embedding_backward", "rows", rows, i32, {rows.dim(0)});
}

void check_gather_rows(DType T, const Tensor& y, const Tensor& x, const Tensor& index) {
  const int64_t rows = index.dim(0), hidden = x.dim(1);
  expect("gather_rows", "index", index, i32, {rows});
  expect("gather_rows", "x", x, x.dtype == f32 ? f32 : T, {x.dim(0), hidden});
  expect("gather_rows", "y", y, x.dtype, {rows, hidden});
}

void check_sum_rows(DType T, const Tensor& dx, const Tensor& dy, const Tensor& offsets, const Tensor& rows) {
  const int64_t tokens = dx.dim(0), hidden = dx.dim(1);
  expect("sum_rows", "dx", dx, T, {tokens, hidden});
  expect("sum_rows", "dy", dy, T, {dy.dim(0), hidden});
  expect("sum_rows", "offsets", offsets, i32, {tokens + 1});
  expect("sum_rows", "rows", rows, i32, {rows.dim(0)});
}

void check_rmsnorm(DType T, const Tensor& y, const Tensor& sum, const Tensor& rstd, const Tensor& x,
                   const Tensor& delta, const Tensor& w) {
  const int64_t tokens = x.dim(0), hidden = x.dim(1);
  expect("rmsnorm", "x", x, f32, {tokens, hidden});
  expect("rmsnorm", "w", w, T, {hidden});
  expect("rmsnorm", "y", y, T, {tokens, hidden});
  if (delta && delta.rank == 3)
    expect("rmsnorm", "delta", delta, T, {delta.dim(0), tokens, hidden});
  else if (delta)
    expect("rmsnorm", "delta", delta, T, {tokens, hidden});
  if (delta) expect("rmsnorm", "sum", sum, f32, {tokens, hidden});
  if (rstd) expect("rmsnorm", "rstd", rstd, f32, {tokens});
}

void check_add_parts(const Tensor& sum, const Tensor& parts) {
  const int64_t tokens = sum.dim(0), hidden = sum.dim(1);
  expect("add_parts", "sum", sum, sum.dtype == DType::bf16 ? DType::bf16 : f32, {tokens, hidden});
  expect("add_parts", "parts", parts, parts.dtype == DType::bf16 ? DType::bf16 : sum.dtype,
         {parts.dim(0), tokens, hidden});
}

void check_rmsnorm_backward(DType T, const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x,
                            const Tensor& w, const Tensor& rstd) {
  const int64_t tokens = x.dim(0), hidden = x.dim(1);
  expect("rmsnorm_backward", "x", x, f32, {tokens, hidden});
  expect("rmsnorm_backward", "dy", dy, T, {tokens, hidden});
  expect("rmsnorm_backward", "w", w, T, {hidden});
  expect("rmsnorm_backward", "rstd", rstd, f32, {tokens});
  expect("rmsnorm_backward", "dx", dx, T, {tokens, hidden});
  expect("rmsnorm_backward", "dw", dw, f32, {hidden});
}

void check_matmul(DType T, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias) {
  const int64_t m = x.dim(0), outputs = w.dim(0), inputs = w.dim(1);
  expect("matmul", "w", w, T, {outputs, inputs});
  expect("matmul", "x", x, T, {m, inputs});
  expect("matmul", "y", y, T, {m, outputs});
  if (bias) expect("matmul", "bias", bias, T, {outputs});
}

void check_matmul_backward_input(DType T, const Tensor& dx, const Tensor& dy, const Tensor& w) {
  const int64_t m = dy.dim(0), outputs = w.dim(0), inputs = w.dim(1);
  expect("matmul_backward_input", "w", w, T, {outputs, inputs});
  expect("matmul_backward_input", "dy", dy, T, {m, outputs});
  expect("matmul_backward_input", "dx", dx, T, {m, inputs});
}

void check_matmul_backward_weight(DType T, const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x) {
  const int64_t m = dy.dim(0), outputs = dw.dim(0), inputs = dw.dim(1);
  expect("matmul_backward_weight", "dw", dw, f32, {outputs, inputs});
  expect("matmul_backward_weight", "dy", dy, T, {m, outputs});
  expect("matmul_backward_weight", "x", x, T, {m, inputs});
  if (db) expect("matmul_backward_weight", "db", db, f32, {outputs});
}

void check_rope(DType T, const Tensor& qkv, const Tensor& table, const Tensor& positions, const AttentionDims& dims) {
  check_dims("rope", dims);
  CHECK(dims.head_dim % 2 == 0, "rope: dims: head_dim {} is odd", dims.head_dim);
  const int64_t tokens = qkv.dim(0);
  expect("rope", "qkv", qkv, T, {tokens, dims.qkv_width()});
  expect("rope", "table", table, f32, {table.dim(0), dims.head_dim});
  expect("rope", "positions", positions, i32, {tokens});
}

void check_attention(DType T, const Tensor& out, const Tensor& lse, const Tensor& qkv, const Segments& segments,
                     const AttentionDims& dims) {
  check_dims("attention", dims);
  const int64_t tokens = qkv.dim(0);
  expect("attention", "qkv", qkv, T, {tokens, dims.qkv_width()});
  expect("attention", "out", out, T, {tokens, dims.q_width()});
  expect("attention", "lse", lse, f32, {tokens, dims.heads});
  check_segments("attention", segments, tokens);
}

void check_attention_backward(DType T, const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                              const Tensor& lse, const Segments& segments, const AttentionDims& dims) {
  check_dims("attention_backward", dims);
  const int64_t tokens = qkv.dim(0);
  expect("attention_backward", "qkv", qkv, T, {tokens, dims.qkv_width()});
  expect("attention_backward", "dqkv", dqkv, T, {tokens, dims.qkv_width()});
  expect("attention_backward", "out", out, T, {tokens, dims.q_width()});
  expect("attention_backward", "dout", dout, T, {tokens, dims.q_width()});
  expect("attention_backward", "lse", lse, f32, {tokens, dims.heads});
  check_segments("attention_backward", segments, tokens);
}

void check_rope_kv_write(DType T, const Tensor& cache, const Tensor& qkv, const Tensor& table,
                         const PagedSequences& seqs, const AttentionDims& dims) {
  check_pages("rope_kv_write", T, cache, seqs, dims);
  expect("rope_kv_write", "qkv", qkv, T, {qkv.dim(0), dims.qkv_width()});
  CHECK(dims.head_dim % 2 == 0, "rope_kv_write: dims: head_dim {} is odd", dims.head_dim);
  if (table) expect("rope_kv_write", "table", table, f32, {table.dim(0), dims.head_dim});
}

void check_paged_attention(DType T, const Tensor& out, const Tensor& qkv, const Tensor& cache,
                           const PagedSequences& seqs, const AttentionDims& dims) {
  check_pages("paged_attention", T, cache, seqs, dims);
  expect("paged_attention", "qkv", qkv, T, {qkv.dim(0), dims.qkv_width()});
  expect("paged_attention", "out", out, T, {qkv.dim(0), dims.q_width()});
}

void check_swiglu(DType T, const Tensor& a, const Tensor& gu) {
  const int64_t tokens = a.dim(0), ffn = a.dim(1);
  expect("swiglu", "a", a, T, {tokens, ffn});
  expect("swiglu", "gu", gu, T, {tokens, 2 * ffn});
}

void check_swiglu_backward(DType T, const Tensor& dgu, const Tensor& a, const Tensor& da, const Tensor& gu) {
  const int64_t tokens = da.dim(0), ffn = da.dim(1);
  expect("swiglu_backward", "da", da, T, {tokens, ffn});
  expect("swiglu_backward", "gu", gu, T, {tokens, 2 * ffn});
  expect("swiglu_backward", "dgu", dgu, T, {tokens, 2 * ffn});
  if (a) expect("swiglu_backward", "a", a, T, {tokens, ffn});
}

void check_lm_logprob(DType T, const Tensor& log_prob, const Tensor& entropy, const Tensor& x, const Tensor& head,
                      const Tensor& targets, float temperature, const VocabularySplit& split) {
  check_head("lm_logprob", T, x, head, split);
  const int64_t rows = x.dim(0);
  expect("lm_logprob", "log_prob", log_prob, f32, {rows});
  if (entropy) expect("lm_logprob", "entropy", entropy, f32, {rows});
  expect("lm_logprob", "targets", targets, i32, {rows});
  check_temperature("lm_logprob", temperature, false);
}

void check_lm_dapo(DType T, const Tensor& dx, const Tensor& dhead, const Tensor& log_prob, const Tensor& entropy,
                   const Tensor& loss, const Tensor& clip, const Tensor& x, const Tensor& head, const Tensor& targets,
                   const Tensor& old_log_prob, const Tensor& advantage, const Tensor& weight, const Tensor& log_ratio,
                   const Tensor& ref_log_prob, float temperature, const DapoLoss& params,
                   const VocabularySplit& split) {
  check_head("lm_dapo", T, x, head, split);
  const int64_t rows = x.dim(0);
  expect("lm_dapo", "dx", dx, T, {rows, x.dim(1)});
  expect("lm_dapo", "dhead", dhead, f32, {head.dim(0), head.dim(1)});
  expect("lm_dapo", "log_prob", log_prob, f32, {rows});
  expect("lm_dapo", "entropy", entropy, f32, {rows});
  expect("lm_dapo", "loss", loss, f32, {rows});
  expect("lm_dapo", "clip", clip, DType::u8, {rows});
  expect("lm_dapo", "targets", targets, i32, {rows});
  if (old_log_prob) expect("lm_dapo", "old_log_prob", old_log_prob, f32, {rows});
  expect("lm_dapo", "advantage", advantage, f32, {rows});
  expect("lm_dapo", "weight", weight, f32, {rows});
  if (log_ratio) expect("lm_dapo", "log_ratio", log_ratio, f32, {rows});
  CHECK(params.kind != LossKind::gspo || log_ratio, "lm_dapo: log_ratio: GSPO needs that of the sequences");
  if (ref_log_prob) expect("lm_dapo", "ref_log_prob", ref_log_prob, f32, {rows});
  check_temperature("lm_dapo", temperature, false);
}

void check_lm_sample(DType T, const Tensor& tokens, const Tensor& log_prob, const Tensor& x, const Tensor& head,
                     const Tensor& keys, const Tensor& positions, const Sampling& sampling,
                     const VocabularySplit& split) {
  check_head("lm_sample", T, x, head, split);
  const int64_t batch = x.dim(0);
  expect("lm_sample", "tokens", tokens, i32, {batch});
  expect("lm_sample", "log_prob", log_prob, f32, {batch});
  expect("lm_sample", "keys", keys, i32, {batch, 3});
  expect("lm_sample", "positions", positions, i32, {batch});
  check_temperature("lm_sample", sampling.temperature, true);
}

void check_sum_of_squares(const Tensor& out, const Tensor& x) {
  expect("sum_of_squares", "out", out, DType::f64, {1});
  expect_type("sum_of_squares", "x", x, f32);
}

void check_adamw(DType T, const Tensor& w, const Tensor& remainder, const Tensor& m, const Tensor& v,
                 const Tensor& grad, const Tensor& norm2, const AdamW& params) {
  const int64_t n = w.dim(0);
  expect("adamw", "w", w, T, {n});
  if (T == DType::bf16) expect("adamw", "remainder", remainder, DType::i16, {n});
  CHECK(T == DType::bf16 || !remainder, "adamw: remainder: expected none with f32 weights, got {}",
        remainder.describe());
  expect("adamw", "m", m, f32, {n});
  expect("adamw", "v", v, f32, {n});
  expect("adamw", "grad", grad, f32, {n});
  expect("adamw", "norm2", norm2, DType::f64, {1});
  CHECK_GE(params.step, 1, "adamw: params.step");
}

void check_cast(const Tensor& to, const Tensor& from) {
  expect_type("cast", "from", from, from.dtype == DType::bf16 ? DType::bf16 : f32);
  expect_type("cast", "to", to, to.dtype == DType::bf16 ? DType::bf16 : f32);
  CHECK_EQ(to.numel(), from.numel(), "cast: {} to {}", from.describe(), to.describe());
}

void check_increment(const Tensor& t) {
  expect_type("increment", "t", t, i32);
}

}  // namespace dapo
