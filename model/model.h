// Qwen2.5 on a Backend: weights, training passes over packs, prefill and decode over KV pages, the update.
//
// Memory: `weights` (T; read by rollout and training alike), `state` (fp32 gradients, moments, the masters' remainders;
// only of a trainable model), `shared` (in turn KV pages + decode buffers, or the activations of a pack), `workspace`
// (ops). Nothing is allocated after reserve().
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/comm.h"
#include "model/config.h"
#include "model/params.h"

namespace dapo {

/// The largest calls that will be made; what memory is laid out for.
struct ModelLimits {
  int max_length = 0;       ///< longest prompt + response, tokens (rows of the rope table)
  int64_t pack_tokens = 0;  ///< N of a training or scoring pack; 0: no packs
  int64_t pack_segments = 0;
  int64_t pack_head_rows = 0;
  int batch = 0;         ///< decode sequences; 0: no rollout
  int prefill_rows = 0;  ///< rows of one prefill call
  int page_size = 64;
  int64_t kv_pages = 0;
  int decode_steps = 256;  ///< most steps between decode_begin and decode_collect
  bool train = false;      ///< activations for backward, gradients and moments
  bool recompute = false;  ///< keep only each layer's input; run its forward again in backward (same bits)
};

/// Rows of the largest product with a weight.
int64_t most_rows(const ModelLimits& limits);

/// Bytes by arena, and what each piece takes; the same code lays memory out.
struct MemoryPlan {
  size_t weights, state, rollout, update, workspace;
  size_t total() const { return weights + state + std::max(rollout, update) + workspace; }
  std::vector<Arena::Holding> pieces;
};
MemoryPlan plan_memory(const Backend& backend, const ModelConfig& config, const ModelLimits& limits);

/// Tokens of one forward/backward pass, on the host: segments (core/backend.h) over ids[N], and the R rows whose next
/// token matters: row rows[r] predicts targets[r]. weight[r] multiplies the token's loss.
struct Pack {
  std::vector<int32_t> ids;
  std::vector<Segment> segments;
  std::vector<int32_t> rows, targets;
  std::vector<float> old_log_prob;  ///< empty: ratio 1 (supervised)
  /// Of size R for train (score needs neither).
  std::vector<float> advantage, weight;
  /// Each of size R, filled by Model::train and (log_prob, entropy) Model::score.
  std::vector<float> log_prob, entropy, loss;
  std::vector<uint8_t> clip;
};

/// New rows of sequences in KV pages, on the host (PagedSequences of core/backend.h), and which rows are sampled from.
struct PagedBatch {
  std::vector<int32_t> ids;                                   ///< the new rows' tokens, [rows]
  std::vector<int32_t> row_begin, prefix_length, own_length;  ///< [B + 1], [B], [B]
  std::vector<int32_t> pages;                                 ///< [B, max_pages]
  int max_pages = 0;
  std::vector<int32_t>
      sample_rows;                 ///< prefill: rows whose next token is drawn, perhaps several times; decode: ignored
  std::vector<DrawKey> keys;       ///< one for each drawn token
  std::vector<int32_t> positions;  ///< position of each drawn token in its sequence
};

class Model {
 public:
  /// Lays out and allocates weights (contents unspecified until load() or init()).
  Model(Backend& backend, Comm& tensor_parallel, const ModelConfig& config);
  ~Model();

  const ModelConfig& config() const { return config_; }
  const ParamTable& params() const { return params_; }
  Backend& backend() { return backend_; }

  /// Reads safetensors (sharded or not) straight into the weights, converting to T; every tensor by name and shape,
  /// tied heads may be absent. Error (exit 2) names the file, tensor, expected and actual shape. Returns a line on what
  /// was not as transformers saves it: tensors left aside, a prefix of their names; "" where there was nothing.
  std::string load(const std::string& folder);
  /// Normal(0, std) matrices, zero biases, unit norms, keyed by (seed, parameter).
  void init(uint64_t seed, float std);
  /// Writes model.safetensors (shards of at most 5 GB + index), config.json, generation_config.json; weights in T.
  void save(const std::string& folder);

  /// Allocates what the limits need (error exit 3 with the plan where it does not fit). Once, before the first pass.
  void reserve(const ModelLimits& limits);
  const ModelLimits& limits() const { return limits_; }

  // ---- rollout: between begin_rollout() and the next begin_update() -----------------------------------------------
  void begin_rollout();  ///< KV pages are laid out; their contents are lost
  /// Runs the new rows and draws tokens[s], log_prob[s] for batch.sample_rows (at most limits.batch of them, perhaps
  /// none: a chunk in the middle of a prompt). Blocks until they are on the host.
  void prefill(const PagedBatch& batch, const Sampling& sampling, std::span<int32_t> tokens, std::span<float> log_prob);
  /// Decode: one row a sequence (batch.ids are the last tokens; keys and positions those of the tokens to be drawn).
  /// Puts the batch on the device; decode_step(i) then draws the i-th token of every sequence and feeds it to the next
  /// step without the host; decode_collect copies steps [0, n) out, tokens[n, B], log_prob[n, B]. Pages for n tokens
  /// must be there.
  void decode_begin(const PagedBatch& batch, int max_steps);
  void decode_step(int i, const Sampling& sampling);
  void decode_collect(int n, std::span<int32_t> tokens, std::span<float> log_prob);

  // ---- packs: between begin_update() and the next begin_rollout() -------------------------------------------------
  void begin_update();
  /// log_prob and entropy of pack.targets at this temperature.
  void score(Pack& pack, float temperature);
  /// Forward and backward: adds to the gradients, fills log_prob, entropy, loss, clip.
  void train(Pack& pack, float temperature, const DapoLoss& loss);

  struct UpdateResult {
    double grad_norm;  ///< before clipping
    bool applied;      ///< false: the norm was not finite; weights and moments are as before
  };
  /// AdamW over the table; gradients are zero afterwards. `weight_decay` applies to every parameter that is `decayed`.
  UpdateResult update(const AdamW& adamw);

  // ---- state, for checkpoints and tests ---------------------------------------------------------------------------
  Tensor weights() const { return weights_; }      ///< T[parameters], in table order
  Tensor gradients() const { return gradients_; }  ///< f32
  Tensor moment1() const { return moment1_; }
  Tensor moment2() const { return moment2_; }
  Tensor remainders() const { return remainders_; }  ///< i16 (T = bf16), else empty
  /// Logits of every row of the pack, f32[N, V] on the host: for tests and small models.
  std::vector<float> logits(const Pack& pack);
  /// Final weights' fp32 masters on the host, in table order.
  std::vector<float> masters() const;

 private:
  struct Impl;
  Backend& backend_;
  Comm& comm_;
  ModelConfig config_;
  ParamTable params_;
  ModelLimits limits_;
  Tensor weights_, gradients_, moment1_, moment2_, remainders_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dapo
