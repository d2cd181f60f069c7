// The softmax of a row of logits in integers, so that neither its sum nor a draw from it depends on the order of
// additions, on the device, or on how the row is split. One definition for the CPU backend and the CUDA kernels:
// from the same logits both get the same sum, the same kept columns and the same token.
//
// A row is cut into tiles of kSoftmaxTile columns. With c = log2(e) / temperature, a tile's exponent is N_t =
// round(c * its largest logit), and the mass of its column i is floor(2^40 * 2^(c * logit_i - N_t)). With N the
// largest N_t, the row's total is the sum over tiles of (sum of their masses) >> (N - N_t). A weight becomes 0 only
// below 2^-40 of its tile's largest, a tile only below 2^-40 of the row's.
#pragma once

#include <cmath>

#include "core/philox.h"
#include "core/sizes.h"

namespace dapo {

using Mass = unsigned long long;

inline constexpr int kSoftmaxTile = 128;
/// A total is below 2^41 * vocabulary; draws multiply by a fraction of 64 bits without loss.
inline constexpr int64_t kSoftmaxColumns = int64_t{1} << 22;

struct SoftmaxTile {
  Mass mass;       ///< of its columns
  float max;       ///< largest logit; NaN where a logit is NaN or +inf
  float weighted;  ///< sum of 2^40 * 2^u * u over its columns, u = c * logit - N_t: for the entropy
};

inline int64_t softmax_tiles(int64_t vocab) {
  return ceil_div(vocab, kSoftmaxTile);
}
/// c, from 1 / temperature.
inline float softmax_scale(float inverse_temperature) {
  return static_cast<float>(1.4426950408889634 * inverse_temperature);
}
/// N of a largest logit.
DAPO_HD float softmax_exponent(float max, float scale) {
  return rintf(max * scale);
}
/// u, clamped to the domain of softmax_weight(): below -40 the mass is 0.
DAPO_HD float softmax_power(float logit, float scale, float exponent) {
  return fminf(fmaxf(fmaf(logit, scale, -exponent), -150.0f), 0.9999f);
}
/// 2^f for |f| <= 1/2, relative error 2e-9 before rounding; multiply_add(p, f, c) is p * f + c, rounded once.
template <class V, class F>
DAPO_HD V exp2_polynomial(V f, const F& multiply_add) {
  V p = V{} + 0x1.41fbbcp-13f;
  p = multiply_add(p, f, 0x1.5f3e54p-10f);
  p = multiply_add(p, f, 0x1.3b2d4cp-7f);
  p = multiply_add(p, f, 0x1.c6aee8p-5f);
  p = multiply_add(p, f, 0x1.ebfbdcp-3f);
  p = multiply_add(p, f, 0x1.62e43p-1f);
  return multiply_add(p, f, 1.0f);
}
/// 2^40 * 2^u to 1e-7: u = n + f, n + 40 into the exponent. cpu/softmax.cpp has the same in vectors. No operation here
/// can be fused by a compiler.
DAPO_HD float softmax_weight(float u) {
  const float shifted = u + 12582912.0f;  // 1.5 * 2^23: rounds to an integer in the low bits
  const float p = exp2_polynomial(u - (shifted - 12582912.0f), [](float a, float b, float c) { return fmaf(a, b, c); });
  return bits_float(float_bits(p) + ((float_bits(shifted) + 40u) << 23));
}
DAPO_HD Mass softmax_mass(float weight) {
  return static_cast<Mass>(weight);
}
/// By how many bits a tile's masses are shifted down to the row's unit.
DAPO_HD int softmax_shift(float row_exponent, float tile_exponent) {
  return static_cast<int>(fminf(row_exponent - tile_exponent, 63.0f));
}

/// Sums over a row's tiles: the total, and the sum of 2^40 * 2^u * u with u = c * logit - N.
struct SoftmaxSums {
  Mass total;
  double weighted;
};
DAPO_HD SoftmaxSums softmax_sums(const SoftmaxTile& tile, float row_exponent, float scale) {
  const int shift = softmax_shift(row_exponent, softmax_exponent(tile.max, scale));
  const double unit = __builtin_bit_cast(double, static_cast<uint64_t>(1023 - shift) << 52);  // 2^-shift
  const double weighted = static_cast<double>(tile.weighted) - shift * static_cast<double>(tile.mass);
  return {tile.mass >> shift, shift < 63 ? weighted * unit : 0.0};
}

/// log of the sum of e^((logit - max) / temperature), and the entropy, both in nats; NaN if the row has no softmax.
struct SoftmaxLogs {
  float log_sum, entropy;
};
DAPO_HD SoftmaxLogs softmax_logs(const SoftmaxSums& sums, float max, float scale, float exponent) {
  constexpr double kLn2 = 0.6931471805599453;
  const double total = sums.total, log_total = log(total * 0x1p-40);
  const double top = static_cast<double>(fmaf(max, scale, -exponent)) * kLn2;
  return {static_cast<float>(log_total - top), static_cast<float>(log_total - sums.weighted / total * kLn2)};
}

// ---- draws: Hugging Face's filters (top-k, top-p, min-p) on logits and masses

/// The columns that the filters keep: logit above `floor`, or equal to it and not after `last_tie`; of these, those
/// that min-p keeps.
struct KeptColumns {
  float floor, max, inverse_temperature, least;
  int64_t last_tie;
  /// Whether a tile with this largest logit can have such a column.
  DAPO_HD bool reach(float logit) const { return logit >= floor && (logit - max) * inverse_temperature >= least; }
  DAPO_HD bool operator()(float logit, int64_t column) const {
    return reach(logit) && (logit > floor || column <= last_tie);
  }
};
/// log of min-p.
inline float softmax_least(float min_p) {
  return min_p > 0.0f ? static_cast<float>(std::log(static_cast<double>(min_p < 1.0f ? min_p : 1.0f))) : -HUGE_VALF;
}
/// The mass that top-p's tokens have to reach together.
DAPO_HD Mass top_p_target(Mass total, float top_p) {
  const Mass target = static_cast<Mass>(static_cast<double>(total) * static_cast<double>(top_p));
  return target > 0 ? target : 1;
}
/// Lowest logits of the search for top-p's edge, tried in turn until the columns above hold the mass: 2^-8 of the
/// likeliest token's probability, mostly enough; a bound that leaves about 1 - top_p below it; all that is kept.
inline constexpr int kTopPStarts = 3;
DAPO_HD float top_p_start(int i, Mass total, Mass target, int64_t vocab, float scale, float exponent, float floor) {
  if (i == kTopPStarts - 1) return floor;
  const float each = static_cast<float>(total - target) / static_cast<float>(vocab) + 1.0f;
  const float bound = (exponent - 41.0f + log2f(each)) / scale, near = (exponent - 8.0f) / scale;
  return fmaxf(floor, i == 0 ? fmaxf(near, bound) : bound);
}
/// The draw at `position` as a fraction of 2^64. (The 24 bits of draw() are too few for the tail of a large
/// vocabulary.)
DAPO_HD uint64_t draw_fraction(uint64_t seed, DrawKey k, int32_t position) {
  const Philox4 x = philox(seed, {{static_cast<uint32_t>(position), static_cast<uint32_t>(k.sample),
                                   static_cast<uint32_t>(k.prompt), static_cast<uint32_t>(k.step)}});
  return uint64_t{x.x[0]} << 32 | x.x[1];
}
/// floor(total * fraction / 2^64) < total.
DAPO_HD Mass draw_target(Mass total, uint64_t fraction) {
  const Mass high = total >> 32, low = total & 0xffffffffu, f = fraction >> 32, g = fraction & 0xffffffffu;
  const Mass middle = ((low * g) >> 32) + ((high * g) & 0xffffffffu) + ((low * f) & 0xffffffffu);
  return high * f + ((high * g) >> 32) + ((low * f) >> 32) + (middle >> 32);
}

}  // namespace dapo
