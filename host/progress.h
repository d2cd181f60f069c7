// What a person watching sees: one live line with phase, speed and time left, and one line a step that stays.
#pragma once

#include <cstdio>
#include <functional>
#include <string>

#include "host/evaluate.h"
#include "host/phases.h"
#include "host/sft.h"
#include "host/streams.h"
#include "host/trainer.h"

namespace dapo {

/// "1:02:03", "2:03" or "4.2 s".
std::string duration_text(double seconds);
/// "12.3k", "4.56M".
std::string count_text(double n);

/// "step 12/30  reward 0.42  acc 71.3 %  entropy 0.41  length 22 (48)  kept 30, right 8, wrong 1  ..."
std::string step_text(const StepMetrics& m, int64_t total);
std::string sft_text(const SftMetrics& m, int64_t total);
/// "eval after step 12: avg@1 95.3 % (93.2 to 97.1 with 95 % confidence)  pass@8 ..."; step < 0: of no run.
std::string eval_text(const EvalResult& r, int64_t step);

/// The live line goes to standard error where that is a terminal, and is rewritten in place; elsewhere a step that
/// takes long gets a line a minute. Lines that stay go to standard output and, with a time stamp, to the log. Where
/// there is a log, a standard output that refuses lines (its reader has left, its disk is full) does not stop the run.
class TerminalProgress final : public Progress {
 public:
  /// `will_log`: log_to() comes, so that a standard output that refuses lines is not an error.
  explicit TerminalProgress(int64_t total_steps, bool will_log = false);
  ~TerminalProgress() override { clear(); }
  void report(Phase phase, int64_t done, int64_t total, int64_t tokens) override;
  void note(const char* text) override;
  void line(const std::string& text);
  /// Step `step` (from 1) begins now; the time left is counted from the steps since the first call.
  void step(int64_t step);
  /// From now on lines go to this file too; those so far come first.
  void log_to(const std::string& path);
  /// For the log alone.
  void log(const std::string& text);
  /// "1:02:03 left" of the run, "" where no step is done yet.
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
