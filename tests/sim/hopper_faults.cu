// The faults that asynchronous copies and wgmma invite, each seeded in a small kernel and reported with every seed.
#include <gtest/gtest.h>

#include <string>

#include "core/check.h"
#include "cuda/ptx.cuh"
#include "cuda/wgmma.cuh"
#include "sim.h"
#include "tests/sim/cluster_launch.h"
#include "tests/sim/device_array.h"
#include "tests/sim/matches.h"

using namespace dapo;

namespace {

enum Fault {
  kNone,
  kWrongFirstParity,
  kParityNotFlipped,
  kTooManyBytes,
  kReleasedEarly,
  kCountTooLarge,
  kReadBeforeWait,
  kNotFenced,
  kNoFirstFence,
  kReadBeforeArrival,
};

constexpr unsigned kStage = 2304;  // A of 64 x 16, B of 8 x 16

/// A producer's warpgroup brings tiles through a ring of two stages to a consumer's.
template <Fault fault>
__global__ void ring(float* out) {
  auto* smem = dynamic_smem<char>();
  auto* full = reinterpret_cast<std::uint64_t*>(smem + 2 * kStage);
  auto* empty = full + 2;
  if (threadIdx.x == 0) {
    for (int s = 0; s < 2; ++s) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], fault == kCountTooLarge ? 256 : 128);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    if (threadIdx.x == 0)
      for (unsigned i = 0; i < 8; ++i) {
        const unsigned s = i % 2, round = i / 2;
        mbarrier_wait(&empty[s], (round + (fault == kWrongFirstParity ? 0 : 1)) % 2);
        mbarrier_arrive_expect(&full[s], kStage + (fault == kTooManyBytes ? 16 : 0));
        bulk_load(smem + s * kStage, out, kStage, &full[s]);
      }
    return;
  }
  float d[4] = {}, seen = 0.0f;
  if (fault != kNoFirstFence) wgmma_fence();
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned s = i % 2;
    if (fault != kReadBeforeArrival) mbarrier_wait(&full[s], fault == kParityNotFlipped ? 0 : i / 2 % 2);
    if (fault == kReadBeforeArrival) __nanosleep(1);
    if (fault == kNotFenced && i == 2) d[0] = 1.0f;
    if (fault == kReadBeforeArrival) seen += reinterpret_cast<const float*>(smem + s * kStage)[threadIdx.x];
    Wgmma<8>::shared(d, wgmma_descriptor(smem + s * kStage, 1024, 128, Swizzle::none),
                     wgmma_descriptor(smem + s * kStage + 2048, 128, 128, Swizzle::none), 1);
    wgmma_commit();
    if (fault == kReleasedEarly) mbarrier_arrive(&empty[s]);
    for (int n = 0; fault == kReleasedEarly && n < 100; ++n) __nanosleep(1);
    if (fault == kReadBeforeWait) seen += d[1];
    wgmma_wait<0>();
    if (fault != kReleasedEarly) mbarrier_arrive(&empty[s]);
  }
  out[1024 + threadIdx.x] = d[0] + seen;
}

