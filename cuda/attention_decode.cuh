// Attention of a decode step: every sequence has one new token, whose query heads of a KV head are packed rows. A work
// item is a split (the keys between two merges) of a sequence and a KV head; the last block of a sequence and KV head
// merges its splits. An item's arithmetic is that of attention_kernel on the same tiles, so the bits are the same.
//
// As kernels of a step's graph do, they read lengths and pages, and keys and values of tokens before the newest, while the
// kernel ahead runs (PagedSequences).
//
// decode_attention_kernel: a warp walks the tiles of a split. Sequences that share the pages of a prefix also share the
// block: as many neighbours as fill its row tiles read the keys once. wide_attention_kernel, for so few items that most
// SMs would have none: a warp a tile computes the scores, and each warp then some columns of the output.
#pragma once

#include <cmath>

#include "core/sizes.h"
#include "cuda/attention_keys.cuh"
#include "cuda/attention_shape.h"
#include "cuda/attention_tile.cuh"
#include "cuda/launch.h"
#include "cuda/reduce.cuh"
#include "cuda/thread.cuh"

namespace dapo::cuda {

/// Partial results of the splits, f32: sums o[.., D], and each maximum (log2 units) and sum of weights.
struct Partials {
  float *o, *max, *sum;
  int splits;         ///< the most that a sequence can have
  unsigned* arrived;  ///< [sequences, KV heads]: blocks that have written theirs; zero between kernels
};

/// The queries of a call, and where their results go.
struct DecodeQueries {
  bf16* out;
  const bf16* qkv;
  int64_t width;
  int heads, group, row_tiles;  ///< row tiles of 16 query heads of a KV head
  int sequences;
  int together;  ///< sequences whose rows fit the row tiles of a warp
  float scale_log2;
};

__device__ __forceinline__ int splits_of(const AttentionWork& work) {
  return ceil_div(work.prefix, kKvSplit) + ceil_div(work.own, kKvSplit);
}

/// Keys [from, end) of a prefix or of a sequence's own, and the packed rows [row0, rows) that a block computes: those
/// of `count` sequences from `sequence` on.
struct DecodeItem {
  AttentionWork work;
  int sequence, count, kv_head, split;
  int from, end, row0, rows;
  bool prefix;
  __device__ int tiles() const { return ceil_div(end - from, kKvTile); }
  /// Whether tile t holds the sequence's newest token, which the kernel ahead writes.
  __device__ bool has_newest(int t) const { return !prefix && from + (t + 1) * kKvTile >= work.own; }
};

/// False: the block has no such split.
__device__ __forceinline__ bool find_item(DecodeItem& item, const PageKeys<bf16>& keys, const Partials& partials,
                                          const DecodeQueries& q) {
  item.sequence = block_z(), item.kv_head = block_y(), item.split = block_x() % partials.splits;
  item.work = keys.work(item.sequence);
  if (item.work.rows == 0) return false;
  const int prefix_splits = ceil_div(item.work.prefix, kKvSplit);
  item.prefix = item.split < prefix_splits;
  item.from = (item.prefix ? item.split : item.split - prefix_splits) * kKvSplit;
  const int length = item.prefix ? item.work.prefix : item.work.own;
  item.end = item.from + kKvSplit < length ? item.from + kKvSplit : length;
  item.row0 = block_x() / partials.splits * 16;
  item.count = 1;
  item.rows = q.group;
  return item.from < length;
}

/// Widens an item of a prefix to the neighbours that have the same pages there; false if another block has this
/// sequence among its own. By a whole warp.
__device__ __forceinline__ bool share_prefix(DecodeItem& item, const PageKeys<bf16>& keys, const DecodeQueries& q,
                                             int lane) {
  if (!item.prefix || q.together == 1) return true;
  const int window = item.sequence / q.together * q.together, other = window + lane;
  bool same = lane < q.together && other < q.sequences && keys.prefix_length[other] == item.work.prefix &&
              keys.row_begin[other + 1] - keys.row_begin[other] == 1;
  for (int p = item.from / keys.page_size; same && p * keys.page_size < item.end; ++p)
    same = keys.pages[int64_t{other} * keys.max_pages + p] == keys.pages[int64_t{item.sequence} * keys.max_pages + p];
  const unsigned mask = __ballot_sync(kFullMask, same), at = static_cast<unsigned>(item.sequence - window);
  if (at > 0 && (mask >> (at - 1) & 1u) != 0) return false;
  const unsigned others = ~(mask >> at);  // never 0: at most `together` <= 32 bits are set, and all only if at is 0
  item.count = others == 0 ? kWarp : __ffs(static_cast<int>(others)) - 1;
  item.rows = item.count * q.group;
  return true;
}

/// Offset of a row's query in qkv, of its result in out.
__device__ __forceinline__ int64_t query_offset(const DecodeItem& item, const DecodeQueries& q, int row, int d) {
  return (item.work.row0 + row / q.group) * q.width + int64_t{item.kv_head * q.group + row % q.group} * d;
}
/// Index of a row among all rows' query heads.
__device__ __forceinline__ int64_t head_row(const DecodeItem& item, const DecodeQueries& q, int row) {
  return (item.work.row0 + row / q.group) * q.heads + item.kv_head * q.group + row % q.group;
}

/// A fragments of 16 rows from `row` on, from global memory; rows past the item's are zero.
template <int D>
__device__ __forceinline__ void query_fragments(uint32_t (&a)[D / 16][4], const DecodeItem& item,
                                                const DecodeQueries& q, int row, int lane) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = row + lane / 4 + 8 * h;
    const bf16* from = q.qkv + (r < item.rows ? query_offset(item, q, r, D) : 0) + lane % 4 * 2;
#pragma unroll
    for (int k = 0; k < D / 16; ++k)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        a[k][2 * half + h] = r < item.rows ? *reinterpret_cast<const uint32_t*>(from + 16 * k + 8 * half) : 0;
  }
}

