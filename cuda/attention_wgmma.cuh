// The forward kernel of attention on Hopper's wgmma, for training and prefill. A producer's warpgroup brings tiles of
// keys and values through a ring in shared memory; each of the others holds 64 packed query rows, and issues the scores
// of the next tile before it adds up the values of this one, so that the softmax runs beside wgmma.
//
// The bits are those of attention_forward.cuh: a chain of k16 steps of wgmma rounds as one of mma.sync, tiles of keys
// come in the same order, and partial results are merged at the same places. Tiles that no row of a warpgroup sees are
// left out, which changes none: their weights are 0.
#pragma once

#include "cuda/attention_keys.cuh"
#include "cuda/attention_tile.cuh"
#include "cuda/wgmma_ring.cuh"

namespace dapo::cuda {

/// A block: its warpgroups, their registers a thread, and its shared memory.
template <int D>
struct WgmmaAttention {
  static_assert((D == 64 || D == 128) && kKvTile == 64);
  static constexpr int kConsumers = D == 64 ? 3 : 2, kRows = 64 * kConsumers, kThreads = 128 * (kConsumers + 1);
  static constexpr int kProducerRegisters = D == 64 ? 32 : 40, kConsumerRegisters = D == 64 ? 160 : 232;
  static constexpr int kTile = kPanelTile<D>;
  static constexpr int kSlots = 8;  // of the ring: a tile of keys or of values each
  static constexpr int kLag = 3;    // tiles under way: the next one is asked for before the first has arrived
  static constexpr int kRing = kConsumers * kTile, kBarriers = kRing + kSlots * kTile;  // queries come first
  static constexpr int kBytes = kBarriers + 2 * kSlots * 8;
  static_assert(kLag <= kSlots - 2, "a slot is given back only after the next tile has been asked for");
  static_assert(2 * (kConsumers - 1) < kSlots,
                "tiles that a warpgroup leaves out are not given back: no other needs their slots");
};

/// A thread's copies (of 128) of a tile of 64 rows: the 16-byte chunk `chunk` of rows row, row + kStep, ... kStep is a
/// multiple of 8, so that these rows have the same exchange.
template <int D>
struct PanelCopies {
  static constexpr int kChunks = D / 8, kStep = 128 / kChunks, kCount = 64 / kStep;
  int row, chunk;
  __device__ explicit PanelCopies(int thread) : row(thread / kChunks), chunk(thread % kChunks) {}
  __device__ unsigned char* place(unsigned char* tile, int i) const {
    return tile + PanelTile<D>::offset(row, chunk) * 2 + i * kStep * 128;
  }
};

/// The tiles that a block visits: those of the prefix, then those of its own tokens.
struct TileRange {
  int prefix, end;
};

/// Keys 0, keys 1, values 0, keys 2, values 1, ...: the order in which the consumers need them.
template <class Keys, int D>
__device__ __forceinline__ void bring_tiles(unsigned char* smem, const Keys& keys, int sequence, int kv_head,
                                            const AttentionWork& work, const TileRange& tiles) {
  using S = WgmmaAttention<D>;
  const PanelCopies<D> copies(thread_x());
  RingWriter<S::kSlots, S::kLag> ring(reinterpret_cast<std::uint64_t*>(smem + S::kBarriers));
  const auto bring = [&](const bf16* from, int64_t ld, int valid) {
    unsigned char* to = smem + S::kRing + ring.slot() * S::kTile;
    from += copies.row * ld + copies.chunk * 8;
#pragma unroll
    for (int i = 0; i < PanelCopies<D>::kCount; ++i, from += PanelCopies<D>::kStep * ld)
      cp_async_16(copies.place(to, i), from, copies.row + i * PanelCopies<D>::kStep < valid ? 16 : 0);
    ring.filled();
  };
  const bf16* last_v = nullptr;
  int64_t last_ld = 0;
  int last_valid = 0;
  for (int t = 0; t <= tiles.end; ++t) {
    const bf16 *k = nullptr, *v = nullptr;
    int64_t ld = 0;
    int valid = 0;
    if (t < tiles.end) {
      const bool prefix = t < tiles.prefix;
      const int at = prefix ? t : t - tiles.prefix;
      valid = (prefix ? work.prefix : work.own) - at * kKvTile;
      keys.tile(sequence, kv_head, prefix, at, D, k, v, ld);
      bring(k, ld, valid);
    }
    if (t > 0) bring(last_v, last_ld, last_valid);
    last_v = v, last_ld = ld, last_valid = valid;
  }
  ring.finish();
}

/// What the warpgroups of a block share.
struct WgmmaCall {
  unsigned char* smem;
  bf16* out;
  float* lse;
  const bf16* qkv;
  int64_t width;
  int heads, group, kv_head, first_row, packed;  ///< of the block's packed rows
  float scale_log2;
};

/// Packed rows from `first` on; those past the end become zero.
template <int D>
__device__ __forceinline__ void load_queries(unsigned char* tile, const WgmmaCall& c, const AttentionWork& work,
                                             int first, int thread) {
  const PanelCopies<D> copies(thread);
#pragma unroll
  for (int i = 0; i < PanelCopies<D>::kCount; ++i) {
    const int r = first + copies.row + i * PanelCopies<D>::kStep;
    const bf16* from = c.qkv + (work.row0 + r / c.group) * c.width + int64_t{c.kv_head * c.group + r % c.group} * D;
    cp_async_16(copies.place(tile, i), from + copies.chunk * 8, r < c.packed ? 16 : 0);
  }
}

/// 64 packed rows, by warpgroup 1, 2, ... of the block.
template <int D>
__device__ __forceinline__ void attend(const WgmmaCall& c, const AttentionWork& work, const TileRange& tiles,
                                       int warpgroup) {
  using S = WgmmaAttention<D>;
  auto* full = reinterpret_cast<std::uint64_t*>(c.smem + S::kBarriers);
  auto* empty = full + S::kSlots;
  const int thread = thread_x() % 128, lane = thread % 32;
  const int first = c.first_row + (warpgroup - 1) * 64, first_of_warp = first + thread / 32 * 16;
  unsigned char* queries = c.smem + (warpgroup - 1) * S::kTile;
  load_queries<D>(queries, c, work, first, thread);
  cp_async_wait_all();
  fence_proxy_async();
  barrier_sync(warpgroup, 128);

  // Own keys that a row sees; rows past the end see the same as the last one.
  const auto own_limit = [&](int row) { return work.first_own + min(row, c.packed - 1) / c.group + 1; };
  const int row_of[2] = {first_of_warp + lane / 4, first_of_warp + lane / 4 + 8};
  const int limits[2] = {own_limit(row_of[0]), own_limit(row_of[1])}, least = own_limit(first_of_warp);
  const int mine = tiles.prefix + ceil_div(own_limit(first + 63), kKvTile);  // later tiles no row sees

  const std::uint64_t query_tile = tile_by_columns(queries);
  const std::uint64_t key_ring = tile_by_columns(c.smem + S::kRing), value_ring = tile_by_rows(c.smem + S::kRing);
  const auto slot_offset = [](int slot) { return static_cast<std::uint64_t>(slot) * (S::kTile / 16); };
  float s[kKvTile / 2], o[D / 2];
  std::uint32_t p[kKvTile / 16][4];
  auto& scores = reinterpret_cast<float(&)[kKvTile / 8][4]>(s);
  auto& output = reinterpret_cast<float(&)[D / 8][4]>(o);
  RowTotals<D> totals;
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {}, alpha[2];
  RingPlace<S::kSlots> place{0};

  const auto issue_scores = [&](int slot) {
#pragma unroll
    for (int k = 0; k < D / 16; ++k)
      Wgmma<kKvTile>::shared(s, query_tile + column_step(k), key_ring + slot_offset(slot) + column_step(k), k != 0);
    wgmma_commit();
  };
  const auto issue_values = [&](int slot, bool keep) {
#pragma unroll
    for (int k = 0; k < kKvTile / 16; ++k)
      Wgmma<D, WgmmaForm{.transposed_b = true}>::registers_a(o, p[k], value_ring + slot_offset(slot) + row_step(k),
                                                             keep || k != 0);
    wgmma_commit();
  };
  const auto release = [&](int slot) {
    if (lane == 0) mbarrier_arrive(&empty[slot]);
  };
  const auto softmax = [&](int t) {
    const bool prefix = t < tiles.prefix;
    const int before = (prefix ? t : t - tiles.prefix) * kKvTile;
    float m[2];
    if ((prefix ? work.prefix : least) - before >= kKvTile) {
#pragma unroll
      for (int h = 0; h < 2; ++h) m[h] = lane_max(scores, h, c.scale_log2, top[h]);
    } else {
#pragma unroll
      for (int h = 0; h < 2; ++h)
        m[h] = lane_masked_max(scores, h, (prefix ? work.prefix : limits[h]) - before, c.scale_log2, top[h], lane);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) alpha[h] = softmax_to(quad_max(m[h]), scores, h, top[h], sum[h]);
  };
  const auto round_weights = [&] {
#pragma unroll
    for (int k = 0; k < kKvTile / 16; ++k) products_to_a(p[k], scores[2 * k], scores[2 * k + 1]);
  };

  mbarrier_wait(&full[place.slot], place.parity);
  wgmma_pin(s);
  wgmma_fence();
  issue_scores(place.slot);
  wgmma_wait<0>();
  wgmma_pin(s);
  release(place.slot);
  place.next();
  softmax(0);
  round_weights();
  bool begins = true;  // tile t - 1 is the first of a split
  for (int t = 1; t < mine; ++t) {
    mbarrier_wait(&full[place.slot], place.parity);
    wgmma_pin(s);
    wgmma_pin(o);
    wgmma_fence();
    const int key_slot = place.slot;
    issue_scores(key_slot);
    place.next();
    mbarrier_wait(&full[place.slot], place.parity);
    wgmma_fence();
    issue_values(place.slot, !begins);
    wgmma_wait<1>();
    wgmma_pin(s);
    release(key_slot);
    begins = (t < tiles.prefix ? t : t - tiles.prefix) % kSplitTiles == 0;
    const float split_top[2] = {top[0], top[1]}, split_sum[2] = {sum[0], sum[1]};
    if (begins) top[0] = top[1] = -INFINITY, sum[0] = sum[1] = 0.0f;
    softmax(t);
    wgmma_finish_before_wait(sum[0] + sum[1]);
    wgmma_wait<0>();
    wgmma_pin(o);
    wgmma_pin(s);  // p is free from here on, not earlier
    release(place.slot);
    place.next();
    if (begins) {
      totals.merge(output, split_top, split_sum);
    } else {
#pragma unroll
      for (int i = 0; i < D / 2; ++i) o[i] *= alpha[i / 2 % 2];
    }
    round_weights();
  }
  if (mine < tiles.end) place.next();  // keys that no row sees come before the last values
  mbarrier_wait(&full[place.slot], place.parity);
  wgmma_pin(o);
  wgmma_fence();
  issue_values(place.slot, !begins);
  wgmma_wait<0>();
  wgmma_pin(o);
  totals.merge(output, top, sum);
#pragma unroll
  for (int h = 0; h < 2; ++h)
    if (row_of[h] < c.packed)
      totals.store(c.out, c.lse,
                   (work.row0 + row_of[h] / c.group) * c.heads + c.kv_head * c.group + row_of[h] % c.group, h, lane);
}

/// Grid: (row tiles, KV heads, sequences).
template <class Keys, int D>
__global__ void __launch_bounds__(WgmmaAttention<D>::kThreads, 1)
    wgmma_attention_kernel(bf16* out, float* lse, const bf16* qkv, Keys keys, int64_t width, int heads, int group,
                           float scale_log2) {
  if constexpr (kForHopper) {
    using S = WgmmaAttention<D>;
    auto* smem = dynamic_smem<unsigned char>();
    begin_overlapped();
    const int kv_head = block_y(), sequence = block_z();
    const AttentionWork work = keys.work(sequence);
    const int first = (grid_width() - 1 - block_x()) * S::kRows;  // the longest rows start first
    const int packed = work.rows * group;
    if (first >= packed) return;
    const int last = min(first + S::kRows, packed) - 1, consumers = (last - first) / 64 + 1;
    const int prefix_tiles = ceil_div(work.prefix, kKvTile);
    const TileRange tiles{prefix_tiles, prefix_tiles + (work.first_own + last / group) / kKvTile + 1};
    if (thread_x() == 0) init_ring<S::kSlots>(reinterpret_cast<std::uint64_t*>(smem + S::kBarriers), consumers);
    __syncthreads();
    const int warpgroup = __shfl_sync(0xffffffffu, thread_x() / 128, 0);  // the compiler then knows it is uniform
    if (warpgroup == 0) {
      registers_give<S::kProducerRegisters>();
      bring_tiles<Keys, D>(smem, keys, sequence, kv_head, work, tiles);
    } else {
      registers_take<S::kConsumerRegisters>();
      if (warpgroup <= consumers)
        attend<D>({smem, out, lse, qkv, width, heads, group, kv_head, first, packed, scale_log2}, work, tiles,
                  warpgroup);
    }
  } else {
    __trap();
  }
}

}  // namespace dapo::cuda
