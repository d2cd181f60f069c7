// What deserves attention in a run: a pure function of its steps' metrics. Each alarm is raised once, when its condition
// begins, and says what to do.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "host/train/metrics.h"
#include "host/train/settings.h"

namespace dapo {

/// What the alarms remember; saved with a run, so that a resumed one raises the alarms of an unbroken one.
struct AlarmState {
  static constexpr int64_t kQuiet = 50;  ///< steps without the condition, after which an alarm may be raised again
  static constexpr int kFirst = 10;      ///< steps whose mean entropy is the base
  static constexpr int kWindow = 20;     ///< steps in a window
  static constexpr size_t kWindows = 6;  ///< complete windows that are remembered
  /// Means over steps.
  struct Window {
    double steps = 0, acc = 0, length = 0;
  };

  std::map<std::string, int64_t> seen;    ///< the last step at which each condition held
  double entropy = 0, entropy_steps = 0;  ///< mean of the first steps, and how many
  std::vector<Window> windows;            ///< oldest first
  Window open;                            ///< not complete yet

  /// As JSON, and back with every bit. Error (exit 2) if the text is something else.
  std::string text() const;
  static AlarmState parse(const std::string& text);
};

/// The alarms that begin with this step. m.alarms: conditions that the step itself noticed. `vocab`: size of the model's
/// vocabulary.
std::vector<std::string> raise_alarms(const Config& config, int64_t vocab, const StepMetrics& m, AlarmState& state);

}  // namespace dapo
