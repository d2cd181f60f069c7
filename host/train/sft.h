// Supervised fine-tuning: the trainer's update with A = 1 and ratio = 1, token-mean over the batch.
#pragma once

#include <functional>
#include <string>

#include "core/progress.h"
#include "data/dataset.h"
#include "host/train/limits.h"
#include "host/train/metrics.h"
#include "host/train/settings.h"
#include "model/weights.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

struct SftMetrics {
  int64_t step = 0;  ///< 1 for the first
  double loss = 0;   ///< nats, mean over the batch's response tokens
  double grad_norm = 0, lr = 0, seconds = 0;
  int64_t tokens = 0;  ///< of the packs, prompts included

  Fields fields() const;
};

/// config.sft.steps updates on batches of examples, distinct within a batch and drawn by (seed, step). A response ends
/// with the model's first end id; one that exceeds max_response_length is cut, and has no end. Allocates a
/// Learner for its duration; does not save the model. Calls on_step after every step; returns the last step's metrics.
SftMetrics run_sft(const Config& config, Weights& weights, const Tokenizer& tokenizer, const Dataset& data,
                   Progress& progress, const std::function<void(const SftMetrics&)>& on_step = {});

/// Does all that run_sft() does before its first step. Returns the first example as the model sees it, for `--check`.
std::string check_sft(const Config& config, Weights& weights, const Tokenizer& tokenizer, const Dataset& data,
                      Progress& progress);

}  // namespace dapo
