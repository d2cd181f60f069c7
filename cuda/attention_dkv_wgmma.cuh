// dk and dv on Hopper's wgmma. A producer's warpgroup brings tiles of 64 packed query rows (q, dout, their statistics)
// through a ring in shared memory; each of two others holds 64 keys and works on transposed scores, so that p and ds are
// operand A as they come.
//
// The bits are those of attention_dkv.cuh: a chain of k16 steps of wgmma rounds as one of mma.sync, query rows come in
// the same order from the same first one, parts are cut at the same places. Steps of zeros (rows past a segment's end or
// of the part beside, tiles that no key sees) change none.
#pragma once

#include "cuda/attention_dkv.cuh"
#include "cuda/wgmma_ring.cuh"

namespace dapo::cuda {

/// A block: its warpgroups, their registers a thread, and its shared memory. A slot of the ring is a tile of q, then one
/// of dout; the statistics of its rows are apart.
template <int D>
struct WgmmaDkv {
  static constexpr int kConsumers = 2, kKeys = 64 * kConsumers, kThreads = 128 * (kConsumers + 1);
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  static constexpr int kTile = kPanelTile<D>, kSlot = 2 * kTile;
  static constexpr int kSlots = D == 64 ? 8 : 4, kLag = 2;                                    // slots; tiles under way
  static constexpr int kRing = kConsumers * 2 * kTile, kStatistics = kRing + kSlots * kSlot;  // keys, values come first
  static constexpr int kBarriers = kStatistics + kSlots * 64 * 8;
  static constexpr int kWork = kBarriers + 2 * kSlots * 8, kBytes = kWork + 64;
  static constexpr bool kEarlyValues = D == 64;  // dv is added up beside ds; at D = 128 that takes too many registers
  static constexpr int kUnits = 64 / kStep<D>;   // steps of the walk over query rows that make a tile
  static_assert(kLag < kSlots && kBytes <= 227 * 1024 && (kKeyTile<D> == 64 || kKeyTile<D> == kKeys));
};

/// lse in log2 units and delta of the rows of a tile.
struct TileStatistics {
  float lse[64], delta[64];
};

/// What a block does; in shared memory, since registers are short. Keys are counted from k0, steps of the walk over the
/// query rows that see them from its start. The ring brings steps [first, end); warpgroup i sums [begin[i], stop[i]) of
/// all[i]: if the second's keys are a key tile of their own, its walk begins, and is cut into parts, later.
struct DkvWork {
  int own, kv_head, part, k0, keys, first, end, begin[2], stop[2], all[2];
};

template <int D>
__device__ __forceinline__ void bring_queries(const BackwardArgs& a, unsigned char* smem, const DkvWork& w) {
  using S = WgmmaDkv<D>;
  using Tile = PanelTile<D>;
  RingWriter<S::kSlots, S::kLag> ring(reinterpret_cast<std::uint64_t*>(smem + S::kBarriers));
  // Keys and values arrive with the first tile.
  const bf16* k =
      a.keys.qkv + (a.keys.segments[3 * w.own] + w.k0) * a.keys.width + int64_t{a.keys.heads + w.kv_head} * D;
  for (int i = 0; i * 64 < w.keys && i < S::kConsumers; ++i) {
    auto* tile = reinterpret_cast<bf16*>(smem + i * S::kSlot);
    load_rows<D, 64, Tile>(tile, k + i * 64 * a.keys.width, a.keys.width, w.keys - i * 64);
    load_rows<D, 64, Tile>(tile + S::kTile / 2, k + i * 64 * a.keys.width + int64_t{a.keys.kv_heads} * D, a.keys.width,
                           w.keys - i * 64);
  }
  QueryWalk<D> walk(a, w.own, w.k0);
  walk.skip(w.first);
  for (int step = w.first; step < w.end; step += S::kUnits) {
    const int slot = ring.slot();
    unsigned char* tile = smem + S::kRing + slot * S::kSlot;
    float2 row{};
#pragma unroll
    for (int u = 0; u < S::kUnits; ++u) {
      const int packed = step + u < w.end ? walk.packed : 0, in_unit = thread_x() - u * kStep<D>;
      if (in_unit >= 0 && in_unit < kStep<D>) row = row_statistics(a, walk.row0, w.kv_head, walk.r0 + in_unit, packed);
      auto* rows = reinterpret_cast<bf16*>(tile) + u * kStep<D> * Tile::kPitch;
      load_packed<D, kStep<D>, Tile>(rows, rows + S::kTile / 2, a, walk.row0, w.kv_head, walk.r0, packed);
      if (step + u + 1 < w.end) walk.advance();
    }
    auto& statistics = reinterpret_cast<TileStatistics*>(smem + S::kStatistics)[slot];
    if (thread_x() < 64) statistics.lse[thread_x()] = row.x, statistics.delta[thread_x()] = row.y;
    ring.filled();
  }
  ring.finish();
}

/// dk and dv of 64 keys, by warpgroup 1 or 2 of the block.
template <int D>
__device__ __forceinline__ void sum_over_queries(const BackwardArgs& a, unsigned char* smem, const DkvWork& w,
                                                 int warpgroup) {
  using S = WgmmaDkv<D>;
  auto* full = reinterpret_cast<std::uint64_t*>(smem + S::kBarriers);
  auto* empty = full + S::kSlots;
  const int thread = thread_x() % 128, lane = thread % 32, chosen = warpgroup - 1;
  const int first_in_warp = chosen * 64 + thread / 32 * 16;  // key, counted from k0
  const unsigned char* keys = smem + chosen * S::kSlot;
  const std::uint64_t key_tile = tile_by_columns(keys), value_tile = tile_by_columns(keys + S::kTile);
  const std::uint64_t q_by_columns = tile_by_columns(smem + S::kRing), q_by_rows = tile_by_rows(smem + S::kRing);
  constexpr std::uint64_t kToDout = S::kTile / 16;
  float s[32], dp[32], dk[D / 2] = {}, dv[D / 2] = {};
  auto& scores = reinterpret_cast<float(&)[8][4]>(s);
  auto& gradients = reinterpret_cast<float(&)[8][4]>(dp);
  std::uint32_t p[4][4], ds[4][4];
  RingPlace<S::kSlots> place{0};
  const auto issue_values = [&](std::uint64_t slot) {
#pragma unroll
    for (int k = 0; k < 4; ++k) products_to_a(p[k], scores[2 * k], scores[2 * k + 1]);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k)
      Wgmma<D, WgmmaForm{.transposed_b = true}>::registers_a(dv, p[k], q_by_rows + slot + kToDout + row_step(k), 1);
    wgmma_commit();
  };

