// THE CONTRACT between the model and the devices: memory, order of execution, and every op with its algebra. An op's
// meaning in plain loops is in tests/ops/reference.h, its checks are in core/op_checks.h, its code in cpu/ and cuda/.
//
// Letters: N packed tokens, C hidden, F ffn, H query heads, K key/value heads, D head_dim, V vocabulary (this rank's
// part), R rows of the head, B sequences of a decode batch, S segments. T is the backend's activation type, f32 or
// bf16. A gradient is named d + name. Arguments come as outputs, inputs, dims, scalars, one a line with type and shape:
// "out" is overwritten, "adds" is added to, "in-out" is read and overwritten, "or empty" is optional.
//
// - Every op and copy is asynchronous, in the order of one stream; only wait(), synchronize() and copy_out_now() block.
//   The CPU backend does everything at once.
// - Weights and activations are T; sums are f32; gradients of weights and moments are f32. The residual stream (x and
//   sum below, and rows gathered from it) is f32 for any T: if it were rounded to bf16 at every addition, that rounding
//   would be most of the error of a log-prob. Its gradient is T.
// - Outputs do not alias inputs unless the op says that they may.
// - Deterministic: sums have a fixed order; no sum uses floating-point atomics.
// - Batch-invariant: what rollout computes for a row does not depend on the other rows of the call. Attention cuts the
//   keys of a sequence at the end of its prefix and then every kKvTile tokens, in training, prefill and decode alike,
//   so that a sampled token's log-prob is bit for bit the one that is trained on.
// - Ops take scratch from workspace() (mark/release); no tensor is allocated inside a step. (On the CPU, oneDNN caches
//   compiled products and scratch of its own, which grow with the number of different shapes.)
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/arena.h"
#include "core/comm.h"
#include "core/dapo_loss.h"
#include "core/philox.h"
#include "core/range.h"
#include "core/softmax.h"
#include "core/tensor.h"

namespace dapo {

enum class Device : uint8_t { cpu, cuda };

/// Keys are visited in tiles of this many tokens; a new tile begins at the end of a prefix (docs/design.md 2: segments).
inline constexpr int kKvTile = 64;

struct AttentionDims {
  int heads;     ///< H
  int kv_heads;  ///< K; query head h reads KV head h / (H / K)
  int head_dim;  ///< D; scores are scaled by 1 / sqrt(D)
  int64_t q_width() const { return int64_t{heads} * head_dim; }
  int64_t kv_width() const { return int64_t{kv_heads} * head_dim; }
  int64_t qkv_width() const { return q_width() + 2 * kv_width(); }  ///< of a row q [H, D], k [K, D], v [K, D]
};

/// Consecutive tokens of a pack. Token i of a segment attends to all of its prefix segment, then to tokens 0..i of its
/// own; its position is (length of the prefix) + i. A prefix has no prefix itself and comes before the segments that
/// use it.
struct Segment {
  int32_t begin;   ///< first token
  int32_t length;  ///< tokens, >= 1
  int32_t prefix;  ///< index of the prefix segment, or -1
};

/// The segments of a pack, which cover tokens [0, N) in order, on the host and as i32[S, 3] on the device.
struct Segments {
  std::span<const Segment> host;
  Tensor device;
};

/// Sequences whose keys and values are in pages. Sequence b has prefix_length[b] tokens in pages that its group shares
/// (the prompt; its last page may be partly filled) and own_length[b] tokens in the pages after those. own_length
/// includes the new tokens of this call, rows [row_begin[b], row_begin[b + 1]), which are its last ones. A sequence
/// without new tokens is skipped. A device may read all this while the op just ahead still runs, which must not write it.
struct PagedSequences {
  Tensor row_begin;      ///< i32[B + 1]
  Tensor prefix_length;  ///< i32[B]
  Tensor own_length;     ///< i32[B]
  Tensor pages;          ///< i32[B, max_pages]: ceil(prefix / page_size) pages of the prefix, then its own
  int page_size;         ///< tokens a page, a multiple of kKvTile
  int max_rows;          ///< upper bound on a sequence's new tokens in this call (1: decode)
  int max_length;        ///< upper bound on prefix + own
};

/// Temperature, then top-k, then top-p of what is left, then min-p (the order of Hugging Face's processors).
struct Sampling {
  float temperature = 1.0f;  ///< 0: greedy (the log-prob is then the one at temperature 1)
  int top_k = 0;             ///< 0: off
  float top_p = 1.0f;        ///< keep the smallest set of most probable tokens whose mass reaches top_p; 1: off
  float min_p = 0.0f;        ///< drop tokens below min_p * (highest probability); 0: off
  uint64_t seed = 0;
};

struct AdamW {
  float lr, beta1, beta2, eps, weight_decay;
  int64_t step;    ///< 1 for the first update (bias correction)
  float max_norm;  ///< gradients are scaled by min(1, max_norm / (norm + 1e-6)); 0: off
};

/// How the columns of the logits are dealt to tensor-parallel ranks: whole tiles of the softmax (core/softmax.h), so
/// that its bits are those of one rank. A rank may have none.
struct VocabularySplit {
  Comm* ranks = nullptr;  ///< null: not split
  int64_t size = 0;       ///< of the vocabulary
  int parts() const { return ranks == nullptr ? 1 : ranks->size(); }
  int own() const { return ranks == nullptr ? 0 : ranks->rank(); }
  Range of(int rank) const { return share_of(size, kSoftmaxTile, parts(), rank); }
  /// Columns of the largest part.
  int64_t most() const {
    int64_t columns = 0;
    for (int r = 0; r < parts(); ++r) columns = std::max(columns, of(r).count());
    return columns;
  }
};

/// The largest calls that will be made: they determine the size of the workspace.
struct WorkspaceNeeds {
  AttentionDims attention;
  int64_t hidden, ffn;
  int64_t vocab;       ///< columns of the largest rank's part
  int64_t max_tokens;  ///< N of a training pack (0: no training)
  int64_t max_segments;
  int64_t max_head_rows;   ///< R of lm_dapo and lm_logprob
  int64_t max_batch;       ///< B of lm_sample
  int64_t max_rows;        ///< new tokens of a prefill or decode call
  int64_t max_length;      ///< longest sequence, tokens
  int tensor_ranks = 1;    ///< that share the vocabulary
  int64_t vocab_size = 0;  ///< of all of them, if there are several
};

/// A weight [outputs, inputs] of matmul, or of the head (`logits`: its product is f32).
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
  virtual size_t memory_available() const = 0;  ///< bytes that could be allocated now

