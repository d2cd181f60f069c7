// The two kinds of products beside each other: the hand-written kernels and cuBLASLt (plain products in the
// simulator).
#include "cuda/products.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "core/check.h"
#include "cuda/cuda_device.h"
#include "cuda/launch.h"

namespace dapo::cuda {
namespace {

/// Device memory with small integers, so that every sum is exact.
template <class T>
struct Matrix {
  explicit Matrix(size_t n) : host(n) {
    for (T& x : host) x = from(static_cast<float>(random() % 5) - 2);
    cuda_check(cudaMalloc(reinterpret_cast<void**>(&data), n * sizeof(T)), "cudaMalloc");
    cuda_check(cudaMemcpy(data, host.data(), n * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~Matrix() { cudaFree(data); }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  const std::vector<T>& read() {
    cuda_check(cudaMemcpy(host.data(), data, host.size() * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return host;
  }
  static T from(float x) {
    if constexpr (sizeof(T) == 2)
      return to_bf16(x);
    else
      return x;
  }
  std::vector<T> host;
  T* data = nullptr;
  static inline std::mt19937 random{5};
};

template <class T, class Out>
void expect_kinds_equal(int64_t m, int64_t n, int64_t k, bool a_transposed, bool b_transposed, bool with_bias,
                        int sms) {
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  properties.multiProcessorCount = sms;
  const auto count = [](int64_t x, int64_t y) { return static_cast<size_t>(x * y); };
  Matrix<T> a(count(m, k)), b(count(k, n)), bias(static_cast<size_t>(n));
  Product p{.m = m,
            .n = n,
            .k = k,
            .a_type = dtype_of<T>::value,
            .b_type = dtype_of<T>::value,
            .c_type = dtype_of<Out>::value,
            .a_transposed = a_transposed,
            .b_transposed = b_transposed,
            .lda = a_transposed ? m : k,
            .ldb = b_transposed ? k : n,
            .ldc = n,
            .accumulate = sizeof(Out) == 4 && !with_bias,
            .bias = with_bias ? bias.data : nullptr};
  std::vector<Out> got[2];
  for (const auto kind : {Products::Kind::own, Products::Kind::cublaslt}) {
    Matrix<Out>::random.seed(7);  // the same c before
    Matrix<Out> c(count(m, n));
    Products products(nullptr, properties);
    products.use(kind);
    products.run(p, c.data, a.data, b.data);
    got[kind == Products::Kind::cublaslt] = c.read();
  }
  EXPECT_EQ(std::memcmp(got[0].data(), got[1].data(), got[0].size() * sizeof(Out)), 0)
      << m << " x " << n << " x " << k << ", tiles for " << sms << " SMs" << (a_transposed ? ", a transposed" : "")
      << (b_transposed ? ", b transposed" : "");
}

TEST(CudaProducts, OwnKernelsGiveWhatCublasLtGives) {
  for (const bool a_transposed : {false, true})
    for (const bool b_transposed : {false, true}) {
      for (const int sms : {2, 4, 132}) {  // a large tile, a medium one, a small one
        expect_kinds_equal<bf16, bf16>(72, 136, 40, a_transposed, b_transposed, !a_transposed, sms);
        expect_kinds_equal<bf16, float>(72, 136, 40, a_transposed, b_transposed, false, sms);
      }
      expect_kinds_equal<bf16, bf16>(40, 72, 136, a_transposed, b_transposed, !a_transposed, 132);
      expect_kinds_equal<bf16, float>(200, 264, 72, a_transposed, b_transposed, false, 2);
      expect_kinds_equal<float, float>(7, 9, 11, a_transposed, b_transposed, false, 132);
    }
}

/// The largest that gives every SM a block; of a decode's few rows a tile holds no more than it must.
TEST(CudaProducts, TilesByShape) {
  EXPECT_EQ(choose_tile(72, 136, 2), Tile::large);
  EXPECT_EQ(choose_tile(72, 136, 4), Tile::medium);
  EXPECT_EQ(choose_tile(4096, 4096, 132), Tile::large);
  EXPECT_EQ(choose_tile(1024, 2048, 132), Tile::medium);
  EXPECT_EQ(choose_tile(1, 151936, 132), Tile::medium);
  EXPECT_EQ(choose_tile(64, 896, 132), Tile::small);
}

}  // namespace
}  // namespace dapo::cuda
