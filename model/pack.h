// The tokens of one forward and backward pass, on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend.h"

namespace dapo {

/// N tokens in segments, of which R predict a target: R losses. Per-target vectors are [R].
struct Pack {
  std::vector<int32_t> ids;         ///< [N]
  std::vector<Segment> segments;    ///< cover the tokens in order
  std::vector<int32_t> head_rows;   ///< [R]: token that predicts the target, in [0, N); may repeat
  std::vector<int32_t> targets;     ///< [R]: ids
  std::vector<float> old_log_prob;  ///< [R], nats; or empty: ratio 1 (supervised)
  std::vector<float> advantage;     ///< [R], for train
  std::vector<float> weight;        ///< [R], for train: factor of the token's loss
  std::vector<float> ref_log_prob;  ///< [R], nats: the reference's, for the KL; or empty
  std::vector<int32_t> sequence;    ///< [R]: response of the target, in [0, R), all of it in this pack; for GSPO

  // Set by Learner::train; score sets the first two.
  std::vector<float> log_prob, entropy;  ///< [R], nats
  std::vector<float> loss;               ///< [R], before `weight`
  std::vector<uint8_t> clip;             ///< [R]: ClipKind
};

}  // namespace dapo
