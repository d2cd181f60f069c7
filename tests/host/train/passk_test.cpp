#include "host/train/passk.h"

#include <simdjson.h>

#include <bit>
#include <cmath>
#include <numeric>
#include <random>

#include "core/check.h"
#include "host/verify/verify.h"
#include "tests/testdata.h"

namespace dapo {
namespace {
using simdjson::dom::element;

double choose(int n, int k) {
  double r = 1;
  for (int i = 1; i <= k; ++i) r = r * (n - k + i) / i;
  return k < 0 || k > n ? 0 : std::round(r);
}

TEST(PassK, EqualsCountingEverySubset) {
  for (int n = 1; n <= 10; ++n)
    for (int c = 0; c <= n; ++c)
      for (int k = 1; k <= n; ++k) {
        std::vector<double> at_least(k + 2, 0);
        for (unsigned subset = 0; subset < 1u << n; ++subset) {
          if (std::popcount(subset) != k) continue;
          const int right = std::popcount(subset & ((1u << c) - 1));
          for (int least = 0; least <= right; ++least) at_least[least] += 1 / choose(n, k);
        }
        EXPECT_NEAR(pass_at_k(n, c, k), at_least[1], 1e-12) << n << " " << c << " " << k;
        for (int least = 0; least <= k; ++least)
          EXPECT_NEAR(pass_at_least(n, c, k, least), at_least[least], 1e-10)
              << n << " " << c << " " << k << " " << least;
      }
  EXPECT_NEAR(pass_at_k(10000, 1, 5000), 0.5, 1e-9);
  EXPECT_EQ(pass_at_k(32, 32, 32), 1);
  EXPECT_EQ(pass_at_k(32, 0, 32), 0);
  EXPECT_THROW(pass_at_k(4, 5, 1), Error);
  EXPECT_THROW(pass_at_k(4, 1, 5), Error);
}

TEST(Majority, TiesShareAndNothingFoundDoesNotVote) {
  EXPECT_EQ(majority({{"3", true}, {"4", false}, {"3", true}}), 1);
  EXPECT_EQ(majority({{"3", true}, {"4", false}, {"4", false}}), 0);
  EXPECT_EQ(majority({{"3", true}, {"4", false}}), 0.5);
  EXPECT_EQ(majority({{"4", false}, {"3", true}}), 0.5);
  EXPECT_EQ(majority({{"", false}, {"", false}, {"3", true}}), 1);
  EXPECT_EQ(majority({{"", false}}), 0);
  EXPECT_EQ(majority({}), 0);
}

TEST(Majority, AtKIsTheMeanOverEverySubset) {
  std::mt19937_64 random(3);
  const std::vector<std::string> answers = {"a", "b", "c", "d", ""};
  for (int trial = 0; trial < 60; ++trial) {
    const int n = 1 + trial % 10, kinds = 1 + static_cast<int>(random() % answers.size());
    std::vector<Vote> votes;
    for (int i = 0; i < n; ++i) {
      const std::string& answer = answers[answers.size() - 1 - random() % kinds];  // "" is one of them
      votes.push_back({answer, !answer.empty() && (answer == "d" ? true : random() % 4 == 0)});
    }
    std::vector<double> sum(n + 1, 0);
    for (unsigned subset = 1; subset < 1u << n; ++subset) {
      std::vector<Vote> chosen;
      for (int i = 0; i < n; ++i)
        if (subset >> i & 1) chosen.push_back(votes[i]);
      sum[chosen.size()] += majority(chosen);
    }
    for (int k = 1; k <= n; ++k)
      EXPECT_NEAR(majority_at_k(votes, k), sum[k] / choose(n, k), 1e-12)
          << "trial " << trial << ", n " << n << ", k " << k;
  }
  EXPECT_THROW(majority_at_k({{"a", true}}, 2), Error);
  EXPECT_THROW(majority_at_k({{"a", true}}, 0), Error);
}

TEST(Majority, AtKOfManyVotes) {
  // 600 of 1000 votes for a right answer: of 2 it has both, or one of two that are tied; of 999 it has the most
  std::vector<Vote> votes(1000, {"wrong", false});
  for (int i = 0; i < 600; ++i) votes[i] = {"right", true};
  EXPECT_NEAR(majority_at_k(votes, 1), 0.6, 1e-10);
  EXPECT_NEAR(majority_at_k(votes, 2), 0.6, 1e-10);
  EXPECT_NEAR(majority_at_k(votes, 999), 1, 1e-10);
  // of 3: at least 2 of them
  const double three = (600. * 599 * 598 + 3 * 600. * 599 * 400) / (1000. * 999 * 998);
  EXPECT_NEAR(majority_at_k(votes, 3), three, 1e-10);
  // every answer another one: whoever is drawn, each has one vote
  votes.resize(200);
  for (int i = 0; i < 200; ++i) votes[i] = {std::to_string(i), i < 20};
  for (const int k : {1, 7, 100, 199}) EXPECT_NEAR(majority_at_k(votes, k), 0.1, 1e-10) << k;
}

TEST(Estimate, IntervalIsByProblem) {
  const Estimate e = estimate({1, 0, 1, 0});
  EXPECT_DOUBLE_EQ(e.mean, 0.5);
  const double half = 3.182446 * std::sqrt(1.0 / 3 / 4);  // t(0.975, 3), from tables; wider than [0, 1] here
  EXPECT_DOUBLE_EQ(e.low, std::max(0.0, 0.5 - half));
  EXPECT_DOUBLE_EQ(e.high, std::min(1.0, 0.5 + half));
  std::vector<double> thirty;  // as many as AIME's
  for (int i = 0; i < 30; ++i) thirty.push_back(i < 15 ? 0.4 : 0.6);
  const Estimate t = estimate(thirty);
  const double half30 = 2.045230 * std::sqrt(30 * 0.01 / 29 / 30);  // t(0.975, 29): 4 % wider than the normal's 1.96
  EXPECT_NEAR(t.low, 0.5 - half30, 1e-7);
  EXPECT_NEAR(t.high, 0.5 + half30, 1e-7);
  EXPECT_EQ(estimate({0.25}).low, 0);  // one problem tells nothing about others
  EXPECT_EQ(estimate({0.25}).high, 1);
  EXPECT_EQ(estimate({}).mean, 0);
}

TEST(Interval, NoneOrAllRightIsNotCertainty) {
  // Wilson's interval for 0 of 30: 0 to z^2 / (n + z^2) = 0.11351 (scipy.stats.binomtest(0, 30).proportion_ci)
  const Estimate none = estimate(std::vector<double>(30, 0.0)), all = estimate(std::vector<double>(30, 1.0));
  EXPECT_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 0.113513, 1e-6);
  EXPECT_NEAR(all.low, 1 - 0.113513, 1e-6);
  EXPECT_EQ(all.high, 1);
  EXPECT_NEAR(estimate({0.0}).high, 0.793451, 1e-6);
  // all equal in between: up to that share of other problems may lie at either end
  const Estimate half = estimate(std::vector<double>(30, 0.5)),
                 no_change = estimate(std::vector<double>(30, 0.0), -1, 1);
  EXPECT_NEAR(half.low, 0.5 - 0.113513 / 2, 1e-6);
  EXPECT_NEAR(half.high, 0.5 + 0.113513 / 2, 1e-6);
  EXPECT_NEAR(no_change.low, -0.113513, 1e-6);
  EXPECT_NEAR(no_change.high, 0.113513, 1e-6);
  EXPECT_EQ(estimate(std::vector<double>(3, 0.1)).mean, 0.1);
}

TEST(Interval, CoversTheTruthAsOftenAsItSays) {
  // 30 problems, each with its own chance of a right response, 8 responses to each
  std::mt19937_64 rng(5);
  int covered = 0;
  constexpr int kTrials = 2000;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<double> values;
    for (int p = 0; p < 30; ++p) {
      std::uniform_real_distribution draw(0.0, 1.0);
      const double chance = draw(rng);
      int right = 0;
      for (int i = 0; i < 8; ++i) right += draw(rng) < chance;
      values.push_back(right / 8.0);
    }
    const Estimate e = estimate(values);
    covered += e.low <= 0.5 && e.high >= 0.5;
  }
  EXPECT_NEAR(covered / double(kTrials), 0.95, 0.015);  // 3 standard deviations of the count
}

