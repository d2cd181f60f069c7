// The vocabulary split over ranks on GPUs changes no log-prob and no draw, in a replayed decode step neither.
#include "tests/ops/split_head.h"

#include "tests/cuda/gpu_ranks.h"

namespace dapo::ops {
namespace {

TEST(CudaSplitHead, LikeOneRankWithAllOfIt) {
  if (const std::string why = no_nccl(); !why.empty()) GTEST_SKIP() << why;
  for (const SplitHeadCase& c : split_head_cases({DType::f32, DType::bf16}))
    for (const int ranks : gpu_rank_counts())
      expect_split_head_like_whole(
          *make_cuda_backend(c.type), c, ranks,
          [&](int size, const std::function<void(Backend&, Comm&)>& rank) { run_gpu_ranks(c.type, size, rank); });
}

/// Tokens and the bits of their log-probs of four decode steps; the first is recorded, the others are replayed.
std::vector<std::byte> decoded(Backend& b, const VocabularySplit& split) {
  constexpr int64_t kRows = 5, kHidden = 24, kVocab = 700;
  const Range own = split.ranks == nullptr ? Range{0, kVocab} : split.of(split.own());
  const ScopedWorkspace workspace(b, split_head_needs(kRows, kHidden, kVocab, split));
  b.split_vocabulary(split);
  const Values head = exact_values(kVocab * kHidden, DType::f32, 16, 2);
  Values keys;
  for (int64_t r = 0; r < kRows; ++r) keys.insert(keys.end(), {3.0, static_cast<double>(r), 1.0});
  const Device1 x(b, DType::f32, {kRows, kHidden}, exact_values(kRows * kHidden, DType::f32, 1, 1));
  const Device1 part(b, DType::f32, {own.count(), kHidden},
                     Values(head.begin() + own.begin * kHidden, head.begin() + own.end * kHidden));
  const Device1 key(b, DType::i32, {kRows, 3}, keys), position(b, DType::i32, {kRows});
  const Device1 tokens(b, DType::i32, {kRows}), log_prob(b, DType::f32, {kRows});
  std::vector<std::byte> all;
  for (int step = 0; step < 4; ++step) {
    b.replayable(1, [&] {
      b.lm_sample(tokens, log_prob, x, part, key, position, {.temperature = 0.9f, .top_p = 0.95f, .seed = 5});
      b.increment(position);
    });
    for (const Device1* t : {&tokens, &log_prob})
      for (const std::byte byte : t->bytes()) all.push_back(byte);
  }
  b.split_vocabulary({});
  return all;
}

TEST(CudaSplitHead, AReplayedDecodeStep) {
  if (const std::string why = no_nccl(); !why.empty()) GTEST_SKIP() << why;
  const std::vector<std::byte> want = decoded(*make_cuda_backend(DType::f32), {});
  for (const int ranks : gpu_rank_counts()) {
    std::vector<std::vector<std::byte>> got(ranks);
    run_gpu_ranks(DType::f32, ranks, [&](Backend& b, Comm& comm) { got[comm.rank()] = decoded(b, {&comm, 700}); });
    for (const auto& g : got) EXPECT_TRUE(g == want) << ranks << " ranks";
  }
}

}  // namespace
}  // namespace dapo::ops
