// What passes keep in the arenas, laid out by the same code that a plan measures with.
#pragma once

#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "core/backend.h"
#include "model/memory_plan.h"
#include "model/params.h"
#include "model/shards.h"

namespace dapo {

/// What the forward of one layer reads and writes, for N tokens. Activations are T unless marked f32.
///
/// With P tensor-parallel ranks, the sum of what they add to the residual stream is defined part by part, in rank order.
/// A Decoder's ranks all gather the parts and add all of them. A Learner's ranks deal the tokens between products: M =
/// ceil(N / P) each, of which the last rank's may be past the end and mean nothing (sequence parallelism: Korthikanti et
/// al. 2022); both give a token the same bits.
struct LayerBuffers {
  Tensor x_in;      ///< f32[N or M, C]: residual stream that enters the first norm
  Tensor rstd1;     ///< f32[N or M], of the first norm; empty in a Decoder
  Tensor h;         ///< [N, C]: output of the norm that ran last
  Tensor shared_h;  ///< [P, M, C], h and what is past its end: by the rank that computes the tokens; empty if not dealt
  Tensor qkv;       ///< [N, qkv_width], after rope
  Tensor att;       ///< [N, H * D]: output of attention
  Tensor lse;       ///< f32[N, H]: log of the sum of exp of the scores; empty in a Decoder
  Tensor x_mid;     ///< f32[N or M, C]: residual stream that enters the second norm; may be x_in if no backward follows
  Tensor rstd2;     ///< f32[N or M], of the second norm; empty in a Decoder
  Tensor gate_up;   ///< [N, 2F]; in backward its gradient
  Tensor act;       ///< [N, F]: silu(gate) * up
  Tensor delta;    ///< [N, C]: what attention or the MLP adds to the residual stream; in backward gradient of h. With P
                   ///< ranks their parts of it, [P, N or M, C]
  Tensor partial;  ///< [P, M, C]: this rank's part for all tokens; in backward also dx of all; empty if not dealt
  bool dealt() const { return bool(partial); }
  /// Views of the first n tokens.
  LayerBuffers first(int64_t n) const;
};

/// The R tokens that need the head.
struct HeadBuffers {
  Tensor x;      ///< f32[R, C]: gathered residual stream, then with delta added; [M, C] of the rank's tokens if dealt
  Tensor delta;  ///< T[R, C] or T[P, R, C]: gathered output of the last MLP; in backward gradient of h
  Tensor h;      ///< T[R, C]: output of the final norm; in backward gradient of x
  Tensor rstd;   ///< f32[R], or [M] as x, of the final norm
  /// r tokens, for a call over n: `deal` ranks share those.
  HeadBuffers first(int64_t r, int64_t n, int64_t deal) const;
};

/// The part of P ranks' results that `rank` has: [N, C] of [P, N, C], or all of [N, C].
Tensor own_part(const Tensor& parts, int rank);
/// The first n rows of [N, C], or of all parts of [P, M, C] one after another.
Tensor all_rows(const Tensor& parts, int64_t n);

/// Copies a call's small inputs to the device through pinned host memory, one after another. Inputs of the same sizes
/// get the same addresses in every call. A call must synchronize before the next one resets.
class StagedInputs {
 public:
  StagedInputs() = default;
  /// `device`: u8[bytes]; `host`: pinned memory of as many bytes.
  StagedInputs(Backend& backend, const Tensor& device, void* host)
      : backend_(&backend), device_(device), host_(static_cast<char*>(host)) {}
  /// Bytes that an input of `bytes` bytes takes.
  static constexpr size_t aligned(size_t bytes) { return (bytes + Arena::kAlign - 1) / Arena::kAlign * Arena::kAlign; }

