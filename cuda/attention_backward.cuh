// The backward kernels of attention on tensor cores. No atomics: one kernel owns dq, another dk and dv, and both
// compute the probabilities again from lse. Query rows are packed as in the forward kernel: row r of a work item is
// query head r % group of token r / group.
#pragma once

#include "cuda/attention_keys.cuh"
#include "cuda/attention_tile.cuh"

namespace dapo::cuda {

struct BackwardArgs {
  bf16* dqkv;
  const bf16* dout;
  const float *delta, *lse;  ///< [N, H]; delta = sum over d of dout * out
  PackKeys<bf16> keys;
  int group, segments;
  float scale, scale_log2;
};

inline constexpr int kBackwardWarps = 4;

/// Packed rows [r0, r0 + ROWS) of q (from qkv) or of dout into a tile; rows from `packed` on become zero.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_packed(bf16* tile, const bf16* from, int64_t ld, int64_t row0, int first_head,
                                            int group, int r0, int packed) {
  using Tile = RowTile<D>;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < ROWS * Tile::kChunks; i += THREADS) {
    const int row = i / Tile::kChunks, chunk = i % Tile::kChunks, r = r0 + row;
    const bool in = r < packed;
    const bf16* p = from + (row0 + r / group) * ld + int64_t{first_head + r % group} * D + chunk * 8;
    cp_async_16(tile + Tile::offset(row, chunk), in ? p : from, in ? 16 : 0);
  }
}

