// What is behind Model: memory, and the passes' shared pieces.
#pragma once

#include "model/buffers.h"
#include "model/model.h"

namespace dapo {

/// Keys and values come from the rows of the call (segments of a pack) or from pages (cache is then the layer's).
struct AttentionInputs {
  Tensor positions;  ///< i32[N]
  const Segments* segments = nullptr;
  const PagedSequences* sequences = nullptr;
};

/// A pack's inputs on the device.
struct PackInputs {
  Tensor ids, rows, targets, old_log_prob, advantage, weight;
  Segments segments;
  AttentionInputs attention;
  Tensor unique, id_offsets, id_rows;  ///< rows by token, for embedding_backward
  Tensor head_offsets, head_rows;      ///< head rows by pack row, for sum_rows
};

struct Model::Impl {
  explicit Impl(Model& m) : model(m), backend(m.backend_), config(m.config_), params(m.params_) {}
  ~Impl();

  enum class Phase : uint8_t { none, rollout, update };
  struct Block {  ///< device memory that this model owns
    void* data = nullptr;
    size_t bytes = 0;
  };

  Model& model;
  Backend& backend;
  const ModelConfig& config;
  const ParamTable& params;
  MemoryPlan plan{};
  Block weights, state, shared, workspace;
  Block host;  ///< pinned twin of the inputs
  std::unique_ptr<Arena> workspace_arena;
  ConstantBuffers constants;
  StateBuffers state_buffers;
  Phase phase = Phase::none;
  RolloutBuffers rollout;
  UpdateBuffers update;
  Inputs inputs;
  // decode, between decode_begin and decode_collect
  int64_t decode_rows = 0;  ///< of the sequences and of those that fill the batch up
  int64_t decode_sequence_count = 0;
  int decode_steps = 0;
  PagedSequences decode_sequences{};
  Tensor decode_ids, decode_row_positions, decode_keys, decode_positions;

  Block allocate(size_t bytes, bool dense = false);
  void release(Block& b);
  Tensor weight(int i) const { return params.view(model.weights_, i); }
  Tensor gradient(int i) const { return params.view(model.gradients_, i); }
  /// Bias, or an empty tensor.
  Tensor bias(const LayerParams& p) const { return p.qkv_bias < 0 ? Tensor() : weight(p.qkv_bias); }
  /// KV pages of a layer: the last one takes what filled-up rows of a decode batch write.
  int64_t cache_pages() const { return rollout.cache.dim(0) / model.config_.layers; }
  Tensor cache(int layer) const { return rollout.cache.rows(layer * cache_pages(), cache_pages()); }

  // ---- forward.cpp
  /// norm 1, attention, norm 2, gate and up of layer l: from x (+ delta, the MLP's output of the layer below) to
  /// b.gate_up, leaving b.x_in, b.x_mid and all else that backward reads.
  void layer_to_gate_up(int l, const LayerBuffers& b, const Tensor& x, const Tensor& delta, const AttentionInputs& in);
  /// The rest: b.delta = down(swiglu(b.gate_up)).
  void layer_to_delta(int l, const LayerBuffers& b);
  /// head.h = final norm of rows `rows` of x + delta; head.x is what the norm read.
  void gather_head(const HeadBuffers& head, const Tensor& x, const Tensor& delta, const Tensor& rows);
  PackInputs stage(const Pack& pack, bool train);
  /// All layers over a pack; b.layers then hold what backward reads.
  void forward_pack(const PackInputs& in);
  void gather_pack_head(const PackInputs& in, const Tensor& rows, const HeadBuffers& head);

  // ---- backward.cpp
  void backward_layer(int l, const PackInputs& in);
  void backward_mlp(const LayerParams& p, const LayerBuffers& b);
  void backward_attention(const LayerParams& p, const LayerBuffers& b, const PackInputs& in);

  // ---- rollout.cpp
  /// All layers over the rows of a paged call, then the final norm of `rows` into head.h.
  void forward_paged(const Tensor& ids, const AttentionInputs& in, const Tensor& rows, const HeadBuffers& head);
  /// The first `asked` sequences are the caller's; those that fill the batch up live on the spare page.
  PagedSequences put_sequences(const PagedBatch& batch, size_t asked, int max_rows, int extra);
};

/// The rotary table f32[length, D] as Hugging Face computes it: inverse frequencies and angles in f32.
std::vector<float> rope_table(const ModelConfig& config, int64_t length);

/// body(i) for i in [0, count) on a few host threads; the first error is thrown again.
void parallel_jobs(size_t count, const std::function<void(size_t)>& body);

}  // namespace dapo
