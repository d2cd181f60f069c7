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
  CHECK(vocab > 0);
  return std::min(rows, std::max(kFewest, kBytes / (vocab * int64_t{sizeof(float)})));
}

template <class T>
Product logits_product(int64_t rows, int64_t vocab, int64_t hidden, int64_t row_stride) {
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
          .ldc = row_stride};
}

/// Scratch of row_softmax() for each thread.
inline SoftmaxTile* take_tiles(Arena& workspace, int64_t vocab) {
  const int64_t bytes = softmax_tiles(vocab) * int64_t{sizeof(SoftmaxTile)};
  return static_cast<SoftmaxTile*>(workspace.take("tiles", DType::u8, {omp_get_max_threads(), bytes}).data);
}
inline SoftmaxTile* own_tiles(SoftmaxTile* tiles, int64_t vocab) {
  return tiles + omp_get_thread_num() * softmax_tiles(vocab);
}

/// Columns from one row of logits to the next.
inline int64_t row_stride(const VocabularySplit& split, int64_t vocab) {
  return split.ranks == nullptr ? vocab : split.most();
}

/// Calls body(first row, rows, logits, tiles) for each chunk. Rows of logits are `row_stride` apart, and there is room for
/// a multiple of `row_unit` of them.
template <class T, class F>
void for_chunks(Arena& workspace, const Tensor& x, const Tensor& head, int64_t row_stride, int64_t row_unit,
                const F& body) {
  const int64_t rows = x.dim(0), hidden = x.dim(1), vocab = head.dim(0);
  const int64_t chunk = chunk_rows(rows, row_stride);
  const ArenaScope scope(workspace);
  float* logits = workspace.take("logits", DType::f32, {round_up(chunk, row_unit), row_stride}).as<float>();
  SoftmaxTile* tiles = take_tiles(workspace, row_stride);
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t n = std::min(chunk, rows - first);
    if (vocab > 0)
      product(logits_product<T>(n, vocab, hidden, row_stride), logits, x.as<T>() + first * hidden, head.data);
    body(first, n, logits, tiles);
  }
}

}  // namespace dapo::cpu
