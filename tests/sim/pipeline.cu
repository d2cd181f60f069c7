// mbarriers, stmatrix, elect and a whole product against what an H100 did.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <sstream>

#include "cuda/ptx.cuh"
#include "cuda/wgmma.cuh"
#include "sim.h"
#include "tests/sim/device_array.h"
#include "tests/sim/tensor_maps.h"
#include "tests/sim/vectors.h"

using namespace dapo;

namespace {

int slot_value(std::size_t i) {
  return static_cast<int>((i * 37 + 11) % 61) - 30;
}
std::uint32_t bf16_bits(int v) {
  return std::bit_cast<std::uint32_t>(static_cast<float>(v)) >> 16;
}

// ---- mbarriers

struct Script {
  struct {
    int op;
    unsigned x;
  } step[24];
  int steps;
};
enum { kInit, kArrive, kArriveCount, kArriveExpect, kExpect, kComplete, kInval, kOther };

__global__ void script_kernel(int* out, Script s) {
  auto* barrier = dynamic_smem<std::uint64_t>();
  if (threadIdx.x) return;
  for (int i = 0; i < s.steps; ++i) {
    const unsigned x = s.step[i].x;
    switch (s.step[i].op) {
      case kInit:
        mbarrier_init(barrier, x);
        mbarrier_init_fence();
        break;
      case kArrive:
        mbarrier_arrive(barrier);
        break;
      case kArriveCount:
        mbarrier_arrive(barrier, x);
        break;
      case kArriveExpect:
        mbarrier_arrive_expect(barrier, x);
        break;
      case kExpect:
        mbarrier_expect(barrier, x);
        break;
      case kComplete:
        sim::mbarrier_complete(barrier, x, std::source_location::current());
        break;
      case kInval:
        mbarrier_inval(barrier);
        continue;
      default:
        break;
    }
    for (unsigned parity = 0; parity < 2; ++parity)
      out[i * 2 + static_cast<int>(parity)] = sim::mbarrier_test(barrier, parity, std::source_location::current());
  }
}

TEST(Mbarriers, PhasesEndWhenTheCardsDo) {
  int scripts = 0;
  for (const char* file : {"mbar_basic", "mbar_tx", "mbar_tx_limit"})
    for (const auto& [name, r] : vectors(file)) {
      // "step: operation argument | result | pending | test_wait.parity 0, 1 | word", below a heading.
      if (!r.text.starts_with("step:") || r.text.find("drop") != std::string::npos ||
          r.text.find("noComplete") != std::string::npos)
        continue;
      SCOPED_TRACE(name + "\n" + r.text);
      static const std::pair<const char*, int> names[] = {
          {"init", kInit},     {"arrive count", kArriveCount}, {"arrive.expect_tx", kArriveExpect},
          {"arrive", kArrive}, {"expect_tx", kExpect},         {"complete_tx", kComplete},
          {"inval", kInval}};
      Script s{};
      std::vector<int> expected;
      std::istringstream lines(r.text);
      std::string line;
      std::getline(lines, line);
      while (std::getline(lines, line)) {
        const std::string rest = line.substr(line.find(": ") + 2);
        auto& step = s.step[s.steps++];
        step.op = kOther;
        for (const auto& [text, op] : names)
          if (step.op == kOther && rest.starts_with(text)) {
            step.op = op;
            step.x = static_cast<unsigned>(std::strtoul(rest.c_str() + std::strlen(text), nullptr, 10));
          }
        std::vector<std::string> columns;
        std::istringstream parts(rest);
        for (std::string c; std::getline(parts, c, '|');) columns.push_back(c);
        expected.push_back(columns[3][1] - '0');
        expected.push_back(columns[3][3] - '0');
      }
      DeviceArray<int> out(expected.size(), 9);
      launch(script_kernel, {dim3(1), dim3(32), 1024}, out.data(), s);
      const auto got = out.host();
      for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(got[i], expected[i]) << "step " << i / 2;
      ++scripts;
    }
  EXPECT_GT(scripts, 0);
}

// ---- stmatrix, elect

template <int count, bool transposed>
__global__ void stmatrix_kernel(std::uint16_t* out) {
  auto* s = dynamic_smem<std::uint16_t>();
  const unsigned l = threadIdx.x;
  for (unsigned i = l; i < 256; i += 32) s[i] = 0xEEEE;
  __syncwarp();
  std::uint32_t r[count];
  for (unsigned i = 0; i < count; ++i) {
    const unsigned q = (l * 4 + i) * 2 + 1;
    r[i] = q | (q + 1) << 16;
  }
  auto* row = s + (l * 5 + 3) % 32 * 8;
  if constexpr (count == 1)
    transposed ? stmatrix_x1_trans(row, r) : stmatrix_x1(row, r);
  else if constexpr (count == 2)
    transposed ? stmatrix_x2_trans(row, r) : stmatrix_x2(row, r);
  else
    transposed ? stmatrix_x4_trans(row, r) : stmatrix_x4(row, r);
  __syncwarp();
  for (unsigned i = l; i < 256; i += 32) out[i] = s[i];
}

TEST(Stmatrix, WritesWhereTheCardWrote) {
  const Vectors v = vectors("matrix_moves");
  ASSERT_FALSE(v.empty());
  const auto check = [&](const char* name, void (*kernel)(std::uint16_t*)) {
    SCOPED_TRACE(name);
    DeviceArray<std::uint16_t> out(256);
    launch(kernel, {dim3(1), dim3(32), 512}, out.data());
    const auto got = out.host();
    for (std::size_t i = 0; i < 256; ++i) ASSERT_EQ(got[i], v.at(name).word(i)) << i;
  };
  check("stmatrix_x1", stmatrix_kernel<1, false>);
  check("stmatrix_x2", stmatrix_kernel<2, false>);
  check("stmatrix_x4", stmatrix_kernel<4, false>);
  check("stmatrix_x1_trans", stmatrix_kernel<1, true>);
  check("stmatrix_x2_trans", stmatrix_kernel<2, true>);
  check("stmatrix_x4_trans", stmatrix_kernel<4, true>);
}

__global__ void elect_kernel(int* out) {
  out[threadIdx.x] = elect_one();
}
TEST(Elect, ChoosesOneLaneAndNotAlwaysTheFirst) {
  bool other = false;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    sim::set_seed(seed);
    DeviceArray<int> out(32);
    launch(elect_kernel, {dim3(1), dim3(32)}, out.data());
    int chosen = 0;
    for (int x : out.host()) chosen += x;
    ASSERT_EQ(chosen, 1);
    other |= out.host()[0] == 0;
  }
  EXPECT_TRUE(other);
}

