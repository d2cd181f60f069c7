// Products of a decode step's few rows. Reading the weights is all the work, so a block has only 8 or 16 weight rows,
// every SM has a block, and as much of k as fits shared memory is in flight. The roles are exchanged: weight rows are
// operand A of mma.sync m16n8k16, rows of x are operand B. The bits are those of gemm.cu: one chain of k16 steps for
// each element, k padded to the same multiple (an H100 gives both roles the same bits).
#include <algorithm>

#include "cuda/launch.h"
#include "cuda/product_operands.cuh"
#include "cuda/products.h"
#include "cuda/ptx.cuh"
#include "cuda/shape.h"
#include "cuda/thread.cuh"

namespace dapo::cuda {
namespace {

constexpr int kStageK = 256;  // k of a stage: a row is 512 bytes, 32 chunks
constexpr int kChunks = kStageK / 8;
constexpr int kThreads = 128, kWarps = kThreads / 32;

/// R weight rows against TOKENS rows of x a block, in a ring of stages of [R + TOKENS][kStageK], chunk c of row r at
/// c ^ (r & 7). The first TOKENS / 8 warps compute a tile of 8 tokens each.
template <int R, int TOKENS>
struct DecodeTile {
  static_assert((R == 8 || R == 16) && TOKENS % 8 == 0 && TOKENS <= kWarps * 8);
  static constexpr int kBytes = (R + TOKENS) * kStageK * 2;
  // About 100 KB at most, so that two blocks fit an SM.
  static constexpr int kStages = (100 << 10) / kBytes;

  __device__ static int offset(int row, int chunk) { return row * kStageK + (chunk ^ (row & 7)) * 8; }
  /// By half of the block's threads, of which this one is number `thread`.
  __device__ static void load(bf16* tile, const Operand& o, int rows, int row0, int k0, int thread) {
    for (int i = thread; i < rows * kChunks; i += kThreads / 2) {
      const int row = i / kChunks, chunk = i % kChunks, k = k0 + chunk * 8;
      const int left = row0 + row < o.outer ? o.k - k : 0;
      const int bytes = left <= 0 ? 0 : left >= 8 ? 16 : left * 2;
      cp_async_16(tile + offset(row, chunk), bytes > 0 ? o.data + (row0 + row) * o.ld + k : o.data, bytes);
    }
  }
  /// Fragments A of two k16 steps from k on: of 8 rows (the other 8 are zero) or of 16.
  __device__ static void weights(uint32_t (&a)[2][4], const bf16* tile, int k, int lane) {
    if constexpr (R == 8) {
      uint32_t x[4];
      ldmatrix_x4(x, tile + offset(lane & 7, k / 8 + (lane >> 3)));
#pragma unroll
      for (int s = 0; s < 2; ++s) a[s][0] = x[2 * s], a[s][1] = 0, a[s][2] = x[2 * s + 1], a[s][3] = 0;
    } else {
#pragma unroll
      for (int s = 0; s < 2; ++s) ldmatrix_x4(a[s], tile + offset(lane & 15, k / 8 + 2 * s + (lane >> 4)));
    }
  }
  /// Fragments B of 8 tokens, two k16 steps: b[0], b[1] and b[2], b[3].
  __device__ static void tokens(uint32_t (&b)[4], const bf16* tile, int token, int k, int lane) {
    ldmatrix_x4(b, tile + offset(token + (lane & 7), k / 8 + (lane >> 3)));
  }
};

template <int R, int TOKENS, class Out>
__global__ void __launch_bounds__(kThreads) decode_gemm_kernel(Operand w, Operand x, Result<Out> y) {
  using Tile = DecodeTile<R, TOKENS>;
  bf16* smem = dynamic_smem<bf16>();
  const int warp = thread_x() / 32, lane = thread_x() % 32;
  const int row0 = block_x() * R, first = warp * 8;
  const int padded = (w.k + 63) / 64 * 64;  // as gemm.cu pads k
  const int steps = ceil_div(padded, kStageK);
  // The second half of the warps loads the weights, before the kernel ahead has ended; the first loads x. A thread
  // waits for its own copies only, so the first stage of x does not wait for all stages of the weights.
  const bool of_weights = warp >= kWarps / 2;
  const auto fetch = [&](int step) {
    bf16* stage = smem + step % Tile::kStages * (Tile::kBytes / 2);
    if (of_weights)
      Tile::load(stage, w, R, row0, step * kStageK, thread_x() - kThreads / 2);
    else
      Tile::load(stage + R * kStageK, x, TOKENS, 0, step * kStageK, thread_x());
  };
  if (!of_weights) wait_for_previous_kernel();
  for (int s = 0; s < Tile::kStages - 1; ++s) {
    if (s < steps) fetch(s);
    cp_async_commit();
  }
  if (of_weights) wait_for_previous_kernel();
  let_next_kernel_start();
  float sum[4] = {};
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<Tile::kStages - 2>();
    __syncthreads();  // the stage has arrived, and all threads have left the one that is filled next
    if (step + Tile::kStages - 1 < steps) fetch(step + Tile::kStages - 1);
    cp_async_commit();
    if (first >= TOKENS) continue;
    const bf16* tile_w = smem + step % Tile::kStages * (Tile::kBytes / 2);
    const bf16* tile_x = tile_w + R * kStageK;
    const int end = padded - step * kStageK < kStageK ? padded - step * kStageK : kStageK;
#pragma unroll 4
    for (int k = 0; k < end; k += 32) {
      uint32_t a[2][4];
      Tile::weights(a, tile_w, k, lane);
      uint32_t b[4];
      Tile::tokens(b, tile_x, first, k, lane);
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const uint32_t pair[2] = {b[2 * s], b[2 * s + 1]};
        mma_m16n8k16(sum, a[s], pair, sum);
      }
    }
  }
  cp_async_wait<0>();
  if (first >= TOKENS) return;
#pragma unroll
  for (int e = 0; e < (R == 8 ? 2 : 4); ++e) y.put(first + lane % 4 * 2 + e % 2, row0 + lane / 4 + e / 2 * 8, sum[e]);
}

