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

double majority(const std::vector<Vote>& votes) {
  struct Count {
    int votes = 0, right = 0;
  };
  std::map<std::string, Count> counts;
  int most = 0;
  for (const Vote& v : votes) {
    if (v.answer.empty()) continue;
    Count& c = counts[v.answer];
    c.right += v.right;
    most = std::max(most, ++c.votes);
  }
  double right = 0;
  int tied = 0;
  for (const auto& [answer, c] : counts) {
    if (c.votes < most) continue;
    ++tied;
    right += double(c.right) / c.votes;
  }
  return tied ? right / tied : 0;
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
