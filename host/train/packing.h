// Packs groups (model/pack.h): each prompt once, its responses as segments that attend to it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/pack.h"

namespace dapo {

struct PackLimits {
  int64_t tokens = 0;    ///< most in a pack; counts every prompt once and every response whole
  int64_t segments = 0;  ///< most in a pack; a prompt is one, and each response of two or more tokens
  int64_t wanted = 0;  ///< tokens up to which groups share a pack; a group of over twice as many is split. 0: `tokens`
  double pair_cost = 0;  ///< of a (query, key) pair of attention, in tokens: weighs what is dealt to ranks
};

struct PackResponse {
  std::span<const int32_t> ids;         ///< end id included; empty: left out
  std::span<const float> old_log_prob;  ///< one a token, or empty (supervised)
  float advantage = 1;
  std::span<const float> ref_log_prob{};  ///< one a token, or empty (no KL)
};

/// What packing reads of a group.
struct PackInput {
  std::span<const int32_t> prompt;
  std::vector<PackResponse> responses;
};

/// Where a response lies in a pack: head row `first` (at the prompt's last token) predicts its first token, head row
/// rest + k - 1 its token k >= 1.
struct Placement {
  int group, response;  ///< indices into the inputs and into their responses
  int first, rest, length;
  int head_row(int k) const { return k == 0 ? first : rest + k - 1; }
};

/// A pack, and where its responses lie.
struct MicroBatch {
  Pack pack;
  std::vector<Placement> placements;
};

/// Responses [begin, end) of a group with their prompt, to go into one pack.
struct PackPiece {
  int group, begin, end;
  int64_t tokens, segments;
};

/// The pieces of a pack, and the rank that runs it.
struct PackPlan {
  int rank;
  std::vector<PackPiece> pieces;
};

/// Deals groups to ranks and packs each rank's, as pack_groups() does: the longest pieces first, each to the rank with
/// the least so far. A group is cut further only where it is longer than a rank's even share. Pure, so all ranks know
/// all packs. By rank; a rank may have none.
std::vector<PackPlan> plan_packs(std::span<const PackInput> groups, const PackLimits& limits, int ranks);
MicroBatch build_pack(std::span<const PackInput> groups, const PackPlan& plan);

/// Packs groups, in their order, into as few and then as even packs as that order allows. A group that exceeds the
/// limits is split, its prompt repeated. Head rows of a pack: for each group the prompt's last token once a response,
/// then the tokens of each response, except its last, which is a target only. All weights are 1 (see set_weights). A
/// group without responses is left out. Deterministic. Error (exit 2) if a prompt with one response exceeds the limit.
std::vector<MicroBatch> pack_groups(std::span<const PackInput> groups, const PackLimits& limits);

/// Sets the weight of every token of packed.placements[i] to weights[i].
void set_weights(MicroBatch& packed, std::span<const double> weights);

/// The (query, key) pairs of a pack's attention.
double attention_pairs(const Pack& pack);

/// CHECKs the invariants: segments cover the tokens in order, prefixes come first, head rows and targets fit. For
/// tests.
void check_pack(const Pack& pack);

}  // namespace dapo
