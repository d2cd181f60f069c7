// What a step measures: sums while it runs (StepSums), figures at its end (StepMetrics). One table a kind of line gives
// each figure of metrics.jsonl its name, unit and meaning; docs/metrics.md is written from the same tables.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/progress.h"
#include "host/train/objective.h"

namespace dapo {

/// Name and value in a fixed order, as metrics.jsonl has them.
using Fields = std::vector<std::pair<std::string, double>>;

/// A row of a table of metrics.
template <class T>
struct Metric {
  const char *name, *unit, *meaning;
  double (*value)(const T&);  ///< nullptr: a row for several fields, which fields() adds
};

/// What is only counted or set once: the same in a step's sums and in its metrics.
struct StepCounts {
  int64_t step = 0;  ///< 1 for the first
  double lr = 0;
  PhaseTimes phases;
  int64_t prompts_dropped = 0;
  // rollout: the groups drawn in this step
  int64_t generation_batches = 0;
  int64_t groups_generated = 0, groups_kept = 0, groups_right = 0, groups_wrong = 0, groups_unjudged = 0;
  int64_t prompts_skipped = 0, groups_unfinished = 0;
  int64_t groups_from_bank = 0, groups_banked = 0, groups_dropped = 0, groups_expired = 0;
  int64_t verifier_errors = 0, verifier_slow = 0;
  std::string first_error;  ///< reason of the first response that was not judged
  int64_t preemptions = 0;
  double length_max = 0;
  // update: the groups trained on
  int64_t updates = 0, updates_refused = 0;
  double grad_norm_max = 0;
  double exchange_bytes = 0, exchange_seconds = 0, exchange_waited = 0;  ///< between data-parallel ranks
  std::vector<std::string> alarms;
};

/// What a step adds up while it runs.
struct StepSums : StepCounts {
  double right = 0, found = 0, reward = 0, shaped_reward = 0;  ///< over judged responses
  double length = 0, truncated = 0;                            ///< over all responses
  LossStats loss;                                              ///< over the updates applied
  double grad_norm = 0;                                        ///< over the updates applied
  Agreement agreement;                                         ///< on the weights that drew this step's responses
  std::vector<double> terms;                                   ///< Verdict::terms over judged responses
};

/// What a step measured. NaN (null in metrics.jsonl) is a mean over nothing.
struct StepMetrics : StepCounts {
  double seconds = 0;
  double acc = 0, found = 0, reward = 0, shaped_reward = 0;          ///< means over judged responses
  double length_mean = 0, truncated = 0;                             ///< means over all responses
  int64_t prompts_seen = 0, prompts_solved = 0, prompts_failed = 0;  ///< of the whole run, by their last visit
  int64_t groups_trained = 0, tokens_trained = 0;
  double train_acc = 0, train_length = 0;
  double age_mean = 0, age_max = 0;
  double loss = 0, entropy = 0, ratio_kl = 0, ref_kl = 0, clip_low = 0, clip_high = 0, clip_dual = 0;
  double grad_norm = 0;
  double mismatch = 0, ratio_error = 0;  ///< both must be 0; NaN if no token was compared
  int64_t mismatch_tokens = 0;
  std::vector<std::pair<std::string, double>> terms = {};  ///< reward.terms: name and mean score over judged responses

  /// The table's order: "step", "seconds", ..., "reward/acc", ...
  Fields fields() const;
};

/// docs/metrics.md: every figure of metrics.jsonl with its unit and meaning.
std::string metrics_text();

}  // namespace dapo
