// The forward kernel of attention, for training, prefill and decode alike. A warp holds 16 packed query rows: row r of
// a work item is query head r % group of its token r / group, so that the query heads of a KV head share each tile of
// keys. The rows of an mma are independent, and tiles of keys come in one order and are cut at the same places: a row
// has the same bits in all three.
#pragma once

#include <cmath>

#include "core/sizes.h"
#include "cuda/attention_keys.cuh"
#include "cuda/attention_shape.h"
#include "cuda/attention_tile.cuh"
#include "cuda/launch.h"
#include "cuda/thread.cuh"

namespace dapo::cuda {

/// Partial results of the splits of decode, f32: sums o[.., D], and each maximum (log2 units) and sum of weights.
struct Partials {
  float *o, *max, *sum;
  int splits;  ///< the most that a sequence can have
};

/// Tiles of keys and values that a decode's block holds. A third one, for a longer prefetch, leaves fewer blocks per
/// SM: on an H200 a step of 256 sequences at 1,024 tokens took 2.70 instead of 2.62 ms (0.5B) and 5.92 instead of 5.03
/// (1.5B).
inline constexpr int kDecodeStages = 2;

/// Grid: (row tiles x splits if kSplitGrid, KV heads, sequences). Each block walks the tiles of its split, or of all.
template <class Keys, int D, int WARPS, bool kSplitGrid>
__global__ void __launch_bounds__(WARPS * 32)
    attention_kernel(bf16* out, float* lse, const bf16* qkv, Keys keys, Partials partials, int64_t width, int heads,
                     int group, float scale_log2) {
  constexpr int kThreads = WARPS * 32, kRows = WARPS * 16, kStages = kSplitGrid ? kDecodeStages : 2;
  using Tile = RowTile<D>;
  bf16* smem_q = dynamic_smem<bf16>();
  bf16* smem_kv = smem_q + kRows * D;
  begin_overlapped();
  const int warp = thread_x() / 32, lane = thread_x() % 32;
  const int kv_head = block_y(), sequence = block_z();
  const AttentionWork work = keys.work(sequence);
  const int row_tiles = kSplitGrid ? grid_width() / partials.splits : grid_width();
  const int r0 = (row_tiles - 1 - block_x() % row_tiles) * kRows;  // the longest rows start first
  const int packed = work.rows * group;
  if (r0 >= packed) return;

  // Tiles of keys: those of the prefix, then those of its own up to the block's last row.
  const int last_row = (r0 + kRows < packed ? r0 + kRows : packed) - 1;
  const int prefix_tiles = ceil_div(work.prefix, kKvTile);
  const int own_tiles = (work.first_own + last_row / group) / kKvTile + 1;
  const int prefix_splits = ceil_div(prefix_tiles, kSplitTiles);
  int begin = 0, end = prefix_tiles + own_tiles;
  const int split = kSplitGrid ? block_x() / row_tiles : 0;
  if constexpr (kSplitGrid) {
    const bool in_prefix = split < prefix_splits;
    begin = in_prefix ? split * kSplitTiles : prefix_tiles + (split - prefix_splits) * kSplitTiles;
    const int stop = in_prefix ? prefix_tiles : end;
    if (begin >= stop) return;
    end = begin + kSplitTiles < stop ? begin + kSplitTiles : stop;
  }

  const auto fetch = [&](int t) {
    const bool prefix = t < prefix_tiles;
    const int at = prefix ? t : t - prefix_tiles;
    const int valid = (prefix ? work.prefix : work.own) - at * kKvTile;
    const bf16 *k, *v;
    int64_t ld;
    keys.tile(sequence, kv_head, prefix, at, D, k, v, ld);
    bf16* stage = smem_kv + t % kStages * 2 * kKvTile * D;
    Tile::template load<kKvTile, kThreads>(stage, k, ld, valid);
    Tile::template load<kKvTile, kThreads>(stage + kKvTile * D, v, ld, valid);
  };
#pragma unroll
  for (int i = thread_x(); i < kRows * Tile::kChunks; i += kThreads) {
    const int row = i / Tile::kChunks, chunk = i % Tile::kChunks, r = r0 + row;
    const bool in = r < packed;
    const bf16* q = qkv + (work.row0 + r / group) * width + int64_t{kv_head * group + r % group} * D + chunk * 8;
    cp_async_16(smem_q + Tile::offset(row, chunk), in ? q : qkv, in ? 16 : 0);
  }
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    if (i == 0 || begin + i < end) fetch(begin + i);
    cp_async_commit();
  }

