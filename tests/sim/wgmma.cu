// wgmma against what an H100 did: descriptors, fragments, scales, chains.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "cuda/ptx.cuh"
#include "cuda/wgmma.cuh"
#include "sim.h"
#include "tests/sim/device_array.h"
#include "tests/sim/vectors.h"

using namespace dapo;

namespace {

/// What a slot of the image in shared memory holds, exact in bf16.
int slot_value(std::size_t i) {
  return static_cast<int>((i * 37 + 11) % 61) - 30;
}
std::uint16_t bits(int v) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(v)) >> 16);
}
std::vector<std::uint32_t> image(std::size_t slots) {
  std::vector<std::uint32_t> v(slots / 2);
  for (std::size_t i = 0; i < slots; ++i) v[i / 2] |= std::uint32_t{bits(slot_value(i))} << 16 * (i % 2);
  return v;
}

struct Steps {
  std::uint64_t a[8], b[8];  ///< descriptors, relative to the image
  int steps, keep, init, waits;
};

/// The instruction with its shape and form as values: one kernel for all of them. wrappers.cu has those of
/// cuda/wgmma.cuh.
void issue(float* d, sim::Wgmma w, sim::Where where = sim::Where::current()) {
  w.d = d;
  sim::wgmma(w, where);
}

__global__ void steps_kernel(float* out, const std::uint32_t* image, unsigned words, const std::uint32_t* a,
                             sim::Wgmma form, Steps s) {
  auto* smem = dynamic_smem<std::uint32_t>();
  for (unsigned i = threadIdx.x; i < words; i += blockDim.x) smem[i] = image[i];
  const unsigned registers = form.columns / 2;
  float d[128];
  for (unsigned r = 0; r < registers; ++r)
    d[r] = s.init ? float(static_cast<int>((threadIdx.x * registers + r) * 13 + 5) % 101 - 50) : 0;
  std::uint32_t fragments[8][4];
  for (int i = 0; a && i < s.steps * 4; ++i)
    fragments[i / 4][i % 4] = a[(static_cast<unsigned>(i / 4) * 128 + threadIdx.x) * 4 + static_cast<unsigned>(i % 4)];
  fence_proxy_async();
  __syncthreads();
  wgmma_fence();
  const std::uint64_t base = shared_address(smem) >> 4;
  for (int i = 0; i < s.steps; ++i) {
    if (s.waits == 2 && i) wgmma_fence();
    form.keep_sum = i || s.keep;
    form.a_registers = a ? fragments[i] : nullptr;
    form.a = s.a[i] + base;
    form.b = s.b[i] + base;
    issue(d, form);
    if (s.waits || i == s.steps - 1) wgmma_commit();
    if (s.waits == 2 || i == s.steps - 1) wgmma_wait<0>();
  }
  for (unsigned r = 0; r < registers; ++r) out[threadIdx.x * registers + r] = d[r];
}

