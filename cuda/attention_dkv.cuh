// The backward kernel of attention that owns dk and dv, and the sum of its parts.
#pragma once

#include "cuda/attention_backward.cuh"

namespace dapo::cuda {

/// The query tiles that see a key tile, in order: those of the keys' own segment from the first key on, then all of the
/// segments that it is the prefix of.
template <int D>
struct QueryWalk {
  const BackwardArgs& a;
  int own, segment, r0, packed, row0;
  bool shared;  ///< a segment that has a prefix is none

  __device__ QueryWalk(const BackwardArgs& args, int s, int first_key)
      : a(args), own(s), r0(first_key * args.group.d), shared(args.keys.segments[3 * s + 2] < 0) {
    enter(s);
  }
  __device__ void enter(int s) {
    segment = s, row0 = a.keys.segments[3 * s], packed = a.keys.segments[3 * s + 1] * a.group.d;
  }
  /// On to the next segment; false: there is none.
  __device__ bool next_segment() {
    for (int s = segment + 1; shared && s < a.segments; ++s)
      if (a.keys.segments[3 * s + 2] == own) {
        enter(s), r0 = 0;
        return true;
      }
    return false;
  }
  __device__ int tiles_left() const { return (packed - r0 + kStep<D> - 1) / kStep<D>; }
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
    r0 += tiles * kStep<D>;
  }
  __device__ void advance() {
    r0 += kStep<D>;
    if (r0 >= packed) next_segment();
  }
};

