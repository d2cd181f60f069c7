// Fragment layouts against the tables of the PTX manual, written out here; deferral of cp.async.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "sim.h"
#include "tests/sim/device_array.h"

using namespace dapo;

namespace {

constexpr int kLanes = 32;

// "Matrix fragments for mma.m16n8k16 with floating point type", element by element:
//   A: row = groupID for a0 a1 a4 a5, groupID + 8 for a2 a3 a6 a7; col = 2 threadID + (i & 1), + 8 for i >= 4
//   B: row = 2 threadID + (i & 1), + 8 for i >= 2; col = groupID
//   C: row = groupID for c0 c1, groupID + 8 for c2 c3; col = 2 threadID + (i & 1)
// Lanes 0, 5 and 31 spelled out from the manual's figures, to hold the formulas themselves.
struct At {
  int row, col;
};
At a16(int lane, int i) {
  static const int rows[8] = {0, 0, 8, 8, 0, 0, 8, 8}, cols[8] = {0, 1, 0, 1, 8, 9, 8, 9};
  return {lane / 4 + rows[i], lane % 4 * 2 + cols[i]};
}
At b16(int lane, int i) {
  static const int rows[4] = {0, 1, 8, 9};
  return {lane % 4 * 2 + rows[i], lane / 4};
}
At c16(int lane, int i) {
  static const int rows[4] = {0, 0, 8, 8}, cols[4] = {0, 1, 0, 1};
  return {lane / 4 + rows[i], lane % 4 * 2 + cols[i]};
}

__global__ void mma_kernel(float* d, const std::uint32_t* a, const std::uint32_t* b, const float* c, int tf32) {
  const int l = threadIdx.x;
  std::uint32_t ra[4], rb[2];
  float rc[4];
  for (int i = 0; i < 4; ++i) ra[i] = a[l * 4 + i], rc[i] = c[l * 4 + i];
  for (int i = 0; i < 2; ++i) rb[i] = b[l * 2 + i];
  if (tf32)
    mma_m16n8k8_tf32(rc, ra, rb, rc);
  else
    mma_m16n8k16(rc, ra, rb, rc);
  for (int i = 0; i < 4; ++i) d[l * 4 + i] = rc[i];
}

TEST(Ptx, TheManualsFiguresForSomeLanes) {
  EXPECT_EQ(a16(0, 0).row, 0);
  EXPECT_EQ(a16(0, 0).col, 0);
  EXPECT_EQ(a16(5, 2).row, 9);
  EXPECT_EQ(a16(5, 2).col, 2);
  EXPECT_EQ(a16(31, 7).row, 15);
  EXPECT_EQ(a16(31, 7).col, 15);
  EXPECT_EQ(b16(5, 3).row, 11);
  EXPECT_EQ(b16(5, 3).col, 1);
  EXPECT_EQ(c16(31, 3).row, 15);
  EXPECT_EQ(c16(31, 3).col, 7);
}

TEST(Ptx, MmaBf16EqualsTheTables) {
  // Small integers: every sum is exact. Distinct rows and columns, so that a swapped element shows.
  const auto A = [](int r, int k) { return float(r * 3 - k + (r * k) % 5); };
  const auto B = [](int k, int n) { return float(2 * n - k + (n * k) % 3); };
  std::vector<std::uint32_t> a(kLanes * 4), b(kLanes * 2);
  std::vector<float> c(kLanes * 4);
  const auto half = [](float f) { return static_cast<std::uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(f))); };
  for (int l = 0; l < kLanes; ++l) {
    for (int i = 0; i < 8; ++i) a[std::size_t(l * 4 + i / 2)] |= half(A(a16(l, i).row, a16(l, i).col)) << 16 * (i % 2);
    for (int i = 0; i < 4; ++i) b[std::size_t(l * 2 + i / 2)] |= half(B(b16(l, i).row, b16(l, i).col)) << 16 * (i % 2);
    for (int i = 0; i < 4; ++i) c[std::size_t(l * 4 + i)] = float(100 * c16(l, i).row + c16(l, i).col);
  }
  DeviceArray<std::uint32_t> da(a), db(b);
  DeviceArray<float> dc(c), dd(kLanes * 4);
  launch(mma_kernel, {dim3(1), dim3(32)}, dd.data(), da.data(), db.data(), dc.data(), 0);
  const auto d = dd.host();
  for (int l = 0; l < kLanes; ++l)
    for (int i = 0; i < 4; ++i) {
      const auto [r, n] = c16(l, i);
      float expected = float(100 * r + n);
      for (int k = 0; k < 16; ++k) expected += A(r, k) * B(k, n);
      ASSERT_EQ(d[std::size_t(l * 4 + i)], expected) << "lane " << l << " register " << i;
    }
}

