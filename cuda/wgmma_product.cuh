// c = a b^T of bf16 on Hopper: a producer's warpgroup brings tiles by tensor copies through a ring in shared memory,
// two warpgroups multiply 64 x BN of a tile of 128 x BN each. Persistent: a block walks over tiles.
//
// Every element is one chain of k16 steps in order of k, as in the mma.sync products, and so has their bits: neither
// the tile's shape nor the schedule changes any. Beyond m, n and k the copies bring zeros and store nothing.
#pragma once

#include "cuda/ptx.cuh"
#include "cuda/thread.cuh"
#include "cuda/wgmma.cuh"

namespace dapo::cuda {

struct ProductTiles {
  int rows, columns, steps;  ///< tiles along m and n, and steps of 64 along k
};

/// Shared memory: kStages x (a: 128 x 64, b: BN x 64), c: 2 x (BN / 64) panels of 64 x 64, mbarriers. All tiles have
/// lines of 128 bytes, exchanged.
template <int BN, int kStages>
struct ProductShape {
  static constexpr int kRows = 128, kDepth = 64, kThreads = 384;
  static constexpr int kPanel = 64 * 64 * 2, kPanels = BN / 64;
  static constexpr int kBytesA = kRows * kDepth * 2, kStage = kBytesA + BN * kDepth * 2;
  static constexpr int kC = kStages * kStage, kBarriers = kC + 2 * kPanels * kPanel;
  static constexpr int kBytes = kBarriers + 2 * kStages * 8;
  static_assert(BN % 64 == 0 && BN <= 256 && kBytes <= 227 * 1024);
};

/// Tiles go down groups of 8 rows of tiles, so that what they share stays in L2.
__device__ __forceinline__ int2 tile_at(int i, const ProductTiles& t) {
  constexpr int kGroup = 8;
  const int first = i / (kGroup * t.columns) * kGroup, in = i % (kGroup * t.columns);
  const int rows = min(kGroup, t.rows - first);
  return {first + in % rows, in / rows};
}

template <int BN, int kStages>
__device__ __forceinline__ void produce(unsigned char* smem, const CUtensorMap* a, const CUtensorMap* b,
                                        const ProductTiles& tiles) {
  using S = ProductShape<BN, kStages>;
  auto* full = reinterpret_cast<std::uint64_t*>(smem + S::kBarriers);
  auto* empty = full + kStages;
  int stage = 0;
  std::uint32_t parity = 1;  // the first round finds every stage free
  for (int i = block_x(); i < tiles.rows * tiles.columns; i += grid_width()) {
    const int2 tile = tile_at(i, tiles);
    for (int step = 0; step < tiles.steps; ++step) {
      mbarrier_wait(&empty[stage], parity);
      mbarrier_arrive_expect(&full[stage], S::kStage);
      unsigned char* to = smem + stage * S::kStage;
      tensor_load_2d(to, a, step * S::kDepth, tile.x * S::kRows, &full[stage]);
      tensor_load_2d(to + S::kBytesA, b, step * S::kDepth, tile.y * BN, &full[stage]);
      if (++stage == kStages) stage = 0, parity ^= 1;
    }
  }
}

/// Rounds the accumulators to bf16 into this warpgroup's panels, and stores them.
template <int BN>
__device__ __forceinline__ void store_tile(unsigned char* panels, const float (&d)[BN / 2], const CUtensorMap* c, int x,
                                           int y, int group) {
  const int t = thread_x() % 128, lane = t % 32;
  // The panels are free once the last tile's store has read them.
  if (t == 0) bulk_wait_read<0>();
  barrier_sync(group, 128);
#pragma unroll
  for (int j = 0; j < BN / 16; ++j) {
    std::uint32_t r[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) r[q] = pack_bf16(d[j * 8 + q * 2], d[j * 8 + q * 2 + 1]);
    const int row = t / 32 * 16 + lane % 8 + lane / 8 % 2 * 8, column = j % 4 * 16 + lane / 16 * 8;
    const int offset = row * 128 + column * 2;
    stmatrix_x4(panels + j / 4 * 8192 + (offset ^ ((offset >> 7 & 7) << 4)), r);
  }
  fence_proxy_async();
  barrier_sync(group, 128);
  if (t == 0) {
    for (int p = 0; p < BN / 64; ++p) tensor_store_2d(c, x + p * 64, y, panels + p * 8192);
    bulk_commit();
  }
}

template <int BN, int kStages>
__device__ __forceinline__ void consume(unsigned char* smem, const CUtensorMap* c, const ProductTiles& tiles) {
  using S = ProductShape<BN, kStages>;
  auto* full = reinterpret_cast<std::uint64_t*>(smem + S::kBarriers);
  auto* empty = full + kStages;
  const int group = thread_x() / 128;  // 1 or 2
  int stage = 0;
  std::uint32_t parity = 0;
  float d[BN / 2];
  for (int i = block_x(); i < tiles.rows * tiles.columns; i += grid_width()) {
    const int2 tile = tile_at(i, tiles);
    for (int step = 0; step < tiles.steps; ++step) {
      mbarrier_wait(&full[stage], parity);
      const unsigned char* at = smem + stage * S::kStage;
      const std::uint64_t a = wgmma_descriptor(at + (group - 1) * S::kBytesA / 2, 16, 1024, Swizzle::b128);
      const std::uint64_t b = wgmma_descriptor(at + S::kBytesA, 16, 1024, Swizzle::b128);
      wgmma_pin(d);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < S::kDepth / 16; ++k)
        Wgmma<BN>::shared(d, a + static_cast<std::uint64_t>(k * 2), b + static_cast<std::uint64_t>(k * 2),
                          step + k != 0);
      wgmma_commit();
      wgmma_wait<0>();
      wgmma_pin(d);
      if (thread_x() % 128 == 0) mbarrier_arrive(&empty[stage]);
      if (++stage == kStages) stage = 0, parity ^= 1;
    }
    store_tile<BN>(smem + S::kC + (group - 1) * S::kPanels * S::kPanel, d, c, tile.y * BN,
                   tile.x * S::kRows + (group - 1) * 64, group);
  }
  if (thread_x() % 128 == 0) bulk_wait<0>();
}

/// Maps: a (m rows of k) boxes of 64 x 128, b (n rows of k) 64 x BN, c (m rows of n) 64 x 64, all 128-byte exchanged.
template <int BN, int kStages>
__global__ void __launch_bounds__(384, 1)
    wgmma_product(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                  const __grid_constant__ CUtensorMap c, ProductTiles tiles) {
  using S = ProductShape<BN, kStages>;
  auto* smem = dynamic_smem<unsigned char>();
  if (thread_x() == 0) {
    auto* full = reinterpret_cast<std::uint64_t*>(smem + S::kBarriers);
    for (int s = 0; s < kStages; ++s) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&full[kStages + s], 2);
    }
    mbarrier_init_fence();
    tensor_prefetch_map(&a);
    tensor_prefetch_map(&b);
    tensor_prefetch_map(&c);
  }
  __syncthreads();
  if (thread_x() < 128) {
    registers_give<40>();
    if (thread_x() == 0) produce<BN, kStages>(smem, &a, &b, tiles);
  } else {
    registers_take<232>();
    consume<BN, kStages>(smem, &c, tiles);
  }
}

}  // namespace dapo::cuda
