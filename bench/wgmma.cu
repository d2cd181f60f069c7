// The wgmma product (cuda/wgmma_product.cuh) on a Hopper card, beside cuBLASLt: are the bits the same, and how fast is
// it? Each shape in three forms: c = a b^T, and the products of the gradients, whose operands are transposed.
//
//   make bench-wgmma && build/release/bench_wgmma          # needs a Hopper card; exit code 1: bits differ
//
// Times are medians of seven runs of four calls; cuBLASLt's is the fastest of its first four algorithms without
// workspace, and so without a cut of k.
#include <cublasLt.h>
#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda/wgmma_product.cuh"

namespace {

using namespace dapo::cuda;

void check(int error, const char* what, int line) {
  if (error == 0) return;
  std::printf("bench/wgmma.cu:%d: %s: error %d\n", line, what, error);
  std::exit(3);
}
#define CHECKED(call) check(static_cast<int>(call), #call, __LINE__)

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);
EncodeTiled encode;

/// Of `outer` rows of `inner` bf16, in boxes of box_inner x box_outer whose lines of 128 bytes are exchanged.
CUtensorMap tensor_map(void* p, int inner, int outer, unsigned box_inner, unsigned box_outer) {
  CUtensorMap map;
  const cuuint64_t sizes[] = {cuuint64_t(inner), cuuint64_t(outer)}, strides[] = {cuuint64_t(inner) * 2};
  const cuuint32_t box[] = {box_inner, box_outer}, steps[] = {1, 1};
  CHECKED(encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, p, sizes, strides, box, steps,
                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  return map;
}

/// Values of eight exponents, so that truncated sums show.
__global__ void fill(uint16_t* p, size_t n, uint64_t seed) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < n; i += size_t{gridDim.x} * blockDim.x) {
    uint64_t z = (i + 1) * 0x9E3779B97F4A7C15u + seed;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    p[i] = static_cast<uint16_t>((z & 1) << 15 | (120 + (z >> 8) % 8) << 7 | (z >> 20 & 127));
  }
}

__global__ void count_different(const uint16_t* a, const uint16_t* b, size_t n, unsigned long long* count) {
  for (size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x; i < n; i += size_t{gridDim.x} * blockDim.x)
    if (a[i] != b[i]) atomicAdd(count, 1ull);
}

template <class F>
double median_us(F call) {
  cudaEvent_t begin, end;
  CHECKED(cudaEventCreate(&begin));
  CHECKED(cudaEventCreate(&end));
  call(), call();
  std::vector<float> times(7);
  for (float& t : times) {
    CHECKED(cudaEventRecord(begin));
    for (int i = 0; i < 4; ++i) call();
    CHECKED(cudaEventRecord(end));
    CHECKED(cudaEventSynchronize(end));
    CHECKED(cudaEventElapsedTime(&t, begin, end));
  }
  std::sort(times.begin(), times.end());
  return 250.0 * times[3];
}

struct Operands {
  int m, n, k;
  uint16_t *a, *b, *c, *expected;
};

/// By cuBLASLt into o.expected; returns its best time.
double library(cublasLtHandle_t handle, const Operands& o, bool a_mn, bool b_mn) {
  cublasLtMatmulDesc_t op;
  CHECKED(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t of_b = b_mn ? CUBLAS_OP_N : CUBLAS_OP_T, of_a = a_mn ? CUBLAS_OP_T : CUBLAS_OP_N;
  CHECKED(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &of_b, sizeof of_b));
  CHECKED(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSB, &of_a, sizeof of_a));
  const auto layout = [](int rows, int columns) {  // column-major
    cublasLtMatrixLayout_t l;
    CHECKED(cublasLtMatrixLayoutCreate(&l, CUDA_R_16BF, uint64_t(rows), uint64_t(columns), rows));
    return l;
  };
  const auto b = b_mn ? layout(o.n, o.k) : layout(o.k, o.n), a = a_mn ? layout(o.m, o.k) : layout(o.k, o.m);
  const auto c = layout(o.n, o.m);
  cublasLtMatmulPreference_t preference;
  CHECKED(cublasLtMatmulPreferenceCreate(&preference));
  const size_t workspace = 0;
  CHECKED(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                               sizeof workspace));
  cublasLtMatmulHeuristicResult_t found[4];
  int count = 0;
  CHECKED(cublasLtMatmulAlgoGetHeuristic(handle, op, b, a, c, c, preference, 4, found, &count));
  const float one = 1.0f, zero = 0.0f;
  double best = 1e30;
  for (int i = 0; i < count; ++i)
    best = std::min(best, median_us([&] {
                      CHECKED(cublasLtMatmul(handle, op, &one, o.b, b, o.a, a, &zero, o.expected, c, o.expected, c,
                                             &found[i].algo, nullptr, 0, nullptr));
                    }));
  return best;
}