  // ---- memory and order -------------------------------------------------------------------------------------------
  /// Device memory, zeroed, aligned to 256 bytes; Error kExitResources if there is not enough. `dense`: all of it will
  /// be used, so that large pages waste none (the CPU then asks for them: at 8 GB they save a quarter of the first
  /// step).
  virtual void* allocate(size_t bytes, bool dense = false) = 0;
  virtual void release(void* p, size_t bytes) = 0;
  /// Pinned memory of the host, for asynchronous copies. A tensor in it is an operand of elementwise ops and adamw as one
  /// on the device is, at the speed of the bus; copy() and zero() are for the device alone. Error kExitResources.
  virtual void* allocate_host(size_t bytes) = 0;
  virtual void release_host(void* p, size_t bytes) = 0;
  virtual void copy_in(const Tensor& to, const void* from) = 0;  ///< host to device; `from` must live until it is done
  virtual void copy_out(void* to, const Tensor& from) = 0;       ///< device to host, asynchronous
  virtual void copy(const Tensor& to, const Tensor& from) = 0;   ///< device to device, same number of bytes
  virtual void zero(const Tensor& t) = 0;
  /// Address at which the host may write the tensor's bytes itself while no op is running; nullptr: use copy_in.
  virtual void* host_view(const Tensor& /*t*/) { return nullptr; }
  virtual uint64_t record() = 0;  ///< a mark in the stream
  virtual bool done(uint64_t mark) = 0;
  virtual void wait(uint64_t mark) = 0;
  virtual void synchronize() = 0;
  void copy_out_now(void* to, const Tensor& from) {
    copy_out(to, from);
    synchronize();
  }
  /// Queues work(), which copies, casts, adds parts and calls collectives, beside the ops: on a stream of its own, or, on
  /// the CPU, a thread of its own. Each begins after the ops queued so far, and after the work before it; no op may touch
  /// its tensors until join(). Returns a mark, greater than those before.
  virtual uint64_t beside(std::function<void()> work) = 0;
  /// The ops that follow come after that work. Throws what failed in it: on the CPU here, on a GPU in beside().
  virtual void join(uint64_t mark) = 0;
  /// Seconds of all such work so far, waiting for other ranks included, and of these the ones in which ops waited after
  /// join(). Blocks; the work must have been joined.
  struct BesideSeconds {
    double work = 0, waited = 0;
  };
  virtual BesideSeconds beside_seconds() = 0;
  /// Runs body(). For one key it must always issue the same ops on the same addresses (what varies is read from device
  /// memory): a device may record it the first time and replay it afterwards (CUDA graphs).
  virtual void replayable(uint64_t key, const std::function<void()>& body) = 0;

