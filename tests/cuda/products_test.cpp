// The two kinds of products against each other: the hand-written kernels and cuBLASLt (plain products in the
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
    Matrix<Out>::random.seed(7);  // the same initial c
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

TEST(CudaProducts, OwnKernelsEqualCublasLt) {
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

/// y = x w^T + bias with normal numbers.
struct Forward {
  int64_t m, n, k;
  bool logits;
  Matrix<bf16> x{static_cast<size_t>(m * k)}, w{static_cast<size_t>(n * k)}, bias{static_cast<size_t>(n)};
  Matrix<float> y{static_cast<size_t>(m * n)};  // bf16 takes half of it
  Forward(int64_t m_, int64_t n_, int64_t k_, bool logits_) : m(m_), n(n_), k(k_), logits(logits_) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (Matrix<bf16>* t : {&x, &w, &bias}) {
      for (bf16& v : t->host) v = to_bf16(normal(random));
      cuda_check(cudaMemcpy(t->data, t->host.data(), t->host.size() * sizeof(bf16), cudaMemcpyHostToDevice), "copy");
    }
  }
  WeightShape weight() const { return {n, k, !logits, logits}; }
  /// The first `rows` rows of y.
  std::vector<float> run(Products& products, int64_t rows) {
    const DType out = logits ? DType::f32 : DType::bf16;
    cuda_check(cudaMemset(y.data, 0, y.host.size() * sizeof(float)), "cudaMemset");
    products.run({rows, n, k, DType::bf16, DType::bf16, out, false, true, k, k, n, false, logits ? nullptr : bias.data},
                 y.data, x.data, w.data);
    std::vector<float> got = y.read();
    got.resize(rows * n / (logits ? 1 : 2));
    return got;
  }
};

cudaDeviceProp device_properties() {
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return properties;
}

/// A row has the bits of our own kernels, whichever kernel serves its shape.
TEST(CudaProducts, TheChoiceByShapeKeepsTheBits) {
  for (const bool logits : {false, true}) {
    Forward f(300, 2056, 72, logits);
    Products own(nullptr, device_properties()), automatic(nullptr, device_properties());
    own.use(Products::Kind::own);
    automatic.use(Products::Kind::automatic);
    const WeightShape weight = f.weight();
    automatic.prepare({&weight, 1}, DType::bf16, f.m);
    SCOPED_TRACE(automatic.describe());
    const std::vector<float> want = f.run(own, f.m);
    for (const int64_t rows : {1, 16, 64, 65, 128, 200, 300}) {
      const std::vector<float> got = f.run(automatic, rows);
      EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0) << rows << " rows";
    }
  }
}

/// A weight of a megabyte is also timed: the bits are the same, whichever kernel is chosen.
TEST(CudaProducts, TheFasterKernelHasTheSameBits) {
  Forward f(8, 1032, 520, false);
  Products own(nullptr, device_properties()), automatic(nullptr, device_properties());
  own.use(Products::Kind::own);
  automatic.use(Products::Kind::automatic);
  const WeightShape weight = f.weight();
  automatic.prepare({&weight, 1}, DType::bf16, f.m);
  for (const int64_t rows : {1, 5, 8}) EXPECT_EQ(f.run(own, rows), f.run(automatic, rows)) << automatic.describe();
}

/// A weight's gradient by the library: the same bits each time.
TEST(CudaProducts, AWeightsGradientRepeats) {
  Products products(nullptr, device_properties());
  products.use(Products::Kind::cublaslt);
  const int64_t tokens = 2000, n = 136, k = 72;
  Forward f(tokens, n, k, true);  // w is not used; dy takes y's place, as bf16
  Matrix<bf16> dy(static_cast<size_t>(tokens * n));
  std::vector<float> first;
  for (int i = 0; i < 3; ++i) {
    Matrix<float> dw(static_cast<size_t>(n * k));
    cuda_check(cudaMemset(dw.data, 0, dw.host.size() * sizeof(float)), "cudaMemset");
    products.run({n, k, tokens, DType::bf16, DType::bf16, DType::f32, true, false, n, k, k, true}, dw.data, dy.data,
                 f.x.data);
    const std::vector<float> got = dw.read();
    if (i == 0) first = got;
    EXPECT_EQ(std::memcmp(got.data(), first.data(), got.size() * sizeof(float)), 0);
  }
}

/// The kernel for few rows gives the bits of the tiles for many, for any padding of k and any tail of n.
TEST(CudaProducts, DecodeHasTheBitsOfTraining) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{{44, 72}, {136, 520}, {2056, 72}})
    for (const bool logits : {false, true}) {
      Forward f(65, n, k, logits);
      Products own(nullptr, device_properties());
      own.use(Products::Kind::own);
      const std::vector<float> want = f.run(own, 65);
      for (const int64_t rows : {1, 8, 9, 16, 17, 40, 64}) {
        const std::vector<float> got = f.run(own, rows);
        EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0)
            << rows << " rows, " << n << " x " << k;
      }
    }
  EXPECT_EQ(decode_rows(16, 896, 4864), 8);
  EXPECT_EQ(decode_rows(16, 3584, 3584), 16);
  EXPECT_EQ(decode_rows(17, 896, 896), 0);
  EXPECT_EQ(decode_rows(8, 9728, 896), 16);
  EXPECT_EQ(decode_rows(9, 9728, 896), 0);
  EXPECT_EQ(decode_rows(1, 17920, 1536), 0);
  EXPECT_EQ(decode_rows(1, 151936, 896), 0);
}

/// The largest tile that gives every SM a block, and no larger than a decode's few rows need.
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
