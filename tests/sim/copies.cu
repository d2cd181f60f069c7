// Bulk and tensor copies against what an H100's copy engine did.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "cuda/hopper.cuh"
#include "cuda/ptx.cuh"
#include "sim.h"
#include "tests/sim/device_array.h"
#include "tests/sim/tensor_maps.h"
#include "tests/sim/vectors.h"

using namespace dapo;

namespace {

constexpr std::uint32_t kUntouched = 0xEEEEEEEE;

struct Load {
  int rank, at[3];
  unsigned offset, bytes, dump, prefetch;
};
__global__ void load_kernel(const __grid_constant__ CUtensorMap map, std::uint32_t* out, Load l) {
  auto* smem = dynamic_smem<char>();
  auto* words = reinterpret_cast<std::uint32_t*>(smem);
  auto* barrier = reinterpret_cast<std::uint64_t*>(smem + l.dump);
  for (unsigned i = threadIdx.x; i < l.dump / 4; i += blockDim.x) words[i] = kUntouched;
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_init_fence();
  }
  fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    if (l.prefetch) tensor_prefetch_2d(&map, l.at[0], l.at[1]);
    mbarrier_arrive_expect(barrier, l.bytes);
    if (l.rank == 2)
      tensor_load_2d(smem + l.offset, &map, l.at[0], l.at[1], barrier);
    else
      tensor_load_3d(smem + l.offset, &map, l.at[0], l.at[1], l.at[2], barrier);
  }
  mbarrier_wait(barrier, 0);
  for (unsigned i = threadIdx.x; i < l.dump / 4; i += blockDim.x) out[i] = words[i];
}

int slot_value(std::size_t i) {
  return static_cast<int>((i * 37 + 11) % 61) - 30;
}
std::uint32_t float_bits(int v) {
  return std::bit_cast<std::uint32_t>(static_cast<float>(v));
}
/// A tensor's memory: 16-bit word j is j + 1, or 32-bit word j the bits of a small integer with a mark.
std::vector<std::uint32_t> contents(std::size_t bytes, std::size_t element) {
  std::vector<std::uint32_t> v(bytes / 4);
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = element == 2 ? static_cast<std::uint32_t>((i * 2 + 1) & 0xffff) | static_cast<std::uint32_t>(i * 2 + 2) << 16
                        : float_bits(slot_value(i)) ^ static_cast<std::uint32_t>(i & 0xff);
  return v;
}

std::vector<long> numbers_after(const std::string& text, const std::string& key) {
  std::vector<long> v;
  const char* p = text.c_str() + text.find(key) + key.size();
  for (char* end = nullptr;; p = end) {
    const long n = std::strtol(p, &end, 10);
    if (end == p) return v;
    v.push_back(n);
  }
}

struct Description {
  std::vector<long> box, dims, at;
  std::size_t element;
  unsigned swizzle;
};
Description describe(const std::string& text) {
  return {numbers_after(text, ", box"), numbers_after(text, ", tensor"),
          numbers_after(text, text.find(", at ") != std::string::npos ? ", at" : " at"),
          static_cast<std::size_t>(number_after(text, ", element ")),
          static_cast<unsigned>(number_after(text, "swizzle "))};
}
std::size_t bytes_of(const Description& d) {
  std::size_t n = d.element;
  for (long x : d.dims) n *= static_cast<std::size_t>(x);
  return n;
}

/// Same bytes as the record's elements of 2 or 4.
void expect_bytes(const std::vector<std::uint32_t>& got, const Record& r, std::size_t element) {
  ASSERT_EQ(got.size() * 4, r.values.size() * element);
  for (std::size_t i = 0; i < r.values.size(); ++i) {
    std::uint32_t v = 0;
    std::memcpy(&v, reinterpret_cast<const char*>(got.data()) + i * element, element);
    ASSERT_EQ(v, r.word(i)) << "element " << i;
  }
}

void run_load(const Record& r, const std::string& text, const std::string& name) {
  SCOPED_TRACE(text);
  const Description d = describe(text);
  Load l{static_cast<int>(d.box.size()), {}, 0, 0, 0, name == "tma_prefetch"};
  for (std::size_t i = 0; i < 3; ++i) l.at[i] = i < d.at.size() ? static_cast<int>(d.at[i]) : 0;
  l.offset = static_cast<unsigned>(number_after(text, "to offset "));
  l.bytes = static_cast<unsigned>(number_after(text, "expect_tx "));
  l.dump = static_cast<unsigned>(r.values.size() * d.element);
  DeviceArray<std::uint32_t> in(contents(bytes_of(d), d.element)), out(l.dump / 4);
  const CUtensorMap map = tensor_map(in.data(), d.element, d.dims, d.box, d.swizzle, name == "tma_nan_fill");
  launch(load_kernel, {dim3(1), dim3(128), l.dump + 16}, map, out.data(), l);
  expect_bytes(out.host(), r, d.element);
}

