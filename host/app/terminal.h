// The terminal of a run: one live line with phase, speed and time left, and one line per step that stays.
#pragma once

#include <cstdio>
#include <functional>
#include <string>

#include "core/progress.h"
#include "host/app/streams.h"

namespace dapo {

/// The live line goes to standard error if that is a terminal, and is rewritten in place; otherwise a long step prints
/// one line per minute. Lines that stay go to standard output and, with a timestamp, to the log. If there is a log, a
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
  /// From now on lines also go to this file; earlier ones are written first.
  void log_to(const std::string& path, AppendFile::Start start = AppendFile::empty);
  /// To the log only.
  void log(const std::string& text);
  /// "1:02:03 left" for the run, "" before the first step is done.
  std::string left_text() const;

  /// Called with every report(); may throw Interrupted to leave the phase.
  std::function<void(Phase)> on_report;

 private:
  void clear();
  void print(const std::string& text);
  std::string phase_text(int64_t done, int64_t total) const;
  const bool live_, will_log_;
  const int64_t total_steps_;
  bool shown_ = false, deaf_ = false;
  Phase phase_ = Phase::count;
  double before_step_ = 0;  // seconds from the first step to this one
  int64_t tokens_ = 0, first_step_ = 0, step_ = 0;
  Stopwatch since_first_, since_phase_, since_shown_;
  std::string early_;  // lines before log_to()
  AppendFile log_;
};

}  // namespace dapo
