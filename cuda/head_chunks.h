// Logits by chunks of rows, in the workspace, with the sums of their tiles: shared by the head's ops and by sampling.
#pragma once

#include <algorithm>

#include "core/backend.h"
#include "core/softmax.h"
#include "cuda/products.h"

namespace dapo::cuda {

/// Most bytes of a chunk's logits. Training's chunks are large, because the gradient of the head's weights is read and
/// written once a chunk: at V = 151,936 a chunk has 4,352 rows, and training a model of that vocabulary takes at least
/// 8 GB of weights and optimizer state anyway. Scores and draws do not depend on the chunk.
inline constexpr int64_t kTrainedLogits = int64_t{2560} << 20, kScoredLogits = int64_t{1} << 30;

/// Rows of a chunk: chunks have about the same size, a pure function of the shape (the bits of the head's gradient
/// depend on it).
int64_t head_chunk_rows(int64_t rows, int64_t vocab, int64_t bytes);

/// Columns of one product of the gradient of the head's input, which sums over the vocabulary in parts of about the
/// same size, in order and in f32: one product over all of it has too few tiles for its k (4,096 x 896 x 151,936: 458
/// TFLOP/s on an H200; 4,096 x 896 x 9,728: 740).
int64_t head_part(int64_t vocab);

/// tiles[row, softmax_tiles(vocab)] of logits[row, vocab] (softmax.cu).
void softmax_tiles_of(SoftmaxTile* tiles, const float* logits, int64_t rows, int64_t vocab, float scale,
                      cudaStream_t stream);

/// Columns that decide the size of a chunk, the same on all ranks that share the vocabulary.
inline int64_t chunk_columns(const VocabularySplit& split, int64_t own) {
  return split.ranks == nullptr ? own : split.most();
}

/// Logits of n rows of x, `stride` columns from one row to the next.
inline void head_logits(Products& products, const Tensor& logits, const Tensor& x, const Tensor& head, int64_t stride) {
  const int64_t hidden = head.dim(1), vocab = head.dim(0);
  if (vocab > 0)
    products.run({.m = x.dim(0),
                  .n = vocab,
                  .k = hidden,
                  .a_type = x.dtype,
                  .b_type = x.dtype,
                  .c_type = DType::f32,
                  .b_transposed = true,
                  .lda = hidden,
                  .ldb = hidden,
                  .ldc = stride},
                 logits.data, x.data, head.data);
}

/// What lm_sample takes beside its own logits where the vocabulary is split: each rank draws for a part of a chunk's rows.
struct SplitDraws {
  SplitDraws(Arena& workspace, int64_t rows, int64_t most, int ranks, int64_t vocab);
  Tensor exchanged;         ///< f32[ranks, rows of a rank, most]: every rank's columns of this rank's rows
  Tensor logits, tiles;     ///< of these rows, whole
  Tensor tokens, log_prob;  ///< [ranks, rows of a rank]
};

/// body(first row, rows, logits f32[rows, V], tiles[rows, softmax_tiles(V)]) for each chunk of x T[R, C] against head
/// T[V, C].
template <class F>
void for_head_chunks(Products& products, Arena& workspace, cudaStream_t stream, int64_t bytes, float scale,
                     const VocabularySplit& split, const Tensor& x, const Tensor& head, const F& body) {
  const int64_t rows = x.dim(0), vocab = head.dim(0);
  if (rows == 0) return;
  const int64_t chunk = head_chunk_rows(rows, chunk_columns(split, vocab), bytes);
  const ArenaScope scope(workspace);
  const Tensor logits = workspace.take("logits", DType::f32, {chunk, vocab});
  const Tensor sums = workspace.take("tiles", DType::u8, {chunk, softmax_tiles(vocab), sizeof(SoftmaxTile)});
  auto* tiles = static_cast<SoftmaxTile*>(sums.data);
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t n = std::min(chunk, rows - first);
    head_logits(products, logits, x.rows(first, n), head, vocab);
    softmax_tiles_of(tiles, logits.as<const float>(), n, vocab, scale, stream);
    body(first, n, logits.rows(0, n), tiles);
  }
}

}  // namespace dapo::cuda
