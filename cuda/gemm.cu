// The hand-written product: bf16 tensor cores (mma.sync m16n8k16, f32 sums) behind a cp.async pipeline, and plain FMAs
// for f32 and for rows that are not aligned to 16 bytes. An element is summed over k in steps of 16, in order, in one
// accumulator: the bits of a row depend neither on m nor on the tile.
#include "cuda/launch.h"
#include "cuda/product_operands.cuh"
#include "cuda/products.h"
#include "cuda/ptx.cuh"
#include "cuda/shape.h"
#include "cuda/thread.cuh"
#include "cuda/vec.cuh"

namespace dapo::cuda {
namespace {

constexpr int kBK = 64;     // k of a stage: a row of a k-major tile is 128 bytes
constexpr int kStages = 3;  // 2 in flight while 1 is read

/// A tile of an operand in shared memory, ROWS (m or n) by kBK (k). k-major: [ROWS][kBK], the 16-byte chunk c of row r
/// lies at chunk c ^ (r & 7); outer-major (stored transposed): [kBK][ROWS], likewise by its k row. So the 8 rows that
/// one ldmatrix phase reads fall on 8 different groups of 4 banks.
template <int ROWS, bool kTransposed, int THREADS>
struct TileOf {
  static constexpr int kBytes = ROWS * kBK * 2;
  static constexpr int kLines = kTransposed ? kBK : ROWS;         // lines of consecutive elements
  static constexpr int kChunks = (kTransposed ? ROWS : kBK) / 8;  // 16-byte chunks a line
  static constexpr int kCopies = kLines * kChunks / THREADS;
  static_assert(kLines * kChunks % THREADS == 0);
  static_assert(kChunks % 8 == 0, "the swizzle permutes groups of 8 chunks");

  __device__ static int offset(int line, int chunk) { return line * kChunks * 8 + (chunk ^ (line & 7)) * 8; }

  /// Starts the copy of the tile at (outer0, k0); elements outside the operand become zero.
  __device__ static void load(bf16* tile, const Operand& o, int outer0, int k0) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int at = i * THREADS + thread_x();
      const int line = at / kChunks, chunk = at % kChunks;
      const int row = (kTransposed ? k0 : outer0) + line, column = (kTransposed ? outer0 : k0) + chunk * 8;
      const int rows = kTransposed ? o.k : o.outer, columns = kTransposed ? o.outer : o.k;
      const int left = row < rows ? columns - column : 0;
      const int bytes = left <= 0 ? 0 : left >= 8 ? 16 : left * 2;
      cp_async_16(tile + offset(line, chunk), bytes > 0 ? o.data + row * o.ld + column : o.data, bytes);
    }
  }

  /// Registers of an A fragment: rows [r, r + 16), k [k, k + 16).
  __device__ static void a_fragment(uint32_t (&a)[4], const bf16* tile, int r, int k, int lane) {
    if constexpr (kTransposed)
      ldmatrix_x4_trans(a, tile + offset(k + (lane & 7) + (lane >> 4) * 8, r / 8 + ((lane >> 3) & 1)));
    else
      ldmatrix_x4(a, tile + offset(r + (lane & 15), k / 8 + (lane >> 4)));
  }
  /// Registers of two B fragments: n [r, r + 8) in b[0], b[1] and [r + 8, r + 16) in b[2], b[3].
  __device__ static void b_fragments(uint32_t (&b)[4], const bf16* tile, int r, int k, int lane) {
    if constexpr (kTransposed)
      ldmatrix_x4_trans(b, tile + offset(k + (lane & 15), r / 8 + (lane >> 4)));
    else
      ldmatrix_x4(b, tile + offset(r + (lane & 7) + (lane >> 4) * 8, k / 8 + ((lane >> 3) & 1)));
  }
};

