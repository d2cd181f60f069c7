// The backward kernels of attention on tensor cores. No atomics: one kernel owns dq, another owns dk and dv, and both
// recompute the probabilities from lse. Query rows are packed as in the forward kernel: row r of a work item is query
// head r % group of token r / group. Both keep one tile in flight while they work on another.
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
  int part_steps;
  float* parts;
  int64_t rows;  ///< N
};

inline constexpr int kBackwardWarps = 4;
inline constexpr int kKeyTile = kBackwardWarps * 16;  ///< keys of a dkv block
inline constexpr int kMostParts = 8;
/// Query rows of one step of dkv: fewer at D = 128, so that nothing spills.
template <int D>
inline constexpr int kQueryTile = D == 128 ? 32 : 64;

/// Packed rows [r0, r0 + ROWS) of q and of dout into two tiles; rows from `packed` on become zero.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_packed(bf16* tile_q, bf16* tile_g, const BackwardArgs& a, int64_t row0,
                                            int kv_head, int r0, int packed) {
  using Tile = RowTile<D>;
#pragma unroll
  for (int i = thread_x(); i < ROWS * Tile::kChunks; i += THREADS) {
    const int row = i / Tile::kChunks, chunk = i % Tile::kChunks, r = r0 + row;
    const int token = a.group.divide(r), head = kv_head * a.group.d + r - token * a.group.d;
    const bool in = r < packed;
    const int64_t n = in ? row0 + token : 0, column = in ? head * D + chunk * 8 : 0;
    const int offset = Tile::offset(row, chunk), bytes = in ? 16 : 0;
    cp_async_16(tile_q + offset, a.keys.qkv + n * a.keys.width + column, bytes);
    cp_async_16(tile_g + offset, a.dout + n * a.keys.heads * D + column, bytes);
  }
}

/// The forward's results that a packed row needs: lse in log2 units, and delta; a row past the end gets probability 0.
__device__ __forceinline__ float2 row_statistics(const BackwardArgs& a, int64_t row0, int kv_head, int r, int packed) {
  if (r >= packed) return {INFINITY, 0.0f};
  const int token = a.group.divide(r);
  const int64_t at = (row0 + token) * a.keys.heads + kv_head * a.group.d + r - token * a.group.d;
  return {a.lse[at] * 1.4426950408889634f, a.delta[at]};
}

