// A model of a named shape with random weights: no files, no tokenizer.
#pragma once

#include <memory>
#include <string>

#include "core/comm.h"
#include "model/weights.h"

namespace dapo::bench {

/// toy, or a size of Qwen2.5: 0.5b, 1.5b, 3b, 7b, 14b, 32b, 72b. Error (exit 2) on others.
ModelConfig shape_config(const std::string& name);

/// Normal numbers of deviation 0.02 in every matrix, ones in norms: drawn once with Philox, then copied on the device
/// (a pass over 32 billion parameters on the host would take minutes).
struct RandomModel {
  RandomModel(Backend& backend, const ModelConfig& config);
  std::unique_ptr<Comm> comm;
  Weights weights;
};

}  // namespace dapo::bench
