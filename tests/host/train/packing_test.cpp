// Packing random groups: every token of every response is predicted once, from the token before it.
#include "host/train/packing.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace dapo {
namespace {

struct Owned {
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::vector<std::vector<int32_t>>> ids;
  std::vector<std::vector<std::vector<float>>> old;
  std::vector<PackInput> groups;
};

Owned random_groups(std::mt19937& rng, int groups, int samples, int longest) {
  Owned o;
  int32_t token = 0;  // all distinct, so that a target shows where it comes from
  for (int g = 0; g < groups; ++g) {
    o.prompts.emplace_back();
    for (unsigned n = 1 + rng() % unsigned(longest); n > 0; --n) o.prompts.back().push_back(token++);
    o.ids.emplace_back(samples);
    o.old.emplace_back(samples);
    for (int i = 0; i < samples; ++i) {
      for (unsigned n = 1 + rng() % unsigned(longest); n > 0; --n) {
        o.ids.back()[size_t(i)].push_back(token++);
        o.old.back()[size_t(i)].push_back(token);
      }
    }
  }
  for (size_t g = 0; g < o.prompts.size(); ++g) {
    PackInput p{o.prompts[g], {}};
    for (size_t i = 0; i < o.ids[g].size(); ++i) p.responses.push_back({o.ids[g][i], o.old[g][i], float(g * 100 + i)});
    o.groups.push_back(std::move(p));
  }
  return o;
}

TEST(Packing, RandomGroupsKeepEveryInvariant) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 rng(seed);
    const int longest = 1 + int(rng() % 20);
    Owned o = random_groups(rng, 1 + int(rng() % 10), 1 + int(rng() % 6), longest);
    const PackLimits limits{2 * longest + int64_t(rng() % 100), 2 + int64_t(rng() % 20)};
    auto packs = pack_groups(o.groups, limits);
    std::map<int32_t, int> seen;
    int last_group = 0;
    for (MicroBatch& pg : packs) {
      const Pack& p = pg.pack;
      ASSERT_NO_THROW(check_pack(p));
      EXPECT_LE(std::ssize(p.ids), limits.tokens);
      EXPECT_LE(std::ssize(p.head_rows), limits.tokens);
      EXPECT_LE(std::ssize(p.segments), limits.segments);
      EXPECT_EQ(p.old_log_prob.size(), p.head_rows.size());
      for (const Placement& r : pg.placements) {
        EXPECT_GE(r.group, last_group);  // generation order
        last_group = r.group;
        const auto& ids = o.ids[size_t(r.group)][size_t(r.response)];
        ASSERT_EQ(r.length, std::ssize(ids));
        for (int k = 0; k < r.length; ++k) {
          const int h = r.head_row(k);
          ++seen[p.targets[h]];
          EXPECT_EQ(p.targets[h], ids[size_t(k)]);
          EXPECT_EQ(p.ids[p.head_rows[h]], k == 0 ? o.prompts[size_t(r.group)].back() : ids[size_t(k - 1)]);
          EXPECT_EQ(p.old_log_prob[h], o.old[size_t(r.group)][size_t(r.response)][size_t(k)]);
          EXPECT_EQ(p.advantage[h], float(r.group * 100 + r.response));
        }
      }
    }
    size_t tokens = 0;
    for (const auto& g : o.ids)
      for (const auto& r : g) tokens += r.size();
    EXPECT_EQ(seen.size(), tokens) << "seed " << seed;
    for (const auto& [t, n] : seen) EXPECT_EQ(n, 1) << "token " << t;
  }
}

TEST(Packing, OnePackWhereItFitsElseEven) {
  std::mt19937 rng(1);
  Owned o = random_groups(rng, 16, 8, 10);
  int64_t all = 0;
  for (const auto& g : o.groups) {
    all += g.prompt.size();
    for (const auto& r : g.responses) all += r.ids.size();
  }
  EXPECT_EQ(pack_groups(o.groups, {all, 1000}).size(), 1u);
  const auto two = pack_groups(o.groups, {all - 1, 1000});
  ASSERT_EQ(two.size(), 2u);
  const double a = two[0].pack.ids.size(), b = two[1].pack.ids.size();
  EXPECT_LT(std::abs(a - b), 0.2 * (a + b));
  EXPECT_TRUE(pack_groups({}, {10, 10}).empty());
}

TEST(Packing, GroupsShareAPackUpToTheWantedSizeAndALargerOneIsAlone) {
  const std::vector<int32_t> prompt = {1, 2, 3}, response = {4, 5, 6, 7};  // 7 tokens a group of one
  const PackInput small{prompt, {PackResponse{response, {}, 1}}};
  const PackInput large{prompt, std::vector<PackResponse>(4, PackResponse{response, {}, 1})};  // 19
  const std::vector<PackInput> groups = {small, small, large, small, small, small};
  const auto sizes = [&](PackLimits limits) {
    std::vector<size_t> groups_in;
    for (const MicroBatch& p : pack_groups(groups, limits)) {
      check_pack(p.pack);
      size_t prompts = 0;
      for (const Segment& s : p.pack.segments) prompts += s.prefix < 0;
      groups_in.push_back(prompts);
    }
    return groups_in;
  };
  EXPECT_EQ(sizes({100, 100, 14}), (std::vector<size_t>{2, 1, 2, 1}));
  EXPECT_EQ(sizes({100, 100, 0}), (std::vector<size_t>{6}));
  EXPECT_EQ(sizes({100, 100, 1000}), (std::vector<size_t>{6}));
  std::vector<size_t> tokens;  // 19 is more than twice 8: two even pieces, the prompt in both
  for (const MicroBatch& p : pack_groups(std::span(&large, 1), {100, 100, 8})) tokens.push_back(p.pack.ids.size());
  EXPECT_EQ(tokens, (std::vector<size_t>{9, 9}));
}