class TensorLoads : public testing::TestWithParam<const char*> {};
TEST_P(TensorLoads, BringWhatTheCardBrought) {
  const Vectors v = vectors(GetParam());
  ASSERT_FALSE(v.empty()) << GetParam();
  int records = 0;
  for (const auto& [name, r] : v)
    if (const auto text = v.find(name + ".txt"); text != v.end()) {
      run_load(r, text->second.text, GetParam());
      ++records;
    }
  EXPECT_GT(records, 0);
}
INSTANTIATE_TEST_SUITE_P(Cases, TensorLoads,
                         testing::Values("tma_none", "tma_128", "tma_64", "tma_32", "tma_dst", "tma_narrow",
                                         "tma_edge_128", "tma_edge_none", "tma_f32", "tma_nan_fill", "tma_3d",
                                         "tma_3d_128", "tma_prefetch"),
                         [](const auto& p) { return std::string(p.param); });

// ---- stores and reductions

__global__ void store_kernel(const __grid_constant__ CUtensorMap map, const std::uint32_t* image, unsigned words, int x,
                             int y, int add) {
  auto* smem = dynamic_smem<std::uint32_t>();
  for (unsigned i = threadIdx.x; i < words; i += blockDim.x) smem[i] = image[i];
  fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    if (add)
      tensor_add_2d(&map, x, y, smem);
    else
      tensor_store_2d(&map, x, y, smem);
    bulk_commit();
    bulk_wait<0>();
  }
}

void run_store(const Record& r, const std::string& text, const std::vector<std::uint32_t>& before,
               const std::vector<std::uint32_t>& image) {
  SCOPED_TRACE(text);
  const Description d = describe(text);
  DeviceArray<std::uint32_t> global(before), in(image);
  const CUtensorMap map = tensor_map(global.data(), d.element, d.dims, d.box, d.swizzle, false);
  launch(store_kernel, {dim3(static_cast<unsigned>(number_after(text, "blocks "))), dim3(128), image.size() * 4}, map,
         in.data(), static_cast<unsigned>(image.size()), static_cast<int>(d.at[0]), static_cast<int>(d.at[1]),
         static_cast<int>(number_after(text, "add ")));
  expect_bytes(global.host(), r, d.element);
}

/// Every record with a text; `bytes` of the image.
template <class F>
void each_store(const char* name, F f) {
  const Vectors v = vectors(name);
  ASSERT_FALSE(v.empty()) << name;
  int records = 0;
  for (const auto& [record, r] : v)
    if (const auto text = v.find(record + ".txt"); text != v.end()) {
      f(record, r, text->second.text);
      ++records;
    }
  EXPECT_GT(records, 0);
}

TEST(TensorStores, WriteWhatTheCardWrote) {
  each_store("tma_store", [](const std::string&, const Record& r, const std::string& text) {
    const Description d = describe(text);
    run_store(r, text, std::vector<std::uint32_t>(bytes_of(d) / 4, kUntouched),
              contents(static_cast<std::size_t>(d.box[0] * d.box[1]) * 2, 2));
  });
}

TEST(TensorStores, AddFp32AsTheCardDid) {
  each_store("tma_add_f32", [](const std::string& name, const Record& r, const std::string& text) {
    if (name == "subnormal") return;
    std::vector<std::uint32_t> before(52 * 40), image(32 * 8);
    for (std::size_t i = 0; i < before.size(); ++i) before[i] = float_bits(slot_value(i + 7));
    for (std::size_t i = 0; i < image.size(); ++i) image[i] = float_bits(slot_value(i));
    run_store(r, text, before, image);
  });
}

TEST(TensorStores, AddBf16AsTheCardDid) {
  each_store("tma_add_bf16", [](const std::string&, const Record& r, const std::string& text) {
    std::vector<std::uint32_t> before(24 * 208 / 2), image(64 * 8 / 2);
    const auto put = [](std::vector<std::uint32_t>& v, std::size_t i, std::size_t word) {
      v[i / 2] |= static_cast<std::uint32_t>(word & 0xffff) << 16 * (i % 2);
    };
    for (std::size_t i = 0; i < before.size() * 2; ++i)
      put(before, i, 0x3f80 + i * 37 % 301 - (i % 3 ? 0 : 200) + (i % 5 ? 0 : 0x8000));
    for (std::size_t i = 0; i < image.size() * 2; ++i) put(image, i, 0x3f00 + i * 11 % 400 + (i % 7 ? 0 : 0x8000));
    run_store(r, text, before, image);
  });
}

// ---- without tensor maps