__device__ void product_of(char* smem) {
  float d[4] = {};
  wgmma_fence();
  Wgmma<8>::shared(d, wgmma_descriptor(smem, 1024, 128, Swizzle::none),
                   wgmma_descriptor(smem + 2048, 128, 128, Swizzle::none), 1);
  wgmma_commit();
  wgmma_wait<0>();
}
__global__ void no_proxy_fence(float*) {
  auto* smem = dynamic_smem<float>();
  for (unsigned i = threadIdx.x; i < kStage / 4; i += 128) smem[i] = 1.0f;
  __syncthreads();
  product_of(dynamic_smem<char>());
}
__global__ void no_proxy_fence_before_store(float* out) {
  auto* smem = dynamic_smem<float>();
  smem[threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x != 0) return;
  bulk_store(out, smem, 512);
  bulk_commit();
  bulk_wait<0>();
}
__global__ void fenced_by_another_thread(float* out) {
  auto* smem = dynamic_smem<float>();
  smem[threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x != 0) return;
  fence_proxy_async();
  bulk_store(out, smem, 512);
  bulk_commit();
  bulk_wait<0>();
}
__global__ void buffer_reused(float* out) {
  auto* smem = dynamic_smem<float>();
  if (threadIdx.x != 0) return;
  for (int i = 0; i < 4; ++i) smem[i] = 1.0f;
  fence_proxy_async();
  bulk_store(out, smem, 16);
  bulk_commit();
  smem[1] = 2.0f;
  bulk_wait<0>();
}
__global__ void store_not_waited_for(float* out) {
  auto* smem = dynamic_smem<float>();
  if (threadIdx.x != 0) return;
  for (int i = 0; i < 4; ++i) smem[i] = 1.0f;
  fence_proxy_async();
  bulk_store(out, smem, 16);
  bulk_commit();
}
__global__ void half_a_warpgroup(float*) {
  if (threadIdx.x < 64) product_of(dynamic_smem<char>());
}
__global__ void two_places(float*) {
  float d[4] = {};
  auto* smem = dynamic_smem<char>();
  const std::uint64_t a = wgmma_descriptor(smem, 1024, 128, Swizzle::none);
  wgmma_fence();
  if (threadIdx.x < 64)
    Wgmma<8>::shared(d, a, a, 0);
  else
    Wgmma<8>::shared(d, a, a, 0);
  wgmma_commit();
  wgmma_wait<0>();
}
__global__ void descriptor_beyond(float*) {
  float d[4] = {};
  auto* smem = dynamic_smem<char>();
  for (unsigned i = threadIdx.x; i < kStage; i += 128) smem[i] = 0;
  fence_proxy_async();
  __syncthreads();
  wgmma_fence();
  Wgmma<8>::shared(d, wgmma_descriptor(smem, 2048, 128, Swizzle::none),
                   wgmma_descriptor(smem + 2048, 128, 128, Swizzle::none), 0);
  wgmma_commit();
  wgmma_wait<0>();
}
__global__ void too_many_arrivals(float*) {
  auto* barrier = dynamic_smem<std::uint64_t>();
  if (threadIdx.x != 0) return;
  mbarrier_init(barrier, 2);
  mbarrier_arrive(barrier, 3);
}
__global__ void never_initialised(float*) {
  if (threadIdx.x == 0) mbarrier_arrive(dynamic_smem<std::uint64_t>());
}
__global__ void init_not_fenced(float*) {
  auto* barrier = dynamic_smem<std::uint64_t>();
  if (threadIdx.x == 0) mbarrier_init(barrier, 128);
  __syncthreads();
  mbarrier_arrive(barrier);
}
__global__ void overwritten_mbarrier(float*) {
  auto* barrier = dynamic_smem<std::uint64_t>();
  if (threadIdx.x != 0) return;
  mbarrier_init(barrier, 1);
  *barrier = 0;
  mbarrier_arrive(barrier);
}
__global__ void odd_size(float* out) {
  auto* barrier = dynamic_smem<std::uint64_t>();
  if (threadIdx.x != 0) return;
  mbarrier_init(barrier, 1);
  mbarrier_init_fence();
  bulk_load(barrier + 2, out, 24, barrier);
}
__global__ void load_not_waited_for(float* out) {
  auto* barrier = dynamic_smem<std::uint64_t>();
  if (threadIdx.x != 0) return;
  mbarrier_init(barrier, 1);
  mbarrier_init_fence();
  for (int i = 0; i < 8; ++i) bulk_load(barrier + 2 + 128 * i, out, 1024, barrier);
}
__global__ void too_many_registers(float*) {
  if (threadIdx.x < 128)
    registers_give<56>();
  else
    registers_take<240>();
}
__global__ void odd_registers(float*) {
  registers_give<50>();
}
__global__ void refilled_while_read(float* out) {
  auto* smem = dynamic_smem<float>();
  auto* barrier = reinterpret_cast<std::uint64_t*>(smem + 256);
  smem[threadIdx.x] = 1.0f;
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(barrier, 512);
    bulk_load(smem, out, 512, barrier);
  } else if (threadIdx.x > 31) {
    out[threadIdx.x] = smem[threadIdx.x];
  }
  mbarrier_wait(barrier, 0);
}

// ---- clusters

