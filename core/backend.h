// THE CONTRACT between the model and the devices: memory, order of execution, and every op with its algebra.
//
// Letters: N packed tokens, C hidden, F ffn, H query heads, K key/value heads, D head_dim, V vocabulary (this rank's),
// R rows that need the head, B sequences of a decode batch. T stands for the backend's activation type (f32 or bf16).
// Gradients are named d + name. Arguments come as outputs, inputs, dims, scalars. An optional tensor may be empty.
//
// - Every op and copy is asynchronous in one stream order; only wait(), synchronize() and copy_out_now() block. The CPU
//   backend does everything at once.
// - Weights and activations are T; sums are f32; gradients of weights and moments are f32. The residual stream (x and
//   sum below, gathered rows of it) is f32 whatever T: rounded to bf16 at every addition it would be most of the error
//   of a log-prob. Its gradient is T.
// - Ops say "overwrites" or "adds to". Outputs do not alias inputs unless the op says that they may.
// - Deterministic: sums in a fixed order, no floating-point atomics.
// - Batch-invariant: whatever rollout computes for a row does not depend on the rows that go with it; attention cuts
//   the keys of a sequence at the end of its prefix and then every kKvTile tokens, the same in training, prefill and
//   decode, so that a sampled token's log-prob is bit for bit the one that is trained on.
// - Ops take scratch from workspace() (mark/release); no tensor is allocated inside a step. (On the CPU oneDNN has
//   compiled products and scratch of its own, which grow with the shapes it meets.)
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/arena.h"
#include "core/dapo_loss.h"
#include "core/philox.h"
#include "core/tensor.h"

namespace dapo {

enum class Device : uint8_t { cpu, cuda };

/// Keys are visited in tiles of this many tokens, cut anew at the end of a prefix (docs/design.md 2: segments).
inline constexpr int kKvTile = 64;

struct AttentionDims {
  int heads;     ///< H
  int kv_heads;  ///< K; query head h reads KV head h / (H / K)
  int head_dim;  ///< D; scores are scaled by 1 / sqrt(D)
  int64_t q_width() const { return int64_t{heads} * head_dim; }
  int64_t kv_width() const { return int64_t{kv_heads} * head_dim; }
  int64_t qkv_width() const { return q_width() + 2 * kv_width(); }  ///< a packed row: q [H, D], k [K, D], v [K, D]
};

/// A run of packed rows. Row i of a segment attends to all of its prefix segment, then to rows 0..i of its own; its
/// position is (length of the prefix) + i. A prefix has no prefix itself and comes before the segments that use it.
struct Segment {
  int32_t begin;   ///< first row
  int32_t length;  ///< rows, >= 1
  int32_t prefix;  ///< index of the prefix segment, or -1
};

/// The segments of a pack, covering rows [0, N) in order, on the host and as i32[S, 3] on the device.
struct Segments {
  std::span<const Segment> host;
  Tensor device;
};

/// Sequences whose keys live in pages. Sequence b has prefix_length[b] tokens in pages of its own group (the prompt;
/// the last page may be partly filled) and own_length[b] in the pages after those; own_length counts the new rows of
/// this call, rows [row_begin[b], row_begin[b + 1]), which are the last of it. A sequence without rows is left alone.
struct PagedSequences {
  Tensor row_begin;      ///< i32[B + 1]
  Tensor prefix_length;  ///< i32[B]
  Tensor own_length;     ///< i32[B]
  Tensor pages;          ///< i32[B, max_pages]: ceil(prefix / page_size) pages of the prefix, then its own
  int page_size;         ///< tokens a page, a multiple of kKvTile
  int max_rows;          ///< upper bound on rows of one sequence in this call (1: decode)
  int max_length;        ///< upper bound on prefix + own
};

/// Temperature, then top-k, then top-p over what is left, then min-p (the order of Hugging Face's processors).
struct Sampling {
  float temperature = 1.0f;  ///< 0: greedy (the log-prob is then the one at temperature 1)
  int top_k = 0;             ///< 0: off
  float top_p = 1.0f;        ///< smallest set of most probable tokens whose mass reaches top_p; 1: off
  float min_p = 0.0f;        ///< drop tokens below min_p * (highest probability); 0: off
  uint64_t seed = 0;
};

struct AdamW {
  float lr, beta1, beta2, eps, weight_decay;
  int64_t step;    ///< 1 for the first update (bias correction)
  float max_norm;  ///< gradients are scaled by min(1, max_norm / (norm + 1e-6)); 0: off
};

/// What the workspace must hold: the largest calls that will be made.
struct WorkspaceNeeds {
  AttentionDims attention;
  int64_t hidden, ffn, vocab;
  int64_t max_tokens;  ///< N of a training pack (0: no training)
  int64_t max_segments;
  int64_t max_head_rows;  ///< R of lm_dapo and lm_logprob
  int64_t max_batch;      ///< B of lm_sample
  int64_t max_rows;       ///< rows of a prefill or decode call
  int64_t max_length;     ///< longest sequence, tokens
};

/// A weight [outputs, inputs] that matmul, or the head (`logits`: into f32), multiplies rows with.
struct WeightShape {
  int64_t outputs, inputs;
  bool bias, logits;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual Device device() const = 0;
  virtual DType dtype() const = 0;              ///< T
  virtual std::string describe() const = 0;     ///< one line: device, memory, instruction set, T
  virtual size_t memory_total() const = 0;      ///< bytes of the device
  virtual size_t memory_available() const = 0;  ///< bytes that an arena could take now

