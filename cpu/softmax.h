// The one log-softmax of a row of logits: sampling, scoring and training give a token the same bits. Sums run over
// blocks of kSoftmaxBlock columns, sixteen lanes each, and the blocks are added in order.
#pragma once

#include <cmath>
#include <cstdint>

#include "cpu/vec.h"

namespace dapo::cpu {

inline constexpr int64_t kSoftmaxBlock = 4096;

struct RowSoftmax {
  float inverse_temperature;
  float max;      ///< of logit * inverse_temperature, NaN aside
  float log_sum;  ///< log of the sum of exp(z - max); NaN where a logit is NaN or +inf
  float entropy;  ///< nats
};

/// z - max, of sixteen logits.
inline f32x16 shifted(const RowSoftmax& s, f32x16 logit) {
  return fma(logit, s.inverse_temperature, splat(-s.max));
}

RowSoftmax row_softmax(const float* logits, int64_t vocab, float temperature);
/// to[i] = exp(z[i] - max), in [0, 1] but for rounding; may be in place.
void exponentiate(float* to, const float* logits, int64_t vocab, const RowSoftmax& s);
/// log softmax(z)[token].
float row_log_prob(const RowSoftmax& s, const float* logits, int64_t token);

}  // namespace dapo::cpu
