// Metrics as text, for the terminal and the log: a table with one line a step, evaluations, durations.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "host/train/evaluate.h"
#include "host/train/metrics.h"

namespace dapo {

/// "1:02:03", "2:03" or "4.2 s".
std::string duration_text(double seconds);
/// "2:03 left"; "<1 s left" where less is left; "" for nothing or an unknown time.
std::string left_text(double seconds);
/// "12.3k", "4.56M".
std::string count_text(double n);

/// The figure of that name; NaN if there is none.
double figure(const Fields& fields, std::string_view name);

/// Names of the columns of step_text(). `width`: columns of the terminal; less important columns are left out so that
/// the line fits. 0: all.
std::string step_head(int64_t total, int width = 0);
/// A step's metrics in aligned columns, "left" (left_text) in the last one, then, where there is room, what is unusual: groups
/// from the bank, responses that were not judged, refused updates. An unknown number is "-".
std::string step_text(const Fields& metrics, int64_t total, double left, int width = 0);
/// "sft 12/30  loss 0.4321  ...": from SftMetrics::fields().
std::string sft_text(const Fields& metrics, int64_t total);
/// "eval after step 12: avg@1 95.3 % (93.2 to 97.1 with 95 % confidence)  pass@8 ..."; outside of training "eval: ...".
/// A line a set, with its name if there are several.
std::string eval_text(const EvalResult& r, std::optional<int64_t> step = std::nullopt);
/// "avg +3.1 points (-0.2 to +6.4 with 95 % confidence, paired by problem)  better on 12, worse on 7 of 100 problems"
std::string comparison_text(const Comparison& c);

}  // namespace dapo
