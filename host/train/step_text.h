// Metrics as one line of text, for the terminal and the log.
#pragma once

#include <optional>
#include <string>

#include "host/train/evaluate.h"
#include "host/train/sft.h"
#include "host/train/trainer.h"

namespace dapo {

/// "1:02:03", "2:03" or "4.2 s".
std::string duration_text(double seconds);
/// "12.3k", "4.56M".
std::string count_text(double n);

/// "step 12/30  reward 0.42  acc 71.3 %  entropy 0.41  length 22 (48)  kept 30, right 8, wrong 1  ..."
std::string step_text(const StepMetrics& m, int64_t total);
std::string sft_text(const SftMetrics& m, int64_t total);
/// "eval after step 12: avg@1 95.3 % (93.2 to 97.1 with 95 % confidence)  pass@8 ..."; outside of training "eval: ...".
/// A line a set, with its name if there are several.
std::string eval_text(const EvalResult& r, std::optional<int64_t> step = std::nullopt);
/// "avg +3.1 points (-0.2 to +6.4 with 95 % confidence, paired by problem)  better on 12, worse on 7 of 100 problems"
std::string comparison_text(const Comparison& c);

}  // namespace dapo
