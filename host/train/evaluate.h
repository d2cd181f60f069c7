// Evaluation: avg@n, unbiased pass@k and maj@k of each set, with confidence intervals over its problems; and the
// comparison of two models on the same problems.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/grid.h"
#include "core/progress.h"
#include "host/rollout/rollout.h"
#include "host/train/eval_sets.h"
#include "host/train/group.h"
#include "host/train/metrics.h"
#include "host/train/passk.h"
#include "host/train/settings.h"
#include "tokenizer/tokenizer.h"

namespace dapo {

struct EvalProblem {
  std::string id, ground_truth;  ///< of the Example
  Group group;                   ///< prompt, responses and verdicts
};

/// One set. Intervals are 95 % confidence intervals over its problems.
struct SetResult {
  std::string name;
  int64_t problems = 0, n = 0;
  Estimate avg;                                 ///< avg@n: share of right responses, mean over problems
  std::vector<std::pair<int, Estimate>> pass;   ///< (k, pass@k), k <= n
  Estimate maj;                                 ///< maj@n
  std::vector<std::pair<int, Estimate>> maj_k;  ///< (k, maj@k), 1 < k < n
  double length_mean = 0, truncated = 0;
  int64_t verifier_errors = 0, prompts_dropped = 0;
  double seconds = 0;
  int64_t tokens = 0;
  std::vector<EvalProblem> all;  ///< every response, for logs
};

struct EvalResult {
  std::vector<SetResult> sets;
  /// Of one set: "eval/problems", ..., pass@k as "eval/pass@8". Of several: "eval/avg", the mean over the sets, then
  /// "eval/NAME/problems", ...
  Fields fields() const;
};

/// The votes of one problem's responses. Those without an answer do not vote.
std::vector<Vote> votes_of(const std::vector<Sample>& samples);

/// What an interrupted evaluation has drawn: the groups of each set that it had begun, in order.
using DrawnSets = std::vector<std::vector<Group>>;

/// Draws config.eval.n responses to each problem of each set and judges them. `rollout` must be idle (between the
/// trainer's steps). With config.eval.dedupe, copies of a problem are left out, and noted by `progress`. A set's figures
/// do not depend on the others.
/// With `grid`, its ranks draw together, and all get the same result.
/// `drawn`: where `progress` throws an Error of exit code 130, it gets what was drawn until then; an evaluation that
/// begins with it, by the same weights and settings, draws the rest and has the same result. Problems that are not those
/// of the interrupted one are drawn anew. Empty after an evaluation that is complete.
EvalResult evaluate(const Config& config, Rollout& rollout, const Tokenizer& tokenizer, std::span<const EvalSet> sets,
                    Progress& progress, const Grid* grid = nullptr, DrawnSets* drawn = nullptr);
SetResult evaluate_set(const Config& config, Rollout& rollout, const Tokenizer& tokenizer, const EvalSet& set,
                       Progress& progress, const Grid* grid = nullptr, std::vector<Group>* drawn = nullptr);

/// How much better a model is than a baseline, on the problems that both have answered.
struct Comparison {
  std::string name;                             ///< of the set
  int64_t problems = 0, better = 0, worse = 0;  ///< better: problems with a larger share of right responses
  Estimate difference;                          ///< of avg@n, paired by problem
};
Comparison compare(const SetResult& baseline, const SetResult& model);

}  // namespace dapo
