// Groups into packs (model/pack.h): the prompt of a group once, its responses as segments that attend to it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/pack.h"

namespace dapo {

struct PackLimits {
  int64_t tokens = 0;    ///< of a pack; counts every prompt once and every response whole
  int64_t segments = 0;  ///< of a pack; a prompt and each response of two or more tokens is one
  int64_t fill = 0;      ///< tokens up to which groups join one pack; more than twice as many are cut. 0: `tokens`
};

struct PackResponse {
  std::span<const int32_t> ids;         ///< end token included; empty: left out
  std::span<const float> old_log_prob;  ///< as many, or empty (supervised)
  float advantage = 1;
};

struct PackGroup {
  std::span<const int32_t> prompt;
  std::vector<PackResponse> responses;
};

/// Where a response lies in a pack: its first token is predicted by head row `first` (the prompt's last row), token
/// k >= 1 by head row rest + k - 1.
struct PackedResponse {
  int group, response;
  int first, rest, length;
  int head_row(int k) const { return k == 0 ? first : rest + k - 1; }
};

struct PackedGroups {
  Pack pack;
  std::vector<PackedResponse> responses;
};

/// Packs groups in their order into the fewest packs that order allows, and those as evenly as it allows. A group that
/// exceeds the limits is split, its prompt repeated. Head rows of a pack: for each group the prompt's last row once a
/// response, then each response's rows; the last token of a response is a target only and has no row. Weights are 1
/// (set_weights). A group without responses is left out. Deterministic. Error (exit 2) where a prompt with one response
/// exceeds the limit.
std::vector<PackedGroups> pack_groups(std::span<const PackGroup> groups, const PackLimits& limits);

/// Weights of every token of packed.responses[i] become weights[i].
void set_weights(PackedGroups& packed, std::span<const double> weights);

/// (query, key) pairs that a pack's attention reads.
double attention_pairs(const Pack& pack);

/// Invariants: segments cover the rows in order, prefixes come first, rows and targets fit; tests call it.
void check_pack(const Pack& pack);

}  // namespace dapo
