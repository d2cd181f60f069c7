#include "host/app/plan_grids.h"

#include <algorithm>
#include <array>

#include "core/sizes.h"
#include "host/app/plan.h"
#include "host/app/plan_cards.h"
#include "host/train/step_text.h"

namespace dapo {

std::string plan_grids_text(const Config& config, const Gpu& gpu) {
  constexpr std::array kModels = {"0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b"};
  constexpr std::array kCounts = {1, 2, 4, 8, 16, 32, 64, 128};
  const DType t = config.model.dtype == DTypeChoice::f32 ? DType::f32 : DType::bf16;
  const int response = std::max(1, config.data.max_response_length / 4);
  std::string head = "| GPUs |", rule = "|---|", memory, steps;
  for (const int count : kCounts) {
    head += fmt::format(" {} |", count);
    rule += "---|";
  }
  for (const char* size : kModels) {
    const ModelConfig model = qwen25_config(std::string("qwen2.5-") + size);
    memory += fmt::format("| {} |", size);
    steps += fmt::format("| {} |", size);
    for (const int count : kCounts) {
      const CardPlan p = plan_cards(config, model, t, {count, &gpu});
      if (!p.fits()) {
        memory += fmt::format(" no: {:.0f} |", gib(p.total()));
        steps += " - |";
        continue;
      }
      const CardStep step = card_step(p, config, model, t, response);
      memory += fmt::format(" {} x {}{}: {:.0f} |", p.data, p.tensor, p.zero_stage == 2 ? "*" : "", gib(p.total()));
      steps += fmt::format(" {} ({}B, {}) |", duration_text(step.seconds), si_text(step.wire_bytes),
                           duration_text(step.wire_seconds));
    }
    memory += "\n";
    steps += "\n";
  }
  return fmt::format(
      "dp x tp with the fewest {}s a copy of the weights, and GiB of each (of {:.0f}); \"no\": the GiB that it would "
      "need; *: with parallel.zero_stage = 2\n\n{}\n{}\n{}\nexpected time of a step with responses of {} tokens; in "
      "brackets what a GPU sends in it, "
      "and how long that takes\n\n{}\n{}\n{}",
      gpu.name, gib(gpu.memory), head, rule, memory, response, head, rule, steps);
}

}  // namespace dapo