  void reset() { used_ = 0; }
  /// The values on the device, [n]. Its data pointer is not null even if n = 0.
  template <class T>
  Tensor put(std::span<const T> values) {
    const size_t bytes = values.size_bytes();
    CHECK_LE(used_ + aligned(bytes), device_.bytes(), "inputs of a call");
    Tensor t(static_cast<char*>(device_.data) + used_, dtype_of<T>::value, {static_cast<int64_t>(values.size())});
    if (bytes > 0) {
      std::memcpy(host_ + used_, values.data(), bytes);
      backend_->copy_in(t, host_ + used_);
    }
    used_ += aligned(bytes);
    return t;
  }
  template <class T>
  Tensor put(const std::vector<T>& values) {
    return put(std::span<const T>(values));
  }

 private:
  Backend* backend_ = nullptr;
  Tensor device_;
  char* host_ = nullptr;
  size_t used_ = 0;
};

/// KV pages, and the activations of one prefill or decode step. "batch" is ModelLimits::batch.
struct RolloutBuffers {
  Tensor cache;  ///< T[layers * pages, 2, K, page_size, D]; the last page of each layer belongs to padding sequences
  LayerBuffers layer;
  HeadBuffers head;
  Tensor tokens, log_prob;            ///< i32, f32[batch]: draws of one step
  Tensor step_tokens, step_log_prob;  ///< i32, f32[decode_steps * batch]: draws of all steps of a decode()
  Tensor inputs;                      ///< u8: room for StagedInputs
};
RolloutBuffers lay_rollout(Arena& arena, const ModelConfig& config, const ModelLimits& limits, DType dtype);

/// Gradients (model/gradients.h), f32; `all` and `own` are zero while the Decoder has the arena.
struct GradientBuffers {
  static constexpr size_t kEmbedding = 0, kLast = 1, kLayers = 2;
  Tensor all;                     ///< [parameters], flat, in table order; or, in ZeRO stage 2,
  Tensor own;                     ///< [shard]: sums of this rank's slices,
  std::array<Tensor, 4> buckets;  ///< and one pack's, of a bucket each: the embedding, the last, two layers
};

/// The gradients, the activations of a pack of N tokens, and backward's gradients of these.
struct UpdateBuffers {
  GradientBuffers gradients;
  std::vector<LayerBuffers> layers;  ///< by layer; what backward computes again is shared between layers
  HeadBuffers head;
  Tensor embedded;                       ///< f32[P * M, C]: embeddings of all tokens, before they are dealt
  Tensor dx;                             ///< T[N or M, C]: gradient of the residual stream
  Tensor dact, datt, dqkv;               ///< T: gradients inside one layer; that of h lies in LayerBuffers::delta
  Tensor log_prob, entropy, loss, clip;  ///< f32[R], clip u8[R]
  Tensor inputs;                         ///< u8: room for StagedInputs
};
UpdateBuffers lay_update(Arena& arena, const ModelConfig& config, const ModelLimits& limits, DType dtype);

/// Flat buffers in table order, of one rank's shard (of the largest: Shards::most()).
struct StateBuffers {
  Tensor moment1, moment2;  ///< f32[shard]
  Tensor remainders;        ///< i16[shard] if T = bf16: master = join_master(weight, remainder)
};
StateBuffers lay_state(Arena& arena, const ParamTable& params, const ModelLimits& limits, DType dtype);

/// Elements of scratch that summing the gradients of what tensor-parallel ranks hold alike takes: one layer's norms and
/// shared key/value heads.
int64_t copies_exchange_size(const ModelConfig& config, const TensorRank& at);

/// What stays at the bottom of the workspace; the scratch of the ops lies above.
struct ConstantBuffers {
  Tensor rope;      ///< f32[max_length, D]: Backend::rope
  Tensor norm2;     ///< f64[1]: squared norm of the gradient
  Tensor exchange;  ///< f32: scratch of ShardExchange; empty with one data-parallel rank, or without training
  Tensor copies;    ///< f32: scratch of Gradients::sum_copies; empty with one tensor-parallel rank, or without training
};
ConstantBuffers lay_constants(Arena& arena, const ParamTable& params, const ModelConfig& config,
                              const ModelLimits& limits);
WorkspaceNeeds workspace_needs(const ModelConfig& config, const ModelLimits& limits);

}  // namespace dapo
