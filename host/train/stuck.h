// Notices that a run has nothing to learn from.
#pragma once

#include <string>

#include "host/train/metrics.h"
#include "host/train/settings.h"

namespace dapo {

class StuckWatch {
 public:
  explicit StuckWatch(const Config& config) : config_(config) {}
  /// Empty while the run can go on. After trainer.stuck_patience steps in a row whose groups were each all right, all
  /// wrong or not judged: a message with what was seen and the likely causes.
  std::string after(const StepMetrics& m);

 private:
  const Config& config_;
  int steps_ = 0;
  int64_t right_ = 0, wrong_ = 0, unjudged_ = 0;
  double found_ = 0;
};

}  // namespace dapo
