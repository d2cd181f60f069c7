// The one softmax of a row of logits (core/softmax.h): sampling, scoring and training give a token the same bits.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/softmax.h"
#include "cpu/vec.h"

namespace dapo::cpu {

struct RowSoftmax {
  float inverse_temperature;
  float max;      ///< of logit * inverse_temperature; NaN where log_sum is
  float log_sum;  ///< log of the sum of exp(z - max); NaN where a logit is NaN or +inf
  float entropy;  ///< nats
  float top;      ///< largest logit
  float scale, exponent;
  Mass total;
};

/// z - max, of sixteen logits.
DAPO_ALWAYS_INLINE f32x16 shifted(const RowSoftmax& s, f32x16 logit) {
  return fma(logit, s.inverse_temperature, splat(-s.max));
}

/// tiles: [softmax_tiles(vocab)], filled with those of the row.
RowSoftmax row_softmax(SoftmaxTile* tiles, const float* logits, int64_t vocab, float temperature);
/// log softmax(z) of a token, from its logit.
inline float row_log_prob(const RowSoftmax& s, float logit) {
  return std::fma(logit, s.inverse_temperature, -s.max) - s.log_sum;
}

// row_softmax() in three steps, for a row whose columns are split over ranks: the largest of all ranks' results of the
// first step goes into the second, the sums of their results of that into the third.

/// Fills the tiles; returns the largest logit, -inf without any, NaN where one is NaN or +inf.
float fill_tiles(SoftmaxTile* tiles, const float* logits, int64_t vocab, float temperature);
SoftmaxSums sum_tiles(const SoftmaxTile* tiles, int64_t vocab, float top, float temperature);
RowSoftmax softmax_of(const SoftmaxSums& sums, float top, float temperature);

}  // namespace dapo::cpu