// ---- a whole product: tensor loads, mbarriers, setmaxnreg, wgmma, stmatrix, tensor store

__global__ void pipeline_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                                const __grid_constant__ CUtensorMap map_c) {
  constexpr unsigned kStage = 32768, kStages = 3, kSteps = 4;
  auto* smem = dynamic_smem<char>();
  char* tile = smem + kStages * kStage;
  auto* full = reinterpret_cast<std::uint64_t*>(tile + 32768);
  auto* empty = full + kStages;
  const unsigned group = threadIdx.x / 128;
  if (threadIdx.x == 0) {
    for (unsigned s = 0; s < kStages; ++s) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], 2);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  if (group == 0) {
    registers_give<40>();
    if (threadIdx.x == 0)
      for (unsigned i = 0; i < kSteps; ++i) {
        const unsigned s = i % kStages;
        mbarrier_wait(&empty[s], (i / kStages + 1) % 2);
        mbarrier_arrive_expect(&full[s], kStage);
        tensor_load_2d(smem + s * kStage, &map_a, static_cast<int>(i) * 64, 0, &full[s]);
        tensor_load_2d(smem + s * kStage + 16384, &map_b, static_cast<int>(i) * 64, 0, &full[s]);
      }
    return;
  }
  registers_take<232>();
  const unsigned t = threadIdx.x % 128, lane = t % 32;
  float d[64] = {};
  for (unsigned i = 0; i < kSteps; ++i) {
    const unsigned s = i % kStages;
    mbarrier_wait(&full[s], i / kStages % 2);
    wgmma_fence();
    for (unsigned k = 0; k < 4; ++k)
      Wgmma<128>::shared(d, wgmma_descriptor(smem + s * kStage + (group - 1) * 8192 + k * 32, 16, 1024, Swizzle::b128),
                         wgmma_descriptor(smem + s * kStage + 16384 + k * 32, 16, 1024, Swizzle::b128), 1);
    wgmma_commit();
    wgmma_wait<0>();
    if (t == 0) mbarrier_arrive(&empty[s]);
  }
  for (unsigned j = 0; j < 8; ++j) {
    std::uint32_t r[4];
    for (unsigned q = 0; q < 4; ++q) r[q] = pack_bf16(d[j * 8 + q * 2], d[j * 8 + q * 2 + 1]);
    const unsigned row = t / 32 * 16 + lane % 8 + lane / 8 % 2 * 8, column = j % 4 * 16 + lane / 16 * 8;
    unsigned offset = row * 128 + column * 2;
    offset ^= (offset >> 7 & 7) << 4;
    stmatrix_x4(tile + ((group - 1) * 2 + j / 4) * 8192 + offset, r);
  }
  fence_proxy_async();
  barrier_sync(static_cast<int>(group), 128);
  if (t == 0) {
    for (unsigned h = 0; h < 2; ++h)
      tensor_store_2d(&map_c, static_cast<int>(h * 64), static_cast<int>(group - 1) * 64,
                      tile + ((group - 1) * 2 + h) * 8192);
    bulk_commit();
    bulk_wait<0>();
  }
}

TEST(Pipeline, IsTheProductThatTheCardMade) {
  const Vectors v = vectors("pipeline");
  ASSERT_FALSE(v.empty());
  std::vector<std::uint32_t> a(128 * 128), b(128 * 128);
  for (std::size_t i = 0; i < a.size() * 2; ++i) {
    a[i / 2] |= bf16_bits(slot_value(i)) << 16 * (i % 2);
    b[i / 2] |= bf16_bits(slot_value(i + 17 + i / 256 * 5)) << 16 * (i % 2);
  }
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    sim::set_seed(seed);
    DeviceArray<std::uint32_t> da(a), db(b), dc(128 * 64);
    launch(pipeline_kernel, {dim3(1), dim3(384), 3 * 32768 + 32768 + 64},
           tensor_map(da.data(), 2, {256, 128}, {64, 128}, 128), tensor_map(db.data(), 2, {256, 128}, {64, 128}, 128),
           tensor_map(dc.data(), 2, {128, 128}, {64, 64}, 128));
    const auto got = dc.host();
    for (std::size_t i = 0; i < got.size() * 2; ++i)
      ASSERT_EQ(got[i / 2] >> 16 * (i % 2) & 0xffff, v.at("c").word(i)) << "seed " << seed << ", element " << i;
  }
}

}  // namespace
