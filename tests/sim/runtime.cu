// The host's side: copies, graphs, events, cuBLASLt, injected errors, leaks; and order, atomics, votes on the device's.
#include <cublasLt.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "core/check.h"
#include "cuda/launch.h"
#include "sim.h"
#include "tests/sim/device_array.h"

using namespace dapo;

namespace {

__global__ void take_ticket(unsigned* order, unsigned* next) {
  order[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(next, 1u);
}
std::vector<unsigned> order_of(std::uint64_t seed) {
  sim::set_seed(seed);
  DeviceArray<unsigned> order(256, 0u), next(1, 0u);
  launch(take_ticket, {dim3(4), dim3(64)}, order.data(), next.data());
  return order.host();
}
TEST(Runtime, SeedChangesTheOrderAndRepeatsIt) {
  sim::set_threads(1);
  std::set<std::vector<unsigned>> seen;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    seen.insert(order_of(seed));
    EXPECT_EQ(order_of(seed), order_of(seed));
  }
  EXPECT_EQ(seen.size(), 10u);
  for (const auto& order : seen) {
    const std::set<unsigned> all(order.begin(), order.end());
    EXPECT_EQ(all.size(), 256u);
  }
  sim::set_threads(2);
}

__global__ void collectives(unsigned* out) {
  const unsigned t = threadIdx.x, all = 0xffffffffu;
  unsigned* o = out + t * 16;
  o[0] = __ballot_sync(all, t % 3 == 0);
  o[1] = static_cast<unsigned>(__all_sync(all, t < 32)) + 2u * static_cast<unsigned>(__any_sync(all, t == 40));
  o[2] = __reduce_add_sync(all, t);
  o[3] = static_cast<unsigned>(__reduce_min_sync(all, -static_cast<int>(t)));
  o[4] = __shfl_up_sync(all, t, 3, 8);
  o[5] = __shfl_down_sync(all, t, 3, 8);
  o[6] = __shfl_sync(all, t, 5, 8);
  o[7] = static_cast<unsigned>(__shfl_xor_sync(all, 1ull << t, 1) >> (t ^ 1));
  o[8] = static_cast<unsigned>(__syncthreads_count(t % 2 == 0));
  o[9] = static_cast<unsigned>(__syncthreads_and(t < 63)) + 2u * static_cast<unsigned>(__syncthreads_or(t == 63));
  o[10] = __match_any_sync(all, t % 4);
  if (t % 32 < 16)
    o[11] = __shfl_sync(0x0000ffffu, t, 15);
  else
    o[11] = __shfl_sync(0xffff0000u, t, 16);
}
TEST(Runtime, CollectivesFollowTheGuide) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    sim::set_seed(seed);
    DeviceArray<unsigned> out(64 * 16, 0u);
    launch(collectives, {dim3(1), dim3(64)}, out.data());
    const auto v = out.host();
    for (unsigned t = 0; t < 64; ++t) {
      const unsigned* o = &v[t * 16];
      const unsigned warp = t / 32 * 32, lane = t % 32;
      unsigned ballot = 0, sum = 0, match = 0;
      for (unsigned i = 0; i < 32; ++i) {
        ballot |= ((warp + i) % 3 == 0) << i;
        match |= ((warp + i) % 4 == t % 4) << i;
        sum += warp + i;
      }
      ASSERT_EQ(o[0], ballot);
      ASSERT_EQ(o[1], t < 32 ? 1u : 2u);
      ASSERT_EQ(o[2], sum);
      ASSERT_EQ(static_cast<int>(o[3]), -static_cast<int>(warp + 31));
      ASSERT_EQ(o[4], lane % 8 < 3 ? t : t - 3);
      ASSERT_EQ(o[5], lane % 8 > 4 ? t : t + 3);
      ASSERT_EQ(o[6], t / 8 * 8 + 5);
      ASSERT_EQ(o[7], 1u);
      ASSERT_EQ(o[8], 32u);
      ASSERT_EQ(o[9], 2u);
      ASSERT_EQ(o[10], match);
      ASSERT_EQ(o[11], lane < 16 ? warp + 15 : warp + 16);
    }
  }
}

__global__ void add_atomically(float* f, int* most, unsigned* exchanged) {
  atomicAdd(f, 1.0f);
  atomicMax(most, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x));
  atomicCAS(exchanged, 0u, 1u + threadIdx.x);
}
TEST(Runtime, AtomicsAcrossBlocks) {
  DeviceArray<float> f(1, 0.0f);
  DeviceArray<int> most(1, -5);
  DeviceArray<unsigned> exchanged(1, 0u);
  launch(add_atomically, {dim3(64), dim3(128)}, f.data(), most.data(), exchanged.data());
  EXPECT_EQ(f.host()[0], 8192.0f);
  EXPECT_EQ(most.host()[0], 8191);
  EXPECT_NE(exchanged.host()[0], 0u);
}