TEST(Ptx, MmaTf32EqualsTheTables) {
  // m16n8k8 tf32: a0 (g, t), a1 (g + 8, t), a2 (g, t + 4), a3 (g + 8, t + 4); b0 (t, g), b1 (t + 4, g).
  const auto A = [](int r, int k) { return float(r - 2 * k + (r * k) % 7); };
  const auto B = [](int k, int n) { return float(3 * n + k - (n * k) % 4); };
  std::vector<std::uint32_t> a(kLanes * 4), b(kLanes * 2);
  std::vector<float> c(kLanes * 4, 0.5f);
  for (int l = 0; l < kLanes; ++l) {
    const int g = l / 4, t = l % 4;
    const At pa[4] = {{g, t}, {g + 8, t}, {g, t + 4}, {g + 8, t + 4}};
    for (int i = 0; i < 4; ++i)
      a[std::size_t(l * 4 + i)] = __float_as_uint(A(pa[i].row, pa[i].col)) | 0x1fffu;  // ignored bits
    for (int i = 0; i < 2; ++i) b[std::size_t(l * 2 + i)] = __float_as_uint(B(t + 4 * i, g));
  }
  DeviceArray<std::uint32_t> da(a), db(b);
  DeviceArray<float> dc(c), dd(kLanes * 4);
  launch(mma_kernel, {dim3(1), dim3(32)}, dd.data(), da.data(), db.data(), dc.data(), 1);
  const auto d = dd.host();
  for (int l = 0; l < kLanes; ++l)
    for (int i = 0; i < 4; ++i) {
      const auto [r, n] = c16(l, i);
      float expected = 0.5f;
      for (int k = 0; k < 8; ++k) expected += A(r, k) * B(k, n);
      ASSERT_EQ(d[std::size_t(l * 4 + i)], expected) << "lane " << l << " register " << i;
    }
}

// ldmatrix: lane l receives, of each matrix, row l / 4, elements 2 (l % 4) and the next; rows come from the addresses
// of lanes 0-7 for the first matrix, 8-15 for the second, and so on.
__global__ void ldmatrix_kernel(std::uint32_t* out, int count, int trans) {
  auto* s = dynamic_smem<unsigned short>();
  for (unsigned i = threadIdx.x; i < 256; i += 32) s[i] = static_cast<unsigned short>(i);
  __syncthreads();
  std::uint32_t r1[1] = {}, r2[2] = {}, r4[4] = {};
  const auto* row = s + threadIdx.x * 8;  // matrix l / 8, row l % 8
  if (count == 1) trans ? ldmatrix_x1_trans(r1, row) : ldmatrix_x1(r1, row);
  if (count == 2) trans ? ldmatrix_x2_trans(r2, row) : ldmatrix_x2(r2, row);
  if (count == 4) trans ? ldmatrix_x4_trans(r4, row) : ldmatrix_x4(r4, row);
  for (int j = 0; j < count; ++j) out[threadIdx.x * 4 + j] = count == 1 ? r1[j] : count == 2 ? r2[j] : r4[j];
}