  // ---- memory and order -------------------------------------------------------------------------------------------
  /// Device memory of zeros, aligned to 256; Error kExitResources if there is none. `dense`: all of it will be used, so
  /// that large pages waste none (the CPU then asks for them: at 8 GB they save a quarter of the first step).
  virtual void* allocate(size_t bytes, bool dense = false) = 0;
  virtual void release(void* p, size_t bytes) = 0;
  virtual void* allocate_host(size_t bytes) = 0;  ///< host memory for asynchronous copies (pinned)
  virtual void release_host(void* p, size_t bytes) = 0;
  virtual void copy_in(const Tensor& to, const void* from) = 0;  ///< host to device; `from` must stay until then
  virtual void copy_out(void* to, const Tensor& from) = 0;       ///< device to host, asynchronous
  virtual void copy(const Tensor& to, const Tensor& from) = 0;   ///< device to device, same bytes
  virtual void zero(const Tensor& t) = 0;
  /// Where the host may write the tensor's bytes itself, no op being under way; nullptr: only copy_in can.
  virtual void* host_view(const Tensor& /*t*/) { return nullptr; }
  virtual uint64_t record() = 0;  ///< a mark in the stream
  virtual bool done(uint64_t mark) = 0;
  virtual void wait(uint64_t mark) = 0;
  virtual void synchronize() = 0;
  void copy_out_now(void* to, const Tensor& from) {
    copy_out(to, from);
    synchronize();
  }
  /// Runs body(), which issues the same ops on the same addresses whenever it is called with the same key (what varies
  /// is read from device memory): a device may record it the first time and replay it afterwards (CUDA graphs).
  virtual void replayable(uint64_t key, const std::function<void()>& body) = 0;

  /// Scratch of the ops. The model makes it once, of workspace_bytes(); ops check that it suffices.
  virtual size_t workspace_bytes(const WorkspaceNeeds& needs) const = 0;
  void set_workspace(Arena* arena) { workspace_ = arena; }
  Arena& workspace() const {
    CHECK(workspace_ != nullptr, "set_workspace() comes before the first op");
    return *workspace_;
  }

  // ---- rows -------------------------------------------------------------------------------------------------------
  /// x[n] = table[ids[n] - first_id]; zero where the id is not in this rank's rows. Overwrites x f32[N, C]; table T[V,
  /// C], ids i32[N].
  virtual void embedding(const Tensor& x, const Tensor& table, const Tensor& ids, int32_t first_id) = 0;
  /// dtable[unique[u]] += sum over j in [offsets[u], offsets[u+1]) of dx[rows[j]], in that order. Adds to dtable f32[V,
  /// C]; dx T[N, C]; unique i32[U] (distinct local rows), offsets i32[U + 1], rows i32[..].
  virtual void embedding_backward(const Tensor& dtable, const Tensor& dx, const Tensor& unique, const Tensor& offsets,
                                  const Tensor& rows) = 0;
  /// y[r] = x[index[r]]. Overwrites y [R, C]; x [N, C], both f32 or both T, index i32[R].
  virtual void gather_rows(const Tensor& y, const Tensor& x, const Tensor& index) = 0;
  /// dx[n] = sum over j in [offsets[n], offsets[n+1]) of dy[rows[j]] (f32 sum, in that order). Overwrites dx T[N, C];
  /// dy T[R, C], offsets i32[N + 1], rows i32[R].
  virtual void sum_rows(const Tensor& dx, const Tensor& dy, const Tensor& offsets, const Tensor& rows) = 0;

