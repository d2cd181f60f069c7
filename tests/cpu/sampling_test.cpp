// A row's integer softmax against double precision; filters against Hugging Face's; draws.
#include "cpu/sampling.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "tests/testdata.h"

namespace dapo {
namespace {

/// A row of logits, its softmax and what the filters keep.
struct Row {
  const std::vector<float>& logits;
  std::vector<SoftmaxTile> tiles;
  cpu::RowSoftmax softmax;
  cpu::Filtered filtered;

  Row(const std::vector<float>& row, const Sampling& sampling)
      : logits(row), tiles(static_cast<size_t>(softmax_tiles(vocab()))) {
    std::vector<int32_t> columns(row.size());
    softmax = cpu::row_softmax(tiles.data(), row.data(), vocab(), sampling.temperature);
    filtered = cpu::filter_row(row.data(), vocab(), softmax, tiles.data(), columns.data(), sampling);
  }
  int64_t vocab() const { return std::ssize(logits); }
  bool keeps(size_t i) const { return filtered.keeps(logits[i], static_cast<int64_t>(i)); }
  /// Probability of drawing column i, apart from what is cut off below 2^-40.
  double prob(size_t i) const {
    const Mass mass = cpu::column_mass(logits.data(), static_cast<int64_t>(i), softmax, tiles.data(), filtered.keeps);
    const float exponent = softmax_exponent(tiles[i / kSoftmaxTile].max, softmax.scale);
    return std::ldexp(static_cast<double>(mass), -softmax_shift(softmax.exponent, exponent)) /
           static_cast<double>(filtered.total);
  }
  int64_t draw(uint64_t fraction) const {
    return cpu::draw_column(logits.data(), vocab(), softmax, tiles.data(), filtered.keeps,
                            draw_target(filtered.total, fraction));
  }
};
std::vector<float> normal_logits(int64_t vocab, float scale, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> logits(vocab);
  for (float& z : logits) z = normal(rng);
  return logits;
}

void expect_filters(const std::string& path) {
  simdjson::dom::parser parser;
  int cases = 0;
  simdjson::dom::document_stream stream;
  ASSERT_EQ(parser.load_many(path).get(stream), simdjson::SUCCESS);
  for (const auto document : stream) {
    const auto number = [&](const char* name) { return static_cast<float>(double(document[name])); };
    Sampling sampling{number("temperature"), static_cast<int>(number("top_k")), number("top_p"), number("min_p"), 0};
    std::vector<float> logits;
    std::vector<double> want;
    for (const double v : document["logits"].get_array()) logits.push_back(static_cast<float>(v));
    for (const double v : document["prob"].get_array()) want.push_back(v);
    const Row row(logits, sampling);
    for (size_t i = 0; i < want.size(); ++i) {
      if (want[i] == 0.0 || want[i] > 1e-36) {  // they use doubles: in between, ours may be kept or not
        EXPECT_EQ(row.keeps(i), want[i] > 0.0) << "case " << cases << ", token " << i;
      }
      EXPECT_NEAR(row.prob(i), want[i], 2e-6) << "case " << cases << ", token " << i;
    }
    ++cases;
  }
  EXPECT_GE(cases, 63) << path;
}

TEST(Sampling, FiltersAsHuggingFaceDoes) {
  for (const std::string& path : golden_files("sampling/sampling.jsonl", "goldens/sampling.jsonl"))
    expect_filters(path);
}

TEST(Sampling, Ties) {
  const std::vector<float> logits{1, 3, 3, 2, 3, 2, 0, 3};
  const auto kept = [&](const Sampling& sampling) {
    const Row row(logits, sampling);
    std::string s;
    for (size_t i = 0; i < logits.size(); ++i) s += row.keeps(i) ? '1' : '0';
    return s;
  };
  EXPECT_EQ(kept({1.0f, 2, 1.0f, 0.0f, 0}), "01101001");  // all that tie with the second
  EXPECT_EQ(kept({1.0f, 5, 1.0f, 0.0f, 0}), "01111101");
  EXPECT_EQ(kept({1.0f, 0, 0.01f, 0.0f, 0}), "01000000");  // the first by index
  EXPECT_EQ(kept({1.0f, 0, 0.5f, 0.0f, 0}), "01101000");   // 3 of 4 x 0.2... reach a half
  EXPECT_EQ(kept({1.0f, 0, 0.0f, 0.0f, 0}), "01000000");   // never an empty set
  EXPECT_EQ(kept({1.0f, 0, 1.0f, 1.0f, 0}), "01101001");
  EXPECT_EQ(kept({1.0f, 0, 1.0f, 0.3f, 0}), "01111101");  // e^-1 = 0.37
  EXPECT_EQ(kept({1.0f, 100, 1.0f, 0.0f, 0}), "11111111");
}

TEST(Sampling, DrawsFollowTheDistribution) {
  for (const int64_t vocab : {5, 40, 5000}) {
    const std::vector<float> logits = normal_logits(vocab, vocab > 100 ? 4.0f : 1.0f, 1);
    std::vector<SoftmaxTile> tiles(softmax_tiles(vocab));
    std::vector<int32_t> columns(logits.size());
    for (const Sampling& sampling : {Sampling{1.0f, 0, 1.0f, 0.0f, 0}, Sampling{0.8f, 10, 0.95f, 0.01f, 0}}) {
      const Row row(logits, sampling);
      const int draws = vocab > 100 ? 8000 : 100000;
      std::map<int32_t, int> seen;
      for (int i = 0; i < draws; ++i)
        ++seen[cpu::sample_row(logits.data(), tiles.data(), columns.data(), vocab, sampling,
                               draw_fraction(11, {0, 0, i}, 7))
                   .token];
      double chi2 = 0.0, rest_want = draws, rest_seen = draws;
      int cells = 0;
      for (size_t t = 0; t < logits.size(); ++t) {
        const double want = draws * row.prob(t), got = seen[static_cast<int32_t>(t)];
        EXPECT_TRUE(row.keeps(t) || got == 0.0) << "token " << t;
        if (want < 20) continue;  // rare tokens share a cell
        chi2 += (got - want) * (got - want) / want;
        rest_want -= want, rest_seen -= got, ++cells;
      }
      if (rest_want > 20) chi2 += (rest_seen - rest_want) * (rest_seen - rest_want) / rest_want, ++cells;
      // Mean cells - 1, deviation sqrt(2 (cells - 1)): five deviations are beyond one in a million.
      EXPECT_LT(chi2, cells - 1 + 5 * std::sqrt(2.0 * (cells - 1)) + 5) << vocab;
    }
  }
}

/// The mass of every token, common or rare, is its share of the softmax in double precision.
TEST(Sampling, MassesAreTheSoftmaxDownToTheTail) {
  for (const auto& [vocab, scale, temperature] :
       {std::tuple{int64_t{1000}, 1.0f, 1.0f}, {151936, 3.0f, 1.0f}, {50001, 5.0f, 0.7f}, {32000, 0.01f, 1.3f}}) {
    const std::vector<float> logits = normal_logits(vocab, scale, 3);
    const Row row(logits, {temperature, 0, 1.0f, 0.0f, 0});
    double sum = 0.0, distance = 0.0;
    const auto weight = [&, t = static_cast<double>(temperature)](size_t i) {
      return std::exp((static_cast<double>(logits[i]) - row.softmax.top) / t);
    };
    for (size_t i = 0; i < logits.size(); ++i) sum += weight(i);
    for (size_t i = 0; i < logits.size(); ++i) {
      const double want = weight(i) / sum;
      distance += std::abs(row.prob(i) - want);
      // Rounding of the product with 1 / temperature, of the sum and of 2^f, and the cut at 2^-40 of the tile.
      EXPECT_NEAR(row.prob(i), want, 4e-6 * want + 0x1p-38 * want + 0x1p-40) << "token " << i << " of " << vocab;
    }
    EXPECT_LT(distance, 1e-6) << vocab;
    EXPECT_NEAR(row.softmax.log_sum, std::log(sum), 2e-6);
  }
}

/// One likely token among 100,000 that have e^-18 of its probability each: 1.5e-3 together. A draw must be the one
/// at the exact cumulative sum, for 4,096 fractions of the tail.
TEST(Sampling, ATailOfEqualTokensIsDrawnEvenly) {
  constexpr int64_t kVocab = 100001, kTop = 40000;
  std::vector<float> logits(kVocab, -18.0f);
  logits[kTop] = 0.0f;
  const Row row(logits, {1.0f, 0, 1.0f, 0.0f, 0});
  const double each = std::exp(-18.0), total = 1.0 + 100000 * each;
  EXPECT_NEAR(row.filtered.total * 0x1p-40, total, 1e-7 * total);
  std::vector<int> seen(100);
  for (int64_t k = 0; k < 4096; ++k) {
    const double want = (static_cast<double>(k) + 0.5) * 100000 / 4096;  // of the tail's tokens, in order
    const int64_t token = static_cast<int64_t>(want) + (want >= kTop ? 1 : 0);
    const double at = (want * each + (want >= kTop ? 1.0 : 0.0)) / total;
    const int64_t got = row.draw(static_cast<uint64_t>(std::ldexp(at, 64)));
    EXPECT_NEAR(static_cast<double>(got), static_cast<double>(token), 1.0) << "fraction " << at;
    if (got != kTop) ++seen[(got - (got > kTop ? 1 : 0)) / 1000];
  }
  for (const int n : seen) EXPECT_NEAR(n, 4096 / 100.0, 2.0);
}

TEST(Sampling, LanesGiveTheMassesOfTheDefinition) {
  for (const float scale : {1.0f, 30.0f, 1e4f, 1e8f, 1e30f}) {
    const std::vector<float> logits = normal_logits(5001, scale, 4);
    const Row row(logits, {0.9f, 0, 1.0f, 0.0f, 0});
    for (size_t t = 0; t < row.tiles.size(); ++t) {
      const size_t begin = t * kSoftmaxTile, end = std::min(begin + kSoftmaxTile, logits.size());
      const float max = *std::max_element(&logits[begin], logits.data() + end);
      const float exponent = softmax_exponent(max, row.softmax.scale);
      Mass mass = 0;
      for (size_t i = begin; i < end; ++i)
        mass += softmax_mass(softmax_weight(softmax_power(logits[i], row.softmax.scale, exponent)));
      EXPECT_EQ(row.tiles[t].max, max);
      EXPECT_EQ(row.tiles[t].mass, mass) << "scale " << scale << ", tile " << t;
    }
    EXPECT_LT(row.filtered.total, Mass{1} << 54);
    EXPECT_FALSE(std::isnan(row.softmax.log_sum));
  }
}

TEST(Sampling, TheSmallestAndLargestDrawHitTheSupport) {
  std::mt19937 rng(2);
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t vocab = 1 + static_cast<int64_t>(rng() % 9000);
    std::vector<float> logits(vocab, -HUGE_VALF);
    for (int i = 0; i < 1 + trial % 7; ++i)
      logits[rng() % static_cast<uint32_t>(vocab)] = -static_cast<float>(rng() % 80);
    const Row row(logits, {1.0f, 0, 1.0f, 0.0f, 0});
    size_t first = 0;
    while (!(row.prob(first) > 0x1p-30)) ++first;
    EXPECT_LE(row.draw(0), static_cast<int64_t>(first));
    for (const uint64_t u : {uint64_t{1} << 62, uint64_t{1} << 63, ~uint64_t{0}})
      EXPECT_GT(logits[row.draw(u)], -HUGE_VALF);
  }
}

}  // namespace
}  // namespace dapo