TEST(Ptx, LdmatrixEqualsTheTables) {
  for (int count : {1, 2, 4})
    for (int trans : {0, 1}) {
      DeviceArray<std::uint32_t> out(128, 0u);
      launch(ldmatrix_kernel, {dim3(1), dim3(32), 512}, out.data(), count, trans);
      const auto v = out.host();
      for (unsigned l = 0; l < 32; ++l)
        for (unsigned j = 0; j < static_cast<unsigned>(count); ++j)
          for (unsigned e = 0; e < 2; ++e) {
            const unsigned i = l / 4, k = l % 4 * 2 + e;
            const unsigned expected = j * 64 + (trans ? k * 8 + i : i * 8 + k);
            ASSERT_EQ(v[l * 4 + j] >> 16 * e & 0xffff, expected)
                << "x" << count << (trans ? ".trans" : "") << " lane " << l;
          }
    }
}

__global__ void rows_128_apart(int* out, int swizzle) {
  auto* s = dynamic_smem<char>();
  for (unsigned i = threadIdx.x; i < 1024; i += 32) reinterpret_cast<int*>(s)[i] = 0;
  __syncthreads();
  const unsigned r = threadIdx.x;
  std::uint32_t v[4];
  ldmatrix_x4(v, s + r * 128 + (swizzle ? r % 8 * 16 : 0));
  out[r] = static_cast<int>(v[0]);
}
TEST(Ptx, LdmatrixBankConflictsAreCounted) {
  DeviceArray<int> out(32);
  sim::reset_stats();
  launch(rows_128_apart, {dim3(1), dim3(32), 4096}, out.data(), 0);
  EXPECT_EQ(sim::stats().ldmatrix_phases, 4);
  EXPECT_EQ(sim::stats().ldmatrix_conflicts, 28);
  sim::reset_stats();
  launch(rows_128_apart, {dim3(1), dim3(32), 4096}, out.data(), 1);
  EXPECT_EQ(sim::stats().ldmatrix_conflicts, 0);
}

__global__ void deferred(float* out, const float* in) {
  auto* s = dynamic_smem<float>();
  for (int i = 0; i < 12; ++i) s[i] = 7.0f;
  cp_async_16(s, in);
  cp_async_commit();
  cp_async_16(s + 4, in + 4, 8);
  cp_async_commit();
  cp_async_16(s + 8, in, 0);
  cp_async_wait<1>();  // the first group, neither the second nor what is uncommitted
  for (int i = 0; i < 4; ++i) out[i] = s[i];
#ifdef __SANITIZE_THREAD__
  for (int i = 4; i < 12; ++i) out[i] = __uint_as_float(0xffffffffu);  // reading it there is a fault
#else
  for (int i = 4; i < 12; ++i) out[i] = s[i];
#endif
  cp_async_wait<0>();
  for (int i = 4; i < 8; ++i) out[8 + i] = s[i];
  cp_async_wait_all();
  for (int i = 8; i < 12; ++i) out[8 + i] = s[i];
}
TEST(Ptx, CpAsyncArrivesWhenWaitedFor) {
  DeviceArray<float> in(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}), out(20);
  launch(deferred, {dim3(1), dim3(1), 48}, out.data(), in.data());
  const auto v = out.host();
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(v[i], float(i + 1));
  for (std::size_t i = 4; i < 12; ++i) EXPECT_TRUE(std::isnan(v[i])) << i;
  const float rest[8] = {5, 6, 0, 0, 0, 0, 0, 0};
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(v[12 + i], rest[i]) << i;
}

TEST(Ptx, Bf16RoundsToNearestEven) {
  const auto bits = [](float f) { return __bfloat16_as_ushort(__float2bfloat16_rn(f)); };
  EXPECT_EQ(bits(1.0f), 0x3f80);
  EXPECT_EQ(bits(__uint_as_float(0x3f808000u)), 0x3f80);  // half way, to even
  EXPECT_EQ(bits(__uint_as_float(0x3f818000u)), 0x3f82);
  EXPECT_EQ(bits(__uint_as_float(0x3f808001u)), 0x3f81);
  EXPECT_EQ(bits(__uint_as_float(0x7f7fffffu)), 0x7f80);  // overflows to infinity
  EXPECT_EQ(bits(-INFINITY), 0xff80);
  EXPECT_EQ(bits(NAN), 0x7fff);
  EXPECT_EQ(__bfloat1622float2(__floats2bfloat162_rn(1.5f, -2.0f)).y, -2.0f);
}

}  // namespace
