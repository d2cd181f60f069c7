// c = a b^T of bf16 on Hopper, either operand transposed or not: a producer's warpgroup brings tiles by tensor copies
// through a ring in shared memory, two warpgroups multiply 64 x BN of a tile of 128 x BN each. Persistent: a block
// walks over tiles.
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

/// A tile of kRows x 64 at (row, k): K-major in one box, MN-major (the tensor's rows are along k) in chunks of 64 x 64.
template <int kRows, bool mn_major>
__device__ __forceinline__ void load_tile(unsigned char* to, const CUtensorMap* map, int row, int k,
                                          std::uint64_t* barrier) {
  if constexpr (mn_major) {
#pragma unroll
    for (int i = 0; i < kRows / 64; ++i) tensor_load_2d(to + i * 8192, map, row + i * 64, k, barrier);
  } else {
    tensor_load_2d(to, map, k, row, barrier);
  }
}
/// Of rows from 64 * chunk of a tile.
template <bool mn_major>
__device__ __forceinline__ std::uint64_t tile_descriptor(const unsigned char* tile, int chunk) {
  return wgmma_descriptor(tile + chunk * 8192, mn_major ? 8192 : 16, 1024, Swizzle::b128);
}
/// What a step of 16 along k adds to it.
template <bool mn_major>
inline constexpr std::uint64_t kDescriptorStep = (mn_major ? 2048 : 32) / 16;

template <int BN, int kStages, bool a_mn, bool b_mn>
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
      load_tile<S::kRows, a_mn>(to, a, tile.x * S::kRows, step * S::kDepth, &full[stage]);
      load_tile<BN, b_mn>(to + S::kBytesA, b, tile.y * BN, step * S::kDepth, &full[stage]);
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

template <int BN, int kStages, bool a_mn, bool b_mn>
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
      const std::uint64_t a = tile_descriptor<a_mn>(at, group - 1);
      const std::uint64_t b = tile_descriptor<b_mn>(at + S::kBytesA, 0);
      wgmma_pin(d);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < S::kDepth / 16; ++k)
        Wgmma<BN, WgmmaForm{a_mn, b_mn}>::shared(d, a + static_cast<std::uint64_t>(k) * kDescriptorStep<a_mn>,
                                                 b + static_cast<std::uint64_t>(k) * kDescriptorStep<b_mn>,
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

/// Maps, all with lines of 128 bytes exchanged: a of m rows of k with boxes of 64 x 128, or a_mn: k rows of m, 64 x 64;
/// b of n rows of k, 64 x BN, or b_mn: k rows of n, 64 x 64; c of m rows of n, 64 x 64.
template <int BN, int kStages, bool a_mn = false, bool b_mn = false>
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
    if (thread_x() == 0) produce<BN, kStages, a_mn, b_mn>(smem, &a, &b, tiles);
  } else {
    registers_take<232>();
    consume<BN, kStages, a_mn, b_mn>(smem, &c, tiles);
  }
}

}  // namespace dapo::cuda
