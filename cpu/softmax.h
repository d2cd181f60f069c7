// The one softmax of a row of logits (core/softmax.h): sampling, scoring and training give a token the same bits.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/softmax.h"
#include "cpu/vec.h"

namespace dapo::cpu {

struct RowSoftmax {
  float inverse_temperature;
  float max;      ///< of logit * inverse_temperature, NaN aside
  float log_sum;  ///< log of the sum of exp(z - max); NaN where a logit is NaN or +inf
  float entropy;  ///< nats
  float top;      ///< largest logit
  float scale, exponent;
  Mass total;
};

/// z - max, of sixteen logits.
inline f32x16 shifted(const RowSoftmax& s, f32x16 logit) {
  return fma(logit, s.inverse_temperature, splat(-s.max));
}

/// tiles: [softmax_tiles(vocab)], filled with those of the row.
RowSoftmax row_softmax(SoftmaxTile* tiles, const float* logits, int64_t vocab, float temperature);
/// log softmax(z)[token].
float row_log_prob(const RowSoftmax& s, const float* logits, int64_t token);

}  // namespace dapo::cpu
