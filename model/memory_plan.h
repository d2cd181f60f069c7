// How large the calls of a run will be, and how much memory they need; plans and runs share the code that lays it out.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend.h"
#include "model/tensor_split.h"

namespace dapo {

/// The largest calls that a run will make.
struct ModelLimits {
  int max_length = 0;  ///< longest prompt + response, tokens

  // The Learner's packs; pack_tokens = 0: no Learner.
  int64_t pack_tokens = 0;
  int64_t pack_segments = 0;
  int64_t pack_head_rows = 0;  ///< tokens of a pack that predict a target
  bool train = false;          ///< keep activations for backward, gradients and moments; false: score() alone
  bool recompute = false;      ///< keep only the input of each layer and run its forward again in backward (same bits)
  bool offload_optimizer = false;  ///< moments and remainders lie in pinned memory of the host; AdamW reads them there
  int data_ranks = 1;              ///< ranks that share moments and low halves of the masters (model/shards.h)
  int zero_stage = 1;  ///< 2: each of those ranks keeps its shard of the gradients alone (model/gradients.h)
  DType reduce_dtype = DType::f32;  ///< in which gradients travel between them
  bool overlap = true;     ///< sum the gradients over those ranks while the last pack's backward runs, not after it
  TensorRank tensor{};     ///< of the ranks that share the model itself (model/tensor_split.h)
  bool reference = false;  ///< other weights of the same shapes lie beside: Learner::score_reference

  // The Decoder's batches; batch = 0: no Decoder.
  int batch = 0;           ///< sequences of a decode step; also draws of a prefill
  int prefill_tokens = 0;  ///< new tokens of one prefill
  int page_size = 64;      ///< tokens of a KV page, a multiple of kKvTile
  int64_t kv_pages = 0;    ///< pages that sequences can hold together; each page has a part in every layer
  int decode_steps = 256;  ///< most steps of one decode()

  bool shards_gradients() const { return zero_stage == 2 && data_ranks > 1; }
};

/// What a memory plan needs to know about a device, whether it is in this machine or not.
struct DeviceSize {
  Device device;
  DType dtype;
  size_t total, available;  ///< bytes
  std::function<size_t(const WorkspaceNeeds&)> workspace_bytes;

  DeviceSize(Device d, DType t, size_t bytes, std::function<size_t(const WorkspaceNeeds&)> workspace)
      : device(d), dtype(t), total(bytes), available(bytes), workspace_bytes(std::move(workspace)) {}
  /// Implicit, so that a plan for a backend is asked for with the backend itself, which must outlive this object.
  DeviceSize(const Backend& b)
      : device(b.device()),
        dtype(b.dtype()),
        total(b.memory_total()),
        available(b.memory_available()),
        workspace_bytes([&b](const WorkspaceNeeds& needs) { return b.workspace_bytes(needs); }) {}
};

/// Rows of the largest matrix product with a weight.
int64_t most_product_rows(const ModelLimits& limits);
/// Most pages that one sequence can hold.
int64_t most_sequence_pages(const ModelLimits& limits);

/// Bytes of each arena. The Decoder and the Learner use theirs in turn, so the larger one counts.
struct MemoryPlan {
  size_t weights, reference, state, rollout, update, workspace;
  size_t host;  ///< of pinned memory of the host, not in total(): the state, if it is offloaded
  size_t total() const { return weights + reference + state + std::max(rollout, update) + workspace; }
  struct Piece {
    std::string arena, what;
    size_t bytes;  ///< pieces that are never needed at the same time may overlap
  };
  std::vector<Piece> pieces;  ///< of all arenas
  size_t bytes_of(std::string_view what) const {
    size_t sum = 0;
    for (const Piece& p : pieces) sum += p.what == what ? p.bytes : 0;
    return sum;
  }
};
/// Allocates nothing: runs the layout code on arenas that only count.
MemoryPlan plan_memory(const DeviceSize& device, const ModelConfig& config, const ModelLimits& limits);

}  // namespace dapo
