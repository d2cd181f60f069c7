// Learner: log-probs, gradients and updates of weights, over packs.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "model/forward.h"
#include "model/gradients.h"
#include "model/model_memory.h"
#include "model/pack.h"

namespace dapo {

/// i32 vectors on the device that list, for each key, the items that have it: items[offsets[k], offsets[k + 1]).
struct DeviceIndex {
  Tensor keys;  ///< the distinct keys, if not 0, 1, 2, ...
  Tensor offsets, items;
};

/// A pack's inputs on the device; shapes as in Pack.
struct PackInputs {
  Segments segments;
  Tensor ids, positions, head_rows, targets;
  Tensor old_log_prob, advantage, weight;  ///< train only; old_log_prob may be empty
  Tensor ref_log_prob, log_ratio;          ///< train only; may be empty
  DeviceIndex tokens_by_id;                ///< train only: for embedding_backward
  DeviceIndex heads_by_token;              ///< train only: head rows of each token, for sum_rows
};

/// log_ratio of LossKind::gspo: of each token the mean of log_prob - old_log_prob over its response. `sequence` as in
/// Pack.
std::vector<float> sequence_log_ratios(std::span<const float> log_prob, std::span<const float> old_log_prob,
                                       std::span<const int32_t> sequence);

/// Error (exit 2) unless both models have the same parameters and rotary positions, naming what differs. `folder`: of
/// the reference.
void check_same_shapes(const ModelConfig& reference, const ModelConfig& model, const std::string& folder);

/// score(), train(), update() and the gradients work between begin() and the begin() of a Decoder on the same memory:
/// both use the shared arena in turn. The other state works at any time.
class Learner {
 public:
  /// The memory must have room: limits().pack_tokens > 0; for train() and update() also limits().train.
  explicit Learner(ModelMemory& memory);
  Learner(const Learner&) = delete;
  Learner& operator=(const Learner&) = delete;

  Weights& weights() const { return weights_; }
  Backend& backend() const { return backend_; }
  const ModelConfig& config() const { return weights_.config(); }
  const ModelLimits& limits() const { return memory_.limits(); }

  /// Takes the shared arena. A Decoder's KV pages are lost; gradients are zero, unless this Learner had the arena.
  void begin();
  /// Sets log_prob and entropy of pack.targets at this temperature. Blocks.
  void score(Pack& pack, float temperature);
  /// Sets ref_log_prob: the log-probs by other weights of the same shapes (check_same_shapes). Blocks.
  void score_reference(Pack& pack, float temperature, const Weights& reference);
  /// Forward and backward: adds to the gradients; sets log_prob, entropy, loss and clip. GSPO needs the log-probs of
  /// whole responses before the gradient of any token, so the head's logits are computed once more. Blocks.
  void train(Pack& pack, float temperature, const DapoLoss& loss);
  /// For several data-parallel ranks, around the train() of a mini-batch. begin: how many packs this rank has, and the rank
  /// with the most of them; the gradients are then summed over the ranks as the last pack leaves them, or every pack if
  /// limits().zero_stage is 2. end: what is left to sum is summed; all ranks call it, also one that failed between the
  /// two, before they agree on errors.
  void begin_gradients(size_t packs, size_t most) { gradients_.begin(packs, most); }
  void end_gradients() { gradients_.end(); }
  /// Buckets of gradients (model/shards.h) whose sum has not begun.
  size_t buckets_left() const { return gradients_.left(); }

  struct UpdateResult {
    double grad_norm;  ///< global L2 norm before clipping
    bool applied;      ///< false: the norm was not finite, so weights and moments are unchanged
    /// With other data-parallel ranks: bytes of gradients and weights that this one has sent, seconds of summing gradients,
    /// and those of them in which nothing else ran.
    struct Exchange {
      double bytes = 0, seconds = 0, waited = 0;
    } exchange = {};
  };
  /// AdamW over the table; weight decay only on parameters that are `decayed`. Gradients are zero afterwards, applied
  /// or not. With several data-parallel ranks the gradients are summed over them first, in rank order, unless
  /// end_gradients() has; each rank updates its shard, and the weights are gathered: every rank calls it, also one that
  /// had no pack. Blocks.
  UpdateResult update(const AdamW& adamw);
  void zero_gradients() { gradients_.zero(); }

  // State, for checkpoints and tests: flat, in table order; empty unless limits().train. All but the gradients are this
  // rank's shard: of each slice in slices(), the elements from its `local` on.
  Tensor gradients() const { return gradients_.flat(); }   ///< f32; in ZeRO stage 2 a shard as well
  Tensor moment1() const { return state_.moment1; }        ///< f32
  Tensor moment2() const { return state_.moment2; }        ///< f32
  Tensor remainders() const { return state_.remainders; }  ///< i16; empty if T = f32
  const Shards& shards() const { return memory_.shards(); }
  int data_rank() const { return memory_.data_rank(); }
  std::vector<ShardSlice> slices() const { return shards().slices(data_rank()); }
  /// The f32 masters of the weights, on the host. One data-parallel rank only; of a tensor-parallel rank its part.
  std::vector<float> masters() const;
  /// Logits f32[N, V] of every token of a pack, on the host: for tests and small models. Allocates. One rank only.
  std::vector<float> logits(const Pack& pack);

 private:
  PackInputs stage(const Pack& pack);
  void stage_for_training(const Pack& pack, PackInputs& in);
  AttentionInputs attention_inputs(const PackInputs& in) const { return {in.positions, &in.segments, nullptr, {}}; }
  const LayerBuffers& layer(int l) const { return buffers_.layers[static_cast<size_t>(l)]; }
  /// Tokens of n whose norms this rank computes.
  int64_t own_tokens(int64_t n) const {
    const TensorRank at = weights_.tensor_rank();
    const int64_t each = ceil_div(n, at.ranks);
    return std::clamp(n - at.rank * each, int64_t{0}, each);
  }
  HeadBuffers head_buffers(const PackInputs& in, int64_t rows) const {
    return buffers_.head.first(rows, in.ids.dim(0), weights_.tensor_rank().ranks);
  }
  Tensor gradient(int index) const { return gradients_.of(index); }
  /// All layers; buffers_.layers then hold what backward reads.
  void forward(const Layers& layers, const PackInputs& in);
  /// The final norm of head_rows, after forward().
  void final_norm(const Layers& layers, const PackInputs& in, const Tensor& head_rows, const HeadBuffers& head);
  /// The log-probs by the weights of `layers`, and the entropies unless null.
  void score(const Layers& layers, const Pack& pack, float temperature, std::vector<float>& log_prob,
             std::vector<float>* entropy);

  void add_squares(const ShardSlice& slice);
  void adamw(const ShardSlice& slice, const AdamW& adamw);

  // backward.cpp
  void backward_layer(int l, const PackInputs& in);
  void backward_norm_and_product(const LayerBuffers& b, const Tensor& dy, int w, int bias, int norm, const Tensor& x,
                                 const Tensor& rstd);
  void backward_final_norm(const HeadBuffers& head, const LayerBuffers& last, const PackInputs& in);
  Tensor whole_dx(const LayerBuffers& b, int64_t n) const;
  void backward_mlp(const LayerParams& p, const LayerBuffers& b);
  void backward_attention(const LayerParams& p, const LayerBuffers& b, const PackInputs& in);

  ModelMemory& memory_;
  Weights& weights_;
  Backend& backend_;
  const Layers layers_;
  const StateBuffers state_;
  UpdateBuffers buffers_;
  Gradients gradients_;
  Backend::BesideSeconds beside_;  // at the end of the last update
  StagedInputs staged_;
};

}  // namespace dapo
