// The forward kernel of attention, for training and prefill; a decode step has kernels of its own with the same
// arithmetic (attention_decode.cuh). A warp holds 16 packed query rows: row r of a work item is query head r % group of
// its token r / group, so that the query heads of a KV head share each tile of keys. The rows of an mma are independent,
// and tiles of keys come in one order and are cut at the same places: a row has the same bits in all of them.
#pragma once

#include <cmath>

#include "core/sizes.h"
#include "cuda/attention_choice.h"
#include "cuda/attention_keys.cuh"
#include "cuda/attention_shape.h"
#include "cuda/attention_tile.cuh"
#include "cuda/attention_wgmma.cuh"
#include "cuda/launch.h"
#include "cuda/thread.cuh"

namespace dapo::cuda {

/// Grid: (row tiles, KV heads, sequences).
template <class Keys, int D, int WARPS>
__global__ void __launch_bounds__(WARPS * 32) attention_kernel(bf16* out, float* lse, const bf16* qkv, Keys keys,
                                                               int64_t width, int heads, int group, float scale_log2) {
  constexpr int kThreads = WARPS * 32, kRows = WARPS * 16, kStages = 2;
  using Tile = RowTile<D>;
  bf16* smem_q = dynamic_smem<bf16>();
  bf16* smem_kv = smem_q + kRows * D;
  begin_overlapped();
  const int warp = thread_x() / 32, lane = thread_x() % 32;
  const int kv_head = block_y(), sequence = block_z();
  const AttentionWork work = keys.work(sequence);
  const int r0 = (grid_width() - 1 - block_x()) * kRows;  // the longest rows start first
  const int packed = work.rows * group;
  if (r0 >= packed) return;

  // Tiles of keys: those of the prefix, then those of its own up to the block's last row.
  const int last_row = (r0 + kRows < packed ? r0 + kRows : packed) - 1;
  const int prefix_tiles = ceil_div(work.prefix, kKvTile);
  const int own_tiles = (work.first_own + last_row / group) / kKvTile + 1;
  const int end = prefix_tiles + own_tiles;

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
    if (i < end) fetch(i);
    cp_async_commit();
  }

  const int g = lane / 4;
  const int row_of[2] = {r0 + warp * 16 + g, r0 + warp * 16 + g + 8};
  // Own keys that a row sees; rows past the end see the same as the last one.
  int own_limit[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) own_limit[h] = work.first_own + (row_of[h] < packed ? row_of[h] : last_row) / group + 1;
  constexpr bool kQueriesStay = D < 128;  // in registers; else read again for each tile, so that nothing spills
  uint32_t q[kQueriesStay ? D / 16 : 1][4];
  float o[D / 8][4], top[2], sum[2];
  RowTotals<D> totals;
  for (int t = 0; t < end; ++t) {
    const bool prefix = t < prefix_tiles;
    const int at = prefix ? t : t - prefix_tiles;
    cp_async_wait<kStages - 2>();
    __syncthreads();  // tile t has arrived, and all threads have left tile t - 1
    if (t + kStages - 1 < end) fetch(t + kStages - 1);
    cp_async_commit();
    if (kQueriesStay && t == 0)
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
      alpha[h] = softmax_step(s, h, limit, scale_log2, top[h], sum[h], lane);
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
    if (at % kSplitTiles == kSplitTiles - 1 || t == prefix_tiles - 1 || t == end - 1) totals.merge(o, top, sum);
  }
#pragma unroll
  for (int h = 0; h < 2; ++h)
    if (row_of[h] < packed)
      totals.store(out, lse, (work.row0 + row_of[h] / group) * heads + kv_head * group + row_of[h] % group, h, lane);
}

/// By wgmma (a.wgmma; D = 64 or 128, sm_90) or by mma.sync: the bits are the same.
template <int D, int WARPS, class Keys>
void launch_forward(bf16* out, float* lse, const bf16* qkv, const Keys& keys, const ForwardArgs& a) {
  const float scale_log2 = kLog2e / std::sqrt(static_cast<float>(D));
  const auto launch_by = [&](auto kernel, int rows, int threads, size_t smem) {
    const int tiles = narrow(ceil_div(int64_t{a.max_rows} * a.group, rows));
    launch_overlapped(kernel, {dim3(tiles, a.kv_heads, a.sequences), dim3(threads), smem, a.stream}, out, lse, qkv,
                      keys, a.width, a.heads, a.group, scale_log2);
  };
  if constexpr (has_wgmma_attention(D)) {
    using S = WgmmaAttention<D>;
    if (a.wgmma) return launch_by(wgmma_attention_kernel<Keys, D>, S::kRows, S::kThreads, S::kBytes);
  }
  launch_by(attention_kernel<Keys, D, WARPS>, WARPS * 16, WARPS * 32,
            (size_t{WARPS} * 16 + 4 * kKvTile) * D * sizeof(bf16));
}

}  // namespace dapo::cuda
