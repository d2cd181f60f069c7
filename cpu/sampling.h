// Drawing a token from a row of logits.
#pragma once

#include <cstdint>

#include "core/backend.h"
#include "cpu/softmax.h"

namespace dapo::cpu {

/// Sets to zero what top-k, top-p and min-p leave out of a row of weights in [0, 1], in Hugging Face's order;
/// thresholds by bisection over the bits of the weights, no sort. top-k keeps all that tie with the k-th. top-p keeps
/// the smallest set of most probable tokens whose mass reaches top_p, at least one; of those that tie at its edge, the
/// first by index.
void filter_row(float* weights, int64_t vocab, const Sampling& sampling);
/// The token at u in [0, 1) of the cumulative sum of the weights. Never a token of weight zero, whatever the rounding.
/// Some weight is positive.
int64_t draw_row(const float* weights, int64_t vocab, float u);

/// Draws a token (temperature 0: the first of the largest logits), and its log-prob under the unfiltered softmax.
/// weights is scratch [vocab]. A row with a NaN or an infinite maximum gives token 0 and log-prob NaN.
struct Drawn {
  int32_t token;
  float log_prob;
};
Drawn sample_row(const float* logits, float* weights, int64_t vocab, const Sampling& sampling, float u);

}  // namespace dapo::cpu