/// A record whose text names the shape, the descriptors and the form.
void run_record(const std::string& name, const Record& record, const std::string& text) {
  SCOPED_TRACE(name + ": " + text);
  const bool registers = text.find("A in registers") != std::string::npos;
  const long n = number_after(text, "m64n");
  Steps s{};
  std::uint64_t* sides[2] = {s.a, s.b};
  int count[2] = {0, 0};
  for (std::size_t at = text.find("\n  "); at != std::string::npos; at = text.find("\n  ", at + 1)) {
    if (at + 3 >= text.size()) break;
    const int side = text[at + 3] == 'B';
    sides[side][count[side]++] = std::strtoull(text.c_str() + text.find("bits ", at) + 5, nullptr, 16);
  }
  s.steps = count[1];
  s.keep = static_cast<int>(number_after(text, "scale-d of step 0 "));
  s.init = static_cast<int>(number_after(text, ", init "));
  s.waits = registers ? 0 : static_cast<int>(number_after(text, "waits "));
  const auto slots = static_cast<std::size_t>(number_after(text, "image of "));
  std::vector<std::uint32_t> a(static_cast<std::size_t>(s.steps) * 512);
  for (std::size_t i = 0; i < a.size(); ++i)
    a[i] = bits(slot_value(i * 2)) | std::uint32_t{bits(slot_value(i * 2 + 1))} << 16;
  DeviceArray<std::uint32_t> in(image(slots)), da(a);
  DeviceArray<float> out(128 * static_cast<std::size_t>(n) / 2);
  sim::Wgmma form{};
  form.columns = static_cast<unsigned>(n);
  form.transposed_a = !registers && number_after(text, "tnspA ");
  form.transposed_b = number_after(text, "tnspB ");
  form.negative_a = number_after(text, "imm-scale-a ") < 0;
  form.negative_b = number_after(text, "imm-scale-b ") < 0;
  launch(steps_kernel, {dim3(1), dim3(128), slots * 2}, out.data(), in.data(), static_cast<unsigned>(slots / 2),
         registers ? da.data() : nullptr, form, s);
  const auto got = out.host();
  ASSERT_EQ(got.size(), record.values.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(got[i], record.number(i)) << "thread " << i / (static_cast<std::size_t>(n) / 2);
}

class WgmmaVectors : public testing::TestWithParam<const char*> {};
TEST_P(WgmmaVectors, EqualTheRecordedOnes) {
  const Vectors v = vectors(GetParam());
  ASSERT_FALSE(v.empty()) << GetParam();
  int records = 0;
  for (const auto& [name, r] : v)
    if (const auto text = v.find(name + ".txt"); text != v.end()) {
      run_record(name, r, text->second.text);
      ++records;
    }
  EXPECT_GT(records, 0);
}
INSTANTIATE_TEST_SUITE_P(Cases, WgmmaVectors,
                         testing::Values("wg_k_none", "wg_k_32", "wg_k_64", "wg_k_128", "wg_koff_128", "wg_koff_64",
                                         "wg_mn_a_none", "wg_mn_a_32", "wg_mn_a_64", "wg_mn_a_128", "wg_mn_b_none",
                                         "wg_mn_b_32", "wg_mn_b_64", "wg_mn_b_128", "wg_mn_ab_none", "wg_mn_ab_128",
                                         "wg_scale", "wg_chain", "wg_reg", "wg_reg_mn"),
                         [](const auto& p) { return std::string(p.param); });

// ---- probes: which 16-bit slot of shared memory feeds each element, for any descriptor

__global__ void probe_kernel(std::uint16_t* out, const std::uint64_t* descriptors, unsigned columns, int of_b,
                             int transposed) {
  auto* smem = dynamic_smem<std::uint16_t>();
  const unsigned rows = of_b ? 64 : 16, t = threadIdx.x;  // rows of the other operand, an identity
  const std::uint64_t probed = descriptors[blockIdx.x] + (shared_address(smem) >> 4);
  const std::uint64_t other = wgmma_descriptor(smem + 65536, rows * 16, 128, Swizzle::none);
  float d[2][64];
  for (unsigned p = 0; p < 2; ++p) {
    __syncthreads();
    for (unsigned i = t; i < 65536; i += 128) smem[i] = bits(static_cast<int>(p ? i >> 8 : i & 255));
    for (unsigned i = t; i < rows * 16; i += 128) {
      const unsigned n = i / 16, k = i % 16;
      smem[65536 + (n % 8 * 16 + n / 8 * 128 + k / 8 * rows * 16 + k % 8 * 2) / 2] = n == k ? 0x3f80 : 0;
    }
    fence_proxy_async();
    __syncthreads();
    wgmma_fence();
    sim::Wgmma w{};
    w.columns = columns;
    w.a = of_b ? other : probed;
    w.b = of_b ? probed : other;
    w.transposed_a = !of_b && transposed;
    w.transposed_b = of_b && transposed;
    issue(d[p], w);
    wgmma_commit();
    wgmma_wait<0>();
  }
  for (unsigned r = 0; r < columns / 2; ++r) {
    const unsigned m = t / 32 * 16 + t % 32 / 4 + r / 2 % 2 * 8, n = r / 4 * 8 + t % 4 * 2 + r % 2;
    const auto v = static_cast<std::uint16_t>(static_cast<unsigned>(d[0][r]) + 256 * static_cast<unsigned>(d[1][r]));
    if (!of_b)
      out[(blockIdx.x * 64 + m) * 16 + n] = v;
    else if (m < 16)
      out[(blockIdx.x * columns + n) * 16 + m] = v;
  }
}

class WgmmaProbes : public testing::TestWithParam<const char*> {};
TEST_P(WgmmaProbes, ReadTheSlotsThatTheCardRead) {
  const Vectors v = vectors(GetParam());
  ASSERT_FALSE(v.empty()) << GetParam();
  int probes = 0;
  for (const auto& [name, r] : v) {
    if (!name.ends_with(".desc")) continue;
    const std::string record = name.substr(0, name.size() - 5);
    const Record& slots = v.at(record + ".slot");
    const bool transposed = std::string(GetParam()).find("_mn") != std::string::npos;
    DeviceArray<std::uint64_t> descriptors(r.values);
    DeviceArray<std::uint16_t> out(slots.values.size());
    const bool of_b = record[0] == 'b';  // a, or b and its columns
    launch(probe_kernel, {dim3(static_cast<unsigned>(r.values.size())), dim3(128), 131072 + 2048}, out.data(),
           descriptors.data(), of_b ? static_cast<unsigned>(std::stoul(record.substr(1))) : 16u, of_b ? 1 : 0,
           transposed ? 1 : 0);
    const auto got = out.host();
    const std::size_t each = slots.values.size() / r.values.size();
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_EQ(got[i], slots.values[i]) << record << ", descriptor " << i / each << ", element (" << i % each / 16
                                         << ", " << i % 16 << ")";
    ++probes;
  }
  EXPECT_GT(probes, 0);
}
INSTANTIATE_TEST_SUITE_P(Cases, WgmmaProbes,
                         testing::Values("wg_probe_a", "wg_probe_a_odd", "wg_probe_a_base", "wg_probe_b",
                                         "wg_probe_b_odd", "wg_probe_b_base", "wg_probe_a_mn", "wg_probe_a_mn_odd",
                                         "wg_probe_b_mn", "wg_probe_b_mn_odd", "wg_probe_b_mn_small"),
                         [](const auto& p) { return std::string(p.param); });

// ---- two accumulators

__global__ void two_kernel(float* out, const std::uint32_t* image, unsigned words, Steps s) {
  auto* smem = dynamic_smem<std::uint32_t>();
  for (unsigned i = threadIdx.x; i < words; i += blockDim.x) smem[i] = image[i];
  float d[32] = {}, e[32] = {};
  fence_proxy_async();
  __syncthreads();
  wgmma_fence();
  const std::uint64_t base = shared_address(smem) >> 4;
  for (int i = 0; i < 4; ++i) Wgmma<64>::shared(d, s.a[i] + base, s.b[i] + base, i != 0);
  wgmma_commit();
  for (int i = 0; i < 4; ++i) Wgmma<64>::shared(e, s.a[i] + base, s.b[4 + i] + base, i != 0);
  wgmma_commit();
  wgmma_wait<1>();
  for (unsigned r = 0; r < 32; ++r) out[threadIdx.x * 32 + r] = d[r];
  wgmma_wait<0>();
  for (unsigned r = 0; r < 32; ++r) out[4096 + threadIdx.x * 32 + r] = e[r];
}

TEST(Wgmma, TwoGroupsAreWaitedForOneByOne) {
  const Vectors v = vectors("wg_two_groups");
  ASSERT_FALSE(v.empty());
  Steps s{};
  const auto k_major = [](std::uint64_t start) { return start >> 4 | 1ull << 16 | 1024ull >> 4 << 32 | 1ull << 62; };
  for (std::uint64_t i = 0; i < 4; ++i) {
    s.a[i] = k_major(i * 32);
    s.b[i] = k_major(8192 + i * 32);
    s.b[4 + i] = k_major(16384 + i * 32);
  }
  DeviceArray<std::uint32_t> in(image(12288));
  DeviceArray<float> out(8192);
  launch(two_kernel, {dim3(1), dim3(128), 24576}, out.data(), in.data(), 6144u, s);
  const auto got = out.host();
  for (std::size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], v.at("d").number(i)) << i;
}

}  // namespace
