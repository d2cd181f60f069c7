#include "cpu/sampling.h"

#include <algorithm>

namespace dapo::cpu {
namespace {

f32x16 load_weights(const float* weights, int64_t i, int64_t end) {
  return end - i >= kLanes ? load(weights + i) : load_part(weights + i, end - i);
}

/// How many weights are >= threshold > 0.
int64_t count_from(const float* weights, int64_t vocab, float threshold) {
  i32x16 count{};
  for (int64_t i = 0; i < vocab; i += kLanes) count -= load_weights(weights, i, vocab) >= threshold;
  int64_t n = 0;
  for (int lane = 0; lane < kLanes; ++lane) n += count[lane];
  return n;
}

/// Sum of the weights >= threshold, in one order whatever the threshold: it never grows with the threshold.
double mass_from(const float* weights, int64_t vocab, float threshold) {
  double mass = 0.0;
  for (int64_t begin = 0; begin < vocab; begin += kSoftmaxBlock) {
    const int64_t end = std::min(begin + kSoftmaxBlock, vocab);
    f32x16 sum{};
    for (int64_t i = begin; i < end; i += kLanes) {
      const f32x16 w = load_weights(weights, i, end);
      sum += select(w >= threshold, w, f32x16{});
    }
    mass += static_cast<double>(sum_lanes(sum));
  }
  return mass;
}

/// The largest threshold that enough() accepts: it is true up to some value, false above.
template <class F>
float bisect(const F& enough) {
  uint32_t low = 0, high = float_bits(2.0f);  // floats >= 0 are ordered as their bits are
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    (enough(bits_float(middle)) ? low : high) = middle;
  }
  return bits_float(low);
}

void drop_below(float* weights, int64_t vocab, float threshold) {
  for (int64_t i = 0; i < vocab; ++i) weights[i] = weights[i] < threshold ? 0.0f : weights[i];
}

void keep_top_p(float* weights, int64_t vocab, float top_p) {
  const double target = mass_from(weights, vocab, 0.0f) * static_cast<double>(top_p);
  const float edge = bisect([&](float t) {
    const double mass = mass_from(weights, vocab, t);
    return mass > 0.0 && mass >= target;
  });
  drop_below(weights, vocab, edge);
  const float above = std::nextafter(edge, 2.0f);
  if (count_from(weights, vocab, edge) - count_from(weights, vocab, above) <= 1) return;
  double mass = mass_from(weights, vocab, above);
  for (int64_t i = 0; i < vocab; ++i) {
    if (weights[i] != edge) continue;
    if (mass >= target && mass > 0.0) weights[i] = 0.0f;
    mass += static_cast<double>(edge);
  }
}

void keep_min_p(float* weights, int64_t vocab, float min_p) {
  f32x16 top{};
  for (int64_t i = 0; i < vocab; i += kLanes) top = vmax(load_weights(weights, i, vocab), top);
  drop_below(weights, vocab, std::min(min_p, 1.0f) * max_lanes(top));
}

}  // namespace

void filter_row(float* weights, int64_t vocab, const Sampling& sampling) {
  if (sampling.top_k > 0 && sampling.top_k < vocab)
    drop_below(weights, vocab, bisect([&](float t) { return count_from(weights, vocab, t) >= sampling.top_k; }));
  if (sampling.top_p < 1.0f) keep_top_p(weights, vocab, sampling.top_p);
  if (sampling.min_p > 0.0f) keep_min_p(weights, vocab, sampling.min_p);
}

int64_t draw_row(const float* weights, int64_t vocab, float u) {
  const double target = mass_from(weights, vocab, 0.0f) * static_cast<double>(u);
  double before = 0.0;
  for (int64_t begin = 0; begin < vocab; begin += kSoftmaxBlock) {
    const int64_t end = std::min(begin + kSoftmaxBlock, vocab);
    const double after = before + static_cast<double>(mass_from(weights + begin, end - begin, 0.0f));
    if (after > target) {
      // The block has mass. Its weights one by one may round to less than its sum: then it is the last of them.
      int64_t token = begin;
      for (int64_t i = begin; i < end && !(before > target); ++i)
        if (weights[i] > 0.0f) before += static_cast<double>(weights[token = i]);
      return token;
    }
    before = after;
  }
  CHECK(false, "a row without weight");
  return 0;
}

Drawn sample_row(const float* logits, float* weights, int64_t vocab, const Sampling& sampling, float u) {
  const bool greedy = sampling.temperature == 0.0f;
  const RowSoftmax s = row_softmax(logits, vocab, greedy ? 1.0f : sampling.temperature);
  if (!(std::abs(s.log_sum) < HUGE_VALF)) return {0, __builtin_nanf("")};
  int64_t token = 0;
  if (greedy) {
    while (logits[token] != s.max) ++token;
  } else {
    exponentiate(weights, logits, vocab, s);
    filter_row(weights, vocab, sampling);
    token = draw_row(weights, vocab, u);
  }
  return {static_cast<int32_t>(token), row_log_prob(s, logits, token)};
}

}  // namespace dapo::cpu