  const int g = lane / 4;
  const int row_of[2] = {r0 + warp * 16 + g, r0 + warp * 16 + g + 8};
  // Own keys that a row sees; rows past the end see the same as the last one.
  int own_limit[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) own_limit[h] = work.first_own + (row_of[h] < packed ? row_of[h] : last_row) / group + 1;
  constexpr bool kQueriesStay =
      D < 128 || kSplitGrid;  // in registers; else read again for each tile, so that nothing spills
  uint32_t q[kQueriesStay ? D / 16 : 1][4];
  float o[D / 8][4], total_o[D / 8][4] = {};
  float top[2], sum[2], total_top[2] = {-INFINITY, -INFINITY}, total_sum[2] = {};
  for (int t = begin; t < end; ++t) {
    const bool prefix = t < prefix_tiles;
    const int at = prefix ? t : t - prefix_tiles;
    cp_async_wait<kStages - 2>();
    __syncthreads();  // tile t has arrived, and all threads have left tile t - 1
    if (t + kStages - 1 < end) fetch(t + kStages - 1);
    cp_async_commit();
    if (kQueriesStay && t == begin)
#pragma unroll
      for (int k = 0; k < (kQueriesStay ? D / 16 : 0); ++k) Tile::a_fragment(q[k], smem_q, warp * 16, k, lane);
    if (at % kSplitTiles == 0) {  // a split begins
#pragma unroll
      for (int j = 0; j < D / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) o[j][e] = 0.0f;
#pragma unroll
      for (int h = 0; h < 2; ++h) top[h] = -INFINITY, sum[h] = 0.0f;
    }
    const bf16* tile_k = smem_kv + t % kStages * 2 * kKvTile * D;
    const bf16* tile_v = tile_k + kKvTile * D;
    float s[kKvTile / 8][4] = {};
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
      uint32_t(&a)[4] = q[kQueriesStay ? k : 0];
      if (!kQueriesStay) Tile::a_fragment(a, smem_q, warp * 16, k, lane);
#pragma unroll
      for (int j = 0; j < kKvTile / 16; ++j) {
        uint32_t b[4];
        Tile::b_rows(b, tile_k, j * 16, k, lane);
        mma_pair(s[2 * j], s[2 * j + 1], a, b);
      }
    }
    float alpha[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int limit = (prefix ? work.prefix : own_limit[h]) - at * kKvTile;
      float m = top[h];
#pragma unroll
      for (int j = 0; j < kKvTile / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[j][2 * h + e];
          x = j * 8 + lane % 4 * 2 + e < limit ? __fmul_rn(x, scale_log2) : -INFINITY;
          m = fmaxf(m, x);
        }
      m = quad_max(m);
      const float base = m == -INFINITY ? 0.0f : m;  // a row without keys in this split
      alpha[h] = exp2_approx(top[h] - base);
      float part = 0.0f;
#pragma unroll
      for (int j = 0; j < kKvTile / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[j][2 * h + e];
          x = exp2_approx(x - base);
          part += x;
        }
      sum[h] = fmaf(sum[h], alpha[h], part);
      top[h] = m;
    }
#pragma unroll
    for (int j = 0; j < D / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) o[j][e] *= alpha[e / 2];
#pragma unroll
    for (int k = 0; k < kKvTile / 16; ++k) {
      uint32_t p[4];
      products_to_a(p, s[2 * k], s[2 * k + 1]);
#pragma unroll
      for (int j = 0; j < D / 16; ++j) {
        uint32_t b[4];
        Tile::b_columns(b, tile_v, j, k * 16, lane);
        mma_pair(o[2 * j], o[2 * j + 1], p, b);
      }
    }
    if (!kSplitGrid && (at % kSplitTiles == kSplitTiles - 1 || t == prefix_tiles - 1 || t == end - 1)) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const MergeWeights w = merge_weights(total_top[h], top[h]);
        total_sum[h] = merged(total_sum[h], quad_sum(sum[h]), w);
        total_top[h] = w.max;
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
#pragma unroll
          for (int e = 2 * h; e < 2 * h + 2; ++e) total_o[j][e] = merged(total_o[j][e], o[j][e], w);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float split_sum = kSplitGrid ? quad_sum(sum[h]) : 0.0f;  // while all lanes are active
    if (row_of[h] >= packed) continue;
    const int head = kv_head * group + row_of[h] % group;
    const int64_t n = work.row0 + row_of[h] / group, at = n * heads + head;
    if constexpr (kSplitGrid) {
      const int64_t part = at * partials.splits + split;
#pragma unroll
      for (int j = 0; j < D / 8; ++j)
        *reinterpret_cast<float2*>(partials.o + part * D + j * 8 + lane % 4 * 2) = {o[j][2 * h], o[j][2 * h + 1]};
      if (lane % 4 == 0) {
        partials.max[part] = top[h];
        partials.sum[part] = split_sum;
      }
    } else {
      const float inverse = 1.0f / total_sum[h];
#pragma unroll
      for (int j = 0; j < D / 8; ++j)
        *reinterpret_cast<uint32_t*>(out + at * D + j * 8 + lane % 4 * 2) =
            pack_bf16(total_o[j][2 * h] * inverse, total_o[j][2 * h + 1] * inverse);
      if (lse != nullptr && lane % 4 == 0) lse[at] = (total_top[h] + log2f(total_sum[h])) * 0.6931471805599453f;
    }
  }
}