unsigned long long* differences;

template <int BN, int kStages, bool a_mn, bool b_mn>
bool ours(const Operands& o, double library_us) {
  using Shape = ProductShape<BN, kStages>;
  const auto kernel = wgmma_product<BN, kStages, a_mn, b_mn>;
  CHECKED(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               Shape::kBytes));
  const CUtensorMap a = a_mn ? tensor_map(o.a, o.m, o.k, 64, 64) : tensor_map(o.a, o.k, o.m, 64, 128);
  const CUtensorMap b = b_mn ? tensor_map(o.b, o.n, o.k, 64, 64) : tensor_map(o.b, o.k, o.n, 64, BN);
  const CUtensorMap c = tensor_map(o.c, o.n, o.m, 64, 64);
  const ProductTiles tiles{(o.m + 127) / 128, (o.n + BN - 1) / BN, (o.k + 63) / 64};
  int multiprocessors = 0;
  CHECKED(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  const dim3 grid(static_cast<unsigned>(std::min(multiprocessors, tiles.rows * tiles.columns)));
  const size_t elements = size_t(o.m) * size_t(o.n);
  CHECKED(cudaMemset(o.c, 0xff, elements * 2));
  CHECKED(cudaMemset(differences, 0, sizeof *differences));
  const double us = median_us([&] {
    kernel<<<grid, Shape::kThreads, Shape::kBytes>>>(a, b, c, tiles);
    CHECKED(cudaGetLastError());
  });
  count_different<<<1024, 256>>>(o.c, o.expected, elements, differences);
  unsigned long long different = 0;
  CHECKED(cudaMemcpy(&different, differences, sizeof different, cudaMemcpyDeviceToHost));
  const auto rate = [&](double t) { return 2.0 * o.m * o.n * o.k / t * 1e-6; };
  std::printf("| %d x %d x %d | %s | 128 x %d, %d stages | %.1f | %.0f | %.0f | %.2f | %llu |\n", o.m, o.n, o.k,
              a_mn   ? "a^T b"
              : b_mn ? "a b"
                     : "a b^T",
              BN, kStages, us, rate(us), rate(library_us), library_us / us, different);
  std::fflush(stdout);
  return different == 0;
}

template <bool a_mn, bool b_mn>
bool both_tiles(cublasLtHandle_t handle, const Operands& o) {
  const double us = library(handle, o, a_mn, b_mn);
  const bool narrow = ours<128, 4, a_mn, b_mn>(o, us), wide = ours<256, 3, a_mn, b_mn>(o, us);
  return narrow && wide;
}

}  // namespace

int main() {
  cudaDriverEntryPointQueryResult found;
  CHECKED(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", reinterpret_cast<void**>(&encode), 12000,
                                           cudaEnableDefault, &found));
  cublasLtHandle_t handle;
  CHECKED(cublasLtCreate(&handle));
  CHECKED(cudaMalloc(&differences, sizeof *differences));
  std::printf(
      "| m x n x k | form | tiles | us | TFLOP/s | cuBLASLt's | times its speed | elements that differ |\n"
      "|---|---|---|---:|---:|---:|---:|---:|\n");
  bool same = true;
  for (const auto& [m, n, k] : {int3{4096, 1152, 896},
                                {4096, 896, 896},
                                {4096, 9728, 896},
                                {4096, 896, 4864},
                                {16384, 9728, 896},
                                {16384, 896, 4864},
                                {4096, 17920, 1536},
                                {4096, 37888, 3584},
                                {4096, 3584, 18944},
                                {8192, 8192, 8192},
                                {200, 136, 200}}) {
    Operands o{m, n, k, nullptr, nullptr, nullptr, nullptr};
    const auto allocate = [](uint16_t*& p, int rows, int columns) {
      CHECKED(cudaMalloc(&p, size_t(rows) * size_t(columns) * 2));
    };
    allocate(o.a, m, k), allocate(o.b, n, k), allocate(o.c, m, n), allocate(o.expected, m, n);
    fill<<<1024, 256>>>(o.a, size_t(m) * size_t(k), 1);
    fill<<<1024, 256>>>(o.b, size_t(n) * size_t(k), 2);
    same &= both_tiles<false, false>(handle, o);
    same &= both_tiles<false, true>(handle, o);
    same &= both_tiles<true, true>(handle, o);
    for (uint16_t* p : {o.a, o.b, o.c, o.expected}) CHECKED(cudaFree(p));
  }
  return same ? 0 : 1;
}