  /// Scratch of the ops. The model allocates it once, workspace_bytes() large; an op fails if it is too small.
  virtual size_t workspace_bytes(const WorkspaceNeeds& needs) const = 0;
  void set_workspace(Arena* arena) { workspace_ = arena; }
  Arena& workspace() const {
    CHECK(workspace_ != nullptr, "set_workspace() comes before the first op");
    return *workspace_;
  }

  // ---- rows -------------------------------------------------------------------------------------------------------
  /// x[n] = table[ids[n] - first_id]; zero where the id is not one of this rank's.
  virtual void embedding(const Tensor& x,      ///< f32[N, C], out
                         const Tensor& table,  ///< T[V, C]
                         const Tensor& ids,    ///< i32[N]
                         int32_t first_id) = 0;
  /// dtable[unique[u]] += sum over j in [offsets[u], offsets[u+1]) of dx[rows[j]], in that order.
  virtual void embedding_backward(const Tensor& dtable,     ///< f32[V, C], adds
                                  const Tensor& dx,         ///< T[N, C]
                                  const Tensor& unique,     ///< i32[U], distinct rows of dtable
                                  const Tensor& offsets,    ///< i32[U + 1]
                                  const Tensor& rows) = 0;  ///< i32[any]
  /// y[r] = x[index[r]].
  virtual void gather_rows(const Tensor& y,           ///< f32 or T [R, C], out
                           const Tensor& x,           ///< [N, C], of y's type
                           const Tensor& index) = 0;  ///< i32[R]
  /// dx[n] = sum over j in [offsets[n], offsets[n+1]) of dy[rows[j]], in f32, in that order.
  virtual void sum_rows(const Tensor& dx,         ///< T[N, C], out
                        const Tensor& dy,         ///< T[R, C]
                        const Tensor& offsets,    ///< i32[N + 1]
                        const Tensor& rows) = 0;  ///< i32[any]

  // ---- norms ------------------------------------------------------------------------------------------------------
  /// s = x + delta, or s = x if delta is empty; rstd = 1 / sqrt(mean(s^2) + eps); y = s * rstd * w; sum = s.
  virtual void rmsnorm(const Tensor& y,      ///< T[N, C], out
                       const Tensor& sum,    ///< f32[N, C], out, may alias x; not written if delta is empty
                       const Tensor& rstd,   ///< f32[N], out, or empty
                       const Tensor& x,      ///< f32[N, C]
                       const Tensor& delta,  ///< T[N, C], or T[P, N, C]: (part 0 + part 1) + ..., in f32; or empty
                       const Tensor& w,      ///< T[C]
                       float eps) = 0;
  /// sum = (part 0 + part 1) + ..., in f32: the parts of ranks.
  virtual void add_parts(const Tensor& sum,         ///< f32 or bf16 [N, C], out; may be part 0 if of its type
                         const Tensor& parts) = 0;  ///< of sum's type, or bf16 [P, N, C]
  /// With g = dy * w and h = x * rstd: dx += rstd * (g - h * mean(g * h)); dw += sum over n of dy * h.
  virtual void rmsnorm_backward(const Tensor& dx,         ///< T[N, C], adds (the residual's gradient)
                                const Tensor& dw,         ///< f32[C], adds
                                const Tensor& dy,         ///< T[N, C]
                                const Tensor& x,          ///< f32[N, C]
                                const Tensor& w,          ///< T[C]
                                const Tensor& rstd) = 0;  ///< f32[N]