/// A block computes BM x BN elements, a warp WM x WN. The blocks of a column strip are neighbours (x is m), so that the
/// strip of b stays in L2.
template <int BM, int BN, int WM, int WN, bool kATransposed, bool kBTransposed, class Out>
__global__ void __launch_bounds__(BM / WM * (BN / WN) * 32) gemm_kernel(Operand a, Operand b, Result<Out> c) {
  constexpr int kThreads = BM / WM * (BN / WN) * 32;
  using TileA = TileOf<BM, kATransposed, kThreads>;
  using TileB = TileOf<BN, kBTransposed, kThreads>;
  constexpr int kStage = (TileA::kBytes + TileB::kBytes) / 2;
  bf16* smem = dynamic_smem<bf16>();
  const int warp = thread_x() / 32, lane = thread_x() % 32;
  const int m0 = block_x() * BM, n0 = block_y() * BN;
  const int wm = warp / (BN / WN) * WM, wn = warp % (BN / WN) * WN;
  const int steps = ceil_div(a.k, kBK);
  begin_overlapped();

  const auto fetch = [&](int step) {
    bf16* stage = smem + step % kStages * kStage;
    TileA::load(stage, a, m0, step * kBK);
    TileB::load(stage + TileA::kBytes / 2, b, n0, step * kBK);
  };
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < steps) fetch(s);
    cp_async_commit();
  }
  float sum[WM / 16][WN / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // the stage has arrived, and all threads have left the one that is filled next
    if (step + kStages - 1 < steps) fetch(step + kStages - 1);
    cp_async_commit();
    const bf16* tile_a = smem + step % kStages * kStage;
    const bf16* tile_b = tile_a + TileA::kBytes / 2;
#pragma unroll
    for (int k = 0; k < kBK; k += 16) {
      uint32_t fa[WM / 16][4], fb[WN / 16][4];
#pragma unroll
      for (int i = 0; i < WM / 16; ++i) TileA::a_fragment(fa[i], tile_a, wm + i * 16, k, lane);
#pragma unroll
      for (int j = 0; j < WN / 16; ++j) TileB::b_fragments(fb[j], tile_b, wn + j * 16, k, lane);
#pragma unroll
      for (int i = 0; i < WM / 16; ++i)
#pragma unroll
        for (int j = 0; j < WN / 8; ++j) {
          const uint32_t pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
          mma_m16n8k16(sum[i][j], fa[i], pair, sum[i][j]);
        }
    }
  }
  cp_async_wait<0>();
#pragma unroll
  for (int i = 0; i < WM / 16; ++i)
#pragma unroll
    for (int j = 0; j < WN / 8; ++j) {
      const int row = m0 + wm + i * 16 + lane / 4, column = n0 + wn + j * 8 + lane % 4 * 2;
      c.put(row, column, sum[i][j][0]);
      c.put(row, column + 1, sum[i][j][1]);
      c.put(row + 8, column, sum[i][j][2]);
      c.put(row + 8, column + 1, sum[i][j][3]);
    }
}

/// One thread for each element, k in order: for f32, and for unaligned rows.
template <class T, class Out>
__global__ void plain_kernel(Out* c, const T* a, const T* b, const T* bias, Product p) {
  const int64_t n = int64_t{blockIdx.x} * blockDim.x + threadIdx.x, m = blockIdx.y;
  if (n >= p.n) return;
  const int64_t a_step = p.a_transposed ? p.lda : 1, b_step = p.b_transposed ? 1 : p.ldb;
  const T* x = a + (p.a_transposed ? m : m * p.lda);
  const T* y = b + (p.b_transposed ? n * p.ldb : n);
  float sum = 0.0f;
  for (int64_t k = 0; k < p.k; ++k) sum = fmaf(to_float(x[k * a_step]), to_float(y[k * b_step]), sum);
  if (bias != nullptr) sum += to_float(bias[n]);
  Out* out = c + m * p.ldc + n;
  if constexpr (sizeof(Out) == 4) {
    if (p.accumulate) sum += *out;
  }
  *out = from_float<Out>(sum);
}

template <int BM, int BN, int WM, int WN, bool kATransposed, bool kBTransposed, class Out>
void launch_gemm(const Product& p, Out* c, const bf16* a, const bf16* b, cudaStream_t stream) {
  const Operand left{a, p.lda, narrow(p.m), narrow(p.k)}, right{b, p.ldb, narrow(p.n), narrow(p.k)};
  const Result<Out> result{c, p.ldc, narrow(p.m), narrow(p.n), static_cast<const bf16*>(p.bias), p.accumulate};
  const dim3 grid(static_cast<unsigned>(ceil_div(p.m, BM)), static_cast<unsigned>(ceil_div(p.n, BN)));
  constexpr size_t kSmem = size_t{kStages} * (BM + BN) * kBK * 2;
  launch_overlapped(gemm_kernel<BM, BN, WM, WN, kATransposed, kBTransposed, Out>,
                    {grid, dim3(BM / WM * (BN / WN) * 32), kSmem, stream}, left, right, result);
}

