// Clusters against what an H100 did: multicast, neighbours' shared memory, barriers, ranks.
#include <gtest/gtest.h>

#include "cuda/hopper.cuh"
#include "cuda/ptx.cuh"
#include "sim.h"
#include "tests/sim/cluster_launch.h"
#include "tests/sim/device_array.h"
#include "tests/sim/tensor_maps.h"
#include "tests/sim/vectors.h"

using namespace dapo;

namespace {

constexpr std::uint32_t kUntouched = 0xEEEEEEEE;

struct Masks {
  std::uint32_t of[4];
};
__global__ void multicast_kernel(const __grid_constant__ CUtensorMap map, std::uint32_t* out, Masks masks) {
  auto* smem = dynamic_smem<char>();
  auto* words = reinterpret_cast<std::uint32_t*>(smem);
  auto* barrier = reinterpret_cast<std::uint64_t*>(smem + 4096);
  const std::uint32_t rank = cluster_rank();
  std::uint32_t bytes = 0;
  for (std::uint32_t r = 0; r < cluster_size(); ++r) bytes += (masks.of[r] >> rank & 1) * 1024;
  for (unsigned i = threadIdx.x; i < 1024; i += blockDim.x) words[i] = kUntouched;
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_init_fence();
  }
  fence_proxy_async();
  __syncthreads();
  cluster_sync();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(barrier, bytes);
    if (masks.of[rank])
      tensor_load_2d_multicast(smem + rank * 1024, &map, 0, static_cast<int>(rank) * 8, barrier,
                               static_cast<std::uint16_t>(masks.of[rank]));
  }
  mbarrier_wait_cluster(barrier, 0);
  cluster_sync();
  for (unsigned i = threadIdx.x; i < 1024; i += blockDim.x) out[blockIdx.x * 1024 + i] = words[i];
}

TEST(Clusters, MulticastReachesTheBlocksOfItsMask) {
  int records = 0;
  for (const char* file : {"multicast_2", "multicast_4"}) {
    const Vectors v = vectors(file);
    for (const auto& [name, r] : v) {
      if (!name.starts_with("cluster")) continue;
      SCOPED_TRACE(name);
      Masks masks{};
      const char* p = name.c_str() + name.find("masks") + 5;
      for (unsigned i = 0; *p == '_'; ++i) {
        char* end;
        masks.of[i] = static_cast<std::uint32_t>(std::strtoul(p + 1, &end, 16));
        p = end;
      }
      const auto n = static_cast<unsigned>(r.dims[0]);
      std::vector<std::uint32_t> tensor(64 * 32 / 2);
      for (std::uint32_t i = 0; i < tensor.size(); ++i) tensor[i] = (i * 2 + 1) | (i * 2 + 2) << 16;
      DeviceArray<std::uint32_t> in(tensor), out(n * 1024);
      const CUtensorMap map = tensor_map(in.data(), 2, {64, 32}, {64, 8}, 128);
      launch_clusters(multicast_kernel, dim3(n), dim3(128), 4096 + 16, dim3(n), map, out.data(), masks);
      const auto got = out.host();
      for (std::size_t i = 0; i < r.values.size(); ++i)
        ASSERT_EQ(got[i / 2] >> 16 * (i % 2) & 0xffff, r.word(i)) << "block " << i / 2048 << ", word " << i % 2048;
      ++records;
    }
  }
  EXPECT_GT(records, 0);
}

/// Each block fills its words, then reads, writes, adds to and copies into its neighbour's.
__global__ void neighbours_kernel(std::uint32_t* out) {
  auto* w = dynamic_smem<std::uint32_t>();
  auto* barriers = reinterpret_cast<std::uint64_t*>(w + 1024);
  const std::uint32_t rank = cluster_rank(), n = cluster_size(), next = (rank + 1) % n, t = threadIdx.x;
  std::uint32_t* o = out + blockIdx.x * 1024;
  for (unsigned i = t; i < 1024; i += 128) {
    w[i] = i < 512 ? rank * 1000 + i : kUntouched;
    o[i] = kUntouched;
  }
  if (t == 0) {
    mbarrier_init(&barriers[0], 128);
    mbarrier_init(&barriers[1], 1);
    mbarrier_init(&barriers[2], 1);
    mbarrier_init_fence();
  }
  fence_proxy_async();
  __syncthreads();
  cluster_sync();
  const std::uint32_t a = cluster_address(w, next);
  o[t] = cluster_load(a + t * 4);
  cluster_store(a + (128 + t) * 4, rank * 1000000 + t);
  o[128 + t] = cluster_add(a + (256 + t) * 4, 7);
  if (t == 0) {
    mbarrier_arrive_expect(&barriers[1], 512);
    mbarrier_arrive_expect(&barriers[2], 512);
    bulk_copy_cluster(a + 2048, w + 384, 512, a + 4104);
  }
  cluster_store_async(a + (640 + t) * 4, rank * 2000 + t, a + 4112);
  mbarrier_arrive_remote(a + 4096);
  for (unsigned i = 0; i < 3; ++i) mbarrier_wait_cluster(&barriers[i], 0);
  o[256 + t] = w[128 + t];
  o[384 + t] = w[512 + t];
  o[512 + t] = w[640 + t];
  __syncthreads();
  cluster_sync();
  o[640 + t] = w[256 + t];
  if (t == 0) {
    o[768] = o[769] = o[770] = 1;
    o[771] = rank;
    o[772] = a - shared_address(w);
    o[773] = cluster_address(w, rank) - shared_address(w);
    o[774] = shared_address(w);
    o[775] = cluster_address(w, rank);
    o[776] = a;
  }
}