  // ---- products ---------------------------------------------------------------------------------------------------
  /// Names the weights that will be multiplied with up to `rows` rows: a device with several ways to multiply checks
  /// here that they give the same bits. It frees its scratch afterwards, so call it before the arenas are allocated.
  virtual void prepare_products(std::span<const WeightShape> /*weights*/, int64_t /*rows*/) {}
  /// The same for attention() and paged_attention(): their heads, and the rows of the largest call.
  virtual void prepare_attention(const AttentionDims& /*dims*/, int64_t /*rows*/) {}
  /// How products and attention run, one line for people; "" if there is only one way.
  virtual std::string products_text() const { return ""; }
  /// y = x w^T + bias. Row-invariant. w is not the output of the op just before: a device may prefetch it.
  virtual void matmul(const Tensor& y,          ///< T[M, O], out
                      const Tensor& x,          ///< T[M, I]
                      const Tensor& w,          ///< T[O, I]
                      const Tensor& bias) = 0;  ///< T[O], or empty
  /// dx = dy w.
  virtual void matmul_backward_input(const Tensor& dx,      ///< T[M, I], out
                                     const Tensor& dy,      ///< T[M, O]
                                     const Tensor& w) = 0;  ///< T[O, I]
  /// dw += dy^T x; db += sum over rows of dy.
  virtual void matmul_backward_weight(const Tensor& dw,      ///< f32[O, I], adds
                                      const Tensor& db,      ///< f32[O], adds, or empty
                                      const Tensor& dy,      ///< T[M, O]
                                      const Tensor& x) = 0;  ///< T[M, I]

  // ---- attention --------------------------------------------------------------------------------------------------
  /// Rotates q and k of each packed row in place (Su et al. 2021, Hugging Face's half-split layout): pairs (i, i + D/2)
  /// by the angle in table row positions[n]. inverse: rotates back (the gradient).
  virtual void rope(const Tensor& qkv,          ///< T[N, qkv_width], in-out
                    const Tensor& table,        ///< f32[any, D]: cos[D/2], then sin[D/2]
                    const Tensor& positions,    ///< i32[N], rows of the table
                    const AttentionDims& dims,  ///< H, K, D
                    bool inverse) = 0;
  /// Causal softmax attention over segments.
  virtual void attention(const Tensor& out,         ///< T[N, H * D], out
                         const Tensor& lse,         ///< f32[N, H], out: log of the sum of exp of the scaled scores
                         const Tensor& qkv,         ///< T[N, qkv_width], after rope
                         const Segments& segments,  ///< of the N rows
                         const AttentionDims& dims) = 0;
  /// A prefix's dk and dv are summed over its segments in a fixed order.
  virtual void attention_backward(const Tensor& dqkv,        ///< T[N, qkv_width], out
                                  const Tensor& dout,        ///< T[N, H * D]
                                  const Tensor& qkv,         ///< T[N, qkv_width]
                                  const Tensor& out,         ///< T[N, H * D]
                                  const Tensor& lse,         ///< f32[N, H]
                                  const Segments& segments,  ///< of the N rows
                                  const AttentionDims& dims) = 0;
  /// Rotates q and k of the new tokens in place as rope() does, each at its position in its sequence (prefix + own), and
  /// writes k and v into their pages. The layout inside a page's [page_size, D] is the backend's own.
  virtual void rope_kv_write(const Tensor& cache,         ///< T[pages, 2, K, page_size, D], out
                             const Tensor& qkv,           ///< T[N, qkv_width], in-out
                             const Tensor& table,         ///< f32[any, D] as in rope(), or empty: nothing is rotated
                             const PagedSequences& seqs,  ///< of the N rows
                             const AttentionDims& dims) = 0;
  /// The new tokens attend to their sequence in pages, themselves included (rope_kv_write comes first). The bits are those
  /// that attention() gives these rows.
  virtual void paged_attention(const Tensor& out,           ///< T[N, H * D], out
                               const Tensor& qkv,           ///< T[N, qkv_width]: the queries
                               const Tensor& cache,         ///< T[pages, 2, K, page_size, D]
                               const PagedSequences& seqs,  ///< of the N rows
                               const AttentionDims& dims) = 0;

  // ---- mlp --------------------------------------------------------------------------------------------------------
  /// a = silu(gate) * up.
  virtual void swiglu(const Tensor& a,        ///< T[N, F], out
                      const Tensor& gu) = 0;  ///< T[N, 2F]: gate [F], up [F]
  /// The gradient of gu, and the forward's output again.
  virtual void swiglu_backward(const Tensor& dgu,      ///< T[N, 2F], out, may alias gu
                               const Tensor& a,        ///< T[N, F], out, or empty
                               const Tensor& da,       ///< T[N, F]
                               const Tensor& gu) = 0;  ///< T[N, 2F]

