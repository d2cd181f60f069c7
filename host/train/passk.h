// Evaluation figures over n samples of each problem: pass@k, maj@k, and the confidence interval of a mean.
#pragma once

#include <string>
#include <vector>

namespace dapo {

/// The chance that k samples, drawn without replacement from n of which c are right, hold at least one right one:
/// 1 - C(n-c, k) / C(n, k) (arXiv 2107.03374), the unbiased estimate of pass@k. Needs 0 <= c <= n, 1 <= k <= n.
double pass_at_k(int n, int c, int k);

/// The chance that at least `least` of k such samples are right. g-pass@k at threshold t is least = max(ceil(t k), 1).
double pass_at_least(int n, int c, int k, int least);

/// Majority vote over the samples of one problem: 1 if the most frequent answer is right. Answers of equal count share
/// the vote (3 tied answers, one right: 1/3), so that the order does not matter. An empty answer ("none found") does
/// not vote; without any vote the result is 0.
struct Vote {
  std::string answer;  ///< as the verifier normalised it; "" if none was found
  bool right = false;
};
double majority(const std::vector<Vote>& votes);

/// maj@k: the mean of majority() over all C(n, k) choices of k of the n votes, exactly. Needs 1 <= k <= n.
double majority_at_k(const std::vector<Vote>& votes, int k);

/// Mean over problems with its 95 % confidence interval, within [low, high], the range that a problem's value can have.
/// Samples of one problem are correlated, so problems are the units: mean -+ t(0.975, n - 1) * std(values, n - 1) /
/// sqrt(n), Student's t. If all values are equal, that would have no width: then it is Wilson's interval for 0 of n
/// other values, which at worst lie at the ends of the range. One problem tells nothing about others: the whole range.
struct Estimate {
  double mean = 0;
  double low = 0, high = 0;
};
Estimate estimate(const std::vector<double>& values, double low = 0, double high = 1);

}  // namespace dapo
