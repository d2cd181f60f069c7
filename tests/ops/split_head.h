// The head with its vocabulary split over ranks, against one rank that has all of it: for the backends' own tests.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/ops/device_tensor.h"

namespace dapo::ops {

/// Results of lm_logprob, lm_dapo and lm_sample on the same inputs.
struct HeadResults {
  std::vector<std::byte> log_prob, trained_log_prob, tokens, sampled_log_prob;
  Values entropy, loss, dx, dhead;
};

struct SplitHeadCase {
  DType type;
  int64_t rows, hidden, vocab;
  Sampling sampling;
  float entropy_coef = 0.01f;
};

/// Multiples of 1 / unit with few bits: their products have exact sums, so that logits do not depend on how a backend
/// multiplies a weight of this or that shape.
inline Values exact_values(int64_t n, DType t, double unit, unsigned seed) {
  Values v = random_values(n, t, 1, seed);
  for (double& x : v) x = std::round(x * unit) / unit;
  return v;
}

/// Workspace for calls of up to `rows` rows, training too.
inline WorkspaceNeeds split_head_needs(int64_t rows, int64_t hidden, int64_t vocab, const VocabularySplit& split) {
  WorkspaceNeeds needs = least_needs();
  // One rank splits nothing in a run, only in tests on one GPU: it takes no more than two do for twice the rows.
  const int alone = split.ranks != nullptr && split.parts() == 1 ? 2 : 1;
  needs.hidden = hidden, needs.max_tokens = needs.max_head_rows = needs.max_batch = needs.max_rows = alone * rows;
  needs.vocab = split.ranks == nullptr ? vocab : split.most();
  needs.tensor_ranks = alone * split.parts(), needs.vocab_size = vocab;
  return needs;
}

/// What a rank computes with columns `own` of the vocabulary.
inline HeadResults head_results(Backend& b, const SplitHeadCase& c, const VocabularySplit& split) {
  const Range own = split.ranks == nullptr ? Range{0, c.vocab} : split.of(split.own());
  const ScopedWorkspace workspace(b, split_head_needs(c.rows, c.hidden, c.vocab, split));
  b.split_vocabulary(split);
  const Values head = exact_values(c.vocab * c.hidden, c.type, 16, 2), targets = [&] {
    Values t;
    for (int64_t r = 0; r < c.rows; ++r) t.push_back(static_cast<double>(r * 37 % c.vocab));
    return t;
  }();
  const Values own_head(head.begin() + own.begin * c.hidden, head.begin() + own.end * c.hidden);
  Values keys, positions;
  for (int64_t r = 0; r < c.rows; ++r)
    keys.insert(keys.end(), {3.0, static_cast<double>(r), 1.0}), positions.push_back(7);
  const auto f32 = [&](int64_t n, unsigned seed) {
    return Device1(b, DType::f32, {n}, random_values(n, DType::f32, 1, seed));
  };
  const Device1 x(b, c.type, {c.rows, c.hidden}, exact_values(c.rows * c.hidden, c.type, 1, 1));
  const Device1 part(b, c.type, {own.count(), c.hidden}, own_head);
  const Device1 target(b, DType::i32, {c.rows}, targets), key(b, DType::i32, {c.rows, 3}, keys),
      position(b, DType::i32, {c.rows}, positions);
  const Device1 advantage = f32(c.rows, 3), weight = f32(c.rows, 4), log_prob = f32(c.rows, 5),
                entropy = f32(c.rows, 6), trained = f32(c.rows, 7), loss = f32(c.rows, 8), sampled = f32(c.rows, 9);
  const Device1 tokens(b, DType::i32, {c.rows}), clip(b, DType::u8, {c.rows}), dx(b, c.type, {c.rows, c.hidden}),
      dhead(b, DType::f32, {own.count(), c.hidden});
  b.lm_logprob(log_prob, entropy, x, part, target, 0.7f);
  DapoLoss params;
  params.entropy_coef = c.entropy_coef;
  b.lm_dapo(dx, dhead, trained, entropy, loss, clip, x, part, target, {}, advantage, weight, {}, {}, 0.7f, params);
  b.lm_sample(tokens, sampled, x, part, key, position, c.sampling);
  b.synchronize();
  b.split_vocabulary({});
  return {log_prob.bytes(), trained.bytes(), tokens.bytes(), sampled.bytes(),
          entropy.values(), loss.values(),   dx.values(),    dhead.values()};
}

inline std::vector<SplitHeadCase> split_head_cases(const std::vector<DType>& types) {
  std::vector<SplitHeadCase> all;
  for (const DType t : types)
    for (const int64_t vocab : {int64_t{700}, int64_t{100}}) {  // six tiles; one, so that a rank has none
      all.push_back({t, 5, 24, vocab, {.temperature = 0.7f, .seed = 11}});
      all.push_back({t, 9, 24, vocab, {.temperature = 0.7f, .top_k = 40, .top_p = 0.9f, .min_p = 0.01f, .seed = 12}});
      all.push_back({t, 1, 24, vocab, {.temperature = 0, .seed = 13}, 0.0f});
    }
  return all;
}

/// Runs rank(comm) on each of `size` ranks, at the same time.
using RunRanks = std::function<void(int size, const std::function<void(Backend&, Comm&)>& rank)>;

/// `whole`: a backend whose vocabulary is not split.
inline void expect_split_head_like_whole(Backend& whole, const SplitHeadCase& c, int ranks, const RunRanks& run) {
  SCOPED_TRACE(testing::Message() << dtype_name(c.type) << " " << c.rows << " rows, vocabulary " << c.vocab << ", "
                                  << ranks << " ranks");
  const HeadResults want = head_results(whole, c, {});
  std::vector<HeadResults> got(ranks);
  run(ranks, [&](Backend& b, Comm& comm) { got[comm.rank()] = head_results(b, c, {&comm, c.vocab}); });
  // d x is the sum of the ranks' parts, each rounded to T, and these may be larger than their sum.
  const double rounding = c.type == DType::bf16 ? 0x1p-8 : 1e-5;
  double largest = 0;
  for (const double d : want.dx) largest = std::max(largest, std::abs(d));
  Values dhead;
  for (const HeadResults& g : got) {
    EXPECT_TRUE(g.log_prob == want.log_prob);
    EXPECT_TRUE(g.trained_log_prob == want.log_prob);
    EXPECT_TRUE(g.tokens == want.tokens);
    EXPECT_TRUE(g.sampled_log_prob == want.sampled_log_prob);
    for (size_t i = 0; i < want.entropy.size(); ++i) {
      EXPECT_NEAR(g.entropy[i], want.entropy[i], 1e-6);
      EXPECT_NEAR(g.loss[i], want.loss[i], 1e-6);
    }
    for (size_t i = 0; i < want.dx.size(); ++i)
      EXPECT_NEAR(g.dx[i], want.dx[i], rounding * (std::abs(want.dx[i]) + ranks * largest)) << i;
    EXPECT_EQ(g.dx, got[0].dx) << "ranks differ";
    dhead.insert(dhead.end(), g.dhead.begin(), g.dhead.end());
  }
  ASSERT_EQ(dhead.size(), want.dhead.size());
  for (size_t i = 0; i < dhead.size(); ++i)
    EXPECT_NEAR(dhead[i], want.dhead[i], rounding * (std::abs(want.dhead[i]) + 0.1)) << i;
}

}  // namespace dapo::ops