/// Writes two neighbouring columns of a row that has but one split.
__device__ __forceinline__ void put_result(const DecodeQueries& q, int64_t at, int d, int column, float low, float high,
                                           float top, float sum) {
  const MergeWeights w = merge_weights(-INFINITY, top);
  const float inverse = 1.0f / merged(0.0f, sum, w);
  *reinterpret_cast<uint32_t*>(q.out + at * d + column) =
      pack_bf16(merged(0.0f, low, w) * inverse, merged(0.0f, high, w) * inverse);
}

/// Counts a block of this sequence and the item's KV head; true for the last one.
__device__ __forceinline__ bool count_arrival(const DecodeItem& item, const PageKeys<bf16>& keys,
                                              const Partials& partials, const DecodeQueries& q, int sequence) {
  unsigned* arrived = partials.arrived + int64_t{sequence} * keys.kv_heads + item.kv_head;
  const auto all = static_cast<unsigned>(splits_of(keys.work(sequence)) * q.row_tiles);
  if (atomicAdd(arrived, 1u) != all - 1) return false;
  *arrived = 0;
  return true;
}

/// Merges the splits of a sequence and KV head in order, by THREADS threads. The partial results come from L2: L1 may
/// hold what an earlier block of this SM read of the same lines.
template <int D, int THREADS>
__device__ __forceinline__ void merge_splits(const DecodeItem& item, const PageKeys<bf16>& keys,
                                             const Partials& partials, const DecodeQueries& q, int sequence,
                                             int thread) {
  constexpr int kAtOnce = THREADS == kWarp ? 4 : 1;  // vectors of four columns
  const AttentionWork work = keys.work(sequence);
  const int splits = splits_of(work), vectors = q.group * (D / 4);
  const int64_t first = work.row0 * q.heads + item.kv_head * q.group;
  for (int begin = thread; begin < vectors; begin += THREADS * kAtOnce) {
    float o[kAtOnce][4] = {}, sum[kAtOnce] = {}, top[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) top[j] = -INFINITY;
#pragma unroll 2
    for (int s = 0; s < splits; ++s)
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int i = begin + j * THREADS;
        if (i >= vectors) continue;
        const int64_t part = (first + i / (D / 4)) * partials.splits + s;
        const float4 x = __ldcg(reinterpret_cast<const float4*>(partials.o + part * D) + i % (D / 4));
        const MergeWeights w = merge_weights(top[j], __ldcg(partials.max + part));
        sum[j] = merged(sum[j], __ldcg(partials.sum + part), w);
        o[j][0] = merged(o[j][0], x.x, w), o[j][1] = merged(o[j][1], x.y, w);
        o[j][2] = merged(o[j][2], x.z, w), o[j][3] = merged(o[j][3], x.w, w);
        top[j] = w.max;
      }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int i = begin + j * THREADS;
      if (i >= vectors) continue;
      const float inverse = 1.0f / sum[j];
      uint2 packed;
      packed.x = pack_bf16(o[j][0] * inverse, o[j][1] * inverse);
      packed.y = pack_bf16(o[j][2] * inverse, o[j][3] * inverse);
      *reinterpret_cast<uint2*>(q.out + (first + i / (D / 4)) * D + i % (D / 4) * 4) = packed;
    }
  }
}

