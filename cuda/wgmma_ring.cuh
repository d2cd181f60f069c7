// What the attention kernels on wgmma share: tiles of 64 rows in shared memory as wgmma takes them, and the ring through
// which a producer's warpgroup brings them. It copies by cp.async, which fills a sequence's end with zeros and takes rows
// of a pack and of pages alike.
#pragma once

#include "cuda/ptx.cuh"
#include "cuda/thread.cuh"
#include "cuda/wgmma.cuh"

namespace dapo::cuda {

/// Tiles of 64 rows of bf16 are panels of 64 columns in lines of 128 bytes, exchanged; a panel's bytes, and a tile's.
inline constexpr int kPanel = 64 * 128;
template <int D>
inline constexpr int kPanelTile = D / 64 * kPanel;

/// Where such a tile has the 16-byte chunk `chunk` of a row, in elements; its lines are kPitch apart. As RowTile.
template <int D>
struct PanelTile {
  static constexpr int kPitch = 64;
  __device__ static int offset(int row, int chunk) {
    return chunk / 8 * (kPanel / 2) + row * kPitch + ((chunk ^ row) & 7) * 8;
  }
};

/// Descriptors of a tile, or of the first one of a ring: k along its columns, or along its rows (16 rows of A^T or B).
__device__ __forceinline__ std::uint64_t tile_by_columns(const void* tile) {
  return wgmma_descriptor(tile, 16, 1024, Swizzle::b128);
}
__device__ __forceinline__ std::uint64_t tile_by_rows(const void* tile) {
  return wgmma_descriptor(tile, kPanel, 1024, Swizzle::b128);
}
/// What the k-th step of 16 columns, or of 16 rows, adds to them.
__device__ __forceinline__ std::uint64_t column_step(int k) {
  return static_cast<std::uint64_t>((k / 4 * kPanel + k % 4 * 32) / 16);
}
__device__ __forceinline__ std::uint64_t row_step(int k) {
  return static_cast<std::uint64_t>(k) * (2048 / 16);
}

/// A place in the ring; the parity of its barrier's next phase.
template <int kSlots>
struct RingPlace {
  std::uint32_t parity;
  int slot = 0;
  __device__ __forceinline__ void next() {
    if (++slot == kSlots) slot = 0, parity ^= 1;
  }
};

/// The barriers of a ring: `full` of each slot, then `empty`. Arrivals: of each warp that copied, of each that multiplied.
template <int kSlots>
__device__ __forceinline__ void init_ring(std::uint64_t* full, int consumers) {
  for (int i = 0; i < kSlots; ++i) {
    mbarrier_init(&full[i], 4);
    mbarrier_init(&full[kSlots + i], static_cast<std::uint32_t>(4 * consumers));
  }
  mbarrier_init_fence();
}

/// The producer's side, of its 128 threads; kLag: tiles under way, as the next is asked for before the first has arrived.
template <int kSlots, int kLag>
struct RingWriter {
  std::uint64_t *full, *empty;
  RingPlace<kSlots> to{1}, arrived{0};  // the first round finds every slot free
  int under_way = 0;

  __device__ explicit RingWriter(std::uint64_t* barriers) : full(barriers), empty(barriers + kSlots) {}
  /// The next slot, once it is free.
  __device__ __forceinline__ int slot() {
    mbarrier_wait(&empty[to.slot], to.parity);
    return to.slot;
  }
  /// Its copies have been started.
  __device__ __forceinline__ void filled() {
    cp_async_commit();
    to.next();
    if (++under_way <= kLag) return;
    --under_way;
    cp_async_wait<kLag>();
    announce();
  }
  __device__ __forceinline__ void finish() {
    cp_async_wait_all();
    for (; under_way > 0; --under_way) announce();
  }

 private:
  // wgmma sees what cp.async wrote only through the writer's fence; so a tile is announced by the threads that copied
  // it, once their copies are done, and not by the copies themselves.
  __device__ __forceinline__ void announce() {
    fence_proxy_async();
    __syncwarp();
    if (thread_x() % 32 == 0) mbarrier_arrive(&full[arrived.slot]);
    arrived.next();
  }
};

}  // namespace dapo::cuda