/// Runs the cases of one lighteval file: `expect(params, n, right, name, expected outputs)`.
template <class F>
size_t each_case(const std::string& path, F expect) {
  simdjson::dom::parser parser;
  const element file = parser.load(path);
  size_t cases = 0;
  for (const element c : simdjson::dom::array(file["test_cases"])) {
    const std::string_view gold =
        simdjson::dom::array(c["doc"]["choices"]).at(size_t(uint64_t(c["doc"]["gold_index"])));
    int n = 0, right = 0;
    for (const element t : simdjson::dom::array(c["model_response"]["text"])) {
      ++n;
      right += math_equal(std::string_view(t), gold);
    }
    expect(c["metric_params"], n, right, std::string(std::string_view(c["name"])), c["expected_output"]);
    ++cases;
  }
  return cases;
}

void expect_avg_at_k(const std::string& path) {
  EXPECT_EQ(each_case(path,
                      [](element params, int n, int right, const std::string& name, element expected) {
                        const int64_t k = params["k"];
                        const double want = expected[fmt::format("avg@k:k={}", k)];
                        EXPECT_NEAR(double(right) / n, want, 0.01) << name;
                      }),
            3u);
}

void expect_pass_at_k(const std::string& path) {
  EXPECT_EQ(each_case(path,
                      [](element params, int n, int right, const std::string& name, element expected) {
                        const int64_t k = params["k"];
                        const double want = expected[fmt::format("pass@k:k={}&n={}", k, n)];
                        EXPECT_NEAR(pass_at_k(n, right, k), want, 0.01) << name;
                      }),
            3u);
}

