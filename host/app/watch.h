// A run as text, from its metrics.jsonl: what `dapo watch` prints.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "host/app/live_line.h"
#include "host/app/run_log.h"

namespace dapo {

/// Turns lines of metrics.jsonl into those of the trainer's terminal. When a resumed run cuts the file back, lines that
/// were already shown are not shown again, and those of the steps that it repeats are.
class WatchText {
 public:
  explicit WatchText(int64_t total_steps) : total_(total_steps) {}
  /// The lines to print for a line of the file; none if it was shown before. `width`: of the terminal, 0: none.
  std::vector<std::string> lines(const MetricsLine& m, int width);
  /// Takes note of a line that is not shown.
  void skip(const MetricsLine& m);
  int64_t last_step() const { return last_; }
  double left() const;
  double each() const { return eta_.each(); }

 private:
  const int64_t total_;
  int64_t last_ = 0, table_lines_ = 0;
  Eta eta_;
  std::map<int64_t, size_t> shown_;  // hash of what was shown for a step
};

/// The last words of a finished run in its log.txt ("done after step 20: ..."), without the time; "" for other lines.
std::string closing_words(const std::string& log_line);
/// A note of the log ("  note: ..."), without the time; "" for other lines.
std::string note_of(const std::string& log_line);

}  // namespace dapo
