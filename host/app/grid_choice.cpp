#include "host/app/grid_choice.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/check.h"
#include "host/app/plan.h"

namespace dapo {

std::vector<int> possible_splits(const ModelConfig& model, int most) {
  std::vector<int> out;
  for (int n = 1; n <= most; ++n)
    if (why_not_split(model, n).empty()) out.push_back(n);
  return out;
}

void resolve_ranks(ParallelSection& p, int ranks) {
  if (p.dp > 0) return;
  const int tp = std::max(1, p.tp);
  if (ranks % tp != 0)
    fail_input("parallel.dp = auto: {} rank{}, which parallel.tp = {} does not divide", ranks,
               ranks == 1 ? " is there" : "s are there", tp);
  p.dp = ranks / tp;
}

void choose_grid(Config& config, const ModelConfig& model, const DeviceSize& device, int ranks) {
  ParallelSection& p = config.parallel;
  if (p.tp > 0) {
    if (const std::string why = why_not_split(model, p.tp); !why.empty())
      fail_input("parallel.tp = {}: the model cannot be split over so many ranks: {}; it can be over {}", p.tp, why,
                 fmt::join(possible_splits(model, model.heads), ", "));
    return;
  }
  const int smallest_batch = config.actor.ppo_mini_batch_size * config.rollout.n;
  int chosen = 0;
  for (const int tp : possible_splits(model, ranks)) {
    if (ranks % tp != 0 || ranks / tp > smallest_batch) continue;
    Config trial = config;
    trial.parallel.tp = chosen = tp;
    trial.parallel.dp = ranks / tp;
    if (make_plan(trial, model, device).fits()) break;
  }
  if (chosen == 0)
    fail_input(
        "parallel.tp = auto: {} ranks are more than the {} responses of a mini-batch, and the model cannot be split "
        "further (over {}); start fewer ranks",
        ranks, smallest_batch, fmt::join(possible_splits(model, model.heads), ", "));
  p.tp = chosen;
  p.dp = ranks / chosen;
}

}  // namespace dapo
