// Supervised fine-tuning: the trainer's update with A = 1 and ratio = 1, token-mean over the batch.
#pragma once

#include <functional>
#include <string>

#include "core/progress.h"
#include "data/dataset.h"
#include "host/train/limits.h"
#include "host/train/settings.h"
#include "model/weights.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

struct SftMetrics {
  int64_t step = 0;  ///< 1 for the first
  double loss = 0;   ///< mean over the batch's response tokens, nats
  double grad_norm = 0, lr = 0, seconds = 0;
  int64_t tokens = 0;  ///< rows of the packs
};

/// config.sft.steps updates on batches of rows drawn without repetition inside a batch, keyed by (seed, step). A
/// response ends with the model's first end id; what exceeds max_response_length is cut, without an end. Allocates a
/// Learner for its duration. The model is not saved. Returns the last step's metrics; on_step hears every one.
SftMetrics run_sft(const Config& config, Weights& weights, const Tokenizer& tokenizer, const Dataset& data,
                   Progress& progress, const std::function<void(const SftMetrics&)>& on_step = {});

/// Everything that run_sft() does before its first step; the first row as the model sees it, for `--check`.
std::string check_sft(const Config& config, Weights& weights, const Tokenizer& tokenizer, const Dataset& data,
                      Progress& progress);

}  // namespace dapo