  // ---- head: logits z = x head^T / temperature, never stored whole ------------------------------------------------
  /// From now on `head` is this rank's part of the vocabulary, and the three ops below are collectives over its ranks.
  /// All of them pass the same rows and targets, which count from the start of the vocabulary, and get the same
  /// results; dhead is of the rank's own part. Log-probs and draws have the bits of one rank that has all of head.
  void split_vocabulary(const VocabularySplit& split) { vocabulary_ = split; }
  const VocabularySplit& vocabulary_split() const { return vocabulary_; }
  /// log_prob[r] = log softmax(z[r])[targets[r]]; entropy[r] = -sum p log p, in nats.
  virtual void lm_logprob(const Tensor& log_prob,  ///< f32[R], out
                          const Tensor& entropy,   ///< f32[R], out, or empty
                          const Tensor& x,         ///< T[R, C]
                          const Tensor& head,      ///< T[V, C]
                          const Tensor& targets,   ///< i32[R]
                          float temperature) = 0;  ///< above 0
  /// Forward and backward of the loss sum_r weight[r] * objective_loss(row r) (core/dapo_loss.h). The ratio is
  /// e^log_ratio[r] if that is given (LossKind::gspo needs it), else e^(log_prob[r] - old_log_prob[r]); 1 without both.
  virtual void lm_dapo(const Tensor& dx,            ///< T[R, C], out
                       const Tensor& dhead,         ///< f32[V, C], adds
                       const Tensor& log_prob,      ///< f32[R], out
                       const Tensor& entropy,       ///< f32[R], out
                       const Tensor& loss,          ///< f32[R], out: objective_loss, without its weight
                       const Tensor& clip,          ///< u8[R], out: ClipKind
                       const Tensor& x,             ///< T[R, C]
                       const Tensor& head,          ///< T[V, C]
                       const Tensor& targets,       ///< i32[R]
                       const Tensor& old_log_prob,  ///< f32[R], or empty
                       const Tensor& advantage,     ///< f32[R]
                       const Tensor& weight,        ///< f32[R]
                       const Tensor& log_ratio,     ///< f32[R], a constant, or empty
                       const Tensor& ref_log_prob,  ///< f32[R]: the reference's, for the KL; or empty
                       float temperature,           ///< above 0
                       const DapoLoss& params) = 0;
  /// Draws tokens[b] from the filtered softmax(z[b]) (core/softmax.h) by inverse CDF with draw_fraction(seed, keys[b],
  /// positions[b]). log_prob[b] is the token's under the unfiltered softmax, with the bits of lm_logprob.
  virtual void lm_sample(const Tensor& tokens,     ///< i32[B], out
                         const Tensor& log_prob,   ///< f32[B], out
                         const Tensor& x,          ///< T[B, C]
                         const Tensor& head,       ///< T[V, C]
                         const Tensor& keys,       ///< i32[B, 3]: DrawKey
                         const Tensor& positions,  ///< i32[B], of the tokens that are drawn
                         const Sampling& sampling) = 0;

  // ---- update -----------------------------------------------------------------------------------------------------
  /// out[0] += sum of x^2, in f64, in a fixed order.
  virtual void sum_of_squares(const Tensor& out,     ///< f64[1], adds
                              const Tensor& x) = 0;  ///< f32, any shape
  /// AdamW (Loshchilov & Hutter 2019, as torch.optim.AdamW) on a flat run of parameters, with gradients clipped by the
  /// global norm sqrt(norm2[0]); then grad is set to zero. If norm2 is not finite, only grad changes. Where T is bf16
  /// the master is join_master(w, remainder).
  virtual void adamw(const Tensor& w,          ///< T[n], in-out
                     const Tensor& remainder,  ///< i16[n], in-out; empty if T is f32
                     const Tensor& m,          ///< f32[n], in-out
                     const Tensor& v,          ///< f32[n], in-out
                     const Tensor& grad,       ///< f32[n], in-out
                     const Tensor& norm2,      ///< f64[1]
                     const AdamW& params) = 0;

  // ---- conversions ------------------------------------------------------------------------------------------------
  /// to = from, converted, rounded to nearest even.
  virtual void cast(const Tensor& to,         ///< f32 or bf16, any shape, out
                    const Tensor& from) = 0;  ///< f32 or bf16, as many elements
  /// t += 1, elementwise: advances the positions and lengths of a decode batch without the host.
  virtual void increment(const Tensor& t) = 0;  ///< i32, any shape, in-out

 private:
  Arena* workspace_ = nullptr;
  VocabularySplit vocabulary_;
};

}  // namespace dapo