__global__ void decrement(int* p, int by) {
  p[threadIdx.x] -= by;
}
__global__ void increment(int* p, int by) {
  p[threadIdx.x] += by;
}
TEST(Runtime, GraphReplaysWhatWasRecorded) {
  const sim::Live before = sim::live();
  {
    DeviceArray<int> p(32, 0);
    cudaStream_t s, other;
    cudaEvent_t fork, join;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    ASSERT_EQ(cudaStreamCreate(&s), cudaSuccess);
    ASSERT_EQ(cudaStreamCreate(&other), cudaSuccess);
    ASSERT_EQ(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming), cudaSuccess);
    ASSERT_EQ(cudaEventCreateWithFlags(&join, cudaEventDisableTiming), cudaSuccess);
    ASSERT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
    launch(increment, {dim3(1), dim3(32), 0, s}, p.data(), 3);
    cudaEventRecord(fork, s);
    cudaStreamWaitEvent(other, fork);
    launch(increment, {dim3(1), dim3(32), 0, other}, p.data(), 4);
    cudaEventRecord(join, other);
    cudaStreamWaitEvent(s, join);
    void* not_now = nullptr;
    EXPECT_EQ(cudaMalloc(&not_now, 4), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(cudaStreamSynchronize(s), cudaErrorStreamCaptureUnsupported);
    ASSERT_EQ(cudaStreamEndCapture(s, &graph), cudaSuccess);
    EXPECT_EQ(p.host()[0], 0);
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph), cudaSuccess);
    cudaGraphDestroy(graph);
    for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(exec, s), cudaSuccess);
    EXPECT_EQ(p.host()[31], 21);
    cudaGraphExecDestroy(exec);
    cudaEventDestroy(fork), cudaEventDestroy(join);
    cudaStreamDestroy(s), cudaStreamDestroy(other);
  }
  EXPECT_EQ(sim::live().total(), before.total());
}