/// dq of 64 packed rows. Grid: (row tiles, KV heads, segments).
template <int D>
__global__ void __launch_bounds__(kBackwardWarps * 32) dq_kernel(BackwardArgs a) {
  constexpr int kThreads = kBackwardWarps * 32, kRows = kBackwardWarps * 16;
  using Tile = RowTile<D>;
  bf16* smem_q = dynamic_smem<bf16>();
  bf16* smem_g = smem_q + kRows * D;
  bf16* smem_kv = smem_g + kRows * D;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4;
  const int kv_head = static_cast<int>(blockIdx.y), segment = static_cast<int>(blockIdx.z), heads = a.keys.heads;
  const AttentionWork work = a.keys.work(segment);
  const int packed = work.rows * a.group, r0 = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  if (r0 >= packed) return;
  const int last_row = (r0 + kRows < packed ? r0 + kRows : packed) - 1;
  const int prefix_tiles = (work.prefix + kKvTile - 1) / kKvTile,
            tiles = prefix_tiles + last_row / a.group / kKvTile + 1;

  const auto fetch = [&](int t) {
    const bool prefix = t < prefix_tiles;
    const int at = prefix ? t : t - prefix_tiles, valid = (prefix ? work.prefix : work.own) - at * kKvTile;
    const bf16 *k, *v;
    int64_t ld;
    a.keys.tile(segment, kv_head, prefix, at, D, k, v, ld);
    Tile::template load<kKvTile, kThreads>(smem_kv, k, ld, valid);
    Tile::template load<kKvTile, kThreads>(smem_kv + kKvTile * D, v, ld, valid);
  };
  load_packed<D, kRows, kThreads>(smem_q, a.keys.qkv, a.keys.width, work.row0, kv_head * a.group, a.group, r0, packed);
  load_packed<D, kRows, kThreads>(smem_g, a.dout, int64_t{heads} * D, work.row0, kv_head * a.group, a.group, r0,
                                  packed);

  int own_limit[2];
  float lse_log2[2], delta[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = r0 + warp * 16 + g + 8 * h;
    const int64_t at = (work.row0 + r / a.group) * heads + kv_head * a.group + r % a.group;
    own_limit[h] = r < packed ? r / a.group + 1 : 0;
    lse_log2[h] = r < packed ? a.lse[at] * 1.4426950408889634f : INFINITY;  // a row past the end has no probability
    delta[h] = r < packed ? a.delta[at] : 0.0f;
  }
  float dq[D / 8][4] = {};
  for (int t = 0; t < tiles; ++t) {
    const bool prefix = t < prefix_tiles;
    const int at = prefix ? t : t - prefix_tiles;
    __syncthreads();  // all have left the tile before
    fetch(t);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    float s[kKvTile / 8][4] = {}, dp[kKvTile / 8][4] = {};
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t fq[4], fg[4];
      Tile::a_fragment(fq, smem_q, warp * 16, k, lane);
      Tile::a_fragment(fg, smem_g, warp * 16, k, lane);
#pragma unroll
      for (int j = 0; j < kKvTile / 16; ++j) {
        uint32_t b[4];
        Tile::b_rows(b, smem_kv, j * 16, k, lane);
        mma_pair(s[2 * j], s[2 * j + 1], fq, b);
        Tile::b_rows(b, smem_kv + kKvTile * D, j * 16, k, lane);
        mma_pair(dp[2 * j], dp[2 * j + 1], fg, b);
      }
    }
#pragma unroll
    for (int j = 0; j < kKvTile / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int h = e / 2, limit = (prefix ? work.prefix : own_limit[h]) - at * kKvTile;
        const float p = j * 8 + lane % 4 * 2 + e % 2 < limit ? exp2_approx(s[j][e] * a.scale_log2 - lse_log2[h]) : 0.0f;
        s[j][e] = p * (dp[j][e] - delta[h]) * a.scale;
      }
#pragma unroll
    for (int k = 0; k < kKvTile / 16; ++k) {
      uint32_t ds[4];
      products_to_a(ds, s[2 * k], s[2 * k + 1]);
#pragma unroll
      for (int j = 0; j < D / 16; ++j) {
        uint32_t b[4];
        Tile::b_columns(b, smem_kv, j, k * 16, lane);
        mma_pair(dq[2 * j], dq[2 * j + 1], ds, b);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = r0 + warp * 16 + g + 8 * h;
    if (r >= packed) continue;
    bf16* to = a.dqkv + (work.row0 + r / a.group) * a.keys.width + int64_t{kv_head * a.group + r % a.group} * D;
#pragma unroll
    for (int j = 0; j < D / 8; ++j)
      *reinterpret_cast<uint32_t*>(to + j * 8 + lane % 4 * 2) = pack_bf16(dq[j][2 * h], dq[j][2 * h + 1]);
  }
}

/// dk and dv of 64 keys under one KV head; a warp holds 16 keys and works on transposed scores, so that p and ds are A
/// fragments as they come. Queries: the rows of the keys' own segment from the first key on, then, in order, all rows
/// of the segments that it is the prefix of. Grid: (key tiles, KV heads, segments).
template <int D>
__global__ void __launch_bounds__(kBackwardWarps * 32) dkv_kernel(BackwardArgs a) {
  constexpr int kThreads = kBackwardWarps * 32, kKeys = kBackwardWarps * 16, kQueries = D == 128 ? 32 : 64;
  using Tile = RowTile<D>;
  bf16* smem_k = dynamic_smem<bf16>();
  bf16* smem_v = smem_k + kKeys * D;
  bf16* smem_q = smem_v + kKeys * D;
  bf16* smem_g = smem_q + kQueries * D;
  __shared__ float lse_log2[kQueries], delta[kQueries];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4;
  const int kv_head = static_cast<int>(blockIdx.y), own = static_cast<int>(blockIdx.z), heads = a.keys.heads;
  const AttentionWork key_work = a.keys.work(own);
  const int k0 = static_cast<int>(blockIdx.x) * kKeys;
  if (k0 >= key_work.rows) return;
  const bf16* k = a.keys.qkv + (key_work.row0 + k0) * a.keys.width + int64_t{heads + kv_head} * D;
  Tile::template load<kKeys, kThreads>(smem_k, k, a.keys.width, key_work.rows - k0);
  Tile::template load<kKeys, kThreads>(smem_v, k + int64_t{a.keys.kv_heads} * D, a.keys.width, key_work.rows - k0);

  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  for (int segment = own; segment < a.segments; ++segment) {
    const bool is_own = segment == own;
    if (!is_own && a.keys.segments[3 * segment + 2] != own) continue;
    const AttentionWork work = a.keys.work(segment);
    const int packed = work.rows * a.group;
    for (int r0 = is_own ? k0 * a.group / kQueries * kQueries : 0; r0 < packed; r0 += kQueries) {
      __syncthreads();  // all have left the queries before
      load_packed<D, kQueries, kThreads>(smem_q, a.keys.qkv, a.keys.width, work.row0, kv_head * a.group, a.group, r0,
                                         packed);
      load_packed<D, kQueries, kThreads>(smem_g, a.dout, int64_t{heads} * D, work.row0, kv_head * a.group, a.group, r0,
                                         packed);
      cp_async_commit();
      if (threadIdx.x < kQueries) {
        const int r = r0 + static_cast<int>(threadIdx.x);
        const int64_t at = (work.row0 + r / a.group) * heads + kv_head * a.group + r % a.group;
        lse_log2[threadIdx.x] = r < packed ? a.lse[at] * 1.4426950408889634f : INFINITY;
        delta[threadIdx.x] = r < packed ? a.delta[at] : 0.0f;
      }
      cp_async_wait<0>();
      __syncthreads();
      float s[kQueries / 8][4] = {}, dp[kQueries / 8][4] = {};
#pragma unroll
      for (int c = 0; c < D / 16; ++c) {
        uint32_t fk[4], fv[4];
        Tile::a_fragment(fk, smem_k, warp * 16, c, lane);
        Tile::a_fragment(fv, smem_v, warp * 16, c, lane);
#pragma unroll
        for (int j = 0; j < kQueries / 16; ++j) {
          uint32_t b[4];
          Tile::b_rows(b, smem_q, j * 16, c, lane);
          mma_pair(s[2 * j], s[2 * j + 1], fk, b);
          Tile::b_rows(b, smem_g, j * 16, c, lane);
          mma_pair(dp[2 * j], dp[2 * j + 1], fv, b);
        }
      }
#pragma unroll
      for (int j = 0; j < kQueries / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int column = j * 8 + lane % 4 * 2 + e % 2, key = k0 + warp * 16 + g + e / 2 * 8;
          const bool seen = key < key_work.rows && (!is_own || key <= (r0 + column) / a.group);
          const float p = seen ? exp2_approx(s[j][e] * a.scale_log2 - lse_log2[column]) : 0.0f;
          s[j][e] = p;
          dp[j][e] = p * (dp[j][e] - delta[column]) * a.scale;
        }
#pragma unroll
      for (int q = 0; q < kQueries / 16; ++q) {
        uint32_t fp[4], fs[4];
        products_to_a(fp, s[2 * q], s[2 * q + 1]);
        products_to_a(fs, dp[2 * q], dp[2 * q + 1]);
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
          uint32_t b[4];
          Tile::b_columns(b, smem_g, j, q * 16, lane);
          mma_pair(dv[2 * j], dv[2 * j + 1], fp, b);
          Tile::b_columns(b, smem_q, j, q * 16, lane);
          mma_pair(dk[2 * j], dk[2 * j + 1], fs, b);
        }
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int key = k0 + warp * 16 + g + 8 * h;
    if (key >= key_work.rows) continue;
    bf16* to = a.dqkv + (key_work.row0 + key) * a.keys.width + int64_t{heads + kv_head} * D;
    bf16* to_v = to + int64_t{a.keys.kv_heads} * D;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      const int column = j * 8 + lane % 4 * 2;
      *reinterpret_cast<uint32_t*>(to + column) = pack_bf16(dk[j][2 * h], dk[j][2 * h + 1]);
      *reinterpret_cast<uint32_t*>(to_v + column) = pack_bf16(dv[j][2 * h], dv[j][2 * h + 1]);
    }
  }
}

}  // namespace dapo::cuda
