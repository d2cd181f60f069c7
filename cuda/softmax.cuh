// The one log-softmax of a row of logits, by one block: sampling, scoring and training give a token the same bits.
#pragma once

#include "cuda/reduce.cuh"
#include "cuda/vec.cuh"

namespace dapo::cuda {

inline constexpr int kSoftmaxThreads = 512;  // fixed: the order of the sums depends on it

struct RowSoftmax {
  float inverse_temperature;
  float max;      ///< of logit * inverse_temperature
  float log_sum;  ///< log of the sum of exp(z - max); NaN where a logit is NaN or +inf
  float entropy;  ///< nats
};

__device__ __forceinline__ float shifted(const RowSoftmax& s, float logit) {
  return fmaf(logit, s.inverse_temperature, -s.max);
}
__device__ __forceinline__ float row_log_prob(const RowSoftmax& s, float logit) {
  return shifted(s, logit) - s.log_sum;
}

/// One pass: each thread keeps the maximum m of what it saw, sum = sum of e^(z - m) and weighted = sum of e^(z - m) (z
/// - m).
__device__ inline RowSoftmax row_softmax(const float* logits, int vocab, float inverse_temperature) {
  __shared__ float scratch[kWarp];
  __shared__ double scratch2[kWarp];
  const float none = -INFINITY;
  float m = none, sum = 0.0f, weighted = 0.0f;
  bool bad = false;
  for (int i = static_cast<int>(threadIdx.x); i < vocab; i += kSoftmaxThreads) {
    const float z =
        __fmul_rn(logits[i], inverse_temperature);  // never joined with what follows: all callers' bits agree
    bad |= !(z < INFINITY);
    if (z > m) {
      const float f = m == none ? 0.0f : expf(m - z);
      weighted = m == none ? 0.0f : f * (weighted + sum * (m - z));
      sum *= f;
      m = z;
    }
    if (z > none) {
      const float d = z - m, e = expf(d);
      sum += e;
      weighted = fmaf(e, fmaxf(d, -100.0f), weighted);  // e is 0 there: 0 * -inf must not be NaN
    }
  }
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const float warp_top = warp_max(m);
  if (lane == 0) scratch[warp] = warp_top;
  __syncthreads();
  const float top = warp_max(lane < kSoftmaxThreads / kWarp ? scratch[lane] : none);
  const float f = m == none ? 0.0f : expf(m - top);
  const double total = block_sum(static_cast<double>(bad ? NAN : sum * f), scratch2);
  const double total_weighted =
      block_sum(static_cast<double>(m == none ? 0.0f : f * (weighted + sum * (m - top))), scratch2);
  const double log_total = log(total);
  return {inverse_temperature, top, static_cast<float>(log_total),
          static_cast<float>(log_total - total_weighted / total)};
}

}  // namespace dapo::cuda
