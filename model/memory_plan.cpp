#include "model/memory_plan.h"

#include "core/sizes.h"
#include "model/buffers.h"

namespace dapo {

MemoryPlan plan_memory(const DeviceSize& device, const ModelConfig& config, const ModelLimits& limits) {
  CHECK(limits.max_length > 0 && limits.page_size % kKvTile == 0, "length {}, page size {}", limits.max_length,
        limits.page_size);
  const ParamTable params = parameter_table(config, limits.tensor);
  const DType dtype = device.dtype;
  MemoryPlan plan{};
  const auto measure = [&](const char* name, auto&& lay_out) {
    Arena arena(name);
    lay_out(arena);
    for (const Arena::Holding& h : arena.holdings()) plan.pieces.push_back({name, h.what, h.bytes});
    return arena.peak();
  };
  plan.weights = measure("weights", [&](Arena& a) { a.take("weights", dtype, {params.size}); });
  plan.reference =
      limits.reference ? measure("reference", [&](Arena& a) { a.take("reference", dtype, {params.size}); }) : 0;
  if (limits.train)
    (limits.offload_optimizer ? plan.host : plan.state) =
        measure("state", [&](Arena& a) { lay_state(a, params, limits, dtype); });
  plan.rollout = measure("rollout", [&](Arena& a) { lay_rollout(a, config, limits, dtype); });
  plan.update = measure("update", [&](Arena& a) { lay_update(a, config, limits, dtype); });
  plan.workspace = measure("workspace", [&](Arena& a) {
    lay_constants(a, params, config, limits);
    a.take("scratch of the ops", DType::u8,
           {static_cast<int64_t>(device.workspace_bytes(workspace_needs(config, limits)))});
  });
  return plan;
}

int64_t most_product_rows(const ModelLimits& l) {
  return std::max({l.pack_tokens, int64_t{l.prefill_tokens}, int64_t{l.batch}});
}

int64_t most_sequence_pages(const ModelLimits& limits) {
  // One more than its tokens fill: a prompt may end in the middle of a page, and the response then begins a new one.
  return ceil_div(limits.max_length, limits.page_size) + 1;
}

}  // namespace dapo
