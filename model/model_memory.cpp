#include "model/model_memory.h"

#include <algorithm>
#include <cstring>

#include "model/forward.h"

namespace dapo {
namespace {

/// The plan, after a check that it fits. Products and attention are prepared here since that takes memory of its own
/// for a while.
MemoryPlan plan_that_fits(const Weights& weights, const ModelLimits& limits) {
  Backend& backend = weights.backend();
  MemoryPlan plan = plan_memory(backend, weights.config(), limits);
  const size_t needed = plan.total() - plan.weights - plan.reference, available = backend.memory_available();
  const auto gib = [](size_t bytes) { return static_cast<double>(bytes) / 0x1p30; };
  if (needed > available) {
    std::string pieces;
    for (const MemoryPlan::Piece& h : plan.pieces)
      pieces += fmt::format("{}{} {:.2f}", pieces.empty() ? "" : ", ", h.what, gib(h.bytes));
    fail(kExitResources,
         "the model needs {:.2f} GiB besides its weights, but {:.2f} GiB are free (GiB: {}); lower the batch, the "
         "lengths or the number of pages, or turn recompute on",
         gib(needed), gib(available), pieces);
  }
  backend.prepare_products(weight_shapes(weights.params()), most_product_rows(limits));
  backend.prepare_attention(weights.local().attention(), std::max<int64_t>(limits.pack_tokens, limits.prefill_tokens));
  return plan;
}

/// Bytes of the inputs of the largest call.
size_t input_bytes(const ModelConfig& config, const ModelLimits& limits, DType dtype) {
  Arena rollout("rollout"), update("update");
  return std::max(lay_rollout(rollout, config, limits, dtype).inputs.bytes(),
                  lay_update(update, config, limits, dtype).inputs.bytes());
}

}  // namespace

ModelMemory::ModelMemory(Weights& weights, const ModelLimits& limits, Comm* data_parallel)
    : weights_(weights),
      limits_(limits),
      data_parallel_(data_parallel),
      shards_(weights.params(), limits.data_ranks),
      plan_(plan_that_fits(weights, limits)),
      state_(backend(), plan_.state + plan_.host, limits.offload_optimizer ? OwnedBlock::pinned : OwnedBlock::dense),
      shared_(backend(), std::max(plan_.rollout, plan_.update)),
      workspace_(backend(), plan_.workspace),
      workspace_arena_("workspace", workspace_.data(), workspace_.bytes()),
      constants_(lay_constants(workspace_arena_, weights.params(), weights.config(), limits)),
      pinned_(backend(), input_bytes(weights.config(), limits, backend().dtype()), OwnedBlock::pinned) {
  CHECK_EQ(limits.tensor.ranks, weights.tensor_rank().ranks, "limits.tensor");
  CHECK_EQ(limits.tensor.rank, weights.tensor_rank().rank, "limits.tensor");
  CHECK_EQ(data_parallel != nullptr ? data_parallel->size() : 1, limits.data_ranks, "data_ranks");
  if (limits.train) {
    Arena arena("state", state_.data(), state_.bytes());
    state_buffers_ = lay_state(arena, weights.params(), limits, backend().dtype());
    if (limits.offload_optimizer) std::memset(state_.data(), 0, state_.bytes());
  }
  const std::vector<float> rope = rope_table(weights.config(), limits.max_length);
  backend().copy_in(constants_.rope, rope.data());
  backend().synchronize();
}

Arena ModelMemory::give_shared(const void* holder) {
  holder_ = holder;
  return {"shared", shared_.data(), shared_.bytes()};
}

}  // namespace dapo
