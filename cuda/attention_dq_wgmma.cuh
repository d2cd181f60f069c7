// dq on Hopper's wgmma. A producer's warpgroup brings tiles of 64 keys with their values through a ring in shared memory;
// each of the others holds 64 packed query rows.
//
// The bits are those of dq_kernel: a chain of k16 steps of wgmma rounds as one of mma.sync, and keys come in the same
// order. Steps of zeros (keys past the end of a prefix, tiles that no row sees) change none.
#pragma once

#include "cuda/attention_backward.cuh"
#include "cuda/wgmma_ring.cuh"

namespace dapo::cuda {

/// A block: its warpgroups, their registers a thread, and its shared memory: q and dout of each warpgroup, then the ring,
/// whose slots are a tile of keys, then one of values.
template <int D>
struct WgmmaDq {
  static_assert(kKvTile == 64);
  static constexpr int kConsumers = D == 64 ? 3 : 2, kRows = 64 * kConsumers, kThreads = 128 * (kConsumers + 1);
  static constexpr int kProducerRegisters = D == 64 ? 32 : 40, kConsumerRegisters = D == 64 ? 160 : 232;
  static constexpr int kTile = kPanelTile<D>, kSlot = 2 * kTile;
  static constexpr int kSlots = D == 64 ? 8 : 4, kLag = 2;  // slots; tiles under way
  static constexpr int kRing = kConsumers * kSlot, kBarriers = kRing + kSlots * kSlot;
  static constexpr int kBytes = kBarriers + 2 * kSlots * 8;
  static_assert(kLag < kSlots && kBytes <= 227 * 1024);
  static_assert(kConsumers - 1 < kSlots,
                "tiles that a warpgroup leaves out are not given back: no other needs their slots");
};

/// The packed rows of a block, and the tiles that it visits: those of the prefix, then those of its own tokens.
struct DqWork {
  int segment, kv_head, row0, r0, packed, prefix, own, prefix_tiles, tiles = 0;
};

template <int D>
__device__ __forceinline__ void bring_keys(const BackwardArgs& a, unsigned char* smem, const DqWork& w) {
  using S = WgmmaDq<D>;
  using Tile = PanelTile<D>;
  RingWriter<S::kSlots, S::kLag> ring(reinterpret_cast<std::uint64_t*>(smem + S::kBarriers));
  // q and dout arrive with the first tile.
  for (int i = 0; i < S::kConsumers; ++i) {
    auto* tile = reinterpret_cast<bf16*>(smem + i * S::kSlot);
    load_packed<D, 64, Tile>(tile, tile + S::kTile / 2, a, w.row0, w.kv_head, w.r0 + i * 64, w.packed);
  }
  for (int t = 0; t < w.tiles; ++t) {
    const bool prefix = t < w.prefix_tiles;
    const int at = prefix ? t : t - w.prefix_tiles, valid = (prefix ? w.prefix : w.own) - at * kKvTile;
    const bf16 *k, *v;
    int64_t ld;
    a.keys.tile(w.segment, w.kv_head, prefix, at, D, k, v, ld);
    auto* tile = reinterpret_cast<bf16*>(smem + S::kRing + ring.slot() * S::kSlot);
    load_rows<D, 64, Tile>(tile, k, ld, valid);
    load_rows<D, 64, Tile>(tile + S::kTile / 2, v, ld, valid);
    ring.filled();
  }
  ring.finish();
}

/// dq of 64 packed rows, by warpgroup 1, 2, ... of the block.
template <int D>
__device__ __forceinline__ void sum_over_keys(const BackwardArgs& a, unsigned char* smem, const DqWork& w,
                                              int warpgroup) {
  using S = WgmmaDq<D>;
  auto* full = reinterpret_cast<std::uint64_t*>(smem + S::kBarriers);
  auto* empty = full + S::kSlots;
  const int thread = thread_x() % 128, lane = thread % 32;
  const int first = w.r0 + (warpgroup - 1) * 64, first_in_warp = first + thread / 32 * 16;
  const unsigned char* queries = smem + (warpgroup - 1) * S::kSlot;
  const std::uint64_t q_tile = tile_by_columns(queries), dout_tile = tile_by_columns(queries + S::kTile);
  const std::uint64_t by_columns = tile_by_columns(smem + S::kRing), by_rows = tile_by_rows(smem + S::kRing);
  constexpr std::uint64_t kToValues = S::kTile / 16;

  const auto own_limit = [&](int row) { return a.group.divide(min(row, w.packed - 1)) + 1; };  // own keys that it sees
  const int least = own_limit(first_in_warp);
  const int mine = w.prefix_tiles + ceil_div(own_limit(first + 63), kKvTile);  // later tiles no row sees
  int limits[2];
  float2 row[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = first_in_warp + lane / 4 + 8 * h;
    limits[h] = own_limit(r);
    row[h] = row_statistics(a, w.row0, w.kv_head, r, w.packed);
  }
  float s[32], dp[32], dq[D / 2] = {};
  auto& scores = reinterpret_cast<float(&)[8][4]>(s);
  std::uint32_t ds[4][4];
  RingPlace<S::kSlots> place{0};
  for (int t = 0; t < mine; ++t) {
    const bool prefix = t < w.prefix_tiles;
    const int before = (prefix ? t : t - w.prefix_tiles) * kKvTile;
    const std::uint64_t slot = static_cast<std::uint64_t>(place.slot) * (S::kSlot / 16);
    mbarrier_wait(&full[place.slot], place.parity);
    wgmma_pin(s);
    wgmma_pin(dp);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < D / 16; ++k)
      Wgmma<64>::shared(s, q_tile + column_step(k), by_columns + slot + column_step(k), k != 0);
    wgmma_commit();
#pragma unroll
    for (int k = 0; k < D / 16; ++k)
      Wgmma<64>::shared(dp, dout_tile + column_step(k), by_columns + slot + kToValues + column_step(k), k != 0);
    wgmma_commit();
    wgmma_wait<1>();
    wgmma_pin(s);
#pragma unroll
    for (int i = 0; i < 32; ++i) s[i] = exp2_approx(fmaf(s[i], a.scale_log2, -row[i / 2 % 2].x));
    wgmma_wait<0>();
    wgmma_pin(dp);
#pragma unroll
    for (int i = 0; i < 32; ++i) s[i] *= dp[i] - row[i / 2 % 2].y;
    if ((prefix ? w.prefix : least) - before < kKvTile) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int limit = (prefix ? w.prefix : limits[h]) - before - lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < 8; ++j)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (j * 8 + e >= limit) scores[j][2 * h + e] = 0.0f;
      }
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) products_to_a(ds[k], scores[2 * k], scores[2 * k + 1]);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k)
      Wgmma<D, WgmmaForm{.transposed_b = true}>::registers_a(dq, ds[k], by_rows + slot + row_step(k), 1);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(dq);
    if (lane == 0) mbarrier_arrive(&empty[place.slot]);
    place.next();
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = first_in_warp + lane / 4 + 8 * h;
    if (r < w.packed) store_query<D>(a, w.row0, w.kv_head, r, reinterpret_cast<const float(&)[D / 8][4]>(dq), h, lane);
  }
}