void expect_g_pass_at_k(const std::string& path) {
  size_t unreadable = 0;
  EXPECT_EQ(each_case(path,
                      [&](element params, int n, int right, const std::string& name, element expected) {
                        const int k = int64_t(params["k"]);
                        if (name.ends_with("Mixed Correct and Incorrect") || name.ends_with("High K Value")) {
                          ++unreadable;  // its parser cannot read these formulas and counts none as right; ours
                                         // compares them as text
                          return;
                        }
                        for (const char* t : {"0.0", "0.25", "0.5", "0.75", "1.0"}) {
                          const int least = std::max<int>(1, std::ceil(std::stod(t) * k));
                          const double want = expected[fmt::format("math_g-pass@{}_{}", k, t)];
                          EXPECT_NEAR(pass_at_least(n, right, k, least), want, 1e-9) << name << " " << t;
                        }
                        double mean = 0;  // mG-Pass@k: thresholds above one half
                        for (int i = (k + 1) / 2 + 1; i <= k; ++i) mean += 2.0 / k * pass_at_least(n, right, k, i);
                        EXPECT_NEAR(mean, double(expected[fmt::format("mmath_g-pass@{}", k)]), 1e-9) << name;
                      }),
            11u);
  EXPECT_EQ(unreadable, 2u);
}

TEST(PassAtK, AsLightevalCounts) {
  REQUIRE_DATA(avg, "verifier/lighteval_avg_at_k_math.json");
  REQUIRE_DATA(pass, "verifier/lighteval_pass_at_k_math.json");
  REQUIRE_DATA(g_pass, "verifier/lighteval_g_pass_at_k_math.json");
  expect_avg_at_k(avg);
  expect_pass_at_k(pass);
  expect_g_pass_at_k(g_pass);
}

}  // namespace
}  // namespace dapo