/// Writes a lane's part of dk and dv of token n, or, if its tile has several parts, to this one.
template <int D>
__device__ __forceinline__ void store_key(const BackwardArgs& a, int64_t n, int kv_head, bool alone, int64_t part,
                                          const float (&dk)[D / 8][4], const float (&dv)[D / 8][4], int h, int lane) {
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

/// dk and dv of a key tile under one KV head over one part of their query tiles; a warp holds its keys and works on
/// transposed scores, so that p and ds are A fragments as they come. Grid: (KV heads, segments, key tiles x parts): the
/// first keys, which most queries see, come first.
template <int D>
__global__ void __launch_bounds__(kBackwardThreads, 2) dkv_kernel(BackwardArgs a) {
  constexpr int kQueries = kStep<D>, kTiles = kKeyTiles<D>, kWarpKeys = 16 * kTiles;
  using Tile = RowTile<D>;
  bf16* smem_k = dynamic_smem<bf16>();
  bf16* smem_v = smem_k + kKeyTile<D> * D;
  bf16* smem_queries = smem_v + kKeyTile<D> * D;  // two stages of q and dout
  __shared__ float2 statistics[2][kQueries];
  const int warp = thread_x() / 32, lane = thread_x() % 32, g = lane / 4;
  const int kv_head = block_x(), own = block_y();
  const int k0 = block_z() / a.most_parts * kKeyTile<D>, part = block_z() % a.most_parts;
  const int keys = a.keys.segments[3 * own + 1] - k0;
  if (keys <= 0) return;
  QueryWalk<D> next(a, own, k0);
  const int all = next.count(), first = part * a.part_steps;
  if (first >= all) return;
  const int steps = all - first < a.part_steps ? all - first : a.part_steps;
  next.skip(first);

  const bf16* k = a.keys.qkv + (a.keys.segments[3 * own] + k0) * a.keys.width + int64_t{a.keys.heads + kv_head} * D;
  load_rows<D, kKeyTile<D>>(smem_k, k, a.keys.width, keys);
  load_rows<D, kKeyTile<D>>(smem_v, k + int64_t{a.keys.kv_heads} * D, a.keys.width, keys);
  const auto fetch = [&](int step) {
    bf16* stage = smem_queries + step % 2 * 2 * kQueries * D;
    load_packed<D, kQueries>(stage, stage + kQueries * D, a, next.row0, kv_head, next.r0, next.packed);
  };
  const auto statistics_of_next = [&] {
    return thread_x() < kQueries ? row_statistics(a, next.row0, kv_head, next.r0 + thread_x(), next.packed) : float2{};
  };
  fetch(0);
  cp_async_commit();
  if (thread_x() < kQueries) statistics[0][thread_x()] = statistics_of_next();

  const int warp_key = k0 + warp * kWarpKeys;
  const int none_before = warp_key * a.group.d;  // own queries before this one see none of the warp's keys
  const bf16* warp_k = smem_k + warp * kWarpKeys * D;
  const bf16* warp_v = smem_v + warp * kWarpKeys * D;
  float dk[kTiles][D / 8][4] = {}, dv[kTiles][D / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    const bool is_own = next.segment == own;
    const int r0 = next.r0;
    cp_async_wait<0>();
    __syncthreads();  // the queries are there, and all have left those before
    if (step + 1 < steps) {
      next.advance();
      fetch(step + 1);
    }
    cp_async_commit();
    const float2 coming = statistics_of_next();
    const bf16* smem_q = smem_queries + step % 2 * 2 * kQueries * D;
    const float2* rows = statistics[step % 2] + lane % 4 * 2;
#pragma unroll 1
    for (int half = 0; half < kQueries; half += kHalf, smem_q += kHalf * D, rows += kHalf) {
      if (is_own && r0 + half + kHalf <= none_before) continue;
      const bf16* smem_g = smem_q + kQueries * D;
      float s[kTiles][kHalf / 8][4] = {}, dp[kTiles][kHalf / 8][4] = {};
      multiply_rows<D, kTiles>(s, dp, warp_k, warp_v, smem_q, smem_g, lane);
#pragma unroll
      for (int j = 0; j < kHalf / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900  // there the pointer spills, here the index
          const float2 row = statistics[step % 2][half + lane % 4 * 2 + j * 8 + e];
#else
          const float2 row = rows[j * 8 + e];
#endif
#pragma unroll
          for (int m = 0; m < kTiles; ++m)
#pragma unroll
            for (int h = 0; h < 4; h += 2) {
              const float p = exp2_approx(fmaf(s[m][j][h + e], a.scale_log2, -row.x));
              s[m][j][h + e] = p;
              dp[m][j][h + e] = p * (dp[m][j][h + e] - row.y);
            }
        }
      if (is_own && r0 + half < none_before + (kWarpKeys - 1) * a.group.d) {  // own queries before a key do not see it
#pragma unroll
        for (int m = 0; m < kTiles; ++m)
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int from = none_before + (m * 16 + g + 8 * h) * a.group.d - r0 - half - lane % 4 * 2;
#pragma unroll
            for (int j = 0; j < kHalf / 8; ++j)
#pragma unroll
              for (int e = 0; e < 2; ++e)
                if (j * 8 + e < from) s[m][j][2 * h + e] = dp[m][j][2 * h + e] = 0.0f;
          }
      }
#pragma unroll
      for (int q = 0; q < kHalf / 16; ++q) {
        uint32_t fp[kTiles][4], fs[kTiles][4];
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
          products_to_a(fp[m], s[m][2 * q], s[m][2 * q + 1]);
          products_to_a(fs[m], dp[m][2 * q], dp[m][2 * q + 1]);
        }
#pragma unroll
        for (int j = 0; j < D / 16; ++j) {
          uint32_t b[4];
          Tile::b_columns(b, smem_g, j, q * 16, lane);
#pragma unroll
          for (int m = 0; m < kTiles; ++m) mma_pair(dv[m][2 * j], dv[m][2 * j + 1], fp[m], b);
          Tile::b_columns(b, smem_q, j, q * 16, lane);
#pragma unroll
          for (int m = 0; m < kTiles; ++m) mma_pair(dk[m][2 * j], dk[m][2 * j + 1], fs[m], b);
        }
      }
    }
    if (thread_x() < kQueries) statistics[(step + 1) % 2][thread_x()] = coming;
  }
  const bool alone = all <= a.part_steps;
#pragma unroll
  for (int m = 0; m < kTiles; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int key = warp_key + m * 16 + g + 8 * h;
      if (key < a.keys.segments[3 * own + 1])  // read again rather than held in registers
        store_key<D>(a, a.keys.segments[3 * own] + key, kv_head, alone, part, dk[m], dv[m], h, lane);
    }
}

/// dk and dv of the key tiles that were cut into parts: their sums in order. Grid: (key tiles, KV heads, segments).
template <int D>
__global__ void __launch_bounds__(kBackwardThreads) dkv_sum_kernel(BackwardArgs a) {
  const int own = block_z(), kv_head = block_y();
  const int k0 = block_x() * kKeyTile<D>;
  const AttentionWork work = a.keys.work(own);
  if (k0 >= work.rows) return;
  const int all = QueryWalk<D>(a, own, k0).count(), parts = ceil_div(all, a.part_steps);
  if (parts == 1) return;
  const int keys = work.rows - k0 < kKeyTile<D> ? work.rows - k0 : kKeyTile<D>;
  for (int i = thread_x(); i < keys * 2 * D / 4; i += kBackwardThreads) {
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