template <int D, int WARPS, bool kSplitGrid, class Keys>
void launch_forward(bf16* out, float* lse, const bf16* qkv, const Keys& keys, const Partials& partials,
                    const ForwardArgs& a) {
  const int tiles = narrow(ceil_div(int64_t{a.max_rows} * a.group, WARPS * 16)) * (kSplitGrid ? partials.splits : 1);
  constexpr size_t kStages = kSplitGrid ? kDecodeStages : 2;
  constexpr size_t kSmem = (size_t{WARPS} * 16 + kStages * 2 * kKvTile) * D * sizeof(bf16);
  launch_overlapped(attention_kernel<Keys, D, WARPS, kSplitGrid>,
                    {dim3(tiles, a.kv_heads, a.sequences), dim3(WARPS * 32), kSmem, a.stream}, out, lse, qkv, keys,
                    partials, a.width, a.heads, a.group, kLog2e / std::sqrt(static_cast<float>(D)));
}

/// Merges the splits of each new row in order; one block for each row and head, one thread for each element.
template <int D>
__global__ void merge_kernel(bf16* out, PageKeys<bf16> keys, Partials partials, int heads) {
  begin_overlapped();
  const int sequence = block_y(), head = block_x(), d = thread_x();
  const AttentionWork work = keys.work(sequence);
  if (work.rows == 0) return;
  const auto splits_of = [](int tokens) { return ceil_div(tokens, kKvSplit); };
  const int splits = splits_of(work.prefix) + splits_of(work.own);
  const int64_t at = work.row0 * heads + head;
  float o = 0.0f, sum = 0.0f, top = -INFINITY;
  for (int s = 0; s < splits; ++s) {
    const int64_t part = at * partials.splits + s;
    const MergeWeights w = merge_weights(top, partials.max[part]);
    sum = merged(sum, partials.sum[part], w);
    o = merged(o, partials.o[part * D + d], w);
    top = w.max;
  }
  const float inverse = 1.0f / sum;
  out[at * D + d] = to_bf16(o * inverse);
}

}  // namespace dapo::cuda