/// dq of 64 packed rows. Grid: (row tiles, KV heads, segments).
template <int D>
__global__ void __launch_bounds__(kBackwardWarps * 32) dq_kernel(BackwardArgs a) {
  constexpr int kThreads = kBackwardWarps * 32, kRows = kBackwardWarps * 16;
  using Tile = RowTile<D>;
  bf16* smem_q = dynamic_smem<bf16>();
  bf16* smem_g = smem_q + kRows * D;
  bf16* smem_kv = smem_g + kRows * D;  // two stages
  const int warp = thread_x() / 32, lane = thread_x() % 32, g = lane / 4;
  const int kv_head = block_y(), segment = block_z();
  const AttentionWork work = a.keys.work(segment);
  const int packed = work.rows * a.group.d, r0 = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  if (r0 >= packed) return;
  const int last_row = (r0 + kRows < packed ? r0 + kRows : packed) - 1;
  const int prefix_tiles = ceil_div(work.prefix, kKvTile),
            tiles = prefix_tiles + a.group.divide(last_row) / kKvTile + 1;

  const auto fetch = [&](int t) {
    const bool prefix = t < prefix_tiles;
    const int at = prefix ? t : t - prefix_tiles, valid = (prefix ? work.prefix : work.own) - at * kKvTile;
    const bf16 *k, *v;
    int64_t ld;
    a.keys.tile(segment, kv_head, prefix, at, D, k, v, ld);
    bf16* stage = smem_kv + t % 2 * 2 * kKvTile * D;
    Tile::template load<kKvTile, kThreads>(stage, k, ld, valid);
    Tile::template load<kKvTile, kThreads>(stage + kKvTile * D, v, ld, valid);
  };
  load_packed<D, kRows, kThreads>(smem_q, smem_g, a, work.row0, kv_head, r0, packed);
  fetch(0);
  cp_async_commit();

  int own_limit[2];
  float lse_log2[2], delta[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = r0 + warp * 16 + g + 8 * h;
    const float2 s = row_statistics(a, work.row0, kv_head, r, packed);
    own_limit[h] = r < packed ? a.group.divide(r) + 1 : 0;
    lse_log2[h] = s.x, delta[h] = s.y;
  }
  const int seen_by_all = a.group.divide(r0) + 1;  // own keys that every row of the tile sees
  float dq[D / 8][4] = {};
  for (int t = 0; t < tiles; ++t) {
    const bool prefix = t < prefix_tiles;
    const int at = prefix ? t : t - prefix_tiles;
    cp_async_wait<0>();
    __syncthreads();  // tile t is there, and all have left tile t - 1
    if (t + 1 < tiles) fetch(t + 1);
    cp_async_commit();
    const bf16* tile_k = smem_kv + t % 2 * 2 * kKvTile * D;
    const bf16* tile_v = tile_k + kKvTile * D;
    float s[kKvTile / 8][4] = {}, dp[kKvTile / 8][4] = {};
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t fq[4], fg[4];
      Tile::a_fragment(fq, smem_q, warp * 16, k, lane);
      Tile::a_fragment(fg, smem_g, warp * 16, k, lane);
#pragma unroll
      for (int j = 0; j < kKvTile / 16; ++j) {
        uint32_t b[4];
        Tile::b_rows(b, tile_k, j * 16, k, lane);
        mma_pair(s[2 * j], s[2 * j + 1], fq, b);
        Tile::b_rows(b, tile_v, j * 16, k, lane);
        mma_pair(dp[2 * j], dp[2 * j + 1], fg, b);
      }
    }
    const bool whole = (at + 1) * kKvTile <= (prefix ? work.prefix : seen_by_all);
#pragma unroll
    for (int j = 0; j < kKvTile / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int h = e / 2;
        s[j][e] = exp2_approx(fmaf(s[j][e], a.scale_log2, -lse_log2[h])) * (dp[j][e] - delta[h]);
      }
    if (!whole) {
#pragma unroll
      for (int j = 0; j < kKvTile / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int limit = (prefix ? work.prefix : own_limit[e / 2]) - at * kKvTile;
          if (j * 8 + lane % 4 * 2 + e % 2 >= limit) s[j][e] = 0.0f;
        }
    }
#pragma unroll
    for (int k = 0; k < kKvTile / 16; ++k) {
      uint32_t ds[4];
      products_to_a(ds, s[2 * k], s[2 * k + 1]);
#pragma unroll
      for (int j = 0; j < D / 16; ++j) {
        uint32_t b[4];
        Tile::b_columns(b, tile_k, j, k * 16, lane);
        mma_pair(dq[2 * j], dq[2 * j + 1], ds, b);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = r0 + warp * 16 + g + 8 * h;
    if (r >= packed) continue;
    const int token = a.group.divide(r);
    bf16* to = a.dqkv + (work.row0 + token) * a.keys.width + int64_t{kv_head * a.group.d + r - token * a.group.d} * D;
#pragma unroll
    for (int j = 0; j < D / 8; ++j)
      *reinterpret_cast<uint32_t*>(to + j * 8 + lane % 4 * 2) =
          pack_bf16(dq[j][2 * h] * a.scale, dq[j][2 * h + 1] * a.scale);
  }
}

/// The query tiles that see a key tile, in order: those of the keys' own segment from the first key on, then all of the
/// segments that it is the prefix of.
template <int D>
struct QueryWalk {
  const BackwardArgs& a;
  int own, segment, r0;
  __device__ QueryWalk(const BackwardArgs& args, int own_segment, int k0)
      : a(args), own(own_segment), segment(own_segment), r0(k0 * a.group.d / kQueryTile<D> * kQueryTile<D>) {}
  __device__ int64_t row0() const { return a.keys.segments[3 * segment]; }
  __device__ int packed() const { return a.keys.segments[3 * segment + 1] * a.group.d; }
  /// On to the next segment; false: there is none. A segment that has a prefix is none.
  __device__ bool next_segment() {
    if (a.keys.segments[3 * own + 2] >= 0) return false;
    for (int s = segment + 1; s < a.segments; ++s)
      if (a.keys.segments[3 * s + 2] == own) {
        segment = s, r0 = 0;
        return true;
      }
    return false;
  }
  __device__ int tiles_left() const { return (packed() - r0 + kQueryTile<D> - 1) / kQueryTile<D>; }
  /// Tiles from here to the end.
  __device__ int count() const {
    QueryWalk w = *this;
    int tiles = w.tiles_left();
    while (w.next_segment()) tiles += w.tiles_left();
    return tiles;
  }
  __device__ void skip(int tiles) {
    for (int left = tiles_left(); tiles >= left; left = tiles_left()) {
      tiles -= left;
      if (!next_segment()) return;
    }
    r0 += tiles * kQueryTile<D>;
  }
};

/// dk and dv of 64 keys under one KV head over part blockIdx.x of their query tiles; a warp holds 16 keys and works on
/// transposed scores, so that p and ds are A fragments as they come. Grid: (parts, key tiles x KV heads, segments).
template <int D>
__global__ void __launch_bounds__(kBackwardWarps * 32, D == 128 ? 2 : 3) dkv_kernel(BackwardArgs a) {
  constexpr int kThreads = kBackwardWarps * 32, kQueries = kQueryTile<D>;
  constexpr int kHalf = 32;  // queries whose scores are held at once: registers of three blocks an SM at D = 64
  using Tile = RowTile<D>;
  bf16* smem_k = dynamic_smem<bf16>();
  bf16* smem_v = smem_k + kKeyTile * D;
  bf16* smem_queries = smem_v + kKeyTile * D;  // two stages of q and dout
  __shared__ float2 statistics[2][kQueries];
  const int warp = thread_x() / 32, lane = thread_x() % 32, g = lane / 4;
  const int kv_head = block_y() % a.keys.kv_heads, own = block_z();
  const int k0 = block_y() / a.keys.kv_heads * kKeyTile, part = block_x();
  const AttentionWork key_work = a.keys.work(own);
  if (k0 >= key_work.rows) return;
  QueryWalk<D> next(a, own, k0);
  const int all = next.count(), first = part * a.part_steps;
  if (first >= all) return;
  const int steps = all - first < a.part_steps ? all - first : a.part_steps;
  next.skip(first);

  const bf16* k = a.keys.qkv + (key_work.row0 + k0) * a.keys.width + int64_t{a.keys.heads + kv_head} * D;
  Tile::template load<kKeyTile, kThreads>(smem_k, k, a.keys.width, key_work.rows - k0);
  Tile::template load<kKeyTile, kThreads>(smem_v, k + int64_t{a.keys.kv_heads} * D, a.keys.width, key_work.rows - k0);
  const auto fetch = [&](int step) {
    bf16* stage = smem_queries + step % 2 * 2 * kQueries * D;
    load_packed<D, kQueries, kThreads>(stage, stage + kQueries * D, a, next.row0(), kv_head, next.r0, next.packed());
  };
  const auto statistics_of_next = [&] {
    return threadIdx.x < kQueries ? row_statistics(a, next.row0(), kv_head, next.r0 + thread_x(), next.packed())
                                  : float2{};
  };
  fetch(0);
  cp_async_commit();
  if (threadIdx.x < kQueries) statistics[0][threadIdx.x] = statistics_of_next();

  const int last_key = (k0 + kKeyTile < key_work.rows ? k0 + kKeyTile : key_work.rows) - 1;
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    const bool is_own = next.segment == own;
    const int r0 = next.r0;
    cp_async_wait<0>();
    __syncthreads();  // the queries are there, and all have left those before
    if (step + 1 < steps) {
      next.skip(1);
      fetch(step + 1);
    }
    cp_async_commit();
    const bf16* smem_q = smem_queries + step % 2 * 2 * kQueries * D;
    const bf16* smem_g = smem_q + kQueries * D;
    const float2 coming = statistics_of_next();
#pragma unroll 1
    for (int half = 0; half < kQueries; half += kHalf) {
      float s[kHalf / 8][4] = {}, dp[kHalf / 8][4] = {};
#pragma unroll 2  // wholly unrolled it spills
      for (int c = 0; c < D / 16; ++c) {
        uint32_t fk[4], fv[4];
        Tile::a_fragment(fk, smem_k, warp * 16, c, lane);
        Tile::a_fragment(fv, smem_v, warp * 16, c, lane);
#pragma unroll
        for (int j = 0; j < kHalf / 16; ++j) {
          uint32_t b[4];
          Tile::b_rows(b, smem_q, half + j * 16, c, lane);
          mma_pair(s[2 * j], s[2 * j + 1], fk, b);
          Tile::b_rows(b, smem_g, half + j * 16, c, lane);
          mma_pair(dp[2 * j], dp[2 * j + 1], fv, b);
        }
      }
#pragma unroll
      for (int j = 0; j < kHalf / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float2 row = statistics[step % 2][half + j * 8 + lane % 4 * 2 + e];
#pragma unroll
          for (int h = 0; h < 4; h += 2) {
            const float p = exp2_approx(fmaf(s[j][h + e], a.scale_log2, -row.x));
            s[j][h + e] = p;
            dp[j][h + e] = p * (dp[j][h + e] - row.y);
          }
        }
      if (is_own && r0 + half < last_key * a.group.d) {  // own queries before a key do not see it
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int from = (k0 + warp * 16 + g + 8 * h) * a.group.d - r0 - half;
#pragma unroll
          for (int j = 0; j < kHalf / 8; ++j)
#pragma unroll
            for (int e = 2 * h; e < 2 * h + 2; ++e)
              if (j * 8 + lane % 4 * 2 + e % 2 < from) s[j][e] = dp[j][e] = 0.0f;
        }
      }
#pragma unroll
      for (int q = 0; q < kHalf / 16; ++q) {
        uint32_t fp[4], fs[4];
        products_to_a(fp, s[2 * q], s[2 * q + 1]);
        products_to_a(fs, dp[2 * q], dp[2 * q + 1]);
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
          uint32_t b[4];
          Tile::b_columns(b, smem_g, j, half + q * 16, lane);
          mma_pair(dv[2 * j], dv[2 * j + 1], fp, b);
          Tile::b_columns(b, smem_q, j, half + q * 16, lane);
          mma_pair(dk[2 * j], dk[2 * j + 1], fs, b);
        }
      }
    }
    if (threadIdx.x < kQueries) statistics[(step + 1) % 2][threadIdx.x] = coming;
  }
  const bool alone = all <= a.part_steps;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int key = k0 + warp * 16 + g + 8 * h;
    if (key >= key_work.rows) continue;
    const int64_t n = key_work.row0 + key;
    bf16* to = a.dqkv + n * a.keys.width + int64_t{a.keys.heads + kv_head} * D;
    bf16* to_v = to + int64_t{a.keys.kv_heads} * D;
    float* of_part = a.parts + ((part * a.rows + n) * a.keys.kv_heads + kv_head) * 2 * D;
