// Sums of products of bf16 against the bits of an H100: ordinary and wide exponents, cancellation, specials.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "cuda/ptx.cuh"
#include "cuda/wgmma.cuh"
#include "sim.h"
#include "sim/tensor_core.h"
#include "tests/sim/device_array.h"
#include "tests/sim/vectors.h"

using namespace dapo;

namespace {

struct ExactSums {
  ExactSums() { sim::set_exact_sums(true); }
  ~ExactSums() { sim::set_exact_sums(false); }
};

/// Eight dot products a warp: dot i is row i of A and column i of B; the diagonal of D holds it.
__global__ void mma_kernel(float* out, const std::uint32_t* a, const std::uint32_t* b, const float* c) {
  const unsigned g = threadIdx.x / 4, t = threadIdx.x % 4, dot = blockIdx.x * 8 + g;
  const auto at = [&](const std::uint32_t* p, unsigned half) { return p[dot * 8 + t + half * 4]; };
  const std::uint32_t fa[4] = {at(a, 0), at(a, 0), at(a, 1), at(a, 1)}, fb[2] = {at(b, 0), at(b, 1)};
  float d[4] = {};
  if (g / 2 == t) d[g % 2] = c[dot];
  mma_m16n8k16(d, fa, fb, d);
  if (g / 2 == t) out[dot] = d[g % 2];
}

/// 64 a warpgroup; A and B unswizzled.
__global__ void wgmma_kernel(float* out, const std::uint32_t* a, const std::uint32_t* b, const float* c) {
  auto* smem = dynamic_smem<char>();
  const unsigned t = threadIdx.x, first = blockIdx.x * 64;
  for (unsigned i = t; i < 512; i += 128) {
    const unsigned row = i / 8, k = i % 8, o = row % 8 * 16 + row / 8 * 128 + k / 4 * 1024 + k % 4 * 4;
    *reinterpret_cast<std::uint32_t*>(smem + o) = a[(first + row) * 8 + k];
    *reinterpret_cast<std::uint32_t*>(smem + 2048 + o) = b[(first + row) * 8 + k];
  }
  fence_proxy_async();
  __syncthreads();
  const auto row = [t](unsigned r) { return t / 32 * 16 + t % 32 / 4 + r / 2 % 2 * 8; };
  const auto column = [t](unsigned r) { return r / 4 * 8 + t % 4 * 2 + r % 2; };
  float d[32];
  for (unsigned r = 0; r < 32; ++r) d[r] = row(r) == column(r) ? c[first + row(r)] : 0.0f;
  wgmma_fence();
  Wgmma<64>::shared(d, wgmma_descriptor(smem, 1024, 128, Swizzle::none),
                    wgmma_descriptor(smem + 2048, 1024, 128, Swizzle::none), 1);
  wgmma_commit();
  wgmma_wait<0>();
  for (unsigned r = 0; r < 32; ++r)
    if (row(r) == column(r)) out[first + row(r)] = d[r];
}

std::vector<std::uint32_t> pairs(const Record& r) {
  std::vector<std::uint32_t> v(r.values.size() / 2);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = r.word(i * 2) | r.word(i * 2 + 1) << 16;
  return v;
}
float wide(std::uint64_t bf16) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bf16) << 16);
}

class TensorCore : public testing::TestWithParam<const char*> {};
TEST_P(TensorCore, SumsHaveTheCardsBits) {
  const Vectors v = vectors(GetParam());
  ASSERT_FALSE(v.empty()) << GetParam();
  const ExactSums exact;
  const Record &a = v.at("a"), &b = v.at("b"), &c = v.at("c");
  const std::size_t n = c.values.size();
  std::vector<float> sums(n);
  for (std::size_t i = 0; i < n; ++i) sums[i] = std::bit_cast<float>(c.word(i));
  DeviceArray<std::uint32_t> da(pairs(a)), db(pairs(b));
  DeviceArray<float> dc(sums), out(n);
  const auto expect = [&](const char* record) {
    const auto got = out.host();
    for (std::size_t i = 0; i < n; ++i)
      ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), v.at(record).word(i)) << record << ", dot " << i;
  };
  launch(mma_kernel, {dim3(static_cast<unsigned>(n / 8)), dim3(32)}, out.data(), da.data(), db.data(), dc.data());
  expect("mma_k16");
  launch(wgmma_kernel, {dim3(static_cast<unsigned>(n / 64)), dim3(128), 4096}, out.data(), da.data(), db.data(),
         dc.data());
  expect("wgmma");
  for (std::size_t i = 0; i < n; ++i) {  // m16n8k8, twice
    float x[16], y[16], d = sums[i];
    for (std::size_t k = 0; k < 16; ++k) x[k] = wide(a.values[i * 16 + k]), y[k] = wide(b.values[i * 16 + k]);
    sim::multiply_bf16(x, y, &d, 1, 1, 8);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(d), v.at("mma_k8_first").word(i)) << "dot " << i;
    sim::multiply_bf16(x + 8, y + 8, &d, 1, 1, 8);
    ASSERT_EQ(std::bit_cast<std::uint32_t>(d), v.at("mma_k8_both").word(i)) << "dot " << i;
  }
}
INSTANTIATE_TEST_SUITE_P(Cases, TensorCore,
                         testing::Values("num_normal", "num_wide", "num_acc", "num_special", "num_struct"),
                         [](const auto& p) { return std::string(p.param); });

TEST(TensorCore, SumsAreFp32FmaInOrderOfKUnlessSelected) {
  // 2^24 + 1 - 2^24: fma loses the 1, the card keeps it.
  const float x[3] = {0x1p12f, 1, -0x1p12f}, y[3] = {0x1p12f, 1, 0x1p12f};
  float d = 0;
  sim::multiply_bf16(x, y, &d, 1, 1, 3);
  EXPECT_EQ(d, 0.0f);
  const ExactSums exact;
  d = 0;
  sim::multiply_bf16(x, y, &d, 1, 1, 3);
  EXPECT_EQ(d, 1.0f);
}

}  // namespace
