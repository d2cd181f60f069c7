// Philox, bfloat16, split masters, checked sizes, arenas.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/arena.h"
#include "core/checked.h"
#include "core/dtype.h"
#include "core/philox.h"

namespace dapo {
namespace {

TEST(Philox, KnownAnswers) {  // kat_vectors of Random123 (philox 4x32 10)
  struct Case {
    Philox4 counter;
    uint64_t key;
    Philox4 answer;
  };
  const Case cases[] = {
      {{{0, 0, 0, 0}}, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{~0u, ~0u, ~0u, ~0u}}, ~uint64_t{0}, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       0x299f31d0a4093822,
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
  };
  for (const Case& c : cases) {
    const Philox4 x = philox(c.key, c.counter);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(x.x[i], c.answer.x[i]);
  }
}

TEST(Philox, UniformStaysBelowOne) {
  EXPECT_EQ(uniform(0), 0.0f);
  EXPECT_LT(uniform(~0u), 1.0f);
  EXPECT_NE(draw(1, {0, 0, 0}, 5), draw(1, {0, 0, 1}, 5));
  EXPECT_NE(draw(1, {0, 0, 0}, 5), draw(2, {0, 0, 0}, 5));
}

TEST(BFloat16, RoundsToNearestEven) {
  const std::pair<uint32_t, uint16_t> cases[] = {
      {0x3f800000, 0x3f80}, {0x3f807fff, 0x3f80}, {0x3f808000, 0x3f80},  // a tie, to even
      {0x3f808001, 0x3f81}, {0x3f818000, 0x3f82},                        // a tie, to even
      {0x7f7fffff, 0x7f80},                                              // the largest float rounds to infinity
      {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x80000000, 0x8000}, {0x00008000, 0x0000}, {0x00018000, 0x0002},
  };
  for (auto [from, to] : cases) EXPECT_EQ(to_bf16(bits_float(from)).bits, to) << std::hex << from;
  EXPECT_TRUE(std::isnan(to_float(to_bf16(bits_float(0x7f800001)))));  // a payload in the low half stays NaN
}

TEST(BFloat16, EveryValueRoundTrips) {
  for (uint32_t b = 0; b < 0x10000; ++b) {
    const float x = to_float(bf16{static_cast<uint16_t>(b)});
    if (!std::isnan(x)) {
      ASSERT_EQ(to_bf16(x).bits, b);
    }
  }
}

TEST(SplitMaster, ExactForEveryFiniteFloat) {
  // Every upper half with every kind of lower half: the remainder sees only the lower 16 bits and the carry.
  for (uint32_t high = 0; high < 0x10000; ++high)
    for (uint32_t low = 0; low < 0x10000; low += (low == 0x7ffe || low == 0x7fff || low == 0x8000) ? 1 : 257) {
      const uint32_t u = high << 16 | low;
      if ((u & 0x7f800000) == 0x7f800000) continue;
      const SplitMaster s = split_master(bits_float(u));
      ASSERT_EQ(float_bits(join_master(s.weight, s.remainder)), u);
    }
}

TEST(SplitMaster, AllLowerHalvesAndTies) {
  for (uint32_t low = 0; low < 0x10000; ++low) {
    const uint32_t u = 0x3f800000u | low;
    const SplitMaster s = split_master(bits_float(u));
    ASSERT_EQ(float_bits(join_master(s.weight, s.remainder)), u);
    if (low != 0x8000) {
      ASSERT_EQ(s.weight.bits, to_bf16(bits_float(u)).bits) << low;
    }
  }
  EXPECT_EQ(split_master(bits_float(0x3f808000)).weight.bits, 0x3f81);  // halves go up
  EXPECT_EQ(split_master(bits_float(0x3f808000)).remainder, INT16_MIN);
}

TEST(Checked, OverflowIsBadInput) {
  EXPECT_EQ(checked_add(2, 3, "x"), 5u);
  EXPECT_EQ(checked_mul(1u << 31, 1u << 31, "x"), uint64_t{1} << 62);
  EXPECT_EQ(checked_cast<int32_t>(uint64_t{7}, "x"), 7);
  const auto code = [](auto f) {
    try {
      f();
    } catch (const Error& e) {
      return e.code();
    }
    return 0;
  };
  EXPECT_EQ(code([] { checked_add(~uint64_t{0}, 1, "x"); }), kExitUsage);
  EXPECT_EQ(code([] { checked_mul(uint64_t{1} << 33, uint64_t{1} << 31, "x"); }), kExitUsage);
  EXPECT_EQ(code([] { checked_cast<int32_t>(uint64_t{1} << 31, "x"); }), kExitUsage);
  EXPECT_EQ(code([] { checked_cast<uint32_t>(-1, "x"); }), kExitUsage);
}

TEST(Arena, LaysOutAlignedAndGivesBack) {
  alignas(256) static char memory[4096];
  Arena arena("test", memory, sizeof memory);
  const Tensor a = arena.take("a", DType::f32, {3});
  const Tensor b = arena.take("b", DType::bf16, {5, 7});
  EXPECT_EQ(a.data, memory);
  EXPECT_EQ(b.data, memory + 256);
  {
    const ArenaScope scope(arena);
    EXPECT_EQ(arena.take("c", DType::u8, {300}).data, memory + 512);
    EXPECT_EQ(arena.used(), 1024u);
  }
  EXPECT_EQ(arena.used(), 512u);
  EXPECT_EQ(arena.peak(), 1024u);
  EXPECT_EQ(arena.take("d", DType::u8, {3584}).data, memory + 512);
  try {
    arena.take("e", DType::u8, {1});
    FAIL() << "a full arena gave memory";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), kExitResources);
    EXPECT_NE(std::string(e.what()).find("e needs 256 bytes"), std::string::npos) << e.what();
  }
}

TEST(Arena, AMeasuringArenaCountsTheSame) {
  std::vector<char> memory(1 << 16);
  Arena real("real", memory.data(), memory.size()), plan("plan");
  const auto lay = [](Arena& a) {
    a.take("x", DType::f32, {100});
    const ArenaScope scope(a);
    a.take("y", DType::f64, {77, 3});
    a.take("x", DType::f32, {200});
  };
  lay(real);
  lay(plan);
  EXPECT_TRUE(plan.measuring());
  EXPECT_EQ(real.peak(), plan.peak());
  EXPECT_EQ(real.used(), plan.used());
  ASSERT_EQ(plan.holdings().size(), 2u);
  EXPECT_EQ(plan.holdings()[0].bytes, 1536u);  // two of that name at once
}

TEST(Tensor, ViewsSayWhatTheyAre) {
  float memory[24] = {};
  const Tensor t(memory, DType::f32, {4, 6});
  EXPECT_EQ(t.rows(1, 2).data, memory + 6);
  EXPECT_EQ(t.view({2, 12}).describe(), "f32[2, 12]");
  EXPECT_THROW(t.rows(3, 2), Error);
  EXPECT_THROW(t.view({5, 5}), Error);
  EXPECT_THROW(t.as<bf16>(), Error);
  EXPECT_THROW(expect("op", "x", t, DType::f32, {4, 7}), Error);
  EXPECT_NO_THROW(expect("op", "x", t, DType::f32, {4, 6}));
}

}  // namespace
}  // namespace dapo
