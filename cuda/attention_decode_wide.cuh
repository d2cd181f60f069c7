// Attention of a decode step of few sequences: a block of eight warps takes a split. Warp t computes the scores of tile
// t, then all warps the output, some of its columns each, tile after tile: the chain of an element of the output is that
// of one warp that walks the tiles, so the bits are those of decode_attention_kernel.
#pragma once

#include "cuda/attention_decode.cuh"

namespace dapo::cuda {

/// Shared memory: slots for a tile of keys or values each, then what the warps exchange. At D = 128 the last tiles of
/// values take the slots of the first keys.
template <int D>
struct WideLayout {
  static constexpr int kTile = kKvTile * D;
  static constexpr int kSlots = D < 128 ? 2 * kSplitTiles : 13;
  static constexpr int kAtOnce = kSlots - kSplitTiles;  // tiles of values that do not wait for keys
  static constexpr int kWeights = 16 * kKvTile;         // of 16 rows against a tile, bf16
  static constexpr size_t kSmem =
      (size_t{kSlots} * kTile + kSplitTiles * kWeights) * sizeof(bf16) + kSplitTiles * 16 * (2 + 4) * sizeof(float);
  static_assert(kSmem <= 227 << 10);
  __device__ static bf16* keys(int t) { return dynamic_smem<bf16>() + t * kTile; }
  __device__ static bf16* values(int t) { return keys((kSplitTiles + t) % kSlots); }
  __device__ static bf16* weights(int t) { return keys(kSlots) + t * kWeights; }
  /// [tile][row]: the largest score of the tile, the factor of what came before, four lanes' sums of weights.
  __device__ static float* top() { return reinterpret_cast<float*>(weights(kSplitTiles)); }
  __device__ static float* alpha() { return top() + kSplitTiles * 16; }
  __device__ static float* sums() { return alpha() + kSplitTiles * 16; }
};

/// Waits for the kernel ahead, which writes the queries and the newest token; older tokens are fetched before. Then scores
/// of tile t = the warp's number, their weights relative to the largest score up to this tile, in shared memory. `mine`:
/// the block has an item.
template <int D>
__device__ __forceinline__ void wide_weights(const DecodeItem& item, bool mine, const PageKeys<bf16>& keys,
                                             const DecodeQueries& q, int t, int lane) {
  using Tile = RowTile<D>;
  using Layout = WideLayout<D>;
  const bool here = mine && t < item.tiles();
  const int left = item.end - item.from - t * kKvTile;
  const bf16* from =
      keys.cache + (here ? keys.key_offset(item.sequence, item.kv_head, item.prefix, item.from + t * kKvTile, D) : 0);
  const auto load_values = [&] {
    Tile::template load_by<kKvTile, kWarp>(Layout::values(t), from + keys.value_step(D), D, left, lane);
  };
  const auto fetch = [&] {
    Tile::template load_by<kKvTile, kWarp>(Layout::keys(t), from, D, left, lane);
    cp_async_commit();
    if (t < Layout::kAtOnce) load_values();
    cp_async_commit();
  };
  const bool written_before = here && !item.has_newest(t);
  if (written_before) fetch();
  begin_overlapped();
  if (!mine) return;
  float s[kKvTile / 8][4] = {}, tile_top[2] = {-INFINITY, -INFINITY};
  if (here) {
    if (!written_before) fetch();
    uint32_t a[D / 16][4];
    query_fragments<D>(a, item, q, item.row0, lane);
    cp_async_wait<1>();
    __syncwarp();
#pragma unroll
    for (int k = 0; k < D / 16; ++k)
#pragma unroll
      for (int j = 0; j < kKvTile / 16; ++j) {
        uint32_t b[4];
        Tile::b_rows(b, Layout::keys(t), j * 16, k, lane);
        mma_pair(s[2 * j], s[2 * j + 1], a[k], b);
      }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      tile_top[h] = masked_max(s, h, left, q.scale_log2, -INFINITY, lane);
      if (lane % 4 == 0) Layout::top()[t * 16 + lane / 4 + 8 * h] = tile_top[h];
    }
  }
  __syncthreads();
  if (!here) return;
  if (t >= Layout::kAtOnce) load_values();
  cp_async_commit();
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = lane / 4 + 8 * h;
    float before = -INFINITY;
    for (int i = 0; i < t; ++i) before = fmaxf(before, Layout::top()[i * 16 + row]);
    const float base = softmax_base(fmaxf(before, tile_top[h]));
    Layout::sums()[(t * 16 + row) * 4 + lane % 4] = softmax_weights(s, h, base);
    if (lane % 4 == 0) Layout::alpha()[t * 16 + row] = exp2_approx(before - base);
#pragma unroll
    for (int j = 0; j < kKvTile / 8; ++j)
      *reinterpret_cast<uint32_t*>(Layout::weights(t) + RowTile<kKvTile>::offset(row, j) + lane % 4 * 2) =
          pack_bf16(s[j][2 * h], s[j][2 * h + 1]);
  }
  cp_async_wait<0>();
}

