// What a run will need, before it starts: memory by arena, a lower bound on a step's time, and alternatives.
#pragma once

#include <string>
#include <vector>

#include "core/backend.h"
#include "host/train/settings.h"
#include "model/memory_plan.h"

namespace dapo {

struct RunPlan {
  ModelLimits limits;
  MemoryPlan memory;
  size_t available = 0, total = 0;  ///< bytes of the device
  bool fits() const { return memory.total() <= available; }
};
/// The memory layout of the run. If other programs hold memory, rollout.kv_memory_gb is lowered to what is free: a run
/// with fewer pages draws the same responses, with more sequences waiting.
RunPlan make_plan(Config& config, const ModelConfig& model, const Backend& backend);

/// FLOPs of one step whose responses all have `response` tokens after prompts of `prompt` tokens, each group's prompt
/// computed once: rollout, and forward and backward of every epoch. Groups that dynamic sampling drops are not counted.
double step_flops(const Config& config, const ModelConfig& model, int prompt, int response);

/// Memory by arena against what the device has, and the least time of a step at `flops_per_second`; one per line.
std::string plan_text(const RunPlan& plan, const Config& config, const ModelConfig& model, const Backend& backend,
                      double flops_per_second);

/// The message for a run that does not fit on this machine: the plan, what to try instead, how to get what is missing.
/// `path` is the config's; other configs are looked for in its folder.
std::string too_large_text(const std::string& path, const RunPlan& plan, const Config& config, const ModelConfig& model,
                           const Backend& backend, double flops_per_second);

/// The files and folders that the config names but that do not exist, each with how to get it.
std::vector<std::string> missing_inputs(const Config& config);

}  // namespace dapo
