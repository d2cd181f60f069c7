// The wgmma product against a chain of k16 steps in order of k.
#include <cublasLt.h>
#include <gtest/gtest.h>

#include <bit>

#include "cuda/wgmma_product.cuh"
#include "sim.h"
#include "sim/tensor_core.h"
#include "tests/sim/bf16_values.h"
#include "tests/sim/device_array.h"
#include "tests/sim/tensor_maps.h"

using namespace dapo;
using namespace dapo::cuda;

namespace {

std::uint16_t rounded(float x) {
  const auto w = std::bit_cast<std::uint32_t>(x);
  return static_cast<std::uint16_t>((w + 0x7fff + (w >> 16 & 1)) >> 16);
}
float wide(std::uint16_t w) {
  return std::bit_cast<float>(std::uint32_t{w} << 16);
}

std::vector<std::uint16_t> chain(const std::vector<std::uint16_t>& a, const std::vector<std::uint16_t>& b, int m, int n,
                                 int k) {
  std::vector<std::uint16_t> c(static_cast<std::size_t>(m * n));
  for (int i = 0; i < m; ++i) {
    std::vector<float> d(static_cast<std::size_t>(n), 0.0f), right(static_cast<std::size_t>(16 * n));
    for (int k0 = 0; k0 < k; k0 += 16) {
      float left[16];
      for (int q = 0; q < 16; ++q) {
        left[q] = k0 + q < k ? wide(a[static_cast<std::size_t>(i * k + k0 + q)]) : 0.0f;
        for (int j = 0; j < n; ++j)
          right[static_cast<std::size_t>(q * n + j)] =
              k0 + q < k ? wide(b[static_cast<std::size_t>(j * k + k0 + q)]) : 0.0f;
      }
      sim::multiply_bf16(left, right.data(), d.data(), 1, n, 16);
    }
    for (int j = 0; j < n; ++j) c[static_cast<std::size_t>(i * n + j)] = rounded(d[static_cast<std::size_t>(j)]);
  }
  return c;
}

/// rows x columns to columns x rows.
std::vector<std::uint16_t> transposed(const std::vector<std::uint16_t>& v, int rows, int columns) {
  std::vector<std::uint16_t> t(v.size());
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j)
      t[static_cast<std::size_t>(j * rows + i)] = v[static_cast<std::size_t>(i * columns + j)];
  return t;
}

template <int BN, int kStages, bool a_mn = false, bool b_mn = false>
void run(int m, int n, int k, unsigned blocks) {
  SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k << ", tiles 128 x " << BN << ", " << blocks
                                  << " blocks, transposed " << a_mn << b_mn);
  const auto a = bf16_values(static_cast<std::size_t>(m * k), 1), b = bf16_values(static_cast<std::size_t>(n * k), 2);
  DeviceArray<std::uint16_t> da(a_mn ? transposed(a, m, k) : a), db(b_mn ? transposed(b, n, k) : b),
      dc(static_cast<std::size_t>(m * n));
  const auto map = [](std::uint16_t* p, int rows, int columns, long box, bool mn) {
    return mn ? tensor_map(p, 2, {rows, columns}, {64, 64}, 128) : tensor_map(p, 2, {columns, rows}, {64, box}, 128);
  };
  launch(wgmma_product<BN, kStages, a_mn, b_mn>, {dim3(blocks), dim3(384), ProductShape<BN, kStages>::kBytes},
         map(da.data(), m, k, 128, a_mn), map(db.data(), n, k, BN, b_mn),
         tensor_map(dc.data(), 2, {n, m}, {64, 64}, 128),
         ProductTiles{(m + 127) / 128, (n + BN - 1) / BN, (k + 63) / 64});
  const auto got = dc.host(), expected = chain(a, b, m, n, k);
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(got[i], expected[i]) << "row " << i / static_cast<std::size_t>(n) << ", column "
                                   << i % static_cast<std::size_t>(n);
}

TEST(WgmmaProduct, IsTheChainOfK16StepsWithTheCardsBits) {
  for (const bool exact : {false, true}) {
    sim::set_exact_sums(exact);
    for (std::uint64_t seed = 1; seed <= 2; ++seed) {
      sim::set_seed(seed);
      run<128, 4>(200, 136, 200, 1);  // ragged everywhere; one block walks over all tiles
      run<256, 3>(136, 248, 72, 2);
      run<128, 4, false, true>(136, 200, 136, 2);  // the gradient of x
      run<128, 4, true, true>(136, 200, 136, 2);   // of the weights
    }
  }
  sim::set_exact_sums(false);
}

TEST(WgmmaProduct, CublasLtHasTheSameBits) {
  const int m = 40, n = 24, k = 200;
  const auto a = bf16_values(static_cast<std::size_t>(m * k), 1), b = bf16_values(static_cast<std::size_t>(n * k), 2);
  for (const bool exact : {false, true}) {
    sim::set_exact_sums(exact);
    DeviceArray<std::uint16_t> da(a), db(b), dc(static_cast<std::size_t>(m * n));
    cublasLtHandle_t h;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t la, lb, lc;
    EXPECT_EQ(cublasLtCreate(&h), CUBLAS_STATUS_SUCCESS);
    cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t t = CUBLAS_OP_T;
    cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t);
    const auto layout = [](cublasLtMatrixLayout_t* l, int rows, int columns) {
      cublasLtMatrixLayoutCreate(l, CUDA_R_16BF, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns),
                                 rows);
    };
    layout(&la, k, n), layout(&lb, k, m), layout(&lc, n, m);  // column-major
    const float one = 1.0f, zero = 0.0f;
    EXPECT_EQ(cublasLtMatmul(h, op, &one, db.data(), la, da.data(), lb, &zero, dc.data(), lc, dc.data(), lc, nullptr,
                             nullptr, 0, nullptr),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(dc.host(), chain(a, b, m, n, k)) << "exact " << exact;
    cublasLtMatrixLayoutDestroy(la), cublasLtMatrixLayoutDestroy(lb), cublasLtMatrixLayoutDestroy(lc);
    cublasLtMatmulDescDestroy(op);
    cublasLtDestroy(h);
  }
  sim::set_exact_sums(false);
}

}  // namespace
