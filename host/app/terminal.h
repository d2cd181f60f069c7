// The terminal of a run: one live line with phase, speed and time left, and one line per step that stays.
#pragma once

#include <cstdio>
#include <functional>
#include <string>

#include "core/progress.h"
#include "host/app/live_line.h"
#include "host/app/streams.h"
#include "host/train/metrics.h"

namespace dapo {

/// The live line, with a bar, goes to standard error if that is a terminal, and is rewritten in place; otherwise a long
/// step prints one line per minute. Steps are lines of a table, whose head is printed first, and on a terminal again
/// every 20 steps; a narrow terminal shows fewer columns than the log. Lines that stay go to standard output and, with a timestamp, to the log. If there is a log, a
/// failing standard output (closed by its reader, or on a full disk) does not stop the run.
class TerminalProgress final : public Progress {
 public:
  /// `will_log`: log_to() will be called, so a failing standard output is not an error.
  explicit TerminalProgress(int64_t total_steps, bool will_log = false);
  ~TerminalProgress() override { clear(); }
  void report(Phase phase, int64_t done, int64_t total, int64_t tokens) override;
  void note(const char* text) override;
  void line(const std::string& text);
  /// Step `step` (from 1) begins now; the time left is estimated from the steps since the first call.
  void step(int64_t step);
  /// The step is done: a line of the table, with the time left.
  void step_line(const Fields& metrics);
  /// From now on lines also go to this file; earlier ones are written first.
  void log_to(const std::string& path, AppendFile::Start start = AppendFile::empty);
  /// To the log only.
  void log(const std::string& text);
  /// Seconds left for the run; 0 before the first step is done. Within a step, `done`: that step counts as done.
  double left(bool done = false) const;

  /// Called with every report(); may throw Interrupted to leave the phase.
  std::function<void(Phase)> on_report;

 private:
  void clear();
  void print(const std::string& text);
  const bool live_, unicode_, will_log_;
  const int64_t total_steps_;
  bool shown_ = false, deaf_ = false;
  Phase phase_ = Phase::count;
  PhaseState state_;
  Eta eta_;
  int64_t step_ = 0, table_lines_ = 0;
  Stopwatch since_step_, since_phase_, since_shown_;
  std::string early_;  // lines before log_to()
  AppendFile log_;
};

}  // namespace dapo
