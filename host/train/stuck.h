// Notices a run that has nothing to learn from.
#pragma once

#include <string>

#include "host/train/settings.h"
#include "host/train/trainer.h"

namespace dapo {

class StuckWatch {
 public:
  explicit StuckWatch(const Config& config) : config_(config) {}
  /// "" while the run can go on; after trainer.stuck_patience steps in a row of whose groups each was all right or all
  /// wrong: what was seen, and likely causes.
  std::string after(const StepMetrics& m);

 private:
  const Config& config_;
  int steps_ = 0;
  int64_t right_ = 0, wrong_ = 0;
  double found_ = 0;
};

}  // namespace dapo
