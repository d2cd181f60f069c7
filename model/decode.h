// Decoder: draws tokens from weights, over KV pages.
#pragma once

#include <span>
#include <vector>

#include "model/forward.h"
#include "model/model_memory.h"

namespace dapo {

/// New tokens of B sequences whose keys live in pages (PagedSequences of core/backend.h), and what is drawn after them.
/// All on the host. N: new tokens in all, S: draws.
struct PagedBatch {
  std::vector<int32_t> ids;        ///< [N], by sequence
  std::vector<int32_t> row_begin;  ///< [B + 1]: sequence b has new tokens [row_begin[b], row_begin[b + 1])
  std::vector<int32_t> prefix_length, own_length;  ///< [B]: tokens, new ones included in own_length
  std::vector<int32_t> pages;  ///< [B, max_pages]: of the prefix, then its own; the rest is not read
  int max_pages = 0;
  std::vector<int32_t> head_rows;  ///< [S] for prefill: new token after which each draw comes; may repeat. Else ignored
  std::vector<DrawKey> keys;       ///< [S]
  std::vector<int32_t> positions;  ///< [S]: of the drawn token in its sequence
};

/// Works between its begin() and that of a Learner on the same memory: both use the shared arena in turn.
class Decoder {
 public:
  /// The memory must have room: limits().batch > 0.
  explicit Decoder(ModelMemory& memory);
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  const ModelConfig& config() const { return memory_.weights().config(); }
  const ModelLimits& limits() const { return memory_.limits(); }
  DType dtype() const { return memory_.backend().dtype(); }  ///< T

  /// Takes the shared arena and lays out the KV pages. Their former contents are lost.
  void begin();
  /// Runs the new tokens, at most limits().prefill_tokens, and draws S <= limits().batch tokens (none in the middle of
  /// a prompt): tokens[S], and log_prob[S] in nats. Blocks until they are on the host.
  void prefill(const PagedBatch& batch, const Sampling& sampling, std::span<int32_t> tokens, std::span<float> log_prob);
  /// Draws `steps` tokens for each of B sequences: the batch has one new token a sequence, S = B, and keys and
  /// positions are those of the first draw. Each draw is fed back on the device. tokens[steps, B], log_prob[steps, B]
  /// in nats. The pages must have room for steps - 1 further tokens. Blocks.
  void decode(const PagedBatch& batch, int steps, const Sampling& sampling, std::span<int32_t> tokens,
              std::span<float> log_prob);

 private:
  /// All layers over the tokens of a call.
  LayerBuffers forward(const Tensor& ids, const PagedSequences& sequences) const;
  PagedSequences stage_sequences(const PagedBatch& batch, const Tensor& own_length, size_t callers, int max_rows,
                                 int later);
  int64_t cache_pages() const { return buffers_.cache.dim(0) / config().layers; }

  ModelMemory& memory_;
  Backend& backend_;
  const Layers layers_;
  RolloutBuffers buffers_;
  StagedInputs staged_;
};

}  // namespace dapo
