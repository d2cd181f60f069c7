// How tensor parallelism deals a model to ranks (Megatron): heads, columns of the MLP and vocabulary. Norms are whole on
// every rank.
#pragma once

#include <string>

#include "core/range.h"
#include "model/config.h"

namespace dapo {

/// One rank of a tensor-parallel group.
struct TensorRank {
  int ranks = 1, rank = 0;
};

/// What a rank has of the model.
struct TensorShare {
  Range heads, kv_heads, ffn, vocab;
};

/// Why a model cannot be split over so many ranks, as the end of a sentence; "" if it can. Whole groups of query heads
/// with their key/value head where the ranks divide these; otherwise a group is dealt to several ranks, each of which
/// holds its key/value head.
std::string why_not_split(const ModelConfig& config, int ranks);
/// Error (exit 2) if why_not_split().
TensorShare tensor_share(const ModelConfig& config, const TensorRank& at);
/// The model that a rank computes: its heads, key/value heads, MLP columns and vocabulary in place of all.
ModelConfig local_config(const ModelConfig& config, const TensorRank& at);

/// Which ranks hold a key/value head: [begin, end).
Range kv_head_holders(const ModelConfig& config, int ranks, int64_t kv_head);

}  // namespace dapo