  // ---- norms ------------------------------------------------------------------------------------------------------
  /// s = x + delta (s = x where delta is empty, sum is then not written and may be empty);
  /// rstd = 1 / sqrt(mean(s^2) + eps); y = s * rstd * w. Overwrites y T[N, C], sum = s f32[N, C] (may alias x), rstd
  /// f32[N] (optional); x f32[N, C], delta T[N, C], w T[C].
  virtual void rmsnorm(const Tensor& y, const Tensor& sum, const Tensor& rstd, const Tensor& x, const Tensor& delta,
                       const Tensor& w, float eps) = 0;
  /// With g = dy * w and h = x * rstd: dx += rstd * (g - h * mean(g * h)); dw += sum over n of dy * h. Adds to dx T[N,
  /// C] (the residual's gradient) and dw f32[C]; dy T[N, C], x f32[N, C], w T[C], rstd f32[N].
  virtual void rmsnorm_backward(const Tensor& dx, const Tensor& dw, const Tensor& dy, const Tensor& x, const Tensor& w,
                                const Tensor& rstd) = 0;

  // ---- products ---------------------------------------------------------------------------------------------------
  /// Which weights will meet at most `rows` rows: a device with several ways to multiply checks here that they give the
  /// same bits. Scratch of its own is free again afterwards, so this comes before the arenas take the memory.
  virtual void prepare_products(std::span<const WeightShape> /*weights*/, int64_t /*rows*/) {}
  /// How products run, one line for people; "" where there is one way.
  virtual std::string products_text() const { return ""; }
  /// y = x w^T + bias. Overwrites y T[M, O]; x T[M, I], w T[O, I], bias T[O] or empty. Row-invariant.
  virtual void matmul(const Tensor& y, const Tensor& x, const Tensor& w, const Tensor& bias) = 0;
  /// dx = dy w. Overwrites dx T[M, I]; dy T[M, O], w T[O, I].
  virtual void matmul_backward_input(const Tensor& dx, const Tensor& dy, const Tensor& w) = 0;
  /// dw += dy^T x; db += sum over rows of dy. Adds to dw f32[O, I] and db f32[O] (or empty); dy T[M, O], x T[M, I].
  virtual void matmul_backward_weight(const Tensor& dw, const Tensor& db, const Tensor& dy, const Tensor& x) = 0;

  // ---- attention --------------------------------------------------------------------------------------------------
  /// Rotates q and k of each packed row in place (Su et al. 2021, Hugging Face's half-split layout): pairs (i, i + D/2)
  /// by the angle of table row positions[n]. qkv T[N, qkv_width]; table f32[T, D] = cos[D/2] then sin[D/2]; positions
  /// i32[N]. inverse: rotates back (the gradient).
  virtual void rope(const Tensor& qkv, const Tensor& table, const Tensor& positions, const AttentionDims& dims,
                    bool inverse) = 0;
  /// Causal softmax attention over segments. Overwrites out T[N, H * D] and lse f32[N, H] (log of the sum of exp of
  /// scaled scores); qkv T[N, qkv_width], after rope.
  virtual void attention(const Tensor& out, const Tensor& lse, const Tensor& qkv, const Segments& segments,
                         const AttentionDims& dims) = 0;
  /// Overwrites dqkv T[N, qkv_width]; dout, out T[N, H * D], lse f32[N, H]. A prefix's dk, dv are summed over its
  /// segments in fixed order.
  virtual void attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                                  const Tensor& lse, const Segments& segments, const AttentionDims& dims) = 0;
  /// Puts k and v of the new rows into their pages. cache T[pages, 2, K, page_size, D]; what lies inside a page's
  /// [page_size, D] is the backend's own affair. qkv T[N, qkv_width], after rope.
  virtual void kv_write(const Tensor& cache, const Tensor& qkv, const PagedSequences& seqs,
                        const AttentionDims& dims) = 0;
  /// The new rows attend to their sequence in pages (their own keys written before). Overwrites out T[N, H * D]: the
  /// same bits as attention() gives these rows. qkv holds the queries.
  virtual void paged_attention(const Tensor& out, const Tensor& qkv, const Tensor& cache, const PagedSequences& seqs,
                               const AttentionDims& dims) = 0;

