// What a person watching sees: one live line with phase, speed and time left, and one line a step that stays.
#pragma once

#include <cstdio>
#include <string>

#include "host/evaluate.h"
#include "host/phases.h"
#include "host/sft.h"
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

/// The live line goes to standard error where that is a terminal, and is rewritten in place; lines that stay go to
/// standard output.
class TerminalProgress final : public Progress {
 public:
  explicit TerminalProgress(int64_t total_steps);
  ~TerminalProgress() override { clear(); }
  void report(Phase phase, int64_t done, int64_t total, int64_t tokens) override;
  void note(const char* text) override;
  void line(const std::string& text);
  /// Step `step` (from 1) begins now; the time left is counted from the steps since the first call.
  void step(int64_t step);

 private:
  void clear();
  const bool live_;
  const int64_t total_steps_;
  bool shown_ = false;
  Phase phase_ = Phase::count;
  double before_step_ = 0;  // seconds from the first step to this one
  int64_t tokens_ = 0, first_step_ = 0, step_ = 0;
  Stopwatch since_first_, since_phase_, since_shown_;
};

}  // namespace dapo