/// Row tiles that a warp has registers for.
template <int D>
inline constexpr int kDecodeTiles = D < 128 ? 2 : 1;

/// HALVES tiles of keys or of values in turn, in a ring: while one is used, the others are under way.
template <int D, int HALVES>
struct DecodeRing {
  static constexpr int kHalf = kKvTile * D;
  static constexpr size_t kSmem = size_t{HALVES} * kHalf * sizeof(bf16);
};

/// The tiles of an item against M row tiles, by a warp. Waits for the kernel ahead once tiles that it does not write are
/// under way.
template <int D, int M, int HALVES>
__device__ __forceinline__ void walk_split(const DecodeItem& item, const PageKeys<bf16>& keys, const Partials& partials,
                                           const DecodeQueries& q, int lane) {
  using Tile = RowTile<D>;
  using Ring = DecodeRing<D, HALVES>;
  bf16* ring = dynamic_smem<bf16>();
  const int tiles = item.tiles();
  const int64_t own_offset =  // of the keys of tile number `lane`
      lane < tiles ? keys.key_offset(item.sequence, item.kv_head, item.prefix, item.from + lane * kKvTile, D) : 0;
  const auto fetch = [&](int half) {
    const int tile = half / 2;
    const int64_t offset = __shfl_sync(kFullMask, own_offset, tile);
    if (tile < tiles)
      Tile::template load<kKvTile, kWarp>(ring + half % HALVES * Ring::kHalf,
                                          keys.cache + offset + half % 2 * keys.value_step(D), D,
                                          item.end - item.from - tile * kKvTile);
    cp_async_commit();
  };
  const int before = 2 * (item.has_newest(tiles - 1) ? tiles - 1 : tiles);
#pragma unroll
  for (int half = 0; half < HALVES - 1; ++half)
    if (half < before) fetch(half);
  begin_overlapped();
#pragma unroll
  for (int half = 0; half < HALVES - 1; ++half)
    if (half >= before) fetch(half);
  uint32_t a[M][D / 16][4];
#pragma unroll
  for (int m = 0; m < M; ++m) query_fragments<D>(a[m], item, q, item.row0 + m * 16, lane);

  float o[M][D / 8][4] = {}, top[M][2], sum[M][2] = {};
#pragma unroll
  for (int m = 0; m < M; ++m) top[m][0] = top[m][1] = -INFINITY;
  for (int t = 0; t < tiles; ++t) {
    uint32_t p[M][kKvTile / 16][4];
    cp_async_wait<HALVES - 2>();
    __syncwarp();  // the keys have arrived, and all lanes have left the values of tile t - 1
    fetch(2 * t + HALVES - 1);
    const bf16* tile_k = ring + 2 * t % HALVES * Ring::kHalf;
#pragma unroll
    for (int m = 0; m < M; ++m) {
      float s[kKvTile / 8][4] = {}, alpha[2];
#pragma unroll
      for (int k = 0; k < D / 16; ++k)
#pragma unroll
        for (int j = 0; j < kKvTile / 16; ++j) {
          uint32_t b[4];
          Tile::b_rows(b, tile_k, j * 16, k, lane);
          mma_pair(s[2 * j], s[2 * j + 1], a[m][k], b);
        }
#pragma unroll
      for (int h = 0; h < 2; ++h)
        alpha[h] = softmax_step(s, h, item.end - item.from - t * kKvTile, q.scale_log2, top[m][h], sum[m][h], lane);
#pragma unroll
      for (int j = 0; j < D / 8; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) o[m][j][e] *= alpha[e / 2];
#pragma unroll
      for (int k = 0; k < kKvTile / 16; ++k) products_to_a(p[m][k], s[2 * k], s[2 * k + 1]);
    }
    cp_async_wait<HALVES - 2>();
    __syncwarp();  // the values have arrived, and all lanes have left the keys
    fetch(2 * t + HALVES);
    const bf16* tile_v = ring + (2 * t + 1) % HALVES * Ring::kHalf;
#pragma unroll
    for (int k = 0; k < kKvTile / 16; ++k)
#pragma unroll
      for (int j = 0; j < D / 16; ++j) {
        uint32_t b[4];
        Tile::b_columns(b, tile_v, j, k * 16, lane);
#pragma unroll
        for (int m = 0; m < M; ++m) mma_pair(o[m][2 * j], o[m][2 * j + 1], p[m][k], b);
      }
  }
  cp_async_wait<0>();
  const bool alone = splits_of(item.work) == 1;
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float total = quad_sum(sum[m][h]);  // while all lanes are active
      const int row = item.row0 + m * 16 + lane / 4 + 8 * h, column = lane % 4 * 2;
      if (row >= item.rows) continue;
      const int64_t at = head_row(item, q, row), part = at * partials.splits + item.split;
#pragma unroll
      for (int j = 0; j < D / 8; ++j) {
        const float low = o[m][j][2 * h], high = o[m][j][2 * h + 1];
        if (alone)
          put_result(q, at, D, j * 8 + column, low, high, top[m][h], total);
        else
          *reinterpret_cast<float2*>(partials.o + part * D + j * 8 + column) = {low, high};
      }
      if (!alone && lane % 4 == 0) partials.max[part] = top[m][h], partials.sum[part] = total;
    }
}

