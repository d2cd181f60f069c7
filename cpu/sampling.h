// Drawing a token from a row of logits (core/softmax.h), by the same integers as the CUDA kernel.
#pragma once

#include <cstdint>

#include "core/arena.h"
#include "core/backend.h"
#include "cpu/softmax.h"

namespace dapo::cpu {

/// The columns of a row that top-k, top-p and min-p keep, in Hugging Face's order. top-k keeps all that tie with the
/// k-th. top-p keeps the smallest set of most probable tokens whose mass reaches top_p, at least one; of those that tie
/// at its edge, the first by index. columns: scratch [vocab]; tiles: as row_softmax() left them; afterwards they hold
/// the masses of what is kept.
struct Filtered {
  KeptColumns keeps;
  Mass total;
};
Filtered filter_row(const float* logits, int64_t vocab, const RowSoftmax& softmax, SoftmaxTile* tiles, int32_t* columns,
                    const Sampling& sampling);
/// The mass of a column in its tile's unit; 0 if it is not kept.
Mass column_mass(const float* logits, int64_t column, const RowSoftmax& softmax, const SoftmaxTile* tiles,
                 const KeptColumns& keeps);
/// The column at which the running total of the kept masses exceeds `target` < total.
int64_t draw_column(const float* logits, int64_t vocab, const RowSoftmax& softmax, const SoftmaxTile* tiles,
                    const KeptColumns& keeps, Mass target);

/// What lm_sample takes of the workspace beside a chunk's logits: with several ranks, each of which has `most` columns at
/// most of a vocabulary of `vocab`, they exchange the logits so that each has whole rows for its part of the chunk.
struct SamplingScratch {
  Tensor columns;           ///< i32[threads, vocab]
  Tensor row, tiles;        ///< several ranks: f32[threads, vocab], u8[threads, bytes]
  Tensor exchanged;         ///< several ranks: f32[rows, most], rows a multiple of the ranks
  Tensor tokens, log_prob;  ///< several ranks: i32, f32[rows]
  SamplingScratch(Arena& workspace, int64_t rows, int64_t most, int ranks, int64_t vocab);
};

/// A token drawn at fraction / 2^64 of the total (temperature 0: the first of the largest logits), and its log-prob
/// under the unfiltered softmax. A row with a NaN or an infinite maximum gives token 0 and log-prob NaN.
struct Drawn {
  int32_t token;
  float log_prob;
};
Drawn sample_row(const float* logits, SoftmaxTile* tiles, int32_t* columns, int64_t vocab, const Sampling& sampling,
                 uint64_t fraction);

}  // namespace dapo::cpu
