// Every fault that the simulator detects, seeded in a small kernel. Those of the race checker run with VARIANT=race,
// out-of-bounds accesses under AddressSanitizer.
#include <gtest/gtest.h>

#include <string>

#include "core/check.h"
#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "sim.h"
#include "tests/sim/device_array.h"
#include "tests/sim/matches.h"

using namespace dapo;

namespace {

constexpr unsigned kAll = 0xffffffffu;

__global__ void barrier_after_exit(int*) {
  if (threadIdx.x >= 40) return;
  __syncthreads();  // LINE barrier_after_exit
}
__global__ void barrier_two_lines(int* out) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  out[0] = 1;
}
__global__ void barrier_two_kinds(int* out) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    out[0] = __syncthreads_or(1);
}
__global__ void not_in_own_mask(int* out) {
  out[0] = __shfl_sync(0x0000ffffu, 1, 0);
}
__global__ void lane_exited(int* out) {
  if (threadIdx.x % 32 == 7) return;
  out[0] = __shfl_xor_sync(kAll, 1, 1);
}
__global__ void lane_elsewhere(int* out) {
  if (threadIdx.x % 32 == 7)
    __syncwarp();
  else
    out[0] = __any_sync(kAll, 1);
}
__global__ void lane_beyond_block(int* out) {
  out[0] = __ballot_sync(kAll, 1) != 0;
}
__global__ void reads_outside_mask(int* out) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 20);
}
__global__ void named_barrier_short(int*) {
  if (threadIdx.x < 32) barrier_sync(3, 64);
}
__global__ void named_barrier_counts(int*) {
  barrier_sync(3, threadIdx.x < 32 ? 64 : 32);
}
__global__ void barrier_against_shuffle(int* out) {
  if (threadIdx.x == 0)
    __syncthreads();
  else
    out[0] = __shfl_sync(kAll, 1, 0);
}
__global__ void misaligned_cp_async(int* out) {
  cp_async_16(dynamic_smem<char>() + 4, out);
  cp_async_wait_all();
}
__global__ void misaligned_ldmatrix(int* out) {
  std::uint32_t r[4];
  ldmatrix_x4(r, dynamic_smem<char>() + 16 * threadIdx.x + 8);
  out[0] = static_cast<int>(r[0]);
}
__global__ void misaligned_nc(int* out) {
  out[0] = static_cast<int>(load_global_nc(out + 1).x);
}
__global__ void ldmatrix_of_global(int* out) {
  std::uint32_t r[4];
  ldmatrix_x4(r, out);
  out[0] = static_cast<int>(r[0]);
}
__global__ void no_dynamic_smem(int* out) {
  out[0] = *dynamic_smem<int>();
}
__global__ void trapped(int*) {
  __trap();
}

// ---- the race checker

__global__ void race_between_warps(int* out) {
  int* s = dynamic_smem<int>();
  s[threadIdx.x] = 0;
  __syncthreads();
  s[threadIdx.x] = 1;
  out[threadIdx.x] = s[threadIdx.x ^ 32];
}
__global__ void race_inside_warp(int* out) {
  __shared__ int s[64];
  s[threadIdx.x] = 0;
  __syncthreads();
  s[threadIdx.x] = 1;
  out[threadIdx.x] = s[threadIdx.x ^ 1];
}
__global__ void race_write_after_read(int* out) {
  __shared__ int s[64];
  s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x ^ 32];
  s[threadIdx.x] = 2;
}
__global__ void race_on_ldmatrix(int* out) {
  std::uint32_t* s = dynamic_smem<std::uint32_t>();
  for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) s[i] = i;
  __syncthreads();
  for (unsigned i = threadIdx.x; i < 256; i += blockDim.x) s[i] = 2 * i;
  std::uint32_t r[4];
  ldmatrix_x4(r, s + threadIdx.x % 32 * 4);
  out[threadIdx.x] = static_cast<int>(r[0]);
}
__global__ void race_with_shuffle_only(int* out) {
  __shared__ int s[64];
  s[threadIdx.x] = 0;
  __syncthreads();
  s[threadIdx.x] = 1;
  out[1] = __shfl_sync(kAll, 1, 0);
  out[threadIdx.x] = s[threadIdx.x ^ 1];
}
__global__ void race_with_atomic(int* out) {
  __shared__ int s;
  if (threadIdx.x == 0) s = 0;
  __syncthreads();
  atomicAdd(&s, 1);
  out[threadIdx.x] = s;
}
__global__ void race_past_named_barrier(int* out) {
  int* s = dynamic_smem<int>();
  s[threadIdx.x] = 0;
  __syncthreads();
  s[threadIdx.x] = 1;
  if (threadIdx.x < 64)
    barrier_sync(1, 64);
  else
    barrier_sync(2, 64);
  out[threadIdx.x] = s[threadIdx.x ^ 64];
}
__global__ void reads_unwritten(int* out) {
  out[threadIdx.x] = dynamic_smem<int>()[threadIdx.x];
}
__global__ void reads_unwritten_static(int* out) {
  __shared__ int s[64];
  if (threadIdx.x != 5) s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}
