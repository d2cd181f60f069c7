// Notices that a run has nothing to learn from.
#pragma once

#include <string>

#include "host/train/metrics.h"
#include "host/train/settings.h"

namespace dapo {

/// The steps in a row without a mixed group.
struct StuckState {
  int steps = 0;
  int64_t right = 0, wrong = 0, unjudged = 0;  ///< groups
  double found = 0;                            ///< sum of the steps' shares of responses with an answer
};

class StuckWatch {
 public:
  explicit StuckWatch(const Config& config, const StuckState& state = {}) : config_(config), state_(state) {}
  const StuckState& state() const { return state_; }
  /// Empty while the run can go on. After trainer.stuck_patience steps in a row whose groups were each all right, all
  /// wrong or not judged: a message with what was seen and the likely causes.
  std::string after(const StepMetrics& m);

 private:
  const Config& config_;
  StuckState state_;
};

}  // namespace dapo