TEST(Packing, SplitsAGroupAndRepeatsItsPrompt) {
  const std::vector<int32_t> prompt = {1, 2, 3}, response = {4, 5, 6, 7};
  PackInput g{prompt, std::vector<PackResponse>(5, PackResponse{response, {}, 1})};
  const auto packs = pack_groups(std::span(&g, 1), {11, 100});
  ASSERT_EQ(packs.size(), 3u);
  for (const auto& p : packs) {
    EXPECT_EQ(p.pack.segments[0].length, 3);
    EXPECT_EQ(p.pack.segments[0].prefix, -1);
    EXPECT_TRUE(p.pack.old_log_prob.empty());
  }
  EXPECT_THROW(pack_groups(std::span(&g, 1), {6, 100}), Error);
}

TEST(Packing, WeightsAndPairs) {
  const std::vector<int32_t> prompt = {1, 2}, one = {3}, three = {4, 5, 6};
  PackInput g{prompt, {{one, {}, 1}, {three, {}, 1}}};
  auto packs = pack_groups(std::span(&g, 1), {100, 100});
  ASSERT_EQ(packs.size(), 1u);
  Pack& p = packs[0].pack;
  EXPECT_EQ(p.ids, (std::vector<int32_t>{1, 2, 4, 5}));
  EXPECT_EQ(p.head_rows, (std::vector<int32_t>{1, 1, 2, 3}));
  EXPECT_EQ(p.targets, (std::vector<int32_t>{3, 4, 5, 6}));
  set_weights(packs[0], std::vector<double>{0.5, 0.25});
  EXPECT_EQ(p.weight, (std::vector<float>{0.5f, 0.25f, 0.25f, 0.25f}));
  EXPECT_EQ(attention_pairs(p), 3 + 3 + 2 * 2);
  g.responses.insert(g.responses.begin(), PackResponse{{}, {}, 1});  // left out
  auto again = pack_groups(std::span(&g, 1), {100, 100});
  EXPECT_EQ(again[0].pack.ids, p.ids);
  EXPECT_EQ(again[0].placements[0].response, 1);
  g.responses.resize(1);
  EXPECT_TRUE(pack_groups(std::span(&g, 1), {100, 100}).empty());
}

TEST(Packing, RanksGetEvenShares) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 rng(seed);
    const int longest = 1 + int(rng() % 20), ranks = 1 + int(rng() % 5);
    const Owned o = random_groups(rng, 1 + int(rng() % 10), 1 + int(rng() % 6), longest);
    const PackLimits limits{2 * longest + int64_t(rng() % 100), 2 + int64_t(rng() % 20)};
    std::map<std::pair<int, int>, int> seen;
    std::vector<int64_t> load(ranks, 0);
    int64_t total = 0, all = 0, largest = 0;
    for (const PackInput& g : o.groups) {
      all += g.prompt.size();
      for (const PackResponse& r : g.responses) all += r.ids.size();
    }
    int last_rank = 0;
    for (const PackPlan& plan : plan_packs(o.groups, limits, ranks)) {
      EXPECT_GE(plan.rank, last_rank);
      last_rank = plan.rank;
      ASSERT_LT(plan.rank, ranks);
      int64_t tokens = 0;
      for (const PackPiece& p : plan.pieces) {
        tokens += p.tokens;
        largest = std::max(largest, p.tokens);
        for (int i = p.begin; i < p.end; ++i) ++seen[{p.group, i}];
        // above a rank's even share only where a response alone is, or where pieces are as long as their longest
        if (ranks > 1) {
          EXPECT_LE(p.tokens, std::max<int64_t>((all + ranks - 1) / ranks, 2 * longest));
        }
      }
      EXPECT_LE(tokens, limits.tokens);
      const MicroBatch built = build_pack(o.groups, plan);
      ASSERT_NO_THROW(check_pack(built.pack));
      load[plan.rank] += tokens, total += tokens;
    }
    for (size_t g = 0; g < o.groups.size(); ++g)
      for (size_t i = 0; i < o.groups[g].responses.size(); ++i) EXPECT_EQ((seen[{int(g), int(i)}]), 1) << seed;
    // each piece went to the rank with the least
    EXPECT_LE(*std::ranges::max_element(load), total / ranks + 1 + largest) << seed;
  }
}

TEST(Packing, APairOfAttentionHasAPrice) {
  std::mt19937 rng(3);
  Owned o = random_groups(rng, 6, 1, 1);  // responses of one token
  const std::vector<int32_t> text(100, 1);
  for (size_t g = 0; g < 6; ++g) o.groups[g].prompt = std::span(text).first(g == 0 ? 100 : 30);
  PackLimits limits{1000, 100};
  const auto rank_of_last = [&] {
    for (const PackPlan& plan : plan_packs(o.groups, limits, 2))
      for (const PackPiece& p : plan.pieces)
        if (p.group == 5) return plan.rank;
    return -1;
  };
  EXPECT_EQ(rank_of_last(), 0);  // 101 tokens against 4 x 31
  limits.pair_cost = 1;          // and 5050 pairs against 4 x 465
  EXPECT_EQ(rank_of_last(), 1);
}

}  // namespace
}  // namespace dapo
