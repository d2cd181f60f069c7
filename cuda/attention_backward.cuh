// The backward kernels of attention on tensor cores: what they share, and dq (attention_dkv.cuh has dk and dv). No
// atomics: each kernel owns what it writes, and both recompute the probabilities from lse. Query rows are packed as in
// the forward kernel: row r of a work item is query head r % group of token r / group. Both keep one tile in flight
// while they work on another.
#pragma once

#include "core/sizes.h"
#include "cuda/attention_keys.cuh"
#include "cuda/attention_tile.cuh"
#include "cuda/thread.cuh"

namespace dapo::cuda {

/// n / d for n < 2^32 / d.
struct Divisor {
  int d;
  uint32_t magic;
  explicit Divisor(int divisor) : d(divisor), magic(static_cast<uint32_t>(((uint64_t{1} << 32) + d - 1) / d)) {}
  __device__ int divide(int n) const {
    return d == 1 ? n : static_cast<int>(static_cast<uint64_t>(static_cast<uint32_t>(n)) * magic >> 32);
  }
};

struct BackwardArgs {
  bf16* dqkv;
  const bf16* dout;
  const float *delta, *lse;  ///< [N, H]; delta = sum over d of dout * out
  PackKeys<bf16> keys;
  Divisor group;
  int segments;
  float scale, scale_log2;
  // dk and dv of a key tile are summed over its query tiles in parts of part_steps tiles, one block for each; several
  // parts are stored in `parts`, f32[parts, N, K, 2, D], and added in order.
  int part_steps, most_parts;
  float* parts;
  int64_t rows;  ///< N
};

inline constexpr int kBackwardWarps = 4, kBackwardThreads = kBackwardWarps * 32;
/// m16 tiles that a warp holds, of keys in dkv and of query rows in dq: with two, each fragment that is read from shared
/// memory serves four products instead of two. At D = 128 the sums of dk and dv leave no registers for a second tile.
template <int D>
inline constexpr int kKeyTiles = D == 128 ? 1 : 2;
inline constexpr int kRowTiles = 2;
/// Keys of a dkv block, query rows of a dq block.
template <int D>
inline constexpr int kKeyTile = kBackwardWarps * 16 * kKeyTiles<D>;
inline constexpr int kRowTile = kBackwardWarps * 16 * kRowTiles;
inline constexpr int kMostParts = 8;
/// Query rows of one step of dkv, keys of one step of dq: shared memory of two blocks an SM.
template <int D>
inline constexpr int kStep = D == 128 ? 32 : 64;
/// Columns of scores that are held at once, in registers.
inline constexpr int kHalf = 32;

/// Starts the copy of rows [0, ROWS) from `from` (rows ld apart); rows from `valid` on become zero. By the block's first
/// kBackwardThreads threads, as load_packed.
template <int D, int ROWS, class Layout = RowTile<D>>
__device__ __forceinline__ void load_rows(bf16* tile, const bf16* from, int64_t ld, int valid) {
  constexpr int kChunks = D / 8, kPass = kBackwardThreads / kChunks;
  static_assert(kPass % 8 == 0 && ROWS % kPass == 0, "rows of all passes lie at equal places of the swizzle");
  const int row = thread_x() / kChunks, chunk = thread_x() % kChunks;
  bf16* to = tile + Layout::offset(row, chunk);
  from += row * ld + chunk * 8;
#pragma unroll
  for (int i = 0; i < ROWS; i += kPass) cp_async_16(to + i * Layout::kPitch, from + i * ld, row + i < valid ? 16 : 0);
}

/// Packed rows [r0, r0 + ROWS) of q and of dout into two tiles; rows from `packed` on become zero. Row r lies r * D plus
/// a constant for each token before its own behind the segment's first.
template <int D, int ROWS, class Layout = RowTile<D>>
__device__ __forceinline__ void load_packed(bf16* tile_q, bf16* tile_g, const BackwardArgs& a, int row0, int kv_head,
                                            int r0, int packed) {
  constexpr int kChunks = D / 8, kPass = kBackwardThreads / kChunks;
  static_assert(kPass % 8 == 0 && ROWS % kPass == 0, "rows of all passes lie at equal places of the swizzle");
  const int row = thread_x() / kChunks, chunk = thread_x() % kChunks;
  const int to = Layout::offset(row, chunk), own = a.group.d * D, column = kv_head * own + chunk * 8;
  const int width = static_cast<int>(a.keys.width), heads = a.keys.heads * D;
  const bf16* q = a.keys.qkv + row0 * a.keys.width + column;
  const bf16* g = a.dout + int64_t{row0} * heads + column;
#pragma unroll
  for (int i = 0; i < ROWS; i += kPass) {
    const int r = r0 + row + i, token = a.group.divide(r), bytes = r < packed ? 16 : 0;
    cp_async_16(tile_q + to + i * Layout::kPitch, q + (r * D + token * (width - own)), bytes);
    cp_async_16(tile_g + to + i * Layout::kPitch, g + (r * D + token * (heads - own)), bytes);
  }
}

/// The forward's results that a packed row needs: lse in log2 units, and delta; a row past the end gets probability 0.
__device__ __forceinline__ float2 row_statistics(const BackwardArgs& a, int row0, int kv_head, int r, int packed) {
  if (r >= packed) return {INFINITY, 0.0f};
  const int token = a.group.divide(r);
  const int64_t at = int64_t{row0 + token} * a.keys.heads + kv_head * a.group.d + r - token * a.group.d;
  return {a.lse[at] * 1.4426950408889634f, a.delta[at]};
}

/// The two products over d of a step: s += x q^T and dp += y g^T, for the warp's 16 TILES rows of x and y and kHalf rows
/// of q and g.
template <int D, int TILES>
__device__ __forceinline__ void multiply_rows(float (&s)[TILES][kHalf / 8][4], float (&dp)[TILES][kHalf / 8][4],
                                              const bf16* x, const bf16* y, const bf16* q, const bf16* g, int lane) {
  using Tile = RowTile<D>;
#pragma unroll
  for (int c = 0; c < D / 16; ++c) {
    uint32_t fx[TILES][4], fy[TILES][4];
#pragma unroll
    for (int m = 0; m < TILES; ++m) {
      Tile::a_fragment(fx[m], x, m * 16, c, lane);
      Tile::a_fragment(fy[m], y, m * 16, c, lane);
    }
#pragma unroll
    for (int j = 0; j < kHalf / 16; ++j) {
      uint32_t b[4];
      Tile::b_rows(b, q, j * 16, c, lane);
#pragma unroll
      for (int m = 0; m < TILES; ++m) mma_pair(s[m][2 * j], s[m][2 * j + 1], fx[m], b);
      Tile::b_rows(b, g, j * 16, c, lane);
#pragma unroll
      for (int m = 0; m < TILES; ++m) mma_pair(dp[m][2 * j], dp[m][2 * j + 1], fy[m], b);
    }
  }
}

/// Writes a lane's part of row r of dq, whose columns it has in sums[..][2 h], sums[..][2 h + 1].
template <int D>
__device__ __forceinline__ void store_query(const BackwardArgs& a, int row0, int kv_head, int r,
                                            const float (&sums)[D / 8][4], int h, int lane) {
  const int token = a.group.divide(r);
  bf16* to = a.dqkv + (row0 + token) * a.keys.width + int64_t{kv_head * a.group.d + r - token * a.group.d} * D;
#pragma unroll
  for (int j = 0; j < D / 8; ++j)
    *reinterpret_cast<uint32_t*>(to + j * 8 + lane % 4 * 2) =
        pack_bf16(sums[j][2 * h] * a.scale, sums[j][2 * h + 1] * a.scale);
}

/// dq of kRowTile packed rows. Grid: (KV heads, segments, row tiles), the longest rows first.
template <int D>
__global__ void __launch_bounds__(kBackwardThreads, 2) dq_kernel(BackwardArgs a) {
  constexpr int kKeys = kStep<D>;
  using Tile = RowTile<D>;
  bf16* smem_q = dynamic_smem<bf16>();
  bf16* smem_g = smem_q + kRowTile * D;
  bf16* smem_kv = smem_g + kRowTile * D;  // two stages
  __shared__ float2 statistics[kRowTile];
  const int warp = thread_x() / 32, lane = thread_x() % 32, g = lane / 4;
  const int kv_head = block_x(), segment = block_y();
  const AttentionWork work = a.keys.work(segment);
  const int packed = work.rows * a.group.d, r0 = (static_cast<int>(gridDim.z) - 1 - block_z()) * kRowTile;
  if (r0 >= packed) return;
  const int last_row = (r0 + kRowTile < packed ? r0 + kRowTile : packed) - 1;
  const int last_seen = a.group.divide(last_row);  // own keys
  const int prefix_tiles = ceil_div(work.prefix, kKeys), tiles = prefix_tiles + last_seen / kKeys + 1;
  const int own_row = a.keys.segments[3 * segment];
  const int prefix_row = work.prefix > 0 ? a.keys.segments[3 * a.keys.segments[3 * segment + 2]] : 0;

  const auto fetch = [&](int t) {
    const bool prefix = t < prefix_tiles;
    const int first = (prefix ? t : t - prefix_tiles) * kKeys, valid = (prefix ? work.prefix : work.own) - first;
    const int row = (prefix ? prefix_row : own_row) + first;
    const bf16* k = a.keys.qkv + row * a.keys.width + (a.keys.heads + kv_head) * D;
    bf16* stage = smem_kv + t % 2 * 2 * kKeys * D;
    load_rows<D, kKeys>(stage, k, a.keys.width, valid);
    load_rows<D, kKeys>(stage + kKeys * D, k + a.keys.kv_heads * D, a.keys.width, valid);
  };
  load_packed<D, kRowTile>(smem_q, smem_g, a, own_row, kv_head, r0, packed);
  fetch(0);
  cp_async_commit();

  // In shared memory: at D = 128 registers are short.
  static_assert(kRowTile == kBackwardThreads);
  statistics[thread_x()] = row_statistics(a, own_row, kv_head, r0 + thread_x(), packed);
  const int seen_by_all = a.group.divide(r0 + warp * kRowTiles * 16) + 1;  // own keys that every row of the warp sees
  const bf16* warp_q = smem_q + warp * kRowTiles * 16 * D;
  const bf16* warp_g = smem_g + warp * kRowTiles * 16 * D;
  float dq[kRowTiles][D / 8][4] = {};
  for (int t = 0; t < tiles; ++t) {
    const bool prefix = t < prefix_tiles;
    const int first = (prefix ? t : t - prefix_tiles) * kKeys;
    const int end = prefix ? work.prefix : last_seen + 1, whole = prefix ? work.prefix : seen_by_all;
    cp_async_wait<0>();
    __syncthreads();  // tile t is there, and all have left tile t - 1
    if (t + 1 < tiles) fetch(t + 1);
    cp_async_commit();
    const bf16* tile_k = smem_kv + t % 2 * 2 * kKeys * D;
#pragma unroll 1
    for (int half = 0; half < kKeys && first + half < end; half += kHalf, tile_k += kHalf * D) {
      float s[kRowTiles][kHalf / 8][4] = {}, dp[kRowTiles][kHalf / 8][4] = {};
      multiply_rows<D, kRowTiles>(s, dp, warp_q, warp_g, tile_k, tile_k + kKeys * D, lane);
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float2 row = statistics[(warp * kRowTiles + m) * 16 + g + 8 * h];
#pragma unroll
          for (int j = 0; j < kHalf / 8; ++j)
#pragma unroll
            for (int e = 2 * h; e < 2 * h + 2; ++e) {
              const float p = exp2_approx(fmaf(s[m][j][e], a.scale_log2, -row.x));
              s[m][j][e] = p * (dp[m][j][e] - row.y);
            }
        }
      if (first + half + kHalf > whole) {
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int r = r0 + (warp * kRowTiles + m) * 16 + g + 8 * h;
            const int limit = (prefix ? work.prefix : a.group.divide(r) + 1) - first - half - lane % 4 * 2;
#pragma unroll
            for (int j = 0; j < kHalf / 8; ++j)
#pragma unroll
              for (int e = 0; e < 2; ++e)
                if (j * 8 + e >= limit) s[m][j][2 * h + e] = 0.0f;
          }
      }
#pragma unroll
      for (int k = 0; k < kHalf / 16; ++k) {
        uint32_t ds[kRowTiles][4];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) products_to_a(ds[m], s[m][2 * k], s[m][2 * k + 1]);
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
          uint32_t b[4];
          Tile::b_columns(b, tile_k, j, k * 16, lane);
#pragma unroll
          for (int m = 0; m < kRowTiles; ++m) mma_pair(dq[m][2 * j], dq[m][2 * j + 1], ds[m], b);
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = r0 + (warp * kRowTiles + m) * 16 + g + 8 * h;
      if (r < packed) store_query<D>(a, own_row, kv_head, r, dq[m], h, lane);
    }
}

}  // namespace dapo::cuda
