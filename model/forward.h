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

  /// b.x_in = embedding rows of ids i32[N]. embedded: scratch f32[P * M, C], if the tokens are dealt.
  void embed(const LayerBuffers& b, const Tensor& ids, const Tensor& embedded) const;
  /// First half of layer l, up to gate and up: norm, attention, norm, product. Reads the residual stream x f32[N, C]
  /// plus delta (the MLP's output of the layer below, as LayerBuffers::delta; empty: none) and leaves in b all that backward reads. x
  /// may be b.x_in. Overwrites every tensor of b but b.act; b.delta then holds the output of attention.
  void attention_half(int l, const LayerBuffers& b, const Tensor& x, const Tensor& delta,
                      const AttentionInputs& in) const;
  /// Second half: b.act = silu(gate) * up of b.gate_up, then b.delta = down(b.act), not yet added to b.x_mid.
  void mlp_half(int l, const LayerBuffers& b) const;
  /// head.h = final norm of the tokens head_rows i32[R] of last.x_mid + last.delta; head.x is what the norm read.
  /// Without head_rows: of all tokens, and last.x_mid is overwritten with the sum instead of head.x.
  void final_norm(const HeadBuffers& head, const LayerBuffers& last, const Tensor& head_rows) const;
  /// b.h = norm of x + delta (if any, then sum = x + delta). Where the tokens are dealt, each rank does its own.
  void norm(const LayerBuffers& b, const Tensor& sum, const Tensor& rstd, const Tensor& x, const Tensor& delta,
            int w) const;

  /// The head's matrix, T[V, C]: this rank's part of the vocabulary.
  Tensor head() const { return weights_.view(weights_.params().head); }

 private:
  Tensor weight(int index) const { return weights_.view(index); }
  Comm& ranks() const { return weights_.tensor_parallel(); }
  /// b.delta = x w^T, of which every tensor-parallel rank computes a part.
  void output_projection(const LayerBuffers& b, const Tensor& x, int w) const;

  const Weights& weights_;
  Backend& backend_;
  const ModelConfig& local_;  ///< this rank's heads and MLP columns
  const Tensor rope_;
};

/// f32[length, D] for Backend::rope, as Hugging Face computes it: inverse frequencies and angles in f32.
std::vector<float> rope_table(const ModelConfig& config, int64_t length);

}  // namespace dapo