/// Grid: (splits x row tiles, KV heads, sequences).
template <int D, int HALVES>
__global__ void __launch_bounds__(kWarp, 1)
    decode_attention_kernel(DecodeQueries q, PageKeys<bf16> keys, Partials partials) {
  const int lane = thread_x();
  DecodeItem item;
  if (!find_item(item, keys, partials, q) || !share_prefix(item, keys, q, lane)) return begin_overlapped();
  if (kDecodeTiles<D> == 2 && item.rows - item.row0 > 16 && q.row_tiles == 1)
    walk_split<D, kDecodeTiles<D>, HALVES>(item, keys, partials, q, lane);
  else
    walk_split<D, 1, HALVES>(item, keys, partials, q, lane);
  if (splits_of(item.work) == 1) return;
  __threadfence();  // the partial results, before the count
  __syncwarp();
  const bool last = lane < item.count && count_arrival(item, keys, partials, q, item.sequence + lane);
  unsigned complete = __ballot_sync(kFullMask, last);
  if (complete == 0) return;
  __threadfence();
  for (; complete != 0; complete &= complete - 1)
    merge_splits<D, kWarp>(item, keys, partials, q, item.sequence + __ffs(static_cast<int>(complete)) - 1, lane);
}

}  // namespace dapo::cuda
