// The losses of one token, to be minimised, each with its derivative by the token's log-prob: pure functions, one
// definition for the CPU backend, the CUDA kernels and the host's statistics. docs/objectives.md: which preset takes
// which. Advantages and the weights of tokens are in host/train/objective.h.
#pragma once

#include <cmath>

#include "core/dtype.h"

namespace dapo {

enum class LossKind : uint8_t { clip, gspo, cispo, reinforce };
enum class KlKind : uint8_t { k1, k2, k3 };

struct DapoLoss {
  float clip_low = 0.2f;    ///< ratio is clipped at 1 - clip_low
  float clip_high = 0.28f;  ///< and at 1 + clip_high (Clip-Higher)
  float dual_clip = 10.0f;  ///< loss of a token with A < 0 is at most -A * dual_clip; 0: off
  float log_ratio_clamp = 20.0f;
  LossKind kind = LossKind::clip;
  KlKind kl = KlKind::k3;
  float kl_coef = 0.0f;       ///< of the KL to the reference, where its log-probs are given
  float entropy_coef = 0.0f;  ///< of the entropy bonus
};

enum ClipKind : uint8_t { kNotClipped = 0, kClippedLow = 1, kClippedHigh = 2, kClippedDual = 3 };

struct TokenLoss {
  float loss;
  float dlogp;   ///< d loss / d log_prob
  uint8_t clip;  ///< ClipKind
};

/// max(-A r, -A clip(r, 1 - low, 1 + high)), r = e^log_ratio, with the dual clip of arXiv 1912.09729.
/// log_ratio = log_prob - old_log_prob: PPO (arXiv 1707.06347, eq. 7), GRPO (2402.03300, eq. 3), DAPO (2503.14476,
/// eq. 8), Dr. GRPO (2503.20783). log_ratio = its mean over the response: GSPO (2507.18071, eq. 5 to 7), in the form of
/// GSPO-token (eq. 13 and 14), r = sg(s) * e^(log_prob - sg(log_prob)), whose tokens' gradients add up to that of the
/// sequence's ratio s.
DAPO_HD TokenLoss clip_loss(float log_ratio, float advantage, const DapoLoss& p) {
  const float d = log_ratio;
  const bool clamped = d > p.log_ratio_clamp || d < -p.log_ratio_clamp;
  const float r = expf(d > p.log_ratio_clamp ? p.log_ratio_clamp : d < -p.log_ratio_clamp ? -p.log_ratio_clamp : d);
  const float low = 1.0f - p.clip_low, high = 1.0f + p.clip_high;
  const float plain = -advantage * r, cut = -advantage * (r < low ? low : r > high ? high : r);
  if (advantage < 0.0f && p.dual_clip > 0.0f && (plain > cut ? plain : cut) > -advantage * p.dual_clip)
    return {-advantage * p.dual_clip, 0.0f, kClippedDual};
  if (cut > plain) return {cut, 0.0f, static_cast<uint8_t>(r < low ? kClippedLow : kClippedHigh)};
  return {plain, clamped ? 0.0f : plain, kNotClipped};
}

/// clip_loss by the token's own ratio. log_prob and old_log_prob in nats; advantage A.
DAPO_HD TokenLoss token_loss(float log_prob, float old_log_prob, float advantage, const DapoLoss& p) {
  return clip_loss(log_prob - old_log_prob, advantage, p);
}

/// CISPO (arXiv 2506.13585, eq. 4 and 5): -sg(clip(r, 1 - low, 1 + high)) A log_prob. The weight is clipped and not the
/// update, so every token keeps its gradient.
DAPO_HD TokenLoss cispo_loss(float log_prob, float log_ratio, float advantage, const DapoLoss& p) {
  const float r = expf(log_ratio > p.log_ratio_clamp    ? p.log_ratio_clamp
                       : log_ratio < -p.log_ratio_clamp ? -p.log_ratio_clamp
                                                        : log_ratio);
  const float low = 1.0f - p.clip_low, high = 1.0f + p.clip_high;
  const float slope = -advantage * (r < low ? low : r > high ? high : r);
  return {slope * log_prob, slope, static_cast<uint8_t>(r < low ? kClippedLow : r > high ? kClippedHigh : kNotClipped)};
}

/// REINFORCE (Williams 1992; with the leave-one-out baseline RLOO, arXiv 2402.14740): -A log_prob. Supervised
/// fine-tuning is this with A = 1.
DAPO_HD TokenLoss on_policy_loss(float log_prob, float advantage) {
  return {-advantage * log_prob, -advantage, kNotClipped};
}

struct KlTerm {
  float value, dlogp;  ///< dlogp: derivative by log_prob
};

/// Estimates of KL(policy || reference) from one token (http://joschu.net/blog/kl-approx.html), d = log_prob -
/// ref_log_prob. k1: d, of which only the value means anything: its expected gradient is 0. k2: d^2 / 2, whose expected
/// gradient is that of the KL. k3: e^-d - 1 + d (GRPO, arXiv 2402.03300, eq. 4), unbiased and never negative; -d is
/// clamped to +-20, without gradient beyond.
DAPO_HD KlTerm kl_term(float log_prob, float ref_log_prob, KlKind kind) {
  const float d = log_prob - ref_log_prob;
  if (kind == KlKind::k1) return {d, 1.0f};
  if (kind == KlKind::k2) return {0.5f * d * d, d};
  constexpr float kClamp = 20.0f;
  const float x = -d > kClamp ? kClamp : -d < -kClamp ? -kClamp : -d;
  const float grown = expm1f(x);
  return {grown - x, x == -d ? -grown : 0.0f};
}

/// What the loss of a token reads of the tensors of lm_dapo; null: not given.
struct TokenInputs {
  const float *old_log_prob, *log_ratio, *ref_log_prob;
};

/// The whole loss of a token: its kind's policy loss + kl_coef * KL - entropy_coef * entropy. dlogp leaves out the
/// entropy, which is a function of all logits. Without old_log_prob and log_ratio the ratio is 1: on_policy_loss.
DAPO_HD TokenLoss objective_loss(float log_prob, float entropy, float advantage, const TokenInputs& in,
                                 const DapoLoss& p) {
  TokenLoss l;
  if (p.kind == LossKind::reinforce || (in.old_log_prob == nullptr && in.log_ratio == nullptr)) {
    l = on_policy_loss(log_prob, advantage);
  } else {
    const float log_ratio = in.log_ratio != nullptr ? *in.log_ratio : log_prob - *in.old_log_prob;
    l = p.kind == LossKind::cispo ? cispo_loss(log_prob, log_ratio, advantage, p) : clip_loss(log_ratio, advantage, p);
  }
  if (in.ref_log_prob != nullptr) {
    const KlTerm kl = kl_term(log_prob, *in.ref_log_prob, p.kl);
    l.loss += p.kl_coef * kl.value;
    l.dlogp += p.kl_coef * kl.dlogp;
  }
  if (p.entropy_coef != 0.0f) l.loss -= p.entropy_coef * entropy;
  return l;
}

}  // namespace dapo
