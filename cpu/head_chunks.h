// Logits by chunks of rows, in the workspace: shared by the head's ops and by sampling.
#pragma once

#include <omp.h>

#include <algorithm>

#include "core/backend.h"
#include "cpu/matmul.h"
#include "cpu/softmax.h"

namespace dapo::cpu {

/// Rows whose logits are in memory at once: 64 MiB of them, but at least 256 rows; with fewer the products are slower,
/// and so is adding to dhead, once a chunk.
inline int64_t chunk_rows(int64_t rows, int64_t vocab) {
  constexpr int64_t kBytes = int64_t{64} << 20, kFewest = 256;
  return std::min(rows, std::max(kFewest, kBytes / (vocab * int64_t{sizeof(float)})));
}

template <class T>
Product logits_product(int64_t rows, int64_t vocab, int64_t hidden) {
  constexpr DType t = dtype_of<T>::value;
  return {.m = rows,
          .n = vocab,
          .k = hidden,
          .a_type = t,
          .b_type = t,
          .c_type = DType::f32,
          .b_transposed = true,
          .lda = hidden,
          .ldb = hidden,
          .ldc = vocab};
}

/// Scratch of row_softmax() for each thread.
inline SoftmaxTile* take_tiles(Arena& workspace, int64_t vocab) {
  const int64_t bytes = softmax_tiles(vocab) * int64_t{sizeof(SoftmaxTile)};
  return static_cast<SoftmaxTile*>(workspace.take("tiles", DType::u8, {omp_get_max_threads(), bytes}).data);
}
inline SoftmaxTile* own_tiles(SoftmaxTile* tiles, int64_t vocab) {
  return tiles + omp_get_thread_num() * softmax_tiles(vocab);
}

/// Calls body(first row, rows, logits, tiles) for each chunk.
template <class T, class F>
void for_chunks(Arena& workspace, const Tensor& x, const Tensor& head, const F& body) {
  const int64_t rows = x.dim(0), hidden = x.dim(1), vocab = head.dim(0);
  const int64_t chunk = chunk_rows(rows, vocab);
  const ArenaScope scope(workspace);
  float* logits = workspace.take("logits", DType::f32, {chunk, vocab}).as<float>();
  SoftmaxTile* tiles = take_tiles(workspace, vocab);
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t n = std::min(chunk, rows - first);
    product(logits_product<T>(n, vocab, hidden), logits, x.as<T>() + first * hidden, head.data);
    body(first, n, logits, tiles);
  }
}

}  // namespace dapo::cpu
