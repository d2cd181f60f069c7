// Evaluation: avg@n, unbiased pass@k and maj@n by problem, with a confidence interval over problems.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/progress.h"
#include "data/dataset.h"
#include "host/rollout/rollout.h"
#include "host/train/group.h"
#include "host/train/metrics.h"
#include "host/train/settings.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

struct EvalProblem {
  std::string id, ground_truth;  ///< of the Example
  Group group;                   ///< prompt, responses and verdicts
};

struct EvalResult {
  int64_t problems = 0, n = 0;
  double avg = 0;                            ///< avg@n: share of right responses, mean over problems
  double low = 0, high = 0;                  ///< 95 % confidence interval of avg, over problems
  std::vector<std::pair<int, double>> pass;  ///< (k, pass@k), k <= n
  double maj = 0;                            ///< maj@n
  double length_mean = 0, truncated = 0;
  int64_t verifier_errors = 0, prompts_dropped = 0;
  double seconds = 0;
  int64_t tokens = 0;
  std::vector<EvalProblem> all;  ///< every response, for logs
  /// The table's order: "eval/problems", ...; pass@k as "eval/pass@8", ...
  Fields fields() const;
};

/// maj@n of one problem. Responses without an answer do not vote.
double majority_of(const std::vector<Sample>& samples);

/// Draws config.eval.n responses to each problem and judges them. `rollout` must be idle (between the trainer's steps).
/// With config.eval.dedupe, copies of a problem are dropped first, and noted by `progress`.
EvalResult evaluate(const Config& config, Rollout& rollout, const Tokenizer& tokenizer, Dataset data,
                    Progress& progress);

}  // namespace dapo
