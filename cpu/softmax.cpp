#include "cpu/softmax.h"

#include <algorithm>

#include "core/check.h"

namespace dapo::cpu {
namespace {

using u64x8 = uint64_t __attribute__((vector_size(64)));
using u32x8 = uint32_t __attribute__((vector_size(32)));

/// softmax_power() and softmax_weight() of sixteen columns.
DAPO_ALWAYS_INLINE f32x16 power(f32x16 logit, f32x16 scale, f32x16 exponent) {
  return vmin(vmax(fma(logit, scale, -exponent), splat(-150.0f)), splat(0.9999f));
}
DAPO_ALWAYS_INLINE f32x16 weight(f32x16 u) {
  const f32x16 shifter = splat(12582912.0f), t = u + shifter, f = u - (t - shifter);
  const f32x16 p = exp2_polynomial(f, [](f32x16 a, f32x16 b, float c) { return fma(a, b, splat(c)); });
  return reinterpret_cast<f32x16>(reinterpret_cast<u32x16>(p) + ((reinterpret_cast<u32x16>(t) + 40u) << 23));
}
/// softmax_mass() of sixteen weights; sums lanes by pairs.
DAPO_ALWAYS_INLINE u64x8 mass(f32x16 w) {
#ifdef __AVX512DQ__
  __m256 part[2];
  std::memcpy(part, &w, sizeof w);
  return reinterpret_cast<u64x8>(_mm512_add_epi64(_mm512_cvttps_epu64(part[0]), _mm512_cvttps_epu64(part[1])));
#else
  // From the bits, by shifting the significand: a weight is below 2^41, so its biased exponent is 167 at most, and a
  // shift by 63 places leaves none of its 41 bits.
  const u32x16 bits = reinterpret_cast<u32x16>(w), significand = (bits & 0x7fffffu) | 0x800000u;
  const u32x16 distance = 167u - (bits >> 23), right = distance < 63u ? distance : 63u + u32x16{};
  u32x8 part[2], places[2];
  std::memcpy(part, &significand, sizeof part), std::memcpy(places, &right, sizeof places);
  u64x8 sum{};
  for (int i = 0; i < 2; ++i)
    sum += (__builtin_convertvector(part[i], u64x8) << 17) >> __builtin_convertvector(places[i], u64x8);
  return sum;
#endif
}

/// `count` columns: a tile, or what is left for the last one.
SoftmaxTile sum_tile(const float* logits, int64_t count, float scale) {
  constexpr int kVectors = kSoftmaxTile / kLanes;
  const float none = -HUGE_VALF;
  f32x16 x[kVectors], top = splat(none);
  i32x16 bad{};
  for (int v = 0; v < kVectors; ++v) {
    const int64_t left = count - v * kLanes;
    x[v] =
        left >= kLanes ? load(logits + v * kLanes) : load_part(logits + v * kLanes, std::max<int64_t>(left, 0), none);
    top = vmax(x[v], top);
    bad |= ~(x[v] < splat(HUGE_VALF));
  }
  const float max = max_lanes(top);
  const f32x16 exponent = splat(softmax_exponent(max, scale)), c = splat(scale);
  u64x8 sum{};
  f32x16 weighted{};
  for (const f32x16& v : x) {
    const f32x16 u = power(v, c, exponent), w = weight(u);
    sum += mass(w);
    weighted = fma(w, u, weighted);
  }
  Mass total = 0;
  int faults = 0;
  for (int l = 0; l < 8; ++l) total += sum[l];
  for (int l = 0; l < kLanes; ++l) faults |= bad[l];
  return {total, faults != 0 ? __builtin_nanf("") : max, sum_lanes(weighted)};
}

}  // namespace

float fill_tiles(SoftmaxTile* tiles, const float* logits, int64_t vocab, float temperature) {
  CHECK(vocab <= kSoftmaxColumns, "a vocabulary of {}", vocab);
  const float scale = softmax_scale(1.0f / temperature);
  float top = -HUGE_VALF;
  bool bad = false;
  for (int64_t t = 0; t < softmax_tiles(vocab); ++t) {
    const int64_t begin = t * kSoftmaxTile;
    tiles[t] = sum_tile(logits + begin, vocab - begin, scale);
    bad |= std::isnan(tiles[t].max);
    if (tiles[t].max > top) top = tiles[t].max;
  }
  return bad ? __builtin_nanf("") : top;
}

SoftmaxSums sum_tiles(const SoftmaxTile* tiles, int64_t vocab, float top, float temperature) {
  const float scale = softmax_scale(1.0f / temperature), exponent = softmax_exponent(top, scale);
  SoftmaxSums sums{0, 0.0};
  if (!(std::abs(exponent) < HUGE_VALF)) return sums;
  for (int64_t t = 0; t < softmax_tiles(vocab); ++t) {
    const SoftmaxSums s = softmax_sums(tiles[t], exponent, scale);
    sums.total += s.total;
    sums.weighted += s.weighted;
  }
  return sums;
}

RowSoftmax softmax_of(const SoftmaxSums& sums, float top, float temperature) {
  const float inverse = 1.0f / temperature, scale = softmax_scale(inverse), exponent = softmax_exponent(top, scale);
  const float nan = __builtin_nanf("");
  const SoftmaxLogs logs =
      std::abs(exponent) < HUGE_VALF ? softmax_logs(sums, top, scale, exponent) : SoftmaxLogs{nan, nan};
  return {inverse, top * inverse, logs.log_sum, logs.entropy, top, scale, exponent, sums.total};
}

RowSoftmax row_softmax(SoftmaxTile* tiles, const float* logits, int64_t vocab, float temperature) {
  const float top = fill_tiles(tiles, logits, vocab, temperature);
  return softmax_of(sum_tiles(tiles, vocab, top, temperature), top, temperature);
}

}  // namespace dapo::cpu