__global__ void no_cp_async_wait(int* out) {
  int* s = dynamic_smem<int>();
  cp_async_16(s + 4 * threadIdx.x, out + 4 * threadIdx.x);
  cp_async_commit();
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}
__global__ void no_barrier_after_wait(int* out) {
  int* s = dynamic_smem<int>();
  cp_async_16(s + 4 * threadIdx.x, out + 4 * threadIdx.x);
  cp_async_wait_all();
  out[threadIdx.x] = s[(4 * threadIdx.x + 128) % 256];
}
__global__ void misaligned_float4(int* out) {
  *reinterpret_cast<int4*>(out + 1) = int4{1, 2, 3, 4};
}
__global__ void index_beyond_array(int* out) {
  __shared__ int s[64];
  s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x + 1];
}

struct Seeded {
  const char* kind;
  const char* name;
  void (*kernel)(int*);
  unsigned threads;
  std::size_t smem;
  const char* text;  ///< expression that the report must match
};

const Seeded kSeeded[] = {
    {"divergent barrier", "barrier_after_exit", barrier_after_exit, 64, 0,
     "exited.*__syncthreads|exited before __syncthreads"},
    {"divergent barrier", "barrier_two_lines", barrier_two_lines, 64, 0,
     "__syncthreads here, while .* wait in __syncthreads at"},
    {"divergent barrier", "barrier_two_kinds", barrier_two_kinds, 64, 0, "__syncthreads_or"},
    {"missing lane", "not_in_own_mask", not_in_own_mask, 32, 0, "not in its own mask 0x0000ffff"},
    {"missing lane", "lane_exited", lane_exited, 32, 0, "exited"},
    {"missing lane", "lane_elsewhere", lane_elsewhere, 32, 0, "__any_sync.*__syncwarp|__syncwarp.*__any_sync"},
    {"missing lane", "lane_beyond_block", lane_beyond_block, 48, 0, "beyond the block's 48 threads"},
    {"missing lane", "reads_outside_mask", reads_outside_mask, 32, 0, "reads lane 20, which is not in mask 0x0000ffff"},
    {"deadlock", "named_barrier_short", named_barrier_short, 64, 0,
     "32 threads wait in bar.sync at .*faults.cu:[0-9]+; 32 exited"},
    {"bad barrier", "named_barrier_counts", named_barrier_counts, 64, 0, "barrier 3 is waited for with"},
    {"deadlock", "barrier_against_shuffle", barrier_against_shuffle, 32, 0,
     "31 threads wait in __shfl_sync.*1 threads wait in __syncthreads|1 threads wait in __syncthreads.*31 threads wait "
     "in __shfl_sync"},
    {"misaligned", "misaligned_cp_async", misaligned_cp_async, 32, 1024, "cp.async to shared"},
    {"misaligned", "misaligned_ldmatrix", misaligned_ldmatrix, 32, 1024, "ldmatrix"},
    {"misaligned", "misaligned_nc", misaligned_nc, 32, 0, "multiple of 16"},
    {"bad address", "ldmatrix_of_global", ldmatrix_of_global, 32, 0, "not in this block's shared memory"},
    {"bad address", "no_dynamic_smem", no_dynamic_smem, 32, 0, "smem_bytes = 0"},
    {"trap", "trapped", trapped, 32, 0, "__trap"},
};

