// Evaluation: avg@n, unbiased pass@k and maj@n by problem, with a confidence interval over problems.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "core/progress.h"
#include "data/dataset.h"
#include "host/rollout/rollout.h"
#include "host/train/reward.h"
#include "host/train/settings.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

/// DrawKey.step of every evaluation: responses to a set are the same whenever the weights are.
inline constexpr int32_t kEvalStep = -1;

struct EvalProblem {
  int32_t row = 0;  ///< of the set, copies left out
  std::string id;   ///< Example::id: the row as loaded
  std::vector<Response> responses;
  std::vector<Verdict> verdicts;
  std::vector<int32_t> prompt;  ///< as the model sees it
  std::string ground_truth;
};

struct EvalResult {
  int64_t problems = 0, n = 0;
  double avg = 0;                            ///< avg@n: mean over problems of the share right
  double low = 0, high = 0;                  ///< 95 % interval of avg, by problem
  std::vector<std::pair<int, double>> pass;  ///< (k, pass@k), k <= n
  double maj = 0;                            ///< maj@n
  double length_mean = 0, truncated = 0;
  int64_t verifier_errors = 0, prompts_dropped = 0;
  double seconds = 0;
  int64_t tokens = 0;
  std::vector<EvalProblem> all;  ///< every response, for logs
  /// ("eval/avg", x), ... in a fixed order; pass@k as "eval/pass@8".
  std::vector<std::pair<std::string, double>> fields() const;
};

/// maj@n of one problem: responses without an answer do not vote.
double majority_of(const std::vector<Verdict>& verdicts);

/// Draws config.eval.n responses a problem and judges them. `rollout` must be free (between the trainer's steps).
/// Copies of a problem are dropped first where config.eval.dedupe says so; progress.note() tells of it.
EvalResult evaluate(const Config& config, Rollout& rollout, const Tokenizer& tokenizer, Dataset data,
                    Progress& progress);

}  // namespace dapo
