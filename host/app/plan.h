// What a run will need, before it starts: memory by arena, the work and the time of a step, and alternatives.
#pragma once

#include <string>
#include <vector>

#include "core/backend.h"
#include "host/app/ceilings.h"
#include "host/app/step_cost.h"
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
RunPlan make_plan(Config& config, const ModelConfig& model, const DeviceSize& device);

/// Memory by arena and piece against what the device has, the step's phases with their work and time, and what the run
/// writes; one per line.
std::string plan_text(const RunPlan& plan, const Config& config, const ModelConfig& model, const Backend& backend,
                      const MeasuredCeilings& measured);

/// The message for a run that does not fit on this machine: the plan, settings and configs that would fit, cards that
/// would hold it. `path` is the config's; other configs are looked for in its folder.
std::string too_large_text(const std::string& path, const RunPlan& plan, const Config& config, const ModelConfig& model,
                           const Backend& backend, const MeasuredCeilings& measured);

/// Settings with which the run would fit, the least change first, each as "--set key=value ..."; empty if none does.
std::vector<std::string> settings_that_fit(const Config& config, const ModelConfig& model, const DeviceSize& device);

struct PhaseTable {
  std::string text;
  double least = 0, expected = 0;  ///< seconds of the step
};
/// The phases of a step as a table: tokens, FLOPs, bytes, passes, least and expected time. `least` and `expected` are
/// the same phases, `expected` with the groups that dynamic sampling drops; `tail`: seconds that the longest response
/// adds to decode.
PhaseTable phase_table(const std::vector<PhaseCost>& least, const std::vector<PhaseCost>& expected, double tail,
                       const Ceilings& ceilings, const Shares& shares, int layers);

/// "1,234,567 bytes"
std::string bytes_text(double bytes);
/// "11.4 P": three digits and the prefix of a power of 1000.
std::string si_text(double n);

/// The files and folders that the config names but that do not exist, each with how to get it.
std::vector<std::string> missing_inputs(const Config& config);

}  // namespace dapo