const Seeded kSeededRaces[] = {
    {"race", "race_between_warps", race_between_warps, 64, 256,
     "(read|write) of shared memory at dynamic offset [0-9]+, against a (write|read) by thread .*faults.cu:[0-9]+"},
    {"race", "race_inside_warp", race_inside_warp, 64, 0, "static variable"},
    {"race", "race_write_after_read", race_write_after_read, 64, 0,
     "write of .* against a read|read of .* against a write"},
    {"race", "race_on_ldmatrix", race_on_ldmatrix, 64, 1024, "against"},
    {"race", "race_with_shuffle_only", race_with_shuffle_only, 64, 0, "against"},
    {"race", "race_with_atomic", race_with_atomic, 64, 0, "atomic update"},
    {"race", "race_past_named_barrier", race_past_named_barrier, 128, 512, "against"},
    {"uninitialised", "reads_unwritten", reads_unwritten, 64, 256, "never written"},
    {"uninitialised", "reads_unwritten_static", reads_unwritten_static, 64, 0, "never written"},
    {"uninitialised", "no_cp_async_wait", no_cp_async_wait, 64, 1024, "cp.async .* not been waited for"},
    {"race|uninitialised", "no_barrier_after_wait", no_barrier_after_wait, 64, 1024, "."},
    {"misaligned", "misaligned_float4", misaligned_float4, 32, 0, "multiple of 16|16 bytes"},
    {"out of bounds", "index_beyond_array", index_beyond_array, 64, 0, "index 64"},
};

void expect_caught(const Seeded& s) {
  SCOPED_TRACE(s.name);
  sim::set_verbose(false);
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    sim::take_fault();
    sim::set_seed(seed);
    DeviceArray<int> out(256, 0);
    std::string thrown;
    try {
      launch(s.kernel, {dim3(4), dim3(s.threads), s.smem}, out.data());
    } catch (const Error& e) {
      thrown = e.what();
    }
    sim::Fault f;
    ASSERT_TRUE(sim::take_fault(&f)) << "not caught with seed " << seed;
    EXPECT_TRUE(matches(f.kind, "^(" + std::string(s.kind) + ")$")) << f.message();
    EXPECT_EQ(f.kernel, s.name);
    EXPECT_TRUE(matches(f.text, s.text)) << f.text;
    EXPECT_TRUE(matches(f.where, "faults\\.cu:[0-9]+$")) << f.where;
    EXPECT_NE(thrown.find(s.name), std::string::npos) << thrown;
    EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  }
  sim::set_verbose(true);
}

TEST(Faults, SeededOnesAreCaughtWithEverySeed) {
  for (const Seeded& s : kSeeded) expect_caught(s);
}

TEST(Faults, RacesAndUninitialisedWordsAreCaughtWithEverySeed) {
  if (!sim::race_checked()) GTEST_SKIP() << "skipped: needs VARIANT=race";
  for (const Seeded& s : kSeededRaces) expect_caught(s);
}

// ---- kernels that may start before the one ahead of them has ended

__global__ void some_do_not_wait(int*) {
  if (threadIdx.x < 40) wait_for_previous_kernel();
}
__global__ void next_may_start_too_early(int*) {
  let_next_kernel_start();
  wait_for_previous_kernel();
}
__global__ void reads_before_waiting(int* out) {
  const int x = out[threadIdx.x];
  begin_overlapped();
  out[threadIdx.x] = x + 1;
}
__global__ void waits(int* out) {
  if (threadIdx.x % 32 == 0) prefetch_l2(out);
  begin_overlapped();
  out[threadIdx.x] += 1;
}