template <int R, int TOKENS, class Out>
void launch_decode(const Product& p, Out* c, const bf16* a, const bf16* b, cudaStream_t stream) {
  const Operand weights{b, p.ldb, narrow(p.n), narrow(p.k)}, rows{a, p.lda, narrow(p.m), narrow(p.k)};
  const Result<Out> result{c, p.ldc, narrow(p.m), narrow(p.n), static_cast<const bf16*>(p.bias), p.accumulate};
  using Tile = DecodeTile<R, TOKENS>;
  // Short k takes no more stages than it has: more blocks fit an SM.
  const size_t stages = static_cast<size_t>(std::clamp<int64_t>(ceil_div(p.k, kStageK), 1, Tile::kStages));
  launch_overlapped(decode_gemm_kernel<R, TOKENS, Out>,
                    {grid_of(ceil_div(p.n, R)), dim3(kThreads), stages * Tile::kBytes, stream}, weights, rows, result);
}

}  // namespace

// For narrow weights, and for few rows against wide ones if a block's weights are at most four stages, so that four
// blocks fit an SM and all of the weights are in flight at once (with two blocks on an SM, 608 blocks of 16 weight rows
// took 18 us for 9728 x 896 at one row on an H200, gemm.cu's 152 blocks of 64 take 13). From 17 rows on, reading all of
// x in every block costs more than the extra blocks gain.
int decode_rows(int64_t m, int64_t n, int64_t k) {
  if (m > 16) return 0;
  if (n <= 4608) return n <= 2048 ? 8 : 16;
  return m <= 8 && n <= 16384 && k <= 4 * kStageK ? 16 : 0;
}

template <class Out>
void run_decode(const Product& p, Out* c, const bf16* a, const bf16* b, cudaStream_t stream) {
  if (decode_rows(p.m, p.n, p.k) == 16)
    return p.m <= 8 ? launch_decode<16, 8>(p, c, a, b, stream) : launch_decode<16, 16>(p, c, a, b, stream);
  p.m <= 8 ? launch_decode<8, 8>(p, c, a, b, stream) : launch_decode<8, 16>(p, c, a, b, stream);
}
template void run_decode(const Product&, float*, const bf16*, const bf16*, cudaStream_t);
template void run_decode(const Product&, bf16*, const bf16*, const bf16*, cudaStream_t);

}  // namespace dapo::cuda
