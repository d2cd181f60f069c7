#include "host/train/passk.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <map>

#include "core/check.h"

namespace dapo {

double pass_at_k(int n, int c, int k) {
  CHECK(c >= 0 && c <= n && k >= 1 && k <= n, "pass@k with n {}, c {}, k {}", n, c, k);
  double none = 1;
  for (int i = n - c + 1; i <= n; ++i) none *= std::max(0.0, 1.0 - double(k) / i);
  return 1 - none;
}

double pass_at_least(int n, int c, int k, int least) {
  CHECK(c >= 0 && c <= n && k >= 1 && k <= n, "pass@k with n {}, c {}, k {}", n, c, k);
  const auto log_choose = [](int a, int b) {
    return std::lgamma(a + 1.0) - std::lgamma(b + 1.0) - std::lgamma(a - b + 1.0);
  };
  double sum = 0;
  for (int right = std::max({least, 0, k - (n - c)}); right <= std::min(c, k); ++right)
    sum += std::exp(log_choose(c, right) + log_choose(n - c, k - right) - log_choose(n, k));
  return std::min(sum, 1.0);
}

namespace {

struct Count {
  int votes = 0, right = 0;
};

/// The votes for each answer.
std::vector<Count> count_votes(const std::vector<Vote>& votes) {
  std::map<std::string, Count> by_answer;
  for (const Vote& v : votes) {
    if (v.answer.empty()) continue;
    Count& c = by_answer[v.answer];
    ++c.votes;
    c.right += v.right;
  }
  std::vector<Count> out;
  for (const auto& [answer, c] : by_answer) out.push_back(c);
  return out;
}

/// P(X = 0), ..., P(X = most) for X binomial(n, p).
std::vector<double> binomial(int n, double p, int most) {
  std::vector<double> out(most + 1);
  const double log_n = std::lgamma(n + 1.0);
  for (int i = 0; i <= std::min(n, most); ++i)
    out[i] =
        std::exp(log_n - std::lgamma(i + 1.0) - std::lgamma(n - i + 1.0) + i * std::log(p) + (n - i) * std::log1p(-p));
  return out;
}

/// The mean over subsets of k of n votes of 1 / (answers tied for most votes), taken as 0 where the answer `winner` is
/// not among these. Each vote is drawn with chance p = k / n, and what is wanted is conditional on k votes in all: the
/// numbers of votes of the answers are independent then, and there is no large number.
double share_of_wins(const std::vector<Count>& counts, size_t winner, int n, int k) {
  const double p = double(k) / n;
  const std::vector<double> all = binomial(n, p, k), own = binomial(counts[winner].votes, p, k);
  double sum = 0;
  for (int most = 1; most <= std::min(counts[winner].votes, k); ++most) {
    int others = n - counts[winner].votes;  // votes that cannot change who wins: none has so many
    // [tied][drawn]: the answers that can have `most` votes, as far as they have been looked at
    std::vector<std::vector<double>> ways(k / most, std::vector<double>(k + 1));
    ways[0][most] = own[most];
    for (size_t a = 0; a < counts.size(); ++a) {
      if (a == winner || counts[a].votes < most) continue;
      others -= counts[a].votes;
      const std::vector<double> has = binomial(counts[a].votes, p, most);
      for (size_t tied = ways.size(); tied-- > 0;)
        for (int drawn = k; drawn >= 0; --drawn) {
          double chance = tied > 0 && drawn >= most ? ways[tied - 1][drawn - most] * has[most] : 0;
          for (int i = 0; i < most && i <= drawn; ++i) chance += ways[tied][drawn - i] * has[i];
          ways[tied][drawn] = chance;
        }
    }
    const std::vector<double> rest = binomial(others, p, k);
    for (size_t tied = 0; tied < ways.size(); ++tied)
      for (int drawn = most; drawn <= k; ++drawn) sum += ways[tied][drawn] * rest[k - drawn] / double(tied + 1);
  }
  return sum / all[k];
}

}  // namespace

double majority(const std::vector<Vote>& votes) {
  const std::vector<Count> counts = count_votes(votes);
  int most = 0, tied = 0;
  for (const Count& c : counts) most = std::max(most, c.votes);
  double right = 0;
  for (const Count& c : counts) {
    if (c.votes < most) continue;
    ++tied;
    right += double(c.right) / c.votes;
  }
  return tied ? right / tied : 0;
}

double majority_at_k(const std::vector<Vote>& votes, int k) {
  const int n = std::ssize(votes);
  CHECK(k >= 1 && k <= n, "maj@k with n {}, k {}", n, k);
  if (k == n) return majority(votes);
  const std::vector<Count> counts = count_votes(votes);
  std::map<int, double> share;  // by votes: answers with as many win as often
  double right = 0;
  for (size_t a = 0; a < counts.size(); ++a) {
    if (counts[a].right == 0) continue;
    const auto [at, is_new] = share.try_emplace(counts[a].votes);
    if (is_new) at->second = share_of_wins(counts, a, n, k);
    right += double(counts[a].right) / counts[a].votes * at->second;
  }
  return std::min(right, 1.0);
}

Estimate estimate(const std::vector<double>& values, double low, double high) {
  const double n = values.size();
  if (values.empty()) return {};
  const auto [least, most] = std::ranges::minmax(values);
  double sum = 0, squares = 0;
  for (const double x : values) sum += x;
  const double mean = least == most ? least : sum / n;
  if (n < 2 && mean > low && mean < high) return {mean, low, high};
  if (least == most) {
    constexpr double z = 1.959964;  // 0.975 quantile of the normal distribution
    const double others = z * z / (n + z * z);
    return {mean, mean - others * (mean - low), mean + others * (high - mean)};
  }
  for (const double x : values) squares += (x - mean) * (x - mean);
  const double t = boost::math::quantile(boost::math::students_t(n - 1), 0.975);
  const double half = t * std::sqrt(squares / (n - 1) / n);
  return {mean, std::max(low, mean - half), std::min(high, mean + half)};
}

}  // namespace dapo