TEST(Faults, KernelsThatOverlapMustWait) {
  const auto fault_of = [](void (*kernel)(int*), bool overlapped) {
    sim::take_fault();
    sim::set_verbose(false);
    DeviceArray<int> out(64, 0);
    try {
      launch_as(overlapped, kernel, {dim3(2), dim3(64)}, out.data());
    } catch (const Error&) {
    }
    sim::set_verbose(true);
    sim::Fault f;
    return sim::take_fault(&f) ? f.kind + ": " + f.text : std::string();
  };
  EXPECT_TRUE(matches(fault_of(some_do_not_wait, true), "missing wait: exited without griddepcontrol.wait"));
  EXPECT_TRUE(
      matches(fault_of(next_may_start_too_early, true), "missing wait: griddepcontrol.launch_dependents before"));
  for (const auto kernel : {some_do_not_wait, next_may_start_too_early}) EXPECT_EQ(fault_of(kernel, false), "");
  EXPECT_EQ(fault_of(waits, true), "");
  if (!sim::race_checked()) GTEST_SKIP() << "skipped: accesses before the wait need VARIANT=race";
  EXPECT_TRUE(matches(fault_of(reads_before_waiting, true), "missing wait: read of global memory before"));
}

// ---- what must not be reported

__global__ void clean(int* out) {
  int* s = dynamic_smem<int>();
  __shared__ __nv_bfloat16 halves[128];
  __shared__ unsigned char bytes[128];
  __shared__ int count;
  const unsigned t = threadIdx.x;
  halves[t] = __float2bfloat16(1.0f);  // two threads share each word
  bytes[t] = 1;
  if (t == 0) count = 0;
  s[t] = static_cast<int>(t);
  __syncwarp();
  int v = s[t ^ 1];
  __syncthreads();
  atomicAdd(&count, 1);
  v += s[t ^ 64] + bytes[t ^ 32];
  __syncthreads();
  s[t] = count;
  // Warps 0 and 1 against 2 and 3, then through a third pair.
  barrier_sync(t < 64 ? 1 : 2, 64);
  v += s[t ^ 32];
  if (t < 64)
    barrier_arrive(3, 128);
  else {
    barrier_sync(3, 128);
    v += s[t - 64];
  }
  __syncthreads();
  out[t] = v + static_cast<int>(static_cast<float>(halves[t ^ 64]));
}

TEST(Faults, CleanKernelIsNotReported) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    sim::set_seed(seed);
    DeviceArray<int> out(128, 0);
    launch(clean, {dim3(1), dim3(128), 512}, out.data());
    const auto v = out.host();
    for (int t = 0; t < 128; ++t) ASSERT_EQ(v[t], (t ^ 1) + (t ^ 64) + 1 + 128 + (t >= 64 ? 128 : 0) + 1) << t;
  }
}

#ifdef __SANITIZE_ADDRESS__
__global__ void beyond_global(int* out, int n) {
  out[n] = 1;
}
__global__ void beyond_dynamic(int* out, int n) {
  out[0] = dynamic_smem<int>()[n];
}
__global__ void beyond_static(int* out, int n) {
  __shared__ int s[60];
  s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[n];
}
__global__ void beyond_local(int* out, int n) {
  volatile int local[7] = {};
  out[0] = local[n];
}
TEST(FaultsDeathTest, OutOfBoundsUnderAddressSanitizer) {
  DeviceArray<int> out(256, 0);
  EXPECT_DEATH(launch(beyond_global, {dim3(1), dim3(32)}, out.data(), 256), "AddressSanitizer.*heap-buffer-overflow");
  EXPECT_DEATH(launch(beyond_dynamic, {dim3(1), dim3(32), 256}, out.data(), 64),
               "AddressSanitizer.*heap-buffer-overflow");
  EXPECT_DEATH(launch(beyond_static, {dim3(1), dim3(32)}, out.data(), 60),
               "AddressSanitizer.*global-buffer-overflow|out of bounds");
  EXPECT_DEATH(launch(beyond_local, {dim3(1), dim3(32)}, out.data(), 7),
               "AddressSanitizer.*stack-buffer-overflow|out of bounds");
}
#endif

}  // namespace