__global__ void ends_too_early(float*) {
  auto* smem = dynamic_smem<std::uint32_t>();
  cluster_sync();
  if (cluster_rank() == 0) {
    for (int i = 0; i < 64; ++i) __nanosleep(1);
    cluster_store(cluster_address(smem, 1), 1);
  }
}
__global__ void not_yet_started(float*) {
  if (cluster_rank() == 0) cluster_store(cluster_address(dynamic_smem<std::uint32_t>(), 1), 1);
  cluster_sync();
}
/// A stage that two blocks' consumers release, with an mbarrier that counts one of them.
__global__ void counts_one_block(float*) {
  auto* barrier = dynamic_smem<std::uint64_t>();
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 256);
    mbarrier_init_fence();
  }
  cluster_sync();
  mbarrier_arrive_remote(cluster_address(barrier, 0));
  if (cluster_rank() == 0)
    mbarrier_wait_cluster(barrier, 0);
  else
    mbarrier_wait_cluster(barrier, 0);
  cluster_sync();
}

struct Seeded {
  const char *name, *kind;
  void (*kernel)(float*);
  unsigned threads;
  std::size_t smem;
  unsigned cluster;
  const char* text;  ///< expression that the report must match
};

constexpr std::size_t kRing = 2 * kStage + 32;

const Seeded kSeeded[] = {
    {"wrong parity at the first wait", "deadlock", ring<kWrongFirstParity>, 256, kRing, 1,
     "nobody has arrived yet: the first wait for a free stage is for parity 1"},
    {"parity not flipped at the ring's end", "load in flight|operand overwritten|deadlock", ring<kParityNotFlipped>,
     256, kRing, 1, "parity of this round|changed before it was complete|arrivals are missing"},
    {"more bytes expected than copied", "deadlock", ring<kTooManyBytes>, 256, kRing, 1,
     "2320 bytes were expected and 2304 copied; expect_tx must be the bytes"},
    {"stage released before wgmma is complete", "operand overwritten|race", ring<kReleasedEarly>, 256, kRing, 1,
     "[AB] of this wgmma changed before it was complete.*wgmma_wait|against a read by wgmma of warpgroup 1 "
     "\\(wgmma_wait"},
    {"mbarrier that counts more consumers than there are", "deadlock", ring<kCountTooLarge>, 256, kRing, 1,
     "128 of its 256 arrivals are missing"},
    {"accumulator changed without wgmma.fence", "missing wgmma.fence", ring<kNotFenced>, 256, kRing, 1,
     "accumulators that changed since the last wgmma.fence; call wgmma_fence"},
    {"no wgmma.fence at all", "missing wgmma.fence", ring<kNoFirstFence>, 256, kRing, 1, "no wgmma.fence precedes"},
    {"no proxy fence before wgmma", "missing proxy fence", no_proxy_fence, 128, kStage, 1,
     "wgmma reads shared memory at dynamic offset [0-9]+.*fence_proxy_async"},
    {"no proxy fence before a bulk store", "missing proxy fence", no_proxy_fence_before_store, 128, 512, 1,
     "cp.async.bulk to global memory reads .*fence_proxy_async"},
    {"store buffer reused before it was read", "operand overwritten|race", buffer_reused, 32, 1024, 1,
     "changed before this bulk store had read it.*bulk_wait_read|against a read by a bulk store \\(bulk_wait_read"},
    {"thread ends before its bulk store", "store in flight", store_not_waited_for, 32, 1024, 1, "bulk_wait_read<0>"},
    {"wgmma by half a warpgroup", "divergent warpgroup", half_a_warpgroup, 128, kStage, 1, "exited"},
    {"wgmma at two places", "divergent warpgroup", two_places, 128, kStage, 1,
     "wgmma here, while [0-9]+ threads .*all 128 must reach the same instruction"},
    {"descriptor beyond the tile", "bad address", descriptor_beyond, 128, kStage, 1,
     "element \\([0-9]+, [0-9]+\\) of [AB] lies at dynamic offset [0-9]+, outside the block's 2304 bytes"},
    {"more arrivals than the count", "bad mbarrier", too_many_arrivals, 32, 64, 1, "only 2 of its 2 are missing"},
    {"mbarrier that nobody initialised", "bad mbarrier", never_initialised, 32, 64, 1, "mbarrier_init comes first"},
    {"mbarrier whose init is not fenced", "bad mbarrier", init_not_fenced, 128, 64, 1, "mbarrier_init_fence"},
    {"mbarrier that was overwritten", "bad mbarrier", overwritten_mbarrier, 32, 64, 1, "was overwritten"},
    {"bulk copy of an odd size", "misaligned", odd_size, 32, 4096, 1, "24 bytes.*multiples of 16"},
    {"block ends before its bulk load", "load in flight", load_not_waited_for, 32, 16384, 1, "wait for its mbarrier"},
    {"more registers than the block has", "deadlock", too_many_registers, 384, 0, 1,
     "waits for 240 registers a thread and has 168, 112 are free|waits for 240 .* may not exceed 504"},
    {"registers that are not a multiple of 8", "bad registers", odd_registers, 128, 0, 1, "not a multiple of 8"},
    {"block of a cluster ends too early", "cluster", ends_too_early, 32, 64, 2,
     "block 1 of the cluster have returned.*end the kernel with cluster_sync"},
    {"access before the cluster has started", "cluster", not_yet_started, 32, 64, 2, "may not have started"},
    {"count that leaves out the cluster's other block", "deadlock", counts_one_block, 32, 64, 2,
     "arrivals are missing"},
};