  for (int step = w.first; step < w.end; step += S::kUnits) {
    // Columns of the tile before `from` see none of the warpgroup's keys, those from `to` on belong to the next part.
    const int from = chosen * 64 * a.group.d - step * kStep<D>, to = (w.stop[chosen] - step) * kStep<D>;
    mbarrier_wait(&full[place.slot], place.parity);
    if (from < 64 && step >= w.begin[chosen] && to > 0) {
      const std::uint64_t slot = static_cast<std::uint64_t>(place.slot) * (S::kSlot / 16);
      const auto& rows = reinterpret_cast<const TileStatistics*>(smem + S::kStatistics)[place.slot];
      const auto mask = [&](float(&x)[8][4]) {
        if (from + (first_in_warp % 64 + 15) * a.group.d <= 0 && to >= 64) return;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int none_before = from + (first_in_warp % 64 + lane / 4 + 8 * h) * a.group.d - lane % 4 * 2;
#pragma unroll
          for (int j = 0; j < 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e)
              if (j * 8 + e < none_before || j * 8 + e >= to - lane % 4 * 2) x[j][2 * h + e] = 0.0f;
        }
      };
      wgmma_pin(s);
      wgmma_pin(dp);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < D / 16; ++k)
        Wgmma<64>::shared(s, key_tile + column_step(k), q_by_columns + slot + column_step(k), k != 0);
      wgmma_commit();
#pragma unroll
      for (int k = 0; k < D / 16; ++k)
        Wgmma<64>::shared(dp, value_tile + column_step(k), q_by_columns + slot + kToDout + column_step(k), k != 0);
      wgmma_commit();
      wgmma_wait<1>();
      wgmma_pin(s);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const auto lse = *reinterpret_cast<const float2*>(&rows.lse[j * 8 + lane % 4 * 2]);
#pragma unroll
        for (int h = 0; h < 4; h += 2) {
          scores[j][h] = exp2_approx(fmaf(scores[j][h], a.scale_log2, -lse.x));
          scores[j][h + 1] = exp2_approx(fmaf(scores[j][h + 1], a.scale_log2, -lse.y));
        }
      }
      mask(scores);
      if constexpr (S::kEarlyValues) {
        issue_values(slot);
        wgmma_wait<1>();
      } else {
        wgmma_wait<0>();
      }
      wgmma_pin(dp);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const auto delta = *reinterpret_cast<const float2*>(&rows.delta[j * 8 + lane % 4 * 2]);