#pragma unroll
    for (int j = 0; j < D / 8; ++j) {
      const int column = j * 8 + lane % 4 * 2;
      const float2 k_pair = {dk[j][2 * h] * a.scale, dk[j][2 * h + 1] * a.scale};
      const float2 v_pair = {dv[j][2 * h], dv[j][2 * h + 1]};
      if (alone) {
        *reinterpret_cast<uint32_t*>(to + column) = pack_bf16(k_pair.x, k_pair.y);
        *reinterpret_cast<uint32_t*>(to_v + column) = pack_bf16(v_pair.x, v_pair.y);
      } else {
        *reinterpret_cast<float2*>(of_part + column) = k_pair;
        *reinterpret_cast<float2*>(of_part + D + column) = v_pair;
      }
    }
  }
}

/// dk and dv of the key tiles that were cut into parts: their sums in order. Grid: (key tiles, KV heads, segments).
template <int D>
__global__ void __launch_bounds__(kBackwardWarps * 32) dkv_sum_kernel(BackwardArgs a) {
  const int own = block_z(), kv_head = block_y();
  const int k0 = block_x() * kKeyTile;
  const AttentionWork work = a.keys.work(own);
  if (k0 >= work.rows) return;
  const int all = QueryWalk<D>(a, own, k0).count(), parts = ceil_div(all, a.part_steps);
  if (parts == 1) return;
  const int keys = work.rows - k0 < kKeyTile ? work.rows - k0 : kKeyTile;
  for (int i = thread_x(); i < keys * 2 * D / 4; i += kBackwardWarps * 32) {
    const int64_t n = work.row0 + k0 + i / (2 * D / 4);
    const int column = i % (2 * D / 4) * 4;  // of dk, then of dv
    const int64_t at = (n * a.keys.kv_heads + kv_head) * 2 * D + column;
    float sum[4] = {};
    for (int p = 0; p < parts; ++p) {
      float x[4];
      load_floats(x, a.parts + p * a.rows * a.keys.kv_heads * 2 * D + at);
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[e] += x[e];
    }
    const int head = a.keys.heads + kv_head + column / D * a.keys.kv_heads;
    store_floats(a.dqkv + n * a.keys.width + int64_t{head} * D + column % D, sum);
  }
}

}  // namespace dapo::cuda
