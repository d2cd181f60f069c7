// The decode step's product against double precision, independent of oneDNN (bits: OpProperties.RowsOfAProduct...).
#include "cpu/few_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "cpu/cpu_backend.h"

namespace dapo::cpu {
namespace {

void check(int64_t m, int64_t n, int64_t k, DType out, bool with_bias) {
  std::mt19937 random(static_cast<unsigned>(m * 131 + n * 17 + k));
  std::normal_distribution<float> normal;
  const auto draw = [&](int64_t count) {
    std::vector<bf16> v(count);
    for (bf16& x : v) x = to_bf16(normal(random));
    return v;
  };
  const std::vector<bf16> a = draw(m * k), b = draw(n * k), bias = draw(n);
  Product p{.m = m,
            .n = n,
            .k = k,
            .a_type = DType::bf16,
            .b_type = DType::bf16,
            .c_type = out,
            .b_transposed = true,
            .lda = k,
            .ldb = k,
            .ldc = n};
  if (with_bias) p.bias = bias.data();
  if (!few_rows_can(p)) GTEST_SKIP() << "skipped: this CPU has no bf16 products";
  const size_t size = dtype_size(out), count = static_cast<size_t>(m * n);
  std::vector<char> c(count * size + 64, 0x5A);  // guard bytes behind
  std::vector<bf16> packed(few_rows_packed(p));
  few_rows_product(p, c.data(), a.data(), b.data(), packed.data());
  for (size_t i = count * size; i < c.size(); ++i) ASSERT_EQ(c[i], 0x5A) << "written behind the end";
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double want = with_bias ? to_float(bias[j]) : 0, terms = std::abs(want);
      for (int64_t l = 0; l < k; ++l) {
        const double t = double{to_float(a[i * k + l])} * to_float(b[j * k + l]);
        want += t, terms += std::abs(t);
      }
      const size_t at = i * n + j;
      const double got = out == DType::f32 ? reinterpret_cast<const float*>(c.data())[at]
                                           : to_float(reinterpret_cast<const bf16*>(c.data())[at]);
      // f32 sums: half a unit for each of k + 1 additions, of the terms' size at most; then the rounding to bf16.
      const double tolerance =
          terms * static_cast<double>(k + 1) * 0x1p-24 + (out == DType::bf16 ? std::abs(want) * 0x1p-8 : 0);
      ASSERT_NEAR(got, want, tolerance) << m << " x " << n << " x " << k << " at " << i << ", " << j;
    }
}

TEST(FewRows, EqualTheProduct) {
  for (const int64_t m : {1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 63, 64})
    for (const auto& [n, k] :
         {std::pair<int64_t, int64_t>{1, 2}, {7, 10}, {8, 512}, {13, 514}, {67, 898}, {24, 1024}, {9, 2600}})
      for (const DType out : {DType::bf16, DType::f32})
        for (const bool bias : {false, true}) check(m, n, k, out, bias);
}

TEST(FewRows, OtherShapesAreLeftToTheLibrary) {
  const Product p{.m = 4,
                  .n = 8,
                  .k = 16,
                  .a_type = DType::bf16,
                  .b_type = DType::bf16,
                  .c_type = DType::bf16,
                  .b_transposed = true,
                  .lda = 16,
                  .ldb = 16,
                  .ldc = 8};
  const auto with = [&](auto change) {
    Product q = p;
    change(q);
    return few_rows_can(q);
  };
  EXPECT_EQ(few_rows_can(p), cpu_has_bf16());
  EXPECT_FALSE(with([](Product& q) { q.m = kFewRows + 1; }));
  EXPECT_FALSE(with([](Product& q) { q.k = 15; }));
  EXPECT_FALSE(with([](Product& q) { q.a_type = q.b_type = DType::f32; }));
  EXPECT_FALSE(with([](Product& q) { q.b_transposed = false; }));
  EXPECT_FALSE(with([](Product& q) { q.accumulate = true; }));
}

}  // namespace
}  // namespace dapo::cpu