  // ---- mlp --------------------------------------------------------------------------------------------------------
  /// a = silu(gate) * up. Overwrites a T[N, F]; gu T[N, 2F] = gate [F], up [F].
  virtual void swiglu(const Tensor& a, const Tensor& gu) = 0;
  /// Overwrites dgu T[N, 2F] (may alias gu) and a T[N, F] (the forward's output again, optional); da T[N, F], gu T[N,
  /// 2F].
  virtual void swiglu_backward(const Tensor& dgu, const Tensor& a, const Tensor& da, const Tensor& gu) = 0;

  // ---- head: logits z = x head^T / temperature, never stored whole
  // ------------------------------------------------------
  /// log_prob[r] = log softmax(z[r])[targets[r]]; entropy[r] = -sum p log p (nats; optional). Overwrites f32[R]; x T[R,
  /// C], head T[V, C], targets i32[R].
  virtual void lm_logprob(const Tensor& log_prob, const Tensor& entropy, const Tensor& x, const Tensor& head,
                          const Tensor& targets, float temperature) = 0;
  /// Forward and backward of the policy loss sum_r weight[r] * token_loss(log_prob[r], old_log_prob[r], advantage[r])
  /// (core/dapo_loss.h; on_policy_loss where old_log_prob is empty). Overwrites dx T[R, C], log_prob, entropy, loss
  /// f32[R], clip u8[R] (ClipKind); adds to dhead f32[V, C]. x T[R, C], head T[V, C], targets i32[R], old_log_prob,
  /// advantage, weight f32[R].
  virtual void lm_dapo(const Tensor& dx, const Tensor& dhead, const Tensor& log_prob, const Tensor& entropy,
                       const Tensor& loss, const Tensor& clip, const Tensor& x, const Tensor& head,
                       const Tensor& targets, const Tensor& old_log_prob, const Tensor& advantage, const Tensor& weight,
                       float temperature, const DapoLoss& params) = 0;
  /// Draws tokens[b] from the filtered softmax(z[b]) (core/softmax.h) by inverse CDF with draw_fraction(seed, keys[b],
  /// positions[b]); log_prob[b] is its under the unfiltered softmax: the very bits of lm_logprob. Overwrites tokens
  /// i32[B], log_prob f32[B]; x T[B, C], head T[V, C], keys i32[B, 3] (DrawKey), positions i32[B] (of the drawn token).
  virtual void lm_sample(const Tensor& tokens, const Tensor& log_prob, const Tensor& x, const Tensor& head,
                         const Tensor& keys, const Tensor& positions, const Sampling& sampling) = 0;

  // ---- update -----------------------------------------------------------------------------------------------------
  /// out[0] += sum of x^2 in f64, fixed order. out f64[1]; x f32.
  virtual void sum_of_squares(const Tensor& out, const Tensor& x) = 0;
  /// AdamW (Loshchilov & Hutter 2019, as torch.optim.AdamW) on a flat run of parameters, gradients clipped by the
  /// global norm sqrt(norm2[0]) (f64[1]). If norm2 is not finite nothing changes but the gradient. Always sets grad to
  /// zero. w T[n]; remainder i16[n] (T = bf16: the master is join_master(w, remainder)) or empty (T = f32); m, v, grad
  /// f32[n].
  virtual void adamw(const Tensor& w, const Tensor& remainder, const Tensor& m, const Tensor& v, const Tensor& grad,
                     const Tensor& norm2, const AdamW& params) = 0;
  /// to = from, converted; f32 and bf16 (round to nearest even).
  virtual void cast(const Tensor& to, const Tensor& from) = 0;
  /// t += 1, elementwise, i32: positions and lengths of a decode batch move on without the host.
  virtual void increment(const Tensor& t) = 0;

 private:
  Arena* workspace_ = nullptr;
};

}  // namespace dapo