/// Grid: (KV heads, segments, row tiles), the longest rows first.
template <int D>
__global__ void __launch_bounds__(WgmmaDq<D>::kThreads, 1) wgmma_dq_kernel(BackwardArgs a) {
  if constexpr (kForHopper) {
    using S = WgmmaDq<D>;
    auto* smem = dynamic_smem<unsigned char>();
    const AttentionWork work = a.keys.work(block_y());
    DqWork w{.segment = block_y(),
             .kv_head = block_x(),
             .row0 = static_cast<int>(work.row0),
             .r0 = (static_cast<int>(gridDim.z) - 1 - block_z()) * S::kRows,
             .packed = work.rows * a.group.d,
             .prefix = work.prefix,
             .own = work.own,
             .prefix_tiles = ceil_div(work.prefix, kKvTile)};
    if (w.r0 >= w.packed) return;
    const int last = min(w.r0 + S::kRows, w.packed) - 1, consumers = (last - w.r0) / 64 + 1;
    w.tiles = w.prefix_tiles + a.group.divide(last) / kKvTile + 1;
    if (thread_x() == 0) init_ring<S::kSlots>(reinterpret_cast<std::uint64_t*>(smem + S::kBarriers), consumers);
    __syncthreads();
    const int warpgroup = __shfl_sync(0xffffffffu, thread_x() / 128, 0);  // the compiler then knows it is uniform
    if (warpgroup == 0) {
      registers_give<S::kProducerRegisters>();
      bring_keys<D>(a, smem, w);
    } else {
      registers_take<S::kConsumerRegisters>();
      if (warpgroup <= consumers) sum_over_keys<D>(a, smem, w, warpgroup);
    }
  } else {
    __trap();
  }
}

}  // namespace dapo::cuda
