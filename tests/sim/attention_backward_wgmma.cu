// Attention's backward kernels by wgmma and by mma.sync, with the card's sums and without: the same bits, whatever the
// order of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "cuda/attention_backward_launch.cuh"
#include "cuda/attention_shape.h"
#include "sim.h"
#include "tests/sim/bf16_values.h"
#include "tests/sim/device_array.h"

using namespace dapo;
using namespace dapo::cuda;

namespace {

struct Shape {
  int group, kv_heads;
  std::vector<Segment> segments;
  int part_steps = 0;  ///< 0: as cut_into_parts does
};

Shape shape(int group, int kv_heads, const std::vector<std::pair<int, int>>& length_prefix, int part_steps = 0) {
  Shape s{group, kv_heads, {}, part_steps};
  int begin = 0;
  for (const auto& [length, prefix] : length_prefix) {
    s.segments.push_back({begin, length, prefix});
    begin += length;
  }
  return s;
}

template <int D>
void expect_equal_bits(const Shape& s, int seeds = 1) {
  const int heads = s.group * s.kv_heads, width = (heads + 2 * s.kv_heads) * D;
  const int rows = s.segments.back().begin + s.segments.back().length;
  SCOPED_TRACE(testing::Message() << heads << " heads of " << D << ", " << s.kv_heads << " KV heads, " << rows
                                  << " rows in " << s.segments.size() << " segments");
  int longest = 0;
  std::vector<std::int32_t> flat;
  for (const Segment& g : s.segments) {
    flat.insert(flat.end(), {g.begin, g.length, g.prefix});
    longest = std::max(longest, g.length);
  }
  const auto n = static_cast<std::size_t>(rows);
  DeviceArray<std::uint16_t> qkv(bf16_values(n * width, 7)), dout(bf16_values(n * heads * D, 8));
  DeviceArray<std::int32_t> list(flat);
  std::vector<float> of_row(n * heads), other(n * heads);
  for (std::size_t i = 0; i < of_row.size(); ++i)
    of_row[i] = 3.0f + static_cast<float>(i % 13) * 0.37f, other[i] = std::sin(static_cast<float>(i));
  DeviceArray<float> lse(of_row), delta(other);
  const auto run = [&](bool wgmma) {
    DeviceArray<std::uint16_t> dqkv(n * width, std::uint16_t{0x7fff});
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    BackwardArgs args{.dqkv = reinterpret_cast<bf16*>(dqkv.data()),
                      .dout = reinterpret_cast<const bf16*>(dout.data()),
                      .delta = delta.data(),
                      .lse = lse.data(),
                      .keys = {reinterpret_cast<const bf16*>(qkv.data()), list.data(), width, heads, s.kv_heads},
                      .group = Divisor(s.group),
                      .segments = static_cast<int>(s.segments.size()),
                      .scale = scale,
                      .scale_log2 = scale * kLog2e,
                      .part_steps = 0,
                      .most_parts = 1,
                      .parts = nullptr,
                      .rows = rows};
    cut_into_parts<D>(args, s.segments);
    if (s.part_steps > 0) {
      args.most_parts = ceil_div(args.most_parts * args.part_steps, s.part_steps);
      args.part_steps = s.part_steps;
    }
    DeviceArray<float> parts(static_cast<std::size_t>(args.most_parts) * n * s.kv_heads * 2 * D);
    args.parts = parts.data();
    launch_backward<D>(args, longest, wgmma, nullptr);
    return dqkv.host();
  };
  const auto expected = run(false);
  for (const std::uint16_t x : expected) ASSERT_NE(x, 0x7fff) << "something is not written";
  for (int seed = 1; seed <= seeds; ++seed) {
    sim::set_seed(static_cast<std::uint64_t>(seed));
    const auto got = run(true);
    std::size_t different = 0, where = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      if (got[i] != expected[i] && different++ == 0) where = i;
    ASSERT_EQ(different, 0u) << "first: row " << where / width << ", column " << where % width << " of " << width
                             << ", seed " << seed;
  }
}

template <int D>
void expect_equal_bits_of_small_shapes(int seeds) {
  expect_equal_bits<D>(shape(3, 1, {{70, -1}, {65, 0}, {1, -1}}), seeds);
}

TEST(WgmmaAttentionBackward, HasTheBitsOfMmaSyncOnTheCardToo) {
  for (const bool exact : {false, true}) {
    sim::set_exact_sums(exact);
    expect_equal_bits_of_small_shapes<64>(2);
    expect_equal_bits_of_small_shapes<128>(2);
  }
  sim::set_exact_sums(false);
}

/// Lengths around a tile of keys, a block of keys and a block of rows; one, two and seven query heads a KV head.
TEST(WgmmaAttentionBackward, LengthsAroundTilesAndGroupsOfHeads) {
  const auto check = [](const Shape& s) {
    expect_equal_bits<64>(s);
    expect_equal_bits<128>(s);
  };
  check(shape(1, 2, {{1, -1}, {63, -1}, {64, 1}, {65, 1}, {128, -1}, {129, 4}, {127, 4}, {193, 0}}));
  check(shape(2, 1, {{31, -1}, {33, 0}, {140, -1}, {16, 2}}));
  check(shape(7, 2, {{55, -1}, {10, 0}, {65, 0}, {1, -1}}));
}

/// More tiles than the ring has slots, for either warpgroup alone too.
TEST(WgmmaAttentionBackward, TheRingGoesRound) {
  expect_equal_bits<64>(shape(1, 1, {{600, -1}, {70, 0}}), 2);
  expect_equal_bits<128>(shape(1, 1, {{350, -1}, {70, 0}}), 2);
}

/// A prompt and the 16 responses that see it.
TEST(WgmmaAttentionBackward, AGroupOfResponses) {
  std::vector<std::pair<int, int>> group{{75, -1}};
  for (int i = 0; i < 16; ++i) group.push_back({5 + 3 * i, 0});
  expect_equal_bits<64>(shape(2, 1, group));
  expect_equal_bits<128>(shape(2, 1, group));
}

/// Parts that end inside a tile of 64 rows (an odd number of steps at D = 128), inside a segment and at its end; the
/// second warpgroup's keys are in fewer parts, or in one where the first's are in two.
TEST(WgmmaAttentionBackward, Parts) {
  const std::vector<std::pair<int, int>> pack{{150, -1}, {40, 0}, {33, 0}, {100, -1}, {20, 3}};
  for (const int part_steps : {1, 3, 8}) {
    expect_equal_bits<64>(shape(3, 1, pack, part_steps));
    expect_equal_bits<128>(shape(3, 1, pack, part_steps));
  }
}

}  // namespace