template <int BM, int BN, int WM, int WN, class Out>
void launch_layout(const Product& p, Out* c, const bf16* a, const bf16* b, cudaStream_t stream) {
  // A transposed b of a Product is [n, k]: k-major, which the kernel calls not transposed.
  if (!p.a_transposed && p.b_transposed)
    launch_gemm<BM, BN, WM, WN, false, false>(p, c, a, b, stream);
  else if (!p.a_transposed)
    launch_gemm<BM, BN, WM, WN, false, true>(p, c, a, b, stream);
  else if (!p.b_transposed)
    launch_gemm<BM, BN, WM, WN, true, true>(p, c, a, b, stream);
  else
    launch_gemm<BM, BN, WM, WN, true, false>(p, c, a, b, stream);
}

template <class Out>
void launch_tile(Tile tile, const Product& p, Out* c, const bf16* a, const bf16* b, cudaStream_t stream) {
  switch (tile) {
    case Tile::large:
      return launch_layout<128, 128, 64, 32>(p, c, a, b, stream);
    case Tile::medium:
      return launch_layout<64, 128, 32, 32>(p, c, a, b, stream);
    case Tile::small:
      return launch_layout<64, 64, 32, 32>(p, c, a, b, stream);
  }
}

template <class T, class Out>
void launch_plain(const Product& p, void* c, const void* a, const void* b, cudaStream_t stream) {
  constexpr int kThreads = 128;
  for (int64_t m = 0; m < p.m; m += 65535) {  // y is limited to 65535 blocks
    Product part = p;
    part.m = std::min<int64_t>(65535, p.m - m);
    launch(plain_kernel<T, Out>, {dim3(ceil_div(p.n, kThreads), part.m), dim3(kThreads), 0, stream},
           static_cast<Out*>(c) + m * p.ldc, static_cast<const T*>(a) + m * (p.a_transposed ? 1 : p.lda),
           static_cast<const T*>(b), static_cast<const T*>(p.bias), part);
  }
}

}  // namespace

Tile choose_tile(int64_t m, int64_t n, int sms) {
  if (m > 64 && ceil_div(m, 128) * ceil_div(n, 128) >= sms) return Tile::large;
  if (ceil_div(m, 64) * ceil_div(n, 128) >= sms) return Tile::medium;
  return Tile::small;
}

bool fits_tensor_cores(const Product& p, const void* a, const void* b) {
  const auto aligned = [](const void* q) { return reinterpret_cast<uintptr_t>(q) % 16 == 0; };
  return p.a_type == DType::bf16 && p.b_type == DType::bf16 && p.lda % 8 == 0 && p.ldb % 8 == 0 && aligned(a) &&
         aligned(b);
}

void Products::run_own(const Product& p, void* c, const void* a, const void* b) {
  CHECK(p.a_type == p.b_type && (p.c_type == DType::f32 || (p.c_type == p.a_type && !p.accumulate)));
  if (p.m == 0 || p.n == 0) return;
  const bool to_f32 = p.c_type == DType::f32;
  if (fits_tensor_cores(p, a, b)) {
    const Tile tile = choose_tile(p.m, p.n, sms_);
    const bool decode = !p.a_transposed && p.b_transposed && decode_rows(p.m, p.n, p.k) > 0;
    const bf16 *x = static_cast<const bf16*>(a), *y = static_cast<const bf16*>(b);
    const auto launch_to = [&](auto* to) {
      decode ? run_decode(p, to, x, y, stream_) : launch_tile(tile, p, to, x, y, stream_);
    };
    to_f32 ? launch_to(static_cast<float*>(c)) : launch_to(static_cast<bf16*>(c));
  } else if (p.a_type == DType::f32) {
    launch_plain<float, float>(p, c, a, b, stream_);
  } else if (to_f32) {
    launch_plain<bf16, float>(p, c, a, b, stream_);
  } else {
    launch_plain<bf16, bf16>(p, c, a, b, stream_);
  }
}

}  // namespace dapo::cuda
