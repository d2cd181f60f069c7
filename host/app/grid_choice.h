// How the ranks of a run become a grid: parallel.dp and parallel.tp, where they are auto, and grids that cannot be.
#pragma once

#include <vector>

#include "host/train/settings.h"
#include "model/memory_plan.h"

namespace dapo {

/// The numbers of ranks, up to `most`, over which the model can be split.
std::vector<int> possible_splits(const ModelConfig& model, int most);

/// Sets parallel.dp, where it is auto, for `ranks` ranks. Error (exit 2) if parallel.tp does not divide them.
void resolve_ranks(ParallelSection& parallel, int ranks);

/// Sets parallel.dp and parallel.tp for `ranks` ranks, each with a device like `device`: the fewest ranks a copy of the
/// weights whose plan fits, where tp is auto; if none does, the largest split. Error (exit 2) if the model cannot be
/// split over parallel.tp ranks, naming the numbers that can be.
void choose_grid(Config& config, const ModelConfig& model, const DeviceSize& device, int ranks);

}  // namespace dapo
