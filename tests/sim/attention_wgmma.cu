// Attention's two forward kernels, with the card's sums and without: the same bits, whatever the order of threads.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "cuda/attention_forward.cuh"
#include "sim.h"
#include "tests/sim/device_array.h"

using namespace dapo;
using namespace dapo::cuda;

namespace {

/// Values of a few exponents, so that truncation shows.
std::vector<std::uint16_t> values(std::size_t n) {
  std::vector<std::uint16_t> v(n);
  std::uint32_t seed = 7;
  for (auto& x : v) {
    seed = seed * 1664525 + 1013904223;
    x = static_cast<std::uint16_t>((seed >> 31) << 15 | (122 + (seed >> 20) % 8) << 7 | (seed >> 8 & 127));
  }
  return v;
}

/// A prompt, an answer that sees it, and a sequence of their own length, of `heads` query heads of one KV head.
template <int D>
void expect_equal_bits(int heads, int prompt, int answer) {
  const int rows = 2 * prompt + answer, width = (heads + 2) * D;
  SCOPED_TRACE(testing::Message() << heads << " heads of " << D << ", prompt " << prompt << ", answer " << answer);
  const std::vector<std::int32_t> segments{0, prompt, -1, prompt, answer, 0, prompt + answer, prompt, -1};
  DeviceArray<std::uint16_t> qkv(values(static_cast<std::size_t>(rows * width)));
  DeviceArray<std::int32_t> list(segments);
  const auto run = [&](bool wgmma) {
    const auto n = static_cast<std::size_t>(rows * heads);
    DeviceArray<std::uint16_t> out(n * D);
    DeviceArray<float> lse(n);
    auto* in = reinterpret_cast<const bf16*>(qkv.data());
    const PackKeys<bf16> keys{in, list.data(), width, heads, 1};
    ForwardArgs args{};
    args.width = width;
    args.heads = args.group = heads;
    args.kv_heads = 1;
    args.max_rows = std::max(prompt, answer);
    args.sequences = 3;
    args.wgmma = wgmma;
    launch_forward<D, 4>(reinterpret_cast<bf16*>(out.data()), lse.data(), in, keys, args);
    return std::pair(out.host(), lse.host());
  };
  const auto expected = run(false);
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    sim::set_seed(seed);
    const auto got = run(true);
    ASSERT_EQ(got.first, expected.first) << "seed " << seed;
    ASSERT_EQ(got.second, expected.second) << "seed " << seed;
  }
}

TEST(WgmmaAttention, HasTheBitsOfMmaSyncOnTheCardToo) {
  for (const bool exact : {false, true}) {
    sim::set_exact_sums(exact);
    expect_equal_bits<64>(3, 70, 65);
    expect_equal_bits<128>(2, 70, 65);
  }
  sim::set_exact_sums(false);
}

/// More tiles than the ring has slots, and a prefix that ends inside a split.
TEST(WgmmaAttention, TheRingGoesRound) {
  expect_equal_bits<64>(1, 550, 60);
  expect_equal_bits<128>(1, 550, 60);
}

}  // namespace
