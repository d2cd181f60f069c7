#include "cpu/softmax.h"

#include <algorithm>

namespace dapo::cpu {

RowSoftmax row_softmax(const float* logits, int64_t vocab, float temperature) {
  const float none = -__builtin_inff();
  const int64_t whole = vocab / kLanes * kLanes;
  f32x16 top[4] = {splat(none), splat(none), splat(none), splat(none)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= whole; i += 4 * kLanes)
    for (int u = 0; u < 4; ++u) top[u] = vmax(load(logits + i + u * kLanes), top[u]);
  for (; i < whole; i += kLanes) top[0] = vmax(load(logits + i), top[0]);
  if (whole < vocab) top[0] = vmax(load_part(logits + whole, vocab - whole, none), top[0]);
  const float max = max_lanes(vmax(vmax(top[0], top[1]), vmax(top[2], top[3])));

  RowSoftmax s{1.0f / temperature, 0.0f, 0.0f, 0.0f};
  s.max = max * s.inverse_temperature;
  double sum = 0.0, weighted = 0.0;  // of e = exp(z - max), and of e * (z - max)
  for (int64_t begin = 0; begin < vocab; begin += kSoftmaxBlock) {
    const int64_t end = std::min(begin + kSoftmaxBlock, vocab);
    f32x16 block{}, block_weighted{};
    for (int64_t j = begin; j < end; j += kLanes) {
      const f32x16 z = shifted(s, end - j >= kLanes ? load(logits + j) : load_part(logits + j, end - j, none));
      const f32x16 e = vexp(z);
      block += e;
      block_weighted = fma(e, vmax(z, splat(-100.0f)), block_weighted);  // e is 0 there: 0 * -inf must not be NaN
    }
    sum += sum_lanes(block);
    weighted += sum_lanes(block_weighted);
  }
  s.log_sum = static_cast<float>(std::log(sum));
  s.entropy = static_cast<float>(std::log(sum) - weighted / sum);
  return s;
}

void exponentiate(float* to, const float* logits, int64_t vocab, const RowSoftmax& s) {
  const int64_t whole = vocab / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) store(to + i, vexp(shifted(s, load(logits + i))));
  if (whole < vocab) store_part(to + whole, vexp(shifted(s, load_part(logits + whole, vocab - whole))), vocab - whole);
}

float row_log_prob(const RowSoftmax& s, const float* logits, int64_t token) {
  return std::fma(logits[token], s.inverse_temperature, -s.max) - s.log_sum;
}

}  // namespace dapo::cpu