const Seeded kSeededRaces[] = {
    {"accumulator read before the wait", "accumulator in flight", ring<kReadBeforeWait>, 256, kRing, 1,
     "read of registers that the wgmma of .*hopper_faults.cu:[0-9]+ is writing.*wgmma_wait"},
    {"loaded data read without the mbarrier", "race|uninitialised|load in flight", ring<kReadBeforeArrival>, 256, kRing,
     1, "."},
    {"proxy fence by another thread than the writer", "missing proxy fence", fenced_by_another_thread, 128, 512, 1,
     "that thread must call fence_proxy_async"},
    {"stage refilled while it is read", "race|uninitialised", refilled_while_read, 128, 2048, 1, "."},
};

void expect_caught(const Seeded& s) {
  SCOPED_TRACE(s.name);
  sim::set_verbose(false);
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    sim::take_fault();
    sim::set_seed(seed);
    DeviceArray<float> out(2048, 0.0f);
    EXPECT_EQ(try_launch_clusters(s.kernel, dim3(s.cluster), dim3(s.threads), s.smem, dim3(s.cluster), out.data()),
              cudaErrorLaunchFailure);
    sim::Fault f;
    ASSERT_TRUE(sim::take_fault(&f)) << "not caught with seed " << seed;
    EXPECT_TRUE(matches(f.kind, "^(" + std::string(s.kind) + ")$")) << f.message();
    EXPECT_TRUE(matches(f.text, s.text)) << f.message();
    EXPECT_TRUE(matches(f.where, "hopper_faults\\.cu:[0-9]+$")) << f.message();
    cudaGetLastError();
  }
  sim::set_verbose(true);
}

TEST(HopperFaults, SeededOnesAreCaughtWithEverySeed) {
  for (const Seeded& s : kSeeded) expect_caught(s);
}

TEST(HopperFaults, RacesAreCaughtWithEverySeed) {
  if (!sim::race_checked()) GTEST_SKIP() << "skipped: needs VARIANT=race";
  for (const Seeded& s : kSeededRaces) expect_caught(s);
}

TEST(HopperFaults, CorrectRingIsNotReported) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    sim::set_seed(seed);
    DeviceArray<float> out(2048, 0.0f);
    launch(ring<kNone>, {dim3(2), dim3(256), kRing}, out.data());
    const auto got = out.host();
    for (std::size_t i = 0; i < 128; ++i) ASSERT_EQ(got[1024 + 128 + i], 0.0f) << i;
  }
}

#ifdef __SANITIZE_ADDRESS__
TEST(HopperFaultsDeathTest, MemoryThatAnInstructionOwnsIsReportedUnderAddressSanitizer) {
  DeviceArray<float> out(2048, 0.0f);
  const auto launch_in_any_order = [&](void (*kernel)(float*)) {  // in some, the load has arrived by then
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      sim::set_seed(seed);
      launch(kernel, {dim3(1), dim3(256), kRing}, out.data());
    }
  };
  EXPECT_DEATH(launch_in_any_order(ring<kReadBeforeWait>), "accumulator in flight: thread .*wgmma_wait<0>");
  EXPECT_DEATH(launch_in_any_order(ring<kReadBeforeArrival>), "load in flight: thread .*wait for its mbarrier");
}
#endif

}  // namespace
