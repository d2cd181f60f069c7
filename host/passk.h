// Evaluation figures over n samples of each problem: avg@k, pass@k, maj@k, and how sure they are.
#pragma once

#include <string>
#include <vector>

namespace dapo {

/// Chance that k samples, drawn without replacement from n of which c are right, hold at least one right one:
/// 1 - C(n-c, k) / C(n, k) (arXiv 2107.03374), the unbiased estimate of pass@k. Needs 0 <= c <= n, 1 <= k <= n.
double pass_at_k(int n, int c, int k);

/// Chance that at least `least` of k such samples are right. g-pass@k at threshold t is least = max(ceil(t k), 1).
double pass_at_least(int n, int c, int k, int least);

/// Majority vote over the samples of one problem: 1 if the most frequent answer is right. Answers of equal count share
/// the vote (3 tied answers, one right: 1/3), so that the figure depends on no order. An empty answer ("none found")
/// does not vote; without any vote the result is 0.
struct Vote {
  std::string answer;  ///< as the verifier normalised it; "" if none was found
  bool right = false;
};
double majority(const std::vector<Vote>& votes);

/// Mean over problems with its 95 % interval. Samples of one problem hang together, so problems are the units that are
/// counted: half_width = 1.96 * std(problem means, n-1) / sqrt(problems); 0 for fewer than two.
struct Estimate {
  double mean = 0;
  double half_width = 0;
};
Estimate estimate(const std::vector<double>& problem_means);

}  // namespace dapo