__global__ void bulk_kernel(std::uint32_t* to, const std::uint32_t* from, std::uint32_t* dump, unsigned bytes,
                            unsigned s, unsigned g, unsigned d) {
  auto* smem = dynamic_smem<char>();
  auto* words = reinterpret_cast<std::uint32_t*>(smem);
  auto* barrier = reinterpret_cast<std::uint64_t*>(smem + 4096);
  for (unsigned i = threadIdx.x; i < 1024; i += blockDim.x) words[i] = kUntouched;
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_init_fence();
  }
  fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(barrier, bytes);
    bulk_load(smem + s, reinterpret_cast<const char*>(from) + g, bytes, barrier);
  }
  mbarrier_wait(barrier, 0);
  for (unsigned i = threadIdx.x; i < 1024; i += blockDim.x) dump[i] = words[i];
  if (threadIdx.x == 0) {
    bulk_store(reinterpret_cast<char*>(to) + d, smem + s, bytes);
    bulk_commit();
    bulk_wait<0>();
  }
}

TEST(BulkCopies, BringAndWriteWhatTheCardDid) {
  const Vectors v = vectors("bulk_1d");
  ASSERT_FALSE(v.empty());
  std::vector<std::uint32_t> source(1024);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::uint32_t>(i) * 2654435761u;
  DeviceArray<std::uint32_t> in(source);
  int cases = 0;
  for (const auto& [name, r] : v) {
    unsigned n, g, s, d;
    if (std::sscanf(name.c_str(), "%u_bytes_from_%u_via_%u_to_%u.shared", &n, &g, &s, &d) != 4) continue;
    if (!name.ends_with(".shared")) continue;
    SCOPED_TRACE(name);
    DeviceArray<std::uint32_t> out(1024, kUntouched), dump(1024);
    launch(bulk_kernel, {dim3(1), dim3(128), 4096 + 16}, out.data(), in.data(), dump.data(), n, s, g, d);
    expect_bytes(dump.host(), r, 4);
    expect_bytes(out.host(), v.at(name.substr(0, name.size() - 7) + ".global"), 4);
    ++cases;
  }
  EXPECT_GT(cases, 0);
}

__global__ void bulk_add_kernel(float* to, const float* from) {
  auto* smem = dynamic_smem<float>();
  for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) smem[i] = from[i];
  fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    bulk_add(to, smem, 1024);
    bulk_commit();
    bulk_wait<0>();
  }
}
TEST(BulkCopies, AddFp32) {
  const Vectors v = vectors("bulk_add_f32");
  ASSERT_FALSE(v.empty());
  std::vector<float> before(256), image(256);
  for (std::size_t i = 0; i < 256; ++i) {
    before[i] = static_cast<float>(slot_value(i + 7));
    image[i] = static_cast<float>(slot_value(i));
  }
  DeviceArray<float> out(before), in(image);
  launch(bulk_add_kernel, {dim3(2), dim3(128), 1024}, out.data(), in.data());
  const auto got = out.host();
  for (std::size_t i = 0; i < 256; ++i) ASSERT_EQ(got[i], v.at("after").number(i)) << i;
}

TEST(TensorMaps, AreRefusedWhereTheDriverRefuses) {
  DeviceArray<std::uint32_t> memory(208 * 160 / 2);
  const auto encode = [&](std::vector<long> dims, std::vector<long> box, unsigned swizzle, std::size_t shift = 0,
                          long row = 0) {
    CUtensorMap map;
    return try_tensor_map(&map, reinterpret_cast<char*>(memory.data()) + shift, 2, dims, box, swizzle, false, row);
  };
  // In the order of the record tma_refused.
  const CUresult results[] = {encode({208, 160}, {64, 8}, 128),
                              encode({208, 160}, {72, 8}, 128),
                              encode({208, 160}, {64, 8}, 64),
                              encode({208, 160}, {32, 8}, 32),
                              encode({208, 160}, {256, 8}, 0),
                              encode({208, 160}, {264, 8}, 0),
                              encode({208, 160}, {8, 256}, 0),
                              encode({208, 160}, {8, 257}, 0),
                              encode({208, 160}, {4, 8}, 0),
                              encode({204, 160}, {64, 8}, 128),
                              encode({208, 160}, {64, 8}, 128, 8),
                              encode({208, 160}, {64, 8}, 128, 16),
                              encode({200, 160}, {64, 8}, 128, 0, 416),
                              encode({201, 160}, {64, 8}, 128, 0, 416)};
  const int expected[] = {0, 1, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0};
  for (std::size_t i = 0; i < 14; ++i) EXPECT_EQ(results[i], expected[i]) << "map " << i;
  if (const Vectors v = vectors("tma_refused"); !v.empty()) {
    std::istringstream lines(v.at("results").text);
    std::string line;
    for (std::size_t i = 0; std::getline(lines, line); ++i)
      EXPECT_EQ(std::stoi(line.substr(line.rfind(':') + 1)), expected[i]) << line;
  }
  sim::set_driver_version(11080);
  void* f = nullptr;
  cudaDriverEntryPointQueryResult found;
  EXPECT_EQ(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found),
            cudaSuccess);
  EXPECT_EQ(found, cudaDriverEntryPointVersionNotSufficent);
  EXPECT_EQ(f, nullptr);
  sim::reset_device();
}

}  // namespace