TEST(Clusters, NeighboursSharedMemory) {
  int records = 0;
  for (const auto& [file, n] : {std::pair{"dsmem_2", 2u}, std::pair{"dsmem_4", 4u}, std::pair{"dsmem_16", 16u}}) {
    const Vectors v = vectors(file);
    if (v.empty()) continue;
    SCOPED_TRACE(file);
    if (n > 8)
      cuda_check(cudaFuncSetAttribute(neighbours_kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), "test");
    DeviceArray<std::uint32_t> out(n * 1024);
    launch_clusters(neighbours_kernel, dim3(n), dim3(128), 4096 + 32, dim3(n), out.data());
    const auto got = out.host();
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_EQ(got[i], v.at("seen").word(i)) << "block " << i / 1024 << ", word " << i % 1024;
    ++records;
  }
  EXPECT_GT(records, 0);
}

__global__ void rounds_kernel(std::uint32_t* out) {
  auto* w = dynamic_smem<std::uint32_t>();
  if (threadIdx.x == 0) w[0] = 0;
  cluster_sync();
  const std::uint32_t first = cluster_address(w, 0);
  for (unsigned i = 0; i < 8; ++i) {
    if (threadIdx.x == 0) cluster_add(first, cluster_rank() + 1);
    cluster_sync();
    if (threadIdx.x == 33) out[blockIdx.x * 8 + i] = cluster_load(first);
    cluster_sync();
  }
}
TEST(Clusters, BarriersOrderTheirBlocks) {
  DeviceArray<std::uint32_t> out(64);
  launch_clusters(rounds_kernel, dim3(8), dim3(64), 1024, dim3(4), out.data());
  const auto got = out.host();
  for (unsigned i = 0; i < 64; ++i) ASSERT_EQ(got[i], 10 * (i % 8 + 1)) << i;
}

__global__ void ranks_kernel(std::uint32_t* out) {
  const std::uint32_t b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0) {
    out[b * 2] = cluster_rank();
    out[b * 2 + 1] = cluster_size();
  }
}
TEST(Clusters, RanksGoAlongXFirst) {
  for (const dim3 size : {dim3(2, 2, 1), dim3(2, 1, 2), dim3(1)}) {
    DeviceArray<std::uint32_t> out(96);
    launch_clusters(ranks_kernel, dim3(4, 6, 2), dim3(32), 0, size, out.data());
    const auto got = out.host();
    for (unsigned b = 0; b < 48; ++b) {
      const unsigned x = b % 4 % size.x, y = b / 4 % 6 % size.y, z = b / 24 % size.z;
      ASSERT_EQ(got[b * 2], x + size.x * (y + size.y * z)) << b;
      ASSERT_EQ(got[b * 2 + 1], size.x * size.y * size.z) << b;
    }
  }
}
TEST(Clusters, ImpossibleOnesAreRefused) {
  DeviceArray<std::uint32_t> out(96);
  EXPECT_EQ(try_launch_clusters(ranks_kernel, dim3(3), dim3(32), 0, dim3(2), out.data()),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(try_launch_clusters(ranks_kernel, dim3(16), dim3(32), 0, dim3(16), out.data()),
            cudaErrorInvalidClusterSize);
  cudaDeviceProp p = sim::device_properties();
  p.major = 8;
  sim::set_device_properties(p);
  EXPECT_EQ(try_launch_clusters(ranks_kernel, dim3(2), dim3(32), 0, dim3(2), out.data()), cudaErrorNotSupported);
  sim::reset_device();
  cudaGetLastError();
}

}  // namespace
