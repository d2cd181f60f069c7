#include "data/cursor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>

#include "core/check.h"
#include "data/random.h"

namespace dapo {
namespace {

TEST(Cursor, OrderIsAPermutationAndAPureFunction) {
  for (const size_t n : {1u, 2u, 3u, 17u, 1000u}) {
    std::vector<uint32_t> order = epoch_order(7, 3, n);
    EXPECT_EQ(order, epoch_order(7, 3, n));
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < n; ++i) EXPECT_EQ(order[i], i);
  }
  EXPECT_NE(epoch_order(7, 3, 1000), epoch_order(7, 4, 1000));
  EXPECT_NE(epoch_order(7, 3, 1000), epoch_order(8, 3, 1000));
}

TEST(Cursor, OrderNeverChanges) {  // checkpoints store only (seed, epoch, offset): these rows must never change
  EXPECT_EQ(epoch_order(1, 0, 8), (std::vector<uint32_t>{1, 0, 6, 2, 3, 5, 4, 7}));
}

TEST(Cursor, PermutationsAreUniform) {  // 24 orders of 4 rows, chi-square with 23 degrees of freedom: 99.9 % below 49.7
  std::array<int, 256> count{};
  constexpr int kDraws = 24000;
  for (uint64_t epoch = 0; epoch < kDraws; ++epoch) {
    const auto o = epoch_order(5, epoch, 4);
    ++count[o[0] * 64 + o[1] * 16 + o[2] * 4 + o[3]];
  }
  double chi = 0;
  int seen = 0;
  for (const int c : count)
    if (c > 0) chi += (c - 1000.0) * (c - 1000.0) / 1000, ++seen;
  EXPECT_EQ(seen, 24);
  EXPECT_LT(chi, 49.7);
}

TEST(Cursor, NoRowTwiceWithinAnEpochAndExactAtItsEdge) {
  for (const size_t n : {1u, 2u, 7u, 100u}) {
    Cursor cursor(11, n);
    for (uint64_t epoch = 0; epoch < 4; ++epoch) {
      EXPECT_EQ(cursor.state(), (CursorState{epoch, 0}));
      std::set<size_t> rows;
      for (size_t i = 0; i < n; ++i) rows.insert(cursor.next());
      EXPECT_EQ(rows.size(), n);
    }
  }
}

TEST(Cursor, RestoringEqualsIterating) {
  constexpr size_t n = 13;
  Cursor walked(3, n);
  for (size_t i = 0; i < 3 * n + 2; ++i) {
    Cursor restored(3, n);
    restored.restore(walked.state());
    Cursor copy = walked;
    for (size_t j = 0; j < 2 * n; ++j) ASSERT_EQ(restored.next(), copy.next()) << i << " " << j;
    walked.next();
  }
  Cursor other(3, n);
  EXPECT_THROW(other.restore({0, n}), Error);
  EXPECT_THROW(Cursor(3, 0), Error);
}

TEST(Cursor, WithoutShuffleRowsComeInOrder) {
  Cursor cursor(3, 5, false);
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(cursor.next(), i % 5);
  EXPECT_EQ(cursor.state(), (CursorState{2, 2}));
}

TEST(Random, BelowIsUnbiasedAndInRange) {
  Rng rng(1, 2), same(1, 2), other(1, 3);
  EXPECT_EQ(rng.bits(), same.bits());
  EXPECT_NE(rng.bits(), other.bits());
  std::array<int, 7> count{};
  for (int i = 0; i < 70000; ++i) ++count[rng.below(7)];
  for (const int c : count) EXPECT_NEAR(c, 10000, 5 * std::sqrt(10000.0));
  const uint64_t large = uint64_t{3} << 62;  // three quarters of the range: a quarter of the draws is rejected
  int low = 0;
  for (int i = 0; i < 30000; ++i) {
    const uint64_t v = rng.below(large);
    EXPECT_LT(v, large);
    low += v < large / 3;
  }
  EXPECT_NEAR(low, 10000, 500);
  for (int i = 0; i < 1000; ++i) {
    const int v = rng.between(-2, 3);
    EXPECT_TRUE(v >= -2 && v <= 3);
    const double r = rng.real();
    EXPECT_TRUE(r >= 0 && r < 1);
  }
}

}  // namespace
}  // namespace dapo
