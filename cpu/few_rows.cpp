#include "cpu/few_rows.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"

namespace dapo::cpu {
namespace {

// Lanes are rows of x, sixteen a vector. x is packed by pairs of k, [k / 2][lanes][2]; a pair of a weight row is
// broadcast against it. So the weights are read once and in place; oneDNN copies them into its own layout at each
// call, which pays off from about 64 rows on.
constexpr int64_t kLane = 16;

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

void pack(bf16* packed, const bf16* a, int64_t m, int64_t lda, int64_t lanes, int64_t first, int64_t last) {
  for (int64_t pair = first; pair < last; ++pair)
    for (int64_t row = 0; row < lanes; ++row) {
      uint32_t two = 0;
      if (row < m) std::memcpy(&two, a + row * lda + 2 * pair, sizeof two);
      std::memcpy(packed + (pair * lanes + row) * 2, &two, sizeof two);
    }
}

/// sums[kRows][kVectors * 16] += over `pairs` pairs of k.
template <int kVectors, int kRows>
void add_block(float* sums, const bf16* b, int64_t ldb, const bf16* packed, int64_t pairs) {
  __m512 sum[kRows][kVectors];
  for (auto& row : sum)
    for (__m512& v : row) v = _mm512_setzero_ps();
  for (int64_t k = 0; k < pairs; ++k) {
    __m512i x[kVectors];
    for (int v = 0; v < kVectors; ++v) x[v] = _mm512_loadu_si512(packed + (k * kVectors + v) * 2 * kLane);
    // Prefetch by hand: more streams (weight rows) than the hardware prefetcher tracks (1.3x).
    if (k % 16 == 0)
      for (int r = 0; r < kRows; ++r)
        _mm_prefetch(reinterpret_cast<const char*>(b + (r + kRows) * ldb + 2 * k), _MM_HINT_T0);
    for (int r = 0; r < kRows; ++r) {
      int32_t pair;
      std::memcpy(&pair, b + r * ldb + 2 * k, sizeof pair);
      const __m512i w = _mm512_set1_epi32(pair);
      for (int v = 0; v < kVectors; ++v)
        sum[r][v] = _mm512_dpbf16_ps(sum[r][v], reinterpret_cast<__m512bh>(x[v]), reinterpret_cast<__m512bh>(w));
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      float* to = sums + (r * kVectors + v) * kLane;
      _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), sum[r][v]));
    }
}

/// Columns n .. n + kRows - 1 of c.
template <int kVectors, int kRows>
void columns(const Product& p, void* c, const bf16* b, const bf16* packed, int64_t n) {
  constexpr int64_t kWidth = kVectors * kLane;
  const int64_t block = p.k >= 1024 ? 1024 : 512;
  alignas(64) float sums[kRows * kWidth] = {};
  for (int64_t k = 0; k < p.k; k += block)
    add_block<kVectors, kRows>(sums, b + n * p.ldb + k, p.ldb, packed + k * kWidth, std::min(block, p.k - k) / 2);
  if (p.bias != nullptr)
    for (int r = 0; r < kRows; ++r) {
      const float bias = to_float(static_cast<const bf16*>(p.bias)[n + r]);
      for (int64_t i = 0; i < kWidth; ++i) sums[r * kWidth + i] += bias;
    }
  if (p.c_type == DType::f32) {
    for (int64_t i = 0; i < p.m; ++i)
      for (int r = 0; r < kRows; ++r) static_cast<float*>(c)[i * p.ldc + n + r] = sums[r * kWidth + i];
    return;
  }
  alignas(64) uint16_t rounded[kRows * kWidth];
  for (int64_t i = 0; i < kRows * kWidth; i += kLane)
    _mm256_store_si256(reinterpret_cast<__m256i*>(rounded + i),
                       reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_load_ps(sums + i))));
  for (int64_t i = 0; i < p.m; ++i) {
    uint16_t out[kRows];
    for (int r = 0; r < kRows; ++r) out[r] = rounded[r * kWidth + i];
    std::memcpy(static_cast<bf16*>(c) + i * p.ldc + n, out, sizeof out);
  }
}

template <int kVectors>
void multiply(const Product& p, void* c, const bf16* a, const bf16* b, bf16* packed) {
  constexpr int kRows = kVectors == 4 ? 4 : 8;  // with x they fill the 32 registers
  constexpr int64_t kPairs = 64;
  const int64_t pairs = p.k / 2, tiles = ceil_div(p.n, kRows);
#pragma omp parallel if (p.n * p.k * kVectors > kParallelFrom)
  {
#pragma omp for schedule(static)
    for (int64_t first = 0; first < pairs; first += kPairs)
      pack(packed, a, p.m, p.lda, kVectors * kLane, first, std::min(pairs, first + kPairs));
#pragma omp for schedule(static)
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t n = tile * kRows;
      if (n + kRows <= p.n)
        columns<kVectors, kRows>(p, c, b, packed, n);
      else
        for (int64_t j = n; j < p.n; ++j) columns<kVectors, 1>(p, c, b, packed, j);
    }
  }
}

#pragma GCC pop_options

}  // namespace

bool few_rows_can(const Product& p) {
  static const bool cpu = cpu_has_bf16() && __builtin_cpu_supports("avx512bf16");
  return cpu && p.m <= kFewRows && p.a_type == DType::bf16 && p.b_type == DType::bf16 && p.b_transposed &&
         !p.a_transposed && !p.accumulate && p.k % 2 == 0;
}

int64_t few_rows_packed(const Product& p) {
  return p.k * kFewRows;
}

void few_rows_product(const Product& p, void* c, const void* a_, const void* b_, bf16* packed) {
  const auto *a = static_cast<const bf16*>(a_), *b = static_cast<const bf16*>(b_);
  if (p.m <= 1 * kLane)
    multiply<1>(p, c, a, b, packed);
  else if (p.m <= 2 * kLane)
    multiply<2>(p, c, a, b, packed);
  else if (p.m <= 3 * kLane)
    multiply<3>(p, c, a, b, packed);
  else
    multiply<4>(p, c, a, b, packed);
}

}  // namespace dapo::cpu