TEST(Runtime, CopiesKnowWhoOwnsAnAddress) {
  DeviceArray<int> p(8, 1);
  int host[9] = {};
  EXPECT_EQ(cudaMemcpy(host, p.data(), 36, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);  // one too many
  EXPECT_EQ(cudaMemcpy(host, p.data(), 32, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(p.data(), host, 32, cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(cudaMemset(host, 0, 4), cudaErrorInvalidValue);
  int* fresh = nullptr;
  ASSERT_EQ(cudaMalloc(&fresh, 4), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(host, fresh, 4, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(host[0], -1);
  cudaFree(fresh);
  cudaGetLastError();
}

TEST(Runtime, DeviceHasThePropertiesThatTestsSet) {
  sim::set_total_memory(1 << 20);
  void* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, 2 << 20), cudaErrorMemoryAllocation);
  EXPECT_EQ(p, nullptr);
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  EXPECT_EQ(total, 1u << 20);
  sim::set_device_count(0);
  int n = -1;
  EXPECT_EQ(cudaGetDeviceCount(&n), cudaErrorNoDevice);
  sim::reset_device();
  cudaDeviceProp props;
  ASSERT_EQ(cudaGetDeviceProperties(&props, 0), cudaSuccess);
  EXPECT_EQ(props.multiProcessorCount, 132);
  cudaGetLastError();
}

TEST(Runtime, LaunchesThatTheDeviceRefuses) {
  DeviceArray<int> p(32, 0);
  EXPECT_THROW(launch(increment, {dim3(1), dim3(2048)}, p.data(), 1), Error);
  EXPECT_THROW(launch(increment, {dim3(0), dim3(32)}, p.data(), 1), Error);
  EXPECT_THROW(launch(increment, {dim3(1), dim3(32), 300 << 10}, p.data(), 1), Error);
  launch(increment, {dim3(1), dim3(32), 200 << 10}, p.data(), 1);
  EXPECT_EQ(p.host()[3], 1);
  EXPECT_THROW(launch(increment, {dim3(1, 65536), dim3(32)}, p.data(), 1), Error);
  // Without the opt-in of launch(): 48 KB less the static arrays of the kernel.
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1), config.blockDim = dim3(32), config.dynamicSmemBytes = 48 << 10;
  EXPECT_EQ(cudaLaunchKernelEx(&config, decrement, p.data(), 1), cudaErrorInvalidValue);
  cudaGetLastError();
}

TEST(Runtime, EveryCallCanFailOnceAndNothingLeaks) {
  const auto work = [] {
    DeviceArray<int> p(32, 0);
    launch(increment, {dim3(1), dim3(32)}, p.data(), 1);
    cuda_check(cudaStreamSynchronize(nullptr), "synchronize");
    return p.host()[0];
  };
  const long before = sim::live().total();
  int failures = 0;
  for (long n = 1; n < 20; ++n) {
    sim::fail_call(n, cudaErrorUnknown);
    try {
      EXPECT_EQ(work(), 1);
    } catch (const Error& e) {
      ++failures;
      EXPECT_NE(std::string(e.what()).find("cudaErrorUnknown"), std::string::npos) << e.what();
    }
    const bool given = sim::failed();
    sim::fail_call(0, 0);
    if (!given) break;
  }
  EXPECT_EQ(failures, 5);  // cudaMalloc, copy, launch, synchronize, copy back; nothing checks cudaFree's
  EXPECT_EQ(sim::live().total(), before);
  cudaGetLastError();
}

/// y[m, n] = x[m, k] w[n, k]^T + bias[n], row-major, as column-major products see it.
std::vector<float> linear(int m, int n, int k, const std::vector<float>& x, const std::vector<float>& w,
                          const std::vector<float>& bias) {
  DeviceArray<float> dx(x), dw(w), db(bias), dy(std::size_t(m * n), 1.0f);
  cublasLtHandle_t h;
  cublasLtMatmulDesc_t op;
  cublasLtMatrixLayout_t a, b, c;
  EXPECT_EQ(cublasLtCreate(&h), CUBLAS_STATUS_SUCCESS);
  cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const cublasOperation_t t = CUBLAS_OP_T;
  const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
  const void* p = db.data();
  cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t);
  cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
  cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p, sizeof p);
  const auto u = [](int i) { return static_cast<std::uint64_t>(i); };
  cublasLtMatrixLayoutCreate(&a, CUDA_R_32F, u(k), u(n), k);
  cublasLtMatrixLayoutCreate(&b, CUDA_R_32F, u(k), u(m), k);
  cublasLtMatrixLayoutCreate(&c, CUDA_R_32F, u(n), u(m), n);
  const float alpha = 1.0f, beta = 2.0f;
  EXPECT_EQ(cublasLtMatmul(h, op, &alpha, dw.data(), a, dx.data(), b, &beta, dy.data(), c, dy.data(), c, nullptr,
                           nullptr, 0, nullptr),
            CUBLAS_STATUS_SUCCESS);
  cublasLtMatrixLayoutDestroy(a), cublasLtMatrixLayoutDestroy(b), cublasLtMatrixLayoutDestroy(c);
  cublasLtMatmulDescDestroy(op);
  cublasLtDestroy(h);
  return dy.host();
}
TEST(Runtime, CublasLtMultipliesAndDoesNotDependOnTheRows) {
  const int m = 37, n = 45, k = 19;
  std::vector<float> x(std::size_t(m * k)), w(std::size_t(n * k)), bias(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(int(i * 7 % 11) - 5);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = float(int(i * 5 % 13) - 6);
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = float(i);
  const auto y = linear(m, n, k, x, w, bias);
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      float expected = 2.0f + bias[std::size_t(j)];
      for (int l = 0; l < k; ++l) expected += x[std::size_t(i * k + l)] * w[std::size_t(j * k + l)];
      ASSERT_EQ(y[std::size_t(i * n + j)], expected) << i << " " << j;
    }
  for (auto& v : x) v *= 0.1234567f;
  const auto many = linear(m, n, k, x, w, bias);
  const auto one = linear(1, n, k, std::vector<float>(x.begin(), x.begin() + k), w, bias);
  for (int j = 0; j < n; ++j) ASSERT_EQ(one[std::size_t(j)], many[std::size_t(j)]) << j;
  EXPECT_EQ(sim::live().handles, 0);
}

__global__ void switch_often(int* out, int times) {
  for (int i = 0; i < times; ++i) __syncthreads();
  out[threadIdx.x] = times;
}
TEST(Runtime, ThreadsSwitchAtBarriers) {
  DeviceArray<int> out(256);
  sim::reset_stats();
  const auto start = std::chrono::steady_clock::now();
  launch(switch_often, {dim3(1), dim3(256)}, out.data(), 1000);
  const double ns = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count() /
                    static_cast<double>(sim::stats().switches);
  EXPECT_EQ(out.host(), std::vector<int>(256, 1000));
  EXPECT_EQ(sim::stats().barriers, 1000);
  EXPECT_GE(sim::stats().switches, 255 * 1000);
  std::printf("%.1f ns a switch (barrier included)\n", ns);
}

}  // namespace
