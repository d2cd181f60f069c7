// The loss of one token (arXiv 2503.14476, eq. 8, with the dual clip of arXiv 1912.09729), to be minimised. One
// definition for the CPU backend, the CUDA kernels and the host's statistics.
#pragma once

#include <cmath>

#include "core/dtype.h"

namespace dapo {

struct DapoLoss {
  float clip_low = 0.2f;    ///< ratio is clipped at 1 - clip_low
  float clip_high = 0.28f;  ///< and at 1 + clip_high (Clip-Higher)
  float dual_clip = 10.0f;  ///< loss of a token with A < 0 is at most -A * dual_clip; 0: off
  float log_ratio_clamp = 20.0f;
};

enum ClipKind : uint8_t { kNotClipped = 0, kClippedLow = 1, kClippedHigh = 2, kClippedDual = 3 };

struct TokenLoss {
  float loss;
  float dlogp;   ///< d loss / d log_prob
  uint8_t clip;  ///< ClipKind
};

/// log_prob and old_log_prob in nats; advantage A.
DAPO_HD TokenLoss token_loss(float log_prob, float old_log_prob, float advantage, const DapoLoss& p) {
  const float d = log_prob - old_log_prob;
  const bool clamped = d > p.log_ratio_clamp || d < -p.log_ratio_clamp;
  const float r = expf(d > p.log_ratio_clamp ? p.log_ratio_clamp : d < -p.log_ratio_clamp ? -p.log_ratio_clamp : d);
  const float low = 1.0f - p.clip_low, high = 1.0f + p.clip_high;
  const float plain = -advantage * r, cut = -advantage * (r < low ? low : r > high ? high : r);
  if (advantage < 0.0f && p.dual_clip > 0.0f && (plain > cut ? plain : cut) > -advantage * p.dual_clip)
    return {-advantage * p.dual_clip, 0.0f, kClippedDual};
  if (cut > plain) return {cut, 0.0f, static_cast<uint8_t>(r < low ? kClippedLow : kClippedHigh)};
  return {plain, clamped ? 0.0f : plain, kNotClipped};
}

/// The same with ratio == 1 (supervised fine-tuning with A = 1: loss is then -log_prob, its gradient -1).
DAPO_HD TokenLoss on_policy_loss(float log_prob, float advantage) {
  return {-advantage * log_prob, -advantage, kNotClipped};
}

}  // namespace dapo
