// What a run remembers of each prompt: how often it was drawn, and how it was answered.
#pragma once

#include <cstdint>
#include <span>

namespace dapo {

struct PromptRecord {
  int32_t visits = 0;             ///< groups drawn and judged
  int32_t streak = 0;             ///< visits in a row that were all right (> 0) or all wrong (< 0); 0 after a mixed one
  int32_t right = 0, judged = 0;  ///< responses
  double solve_rate() const { return judged > 0 ? double(right) / judged : 0; }
};

/// Adds a visit of `judged` responses, `right` of which are right.
void add_visit(PromptRecord& record, int right, int judged);

/// Whether the cursor passes a prompt over in this epoch: one whose last `patience` visits were all right, or all wrong
/// (algorithm.skip_solved; 0: never), is visited in one epoch of four, drawn by (seed, epoch, example).
bool passes_over(const PromptRecord& record, int patience, uint64_t seed, uint64_t epoch, int32_t example);

}  // namespace dapo
