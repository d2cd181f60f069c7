// All of a run that is neither weights nor moments, on disk: state.json, and the token ids and log-probs of its groups
// in groups.safetensors.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "host/train/evaluate.h"
#include "host/train/stuck.h"
#include "host/train/trainer.h"

namespace dapo {

struct RunState {
  TrainerState trainer;
  StuckState stuck;
  /// The last step's, while its evaluation is not complete: its line of metrics.jsonl is still to be written.
  std::optional<StepMetrics> unwritten;
  DrawnSets evaluation;   ///< what that evaluation has drawn; of the one before the first step, too
  double best = 0;        ///< largest value so far of the metric that keeps a checkpoint
  int64_t best_step = 0;  ///< 0: none yet
  // what must not change before the run goes on
  std::string settings;       ///< the configuration as a .cfg file
  uint64_t data = 0;          ///< Dataset::fingerprint()
  uint64_t prompts = 0;       ///< Trainer::prompts_hash()
  int64_t template_time = 0;  ///< seconds since the epoch that chat templates write as the date
};

/// A run's state as it was when this was made, to be written later, perhaps by another thread.
class StateImage {
 public:
  explicit StateImage(const RunState& state);
  /// Writes the two files. Error (exit 3) if the disk refuses.
  void write(const std::string& folder) const;

 private:
  std::string json_;
  std::vector<int32_t> ids_;
  std::vector<float> log_probs_;
};

/// Error (exit 2) names the file and what is wrong with it.
RunState read_state(const std::string& folder);

}  // namespace dapo