/// Grid: (splits x row tiles, KV heads, sequences).
template <int D>
__global__ void __launch_bounds__(kSplitTiles* kWarp)
    wide_attention_kernel(DecodeQueries q, PageKeys<bf16> keys, Partials partials) {
  using Layout = WideLayout<D>;
  const int warp = thread_x() / kWarp, lane = thread_x() % kWarp;
  DecodeItem item;
  const bool mine = find_item(item, keys, partials, q);
  wide_weights<D>(item, mine, keys, q, warp, lane);
  if (!mine) return;
  const int tiles = item.tiles();
  __syncthreads();

  constexpr int kEach = D > 64 ? D / 64 : 1;  // column tiles of 8 that a warp computes
  float o[kEach][4] = {}, sum[2] = {}, top[2] = {-INFINITY, -INFINITY};
  const bool computes = warp < D / 8;
  for (int t = 0; t < tiles; ++t) {
    float alpha[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = t * 16 + lane / 4 + 8 * h;
      alpha[h] = Layout::alpha()[row];
      sum[h] = fmaf(sum[h], alpha[h], Layout::sums()[row * 4 + lane % 4]);
      top[h] = fmaxf(top[h], Layout::top()[row]);
    }
    if (!computes) continue;
#pragma unroll
    for (int i = 0; i < kEach; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) o[i][e] *= alpha[e / 2];
#pragma unroll
    for (int k = 0; k < kKvTile; k += 32) {
      uint32_t p[2][4];
#pragma unroll
      for (int step = 0; step < 2; ++step)
        RowTile<kKvTile>::a_fragment(p[step], Layout::weights(t), 0, k / 16 + step, lane);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        uint32_t b[4];  // of 8 columns, two k16 steps
        ldmatrix_x4_trans(b, Layout::values(t) + RowTile<D>::offset(k + lane, warp + i * kSplitTiles));
#pragma unroll
        for (int step = 0; step < 2; ++step) {
          const uint32_t pair[2] = {b[2 * step], b[2 * step + 1]};
          mma_m16n8k16(o[i], p[step], pair, o[i]);
        }
      }
    }
  }
  const bool alone = splits_of(item.work) == 1;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float total = quad_sum(sum[h]);  // while all lanes are active
    const int row = item.row0 + lane / 4 + 8 * h;
    if (row >= item.rows || !computes) continue;
    const int64_t at = head_row(item, q, row), part = at * partials.splits + item.split;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int column = (warp + i * kSplitTiles) * 8 + lane % 4 * 2;
      if (alone)
        put_result(q, at, D, column, o[i][2 * h], o[i][2 * h + 1], top[h], total);
      else
        *reinterpret_cast<float2*>(partials.o + part * D + column) = {o[i][2 * h], o[i][2 * h + 1]};
    }
    if (!alone && warp == 0 && lane % 4 == 0) partials.max[part] = top[h], partials.sum[part] = total;
  }
  if (alone) return;
  __threadfence();  // the partial results, before the count
  __syncthreads();
  const bool last = threadIdx.x == 0 && count_arrival(item, keys, partials, q, item.sequence);
  if (__syncthreads_or(last) == 0) return;
  __threadfence();
  merge_splits<D, kSplitTiles * kWarp>(item, keys, partials, q, item.sequence, thread_x());
}

}  // namespace dapo::cuda
