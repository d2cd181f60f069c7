// The layers of Qwen2.5, as packs and KV pages both run them: the same ops in the same order on the same types, so that
// the log-prob of a sampled token is, bit for bit, the one that is trained on.
#pragma once

#include <vector>

#include "model/buffers.h"
#include "model/weights.h"

namespace dapo {

/// The tokens of a call and where their keys and values lie: among the tokens themselves (`segments`), or in KV pages
/// (`sequences`, `cache`).
struct AttentionInputs {
  Tensor positions;  ///< i32[N]: of each token in its sequence; with `segments` only
  const Segments* segments = nullptr;
  const PagedSequences* sequences = nullptr;
  Tensor cache;  ///< RolloutBuffers::cache
};

class Layers {
 public:
  /// rope: f32[max_length, D], rope_table().
  Layers(const Weights& weights, const Tensor& rope);

  /// b.x_in = embedding rows of ids i32[N].
  void embed(const LayerBuffers& b, const Tensor& ids) const;
  /// First half of layer l, up to gate and up: norm, attention, norm, product. Reads the residual stream x f32[N, C]
  /// plus delta T[N, C] or T[P, N, C] (the MLP's output of the layer below; empty: none) and leaves in b all that backward reads. x
  /// may be b.x_in. Overwrites every tensor of b but b.act; b.delta then holds the output of attention.
  void attention_half(int l, const LayerBuffers& b, const Tensor& x, const Tensor& delta,
                      const AttentionInputs& in) const;
  /// Second half: b.act = silu(gate) * up of b.gate_up, then b.delta = down(b.act), not yet added to b.x_mid.
  void mlp_half(int l, const LayerBuffers& b) const;
  /// head.h = final norm of the tokens head_rows i32[R] of x + delta (f32, T [N, C] or T[P, N, C]); head.x is what the norm read.
  /// Without head_rows: of all tokens, and x is overwritten with x + delta instead of head.x.
  void final_norm(const HeadBuffers& head, const Tensor& x, const Tensor& delta, const Tensor& head_rows) const;

  /// The head's matrix, T[V, C]: this rank's part of the vocabulary.
  Tensor head() const { return weights_.view(weights_.params().head); }

 private:
  Tensor weight(int index) const { return weights_.view(index); }
  /// delta = x w^T, of which every tensor-parallel rank computes a part.
  void output_projection(const Tensor& delta, const Tensor& x, int w) const;

  const Weights& weights_;
  Backend& backend_;
  const ModelConfig& local_;  ///< this rank's heads and MLP columns
  const Tensor rope_;
};

/// The part of P tensor-parallel ranks' results that `rank` computes: T[N, C] of T[P, N, C], or all of T[N, C].
Tensor own_part(const Tensor& parts, int rank);
/// Every rank's part on all ranks, once each has its own.
void exchange_parts(Comm& ranks, const Tensor& parts);

/// f32[length, D] for Backend::rope, as Hugging Face computes it: inverse frequencies and angles in f32.
std::vector<float> rope_table(const ModelConfig& config, int64_t length);

}  // namespace dapo
