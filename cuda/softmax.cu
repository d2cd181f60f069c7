// Reads a chunk of logits once and writes the sums of its tiles.
#include "cuda/head_chunks.h"
#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "cuda/shape.h"
#include "cuda/softmax.cuh"
#include "cuda/thread.cuh"

namespace dapo::cuda {
namespace {

template <class T>
__device__ __forceinline__ T quad_sum(T x) {
  x += __shfl_xor_sync(kFullMask, x, 1);
  return x + __shfl_xor_sync(kFullMask, x, 2);
}

/// Four lanes share a tile, so that a warp has eight; a lane holds 32 of its columns, in vectors of four.
constexpr int kTileLanes = 4, kLaneColumns = kSoftmaxTile / kTileLanes, kWarpTiles = kWarp / kTileLanes;
constexpr int kThreads = 128;

/// tiles[row, tile]: a warp sums eight tiles of a row; all of its loads are in flight before the first is used.
template <int W>
__global__ void __launch_bounds__(kThreads, 6)
    tiles_kernel(SoftmaxTile* __restrict__ tiles, const float* __restrict__ logits, float scale, int vocab, int count,
                 int rows) {
  begin_overlapped();
  const int groups = ceil_div(count, kWarpTiles), lane = thread_x() % kWarp;
  const int64_t group = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kWarp;
  const int64_t row = group / groups;
  if (row >= rows) return;
  const int tile = static_cast<int>(group % groups) * kWarpTiles + lane / kTileLanes, q = lane % kTileLanes;
  const float* from = logits + row * vocab;
  float x[kLaneColumns / 4][4];
#pragma unroll
  for (int j = 0; j < kLaneColumns / 4; ++j)
    load_logits<W>(x[j], from, tile * kSoftmaxTile + (j * kTileLanes + q) * 4, vocab);
  float max = -INFINITY;
  bool bad = false;
#pragma unroll
  for (int j = 0; j < kLaneColumns; ++j) {
    max = fmaxf(max, x[j / 4][j % 4]);
    bad |= !(x[j / 4][j % 4] < INFINITY);
  }
  max = fmaxf(max, __shfl_xor_sync(kFullMask, max, 1));
  max = fmaxf(max, __shfl_xor_sync(kFullMask, max, 2));
  const float exponent = softmax_exponent(max, scale);
  Mass mass = 0;
  float weighted = 0.0f;
#pragma unroll
  for (int j = 0; j < kLaneColumns; ++j) {
    const float u = softmax_power(x[j / 4][j % 4], scale, exponent), w = softmax_weight(u);
    mass += softmax_mass(w);
    weighted = fmaf(w, u, weighted);
  }
  mass = quad_sum(mass);
  weighted = quad_sum(weighted);
  const unsigned faults = __ballot_sync(kFullMask, bad) >> (lane - q) & 0xfu;
  if (q == 0 && tile < count) tiles[row * count + tile] = {mass, faults != 0 ? NAN : max, weighted};
}

}  // namespace

void softmax_tiles_of(SoftmaxTile* tiles, const float* logits, int64_t rows, int64_t vocab, float scale,
                      cudaStream_t stream) {
  CHECK(vocab <= kSoftmaxColumns, "a vocabulary of {}", vocab);
  if (vocab == 0) return;  // a rank without columns
  const int count = narrow(softmax_tiles(vocab));
  const int64_t warps = rows * ceil_div(count, kWarpTiles);
  // Few rows: small blocks, so that every SM has one.
  const int threads = warps < 4096 ? kWarp : kThreads;
  launch_overlapped(vocab % 4 == 0 ? tiles_kernel<4> : tiles_kernel<1>,
                    {grid_of(ceil_div(warps, threads / kWarp)), dim3(threads), 0, stream}, tiles, logits, scale,
                    narrow(vocab), count, narrow(rows));
}

}  // namespace dapo::cuda
