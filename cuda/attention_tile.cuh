// Pieces of the tensor-core attention kernels: tiles of rows of D elements in shared memory, and the online softmax.
#pragma once

#include <cmath>

#include "core/backend.h"
#include "cuda/cuda_backend.h"
#include "cuda/ptx.cuh"
#include "cuda/thread.cuh"
#include "cuda/vec.cuh"

namespace dapo::cuda {

/// Tiles of keys between two merges of partial results (kKvSplit tokens).
inline constexpr int kSplitTiles = kKvSplit / kKvTile;

/// A tile of ROWS rows of D bf16 in shared memory. The 16-byte chunk c of row r lies at chunk c ^ (r & 7) (D = 32: c ^
/// (r / 2 & 3)), so that the 8 rows that one ldmatrix phase reads fall on 8 different groups of 4 banks.
template <int D>
struct RowTile {
  static_assert(D == 32 || D == 64 || D == 128);
  static constexpr int kChunks = D / 8, kPitch = D;
  __device__ static int offset(int row, int chunk) {
    const int turn = D == 32 ? row >> 1 & 3 : row & 7;
    return row * D + (chunk ^ turn) * 8;
  }
  /// Starts the copy of rows [0, ROWS) from `from` (rows ld apart); rows from `valid` on become zero.
  template <int ROWS, int THREADS>
  __device__ static void load(bf16* tile, const bf16* from, int64_t ld, int valid) {
    load_by<ROWS, THREADS>(tile, from, ld, valid, thread_x());
  }
  /// The same by THREADS threads of the block, of which this one is number `thread`.
  template <int ROWS, int THREADS>
  __device__ static void load_by(bf16* tile, const bf16* from, int64_t ld, int valid, int thread) {
    constexpr int kCopies = ROWS * kChunks;
#pragma unroll
    for (int i = thread; i < kCopies; i += THREADS) {
      const int row = i / kChunks, chunk = i % kChunks;
      const bool in = row < valid;
      cp_async_16(tile + offset(row, chunk), in ? from + row * ld + chunk * 8 : from, in ? 16 : 0);
    }
  }
  // Rows of fragments begin at multiples of 8, so that the place in the swizzle is a lane's alone, and 16 columns more
  // flip bits of its offset: one xor for each k, the same for all rows.
  /// A fragment: rows [r, r + 16), columns [16 k, 16 k + 16).
  __device__ static void a_fragment(uint32_t (&a)[4], const bf16* tile, int r, int k, int lane) {
    ldmatrix_x4(a, tile + r * D + (offset(lane & 15, lane >> 4) ^ 16 * k));
  }
  /// A fragment of the transposed tile: its rows are columns [16 r, 16 r + 16) of the tile, its k are rows [k, k + 16).
  __device__ static void a_fragment_trans(uint32_t (&a)[4], const bf16* tile, int r, int k, int lane) {
    ldmatrix_x4_trans(a, tile + k * D + (offset((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1) ^ 16 * r));
  }
  /// Two B fragments whose n are rows [n, n + 8) and [n + 8, n + 16), k columns [16 k, 16 k + 16): for x tile^T.
  __device__ static void b_rows(uint32_t (&b)[4], const bf16* tile, int n, int k, int lane) {
    ldmatrix_x4(b, tile + n * D + (offset((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1) ^ 16 * k));
  }
  /// Two B fragments whose n are columns [16 n, 16 n + 8) and [16 n + 8, 16 n + 16), k rows [k, k + 16): for x tile.
  __device__ static void b_columns(uint32_t (&b)[4], const bf16* tile, int n, int k, int lane) {
    ldmatrix_x4_trans(b, tile + k * D + (offset(lane & 15, lane >> 4) ^ 16 * n));
  }
};

/// sum += a b for the two column tiles of b.
__device__ __forceinline__ void mma_pair(float (&low)[4], float (&high)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[4]) {
  const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
  mma_m16n8k16(low, a, b0, low);
  mma_m16n8k16(high, a, b1, high);
}

/// Two neighbouring column tiles of products become one A fragment of 16 columns, rounded to bf16.
__device__ __forceinline__ void products_to_a(uint32_t (&a)[4], const float (&low)[4], const float (&high)[4]) {
  a[0] = pack_bf16(low[0], low[1]);
  a[1] = pack_bf16(low[2], low[3]);
  a[2] = pack_bf16(high[0], high[1]);
  a[3] = pack_bf16(high[2], high[3]);
}

__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// The online softmax of a tile of scores s[kKvTile / 8][4], of which a lane has two rows h. Maxima are in log2 units.

/// Scales row h, -inf from key `limit` on; the largest of `top` and of the lane's keys.
__device__ __forceinline__ float lane_masked_max(float (&s)[kKvTile / 8][4], int h, int limit, float scale_log2,
                                                 float top, int lane) {
#pragma unroll
  for (int j = 0; j < kKvTile / 8; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& x = s[j][2 * h + e];
      x = j * 8 + lane % 4 * 2 + e < limit ? __fmul_rn(x, scale_log2) : -INFINITY;
      top = fmaxf(top, x);
    }
  return top;
}
/// The same where the row sees every key of the tile.
__device__ __forceinline__ float lane_max(float (&s)[kKvTile / 8][4], int h, float scale_log2, float top) {
#pragma unroll
  for (int j = 0; j < kKvTile / 8; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& x = s[j][2 * h + e];
      x = __fmul_rn(x, scale_log2);
      top = fmaxf(top, x);
    }
  return top;
}
/// Over all lanes of the row.
__device__ __forceinline__ float masked_max(float (&s)[kKvTile / 8][4], int h, int limit, float scale_log2, float top,
                                            int lane) {
  return quad_max(lane_masked_max(s, h, limit, scale_log2, top, lane));
}
/// What weights are relative to: 0 for a row without keys.
__device__ __forceinline__ float softmax_base(float top) {
  return top == -INFINITY ? 0.0f : top;
}
/// Scores of row h to weights; their sum over the lane's keys.
__device__ __forceinline__ float softmax_weights(float (&s)[kKvTile / 8][4], int h, float base) {
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < kKvTile / 8; ++j)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& x = s[j][2 * h + e];
      x = exp2_approx(x - base);
      sum += x;
    }
  return sum;
}
/// Scaled scores of row h to weights, after earlier tiles; m: the largest score up to this tile. Returns the factor of
/// what the earlier tiles gave.
__device__ __forceinline__ float softmax_to(float m, float (&s)[kKvTile / 8][4], int h, float& top, float& sum) {
  const float base = softmax_base(m);
  const float alpha = exp2_approx(top - base);
  sum = fmaf(sum, alpha, softmax_weights(s, h, base));
  top = m;
  return alpha;
}
/// All of it.
__device__ __forceinline__ float softmax_step(float (&s)[kKvTile / 8][4], int h, int limit, float scale_log2,
                                              float& top, float& sum, int lane) {
  return softmax_to(masked_max(s, h, limit, scale_log2, top, lane), s, h, top, sum);
}

/// How two partial results become one: the weights of the sum so far and of the next split. Maxima in log2 units.
struct MergeWeights {
  float max, before, next;
};
__device__ __forceinline__ MergeWeights merge_weights(float max_before, float max_next) {
  const float m = fmaxf(max_before, max_next);
  const float base = m == -INFINITY ? 0.0f : m;
  return {m, exp2_approx(max_before - base), exp2_approx(max_next - base)};
}
__device__ __forceinline__ float merged(float before, float next, const MergeWeights& w) {
  return fmaf(before, w.before, next * w.next);
}

/// What a lane has of two rows of the forward kernels, over the splits so far.
template <int D>
struct RowTotals {
  float o[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {};

  /// Adds a split: its output, maxima and the lane's sums.
  __device__ __forceinline__ void merge(const float (&part)[D / 8][4], const float (&part_top)[2],
                                        const float (&part_sum)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const MergeWeights w = merge_weights(top[h], part_top[h]);
      sum[h] = merged(sum[h], quad_sum(part_sum[h]), w);
      top[h] = w.max;
#pragma unroll
      for (int j = 0; j < D / 8; ++j)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; ++e) o[j][e] = merged(o[j][e], part[j][e], w);
    }
  }
  /// Writes row h to element `at` of [tokens, heads] of out (D each) and lse (null: not wanted).
  __device__ __forceinline__ void store(bf16* out, float* lse, int64_t at, int h, int lane) const {
    const float inverse = 1.0f / sum[h];
#pragma unroll
    for (int j = 0; j < D / 8; ++j)
      *reinterpret_cast<uint32_t*>(out + at * D + j * 8 + lane % 4 * 2) =
          pack_bf16(o[j][2 * h] * inverse, o[j][2 * h + 1] * inverse);
    if (lse != nullptr && lane % 4 == 0) lse[at] = (top[h] + log2f(sum[h])) * 0.6931471805599453f;
  }
};

}  // namespace dapo::cuda
