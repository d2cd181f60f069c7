// The CUDA sampler against the CPU's, from the same logits: token for token, filters and the far tail included.
#include "cpu/sampling.h"

#include <gtest/gtest.h>

#include "tests/ops/cases_head.h"
#include "tests/ops/device_tensor.h"

namespace dapo::ops {
namespace {

/// Results of lm_sample for draws keys[r] from logits[r % logits.size()]. The logits are exact: x picks a column of the
/// head.
struct Draws {
  std::vector<int32_t> tokens;
  std::vector<float> log_probs;
};
Draws draw_rows(const std::vector<std::vector<float>>& logits, const std::vector<DrawKey>& keys,
                const Sampling& sampling) {
  Backend& b = test_backend(DType::f32);
  constexpr int64_t kWidth = 16;
  const auto rows = std::ssize(keys), vocab = std::ssize(logits[0]);
  CHECK_LE(logits.size(), size_t{kWidth});
  Values x(rows * kWidth), head(static_cast<size_t>(vocab * kWidth)), numbers;
  for (size_t r = 0; r < keys.size(); ++r) {
    x[r * kWidth + r % logits.size()] = 1;
    numbers.insert(numbers.end(), {double(keys[r].step), double(keys[r].prompt), double(keys[r].sample)});
  }
  for (size_t k = 0; k < logits.size(); ++k)
    for (size_t j = 0; j < logits[k].size(); ++j) head[j * kWidth + k] = static_cast<double>(logits[k][j]);
  const Device1 dx(b, DType::f32, {rows, kWidth}, x), dhead(b, DType::f32, {vocab, kWidth}, head);
  const Device1 dkeys(b, DType::i32, {rows, 3}, numbers), positions(b, DType::i32, {rows});
  const Device1 tokens(b, DType::i32, {rows}), log_prob(b, DType::f32, {rows});
  const ScopedWorkspace workspace(b, head_needs(rows, vocab, kWidth));
  b.lm_sample(tokens, log_prob, dx, dhead, dkeys, positions, sampling);
  Draws d;
  for (const double t : tokens.values()) d.tokens.push_back(static_cast<int32_t>(t));
  for (const double p : log_prob.values()) d.log_probs.push_back(static_cast<float>(p));
  return d;
}

void expect_the_cpus_draws(const std::vector<std::vector<float>>& logits, const std::vector<DrawKey>& keys,
                           const Sampling& sampling) {
  const Draws got = draw_rows(logits, keys, sampling);
  const auto vocab = std::ssize(logits[0]);
  std::vector<SoftmaxTile> tiles(softmax_tiles(vocab));
  std::vector<int32_t> columns(vocab);
  for (size_t r = 0; r < keys.size(); ++r) {
    const cpu::Drawn want = cpu::sample_row(logits[r % logits.size()].data(), tiles.data(), columns.data(), vocab,
                                            sampling, draw_fraction(sampling.seed, keys[r], 0));
    ASSERT_EQ(got.tokens[r], want.token) << "draw " << r << " of " << vocab << ", top_k " << sampling.top_k
                                         << ", top_p " << sampling.top_p << ", min_p " << sampling.min_p;
    if (std::isnan(want.log_prob))
      EXPECT_TRUE(std::isnan(got.log_probs[r])) << "draw " << r;
    else  // the sums are the same integers; logarithms round once more
      EXPECT_NEAR(got.log_probs[r], want.log_prob, 1e-6 * (1 + std::abs(want.log_prob))) << "draw " << r;
  }
}

std::vector<DrawKey> some_keys(int32_t n) {
  std::vector<DrawKey> keys;
  for (int32_t i = 0; i < n; ++i) keys.push_back({1, i / 7, i % 7});
  return keys;
}

/// Rows of every kind: flat, peaked, a few values only (ties), all equal, far apart, huge.
std::vector<std::vector<float>> some_rows(int64_t vocab) {
  std::mt19937 random(static_cast<unsigned>(vocab));
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> rows;
  for (const float scale : {0.1f, 1.0f, 3.0f, 8.0f, 60.0f, 1e6f}) {
    rows.emplace_back();
    for (int64_t j = 0; j < vocab; ++j) rows.back().push_back(normal(random) * scale);
  }
  rows.emplace_back();
  for (int64_t j = 0; j < vocab; ++j) rows.back().push_back(static_cast<float>(random() % 9) - 4);
  rows.emplace_back(vocab, 2.5f);
  rows.emplace_back(vocab, -20.0f);
  rows.back()[vocab / 2] = 0;
  return rows;
}

TEST(SampleTest, TokensEqualTheCpus) {
  std::vector<int64_t> vocabs{1, 2, 127, 128, 129, 1000, 5001};
  if (!slow_device()) vocabs.insert(vocabs.end(), {40000, 151936});
  for (const int64_t vocab : vocabs)
    for (const Sampling& s : {Sampling{1.0f, 0, 1.0f, 0.0f, 3},
                              {0.6f, 0, 1.0f, 0.0f, 4},
                              {0.0f, 0, 1.0f, 0.0f, 5},
                              {1.0f, 20, 1.0f, 0.0f, 6},
                              {1.3f, 300, 1.0f, 0.0f, 7},
                              {1.0f, 0, 0.9f, 0.0f, 8},
                              {1.0f, 0, 0.99999f, 0.0f, 9},
                              {1.0f, 0, 0x1.fffffep-1f, 0.0f, 9},
                              {1.0f, 0, 0.05f, 0.0f, 9},
                              {1.0f, 0, 1.0f, 0.02f, 10},
                              {0.8f, 50, 0.95f, 0.001f, 11},
                              {1.0f, 3, 0.3f, 0.5f, 12}})
      expect_the_cpus_draws(some_rows(vocab), some_keys(slow_device() ? 9 : 400), s);
}

TEST(SampleTest, ARowWithoutASoftmaxIsTokenZero) {
  for (const float bad : {NAN, HUGE_VALF}) {
    std::vector<float> row(700, -1.0f);
    row[650] = bad;
    for (const Sampling& s : {Sampling{1.0f, 5, 0.9f, 0.1f, 1}, {0.0f, 0, 1.0f, 0.0f, 1}})
      expect_the_cpus_draws({row}, some_keys(2), s);
  }
}

/// 100,000 tokens of e^-18 of the likeliest one's probability each: together 1.5e-3, each too small for a weight in
/// units of 2^-25. Uses draws among them, with keys that were searched for.
TEST(SampleTest, ATailOfSmallEqualTokensIsDrawn) {
  std::vector<float> row(100001, -18.0f);
  row[40000] = 0;
  const double tail = 100000 * std::exp(-18.0), below = 40000 * std::exp(-18.0) / (1 + tail),
               above = (40000 * std::exp(-18.0) + 1) / (1 + tail);
  const size_t draws = slow_device() ? 12 : 400;
  std::vector<DrawKey> keys;
  for (int32_t i = 0; keys.size() < draws; ++i) {
    const double at = std::ldexp(static_cast<double>(draw_fraction(17, {2, 5, i}, 0)), -64);
    if (at < 0.999 * below || at > above + 0.001 * below) keys.push_back({2, 5, i});
  }
  for (const float top_p : {1.0f, 0.9995f}) {
    const Sampling sampling{1.0f, 0, top_p, 0.0f, 17};
    if (top_p == 1.0f) {
      for (const int32_t token : draw_rows({row}, keys, sampling).tokens) EXPECT_NE(token, 40000);
    }
    expect_the_cpus_draws({row}, keys, sampling);
  }
}

/// The tail as a whole, and its parts, in as many draws as a GPU makes in a moment.
TEST(SampleTest, TheTailFollowsItsProbabilities) {
  const size_t vocab = slow_device() ? 3000 : 50000;
  const int32_t draws = slow_device() ? 150 : 50000;
  std::vector<float> row(vocab, slow_device() ? -5.0f : -9.0f);
  row[7] = 0;
  std::vector<DrawKey> keys;
  for (int32_t i = 0; i < draws; ++i) keys.push_back({3, i / 16, i % 16});
  Values counts(21), prob(21);
  const double each = std::exp(static_cast<double>(row[0])), total = 1 + static_cast<double>(vocab - 1) * each;
  for (size_t j = 0; j < vocab; ++j) prob[j == 7 ? 20 : j * 20 / vocab] += (j == 7 ? 1 : each) / total;
  for (const int32_t token : draw_rows({row}, keys, {1.0f, 0, 1.0f, 0.0f, 23}).tokens)
    counts[token == 7 ? 20 : static_cast<size_t>(token) * 20 / vocab] += 1;
  EXPECT_LT(chi_square_deviate(counts, prob), 4.5);
}

}  // namespace
}  // namespace dapo::ops
