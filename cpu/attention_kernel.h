// The building blocks of attention: one small product, and the reading of a tile of keys. Every element of a product is
// one chain of multiply-adds in the order of k, for any number of rows and columns: that is why decode, prefill and
// training agree bit for bit. Kernels are not inlined, so that no context changes their arithmetic.
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "core/backend.h"
#include "core/sizes.h"
#include "cpu/vec.h"

namespace dapo::cpu {

inline constexpr int kMaxRows = 6;
#ifdef __AVX512F__
inline constexpr int kMaxVectors = 4;  // 6 x 4 sums, 4 columns' vectors: 28 of 32 registers
#else
inline constexpr int kMaxVectors = 1;  // 6 x 2 halves, 2, 1: 15 of 16 registers
#endif
inline constexpr int64_t kQueryBlock = 64;  ///< queries whose state a thread keeps while it visits the tiles

/// Length of a row of head_dim floats in scratch: whole vectors.
inline int64_t padded(int64_t head_dim) {
  return round_up(head_dim, kLanes);
}

/// Cuts a thread's scratch into pieces; without memory it only measures.
class Carver {
 public:
  explicit Carver(float* base) : base_(base) {}
  float* take(int64_t floats) {
    float* p = base_ == nullptr ? nullptr : base_ + used_;
    used_ += round_up(floats, kLanes);
    return p;
  }
  int64_t used() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

/// Left operand of a small product: element (i, j) is p[i * row + j * step].
struct Left {
  const float* p;
  int64_t row, step;
};

#ifdef __AVX512F__
using Register = f32x16;
#else
// GCC keeps an f32x16 in memory if no register can hold it.
using Register = float __attribute__((vector_size(32)));
inline Register fma(Register a, Register b, Register c) {
  return reinterpret_cast<Register>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}
#endif
inline constexpr int kRegisterLanes = sizeof(Register) / sizeof(float);

inline Register load_register(const float* p) {
  Register v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Register load_register(const bf16* p) {
  using Half = uint16_t __attribute__((vector_size(sizeof(Register) / 2)));
  using Word = uint32_t __attribute__((vector_size(sizeof(Register))));
  Half h;
  std::memcpy(&h, p, sizeof h);
  return reinterpret_cast<Register>(__builtin_convertvector(h, Word) << 16);
}

template <int M, int NV, class E>
[[gnu::noinline]] void block_product(float* c, int64_t ldc, Left a, const E* b, int64_t ldb, int64_t k, bool add) {
  constexpr int kRegisters = NV * kLanes / kRegisterLanes;
  Register sum[M][kRegisters];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < kRegisters; ++v) sum[i][v] = add ? load_register(c + i * ldc + v * kRegisterLanes) : Register{};
  for (int64_t j = 0; j < k; ++j) {
    Register bv[kRegisters];
    for (int v = 0; v < kRegisters; ++v) bv[v] = load_register(b + j * ldb + v * kRegisterLanes);
    for (int i = 0; i < M; ++i) {
      const Register s = Register{} + a.p[i * a.row + j * a.step];
      for (int v = 0; v < kRegisters; ++v) sum[i][v] = fma(s, bv[v], sum[i][v]);
    }
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < kRegisters; ++v) std::memcpy(c + i * ldc + v * kRegisterLanes, &sum[i][v], sizeof(Register));
}

template <class E>
using BlockProduct = void (*)(float*, int64_t, Left, const E*, int64_t, int64_t, bool);
template <class E, int... I>
constexpr auto block_products(std::integer_sequence<int, I...>) {
  return std::array<BlockProduct<E>, sizeof...(I)>{block_product<I / kMaxVectors + 1, I % kMaxVectors + 1, E>...};
}
template <class E>
inline constexpr auto kBlockProducts = block_products<E>(std::make_integer_sequence<int, kMaxRows * kMaxVectors>());

/// Rows of the next block when n are left: no block is much smaller than the others (7 rows are 4 + 3, not 6 + 1).
inline int64_t next_rows(int64_t n) {
  return n <= kMaxRows ? n : n < 2 * kMaxRows ? (n + 1) / 2 : kMaxRows;
}

/// c[m, 16 vectors] (+)= a[m, k] b[k, 16 vectors].
template <class E>
inline void small_product(float* c, int64_t ldc, Left a, const E* b, int64_t ldb, int64_t m, int64_t vectors, int64_t k,
                          bool add) {
  for (int64_t v = 0; v < vectors; v += kMaxVectors) {
    const int64_t nv = std::min<int64_t>(kMaxVectors, vectors - v);
    for (int64_t i = 0, n = 0; i < m; i += n) {
      n = next_rows(m - i);
      kBlockProducts<E>[(n - 1) * kMaxVectors + nv - 1](c + i * ldc + v * kLanes, ldc, {a.p + i * a.row, a.row, a.step},
                                                        b + v * kLanes, ldb, k, add);
    }
  }
}

/// to[n, padded(d)] = from[n, d]; the rest of each row is zero.
template <class T>
void read_rows(float* to, const T* from, int64_t ld, int64_t n, int64_t d) {
  const int64_t whole = d / kLanes * kLanes, width = padded(d);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < whole; j += kLanes) store(to + i * width + j, load(from + i * ld + j));
    if (whole < d) store(to + i * width + whole, load_part(from + i * ld + whole, d - whole));
  }
}

/// Rows become columns, in four rounds that exchange halves.
DAPO_ALWAYS_INLINE void transpose(f32x16 (&r)[kLanes]) {
  const auto round = [&]<size_t... I>(auto w, std::index_sequence<I...>) {
    constexpr int kWidth = decltype(w)::value;
    for (int i = 0; i < kLanes; ++i)
      if (!(i & kWidth)) {
        const f32x16 a = r[i], b = r[i + kWidth];
        r[i] = __builtin_shufflevector(a, b, ((I & kWidth) ? I - kWidth + kLanes : I)...);
        r[i + kWidth] = __builtin_shufflevector(a, b, ((I & kWidth) ? I + kLanes : I + kWidth)...);
      }
  };
  const std::make_index_sequence<kLanes> lanes;
  round(std::integral_constant<int, 8>(), lanes);
  round(std::integral_constant<int, 4>(), lanes);
  round(std::integral_constant<int, 2>(), lanes);
  round(std::integral_constant<int, 1>(), lanes);
}

/// to[d, kKvTile] = from[n, d]^T, n <= kKvTile; columns past n are zero up to the next whole vector.
template <class T>
void read_transposed(float* to, const T* from, int64_t ld, int64_t n, int64_t d) {
  for (int64_t j = 0; j < n; j += kLanes)
    for (int64_t c = 0; c < d; c += kLanes) {
      const int64_t rows = std::min<int64_t>(kLanes, n - j), columns = std::min<int64_t>(kLanes, d - c);
      f32x16 block[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        const T* p = from + (j + i) * ld + c;
        block[i] = i >= rows ? f32x16{} : columns == kLanes ? load(p) : load_part(p, columns);
      }
      transpose(block);
      for (int64_t i = 0; i < columns; ++i) store(to + (c + i) * kKvTile + j, block[i]);
    }
}

inline constexpr i32x16 kLaneIndex = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/// Keys that query i (its index in its own segment) sees of a tile of `keys` keys that begins at own key `first`, or of
/// a prefix tile (first < 0).
inline int64_t visible(int64_t i, int64_t first, int64_t keys) {
  return first < 0 ? keys : std::clamp<int64_t>(i + 1 - first, 0, keys);
}

}  // namespace dapo::cpu