#pragma unroll
        for (int h = 0; h < 4; h += 2) {
          gradients[j][h] = scores[j][h] * (gradients[j][h] - delta.x);
          gradients[j][h + 1] = scores[j][h + 1] * (gradients[j][h + 1] - delta.y);
        }
      }
      mask(gradients);
      if constexpr (!S::kEarlyValues) issue_values(slot);
#pragma unroll
      for (int k = 0; k < 4; ++k) products_to_a(ds[k], gradients[2 * k], gradients[2 * k + 1]);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k)
        Wgmma<D, WgmmaForm{.transposed_b = true}>::registers_a(dk, ds[k], q_by_rows + slot + row_step(k), 1);
      wgmma_commit();
      wgmma_wait<0>();
      wgmma_pin(dv);
      wgmma_pin(dk);
    }
    __syncwarp();
    if (lane == 0) mbarrier_arrive(&empty[place.slot]);
    place.next();
  }
  if (w.begin[chosen] >= w.stop[chosen]) return;  // its keys have a part less
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int key = first_in_warp + lane / 4 + 8 * h;
    if (key < w.keys)
      store_key<D>(a, a.keys.segments[3 * w.own] + w.k0 + key, w.kv_head, w.all[chosen] <= a.part_steps, w.part,
                   reinterpret_cast<const float(&)[D / 8][4]>(dk), reinterpret_cast<const float(&)[D / 8][4]>(dv), h,
                   lane);
  }
}

/// Grid: (KV heads, segments, tiles of 128 keys x parts), as dkv_kernel's.
template <int D>
__global__ void __launch_bounds__(WgmmaDkv<D>::kThreads, 1) wgmma_dkv_kernel(BackwardArgs a) {
  if constexpr (kForHopper) {
    using S = WgmmaDkv<D>;
    auto* smem = dynamic_smem<unsigned char>();
    auto& w = *reinterpret_cast<DkvWork*>(smem + S::kWork);
    const int own = block_y(), part = block_z() % a.most_parts, k0 = block_z() / a.most_parts * S::kKeys;
    const int keys = a.keys.segments[3 * own + 1] - k0;
    if (keys <= 0) return;
    const int all = QueryWalk<D>(a, own, k0).count(), first = part * a.part_steps;
    if (first >= all) return;
    const int consumers = keys > 64 ? 2 : 1;
    const int late = consumers == 2 && kKeyTile<D> == 64 ? 64 * a.group.d / kStep<D> : 0;
    if (thread_x() == 0) {
      const int stop = min(first + a.part_steps, all), late_stop = min(first + late + a.part_steps, all);
      w = {own,
           block_x(),
           part,
           k0,
           keys,
           first,
           late_stop,
           {first, first + late},
           {stop, late_stop},
           {all, all - late}};
      init_ring<S::kSlots>(reinterpret_cast<std::uint64_t*>(smem + S::kBarriers), consumers);
    }
    __syncthreads();
    const int warpgroup = __shfl_sync(0xffffffffu, thread_x() / 128, 0);  // the compiler then knows it is uniform
    if (warpgroup == 0) {
      registers_give<S::kProducerRegisters>();
      bring_queries<D>(a, smem, w);
    } else {
      registers_take<S::kConsumerRegisters>();
      if (warpgroup <= consumers) sum_over_queries<D>(a, smem, w, warpgroup);
    }
  } else {
    __trap();
  }
}

}  // namespace dapo::cuda
