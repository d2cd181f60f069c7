// The one softmax of a row of logits (core/softmax.h): sampling, scoring and training give a token the same bits.
// One pass over the logits writes the sums of their tiles (softmax.cu); one block for each row then merges those.
#pragma once

#include "core/softmax.h"
#include "cuda/reduce.cuh"
#include "cuda/thread.cuh"
#include "cuda/vec.cuh"

namespace dapo::cuda {

inline constexpr int kSoftmaxThreads = 512;  // of the block that merges a row: fixed, as is the entropy's order

struct RowSoftmax {
  float inverse_temperature;
  float max;      ///< of logit * inverse_temperature
  float log_sum;  ///< log of the sum of exp(z - max); NaN where a logit is NaN or +inf
  float entropy;  ///< nats
  float top;      ///< largest logit
  float scale, exponent;
  Mass total;
};

__device__ __forceinline__ float shifted(const RowSoftmax& s, float logit) {
  return fmaf(logit, s.inverse_temperature, -s.max);
}
__device__ __forceinline__ float row_log_prob(const RowSoftmax& s, float logit) {
  return shifted(s, logit) - s.log_sum;
}

/// Four logits of a row from column c on; -inf past its end. W = 1: rows are not aligned to 16 bytes.
template <int W>
__device__ __forceinline__ void load_logits(float (&to)[4], const float* row, int c, int vocab) {
  if (W == 4 && c < vocab) {
    load_floats<4>(to, row + c);
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) to[e] = c + e < vocab ? row[c + e] : -INFINITY;
  }
}

__device__ __forceinline__ RowSoftmax softmax_of(const SoftmaxSums& sums, float top, float inverse_temperature,
                                                 float scale, float exponent) {
  const SoftmaxLogs logs = softmax_logs(sums, top, scale, exponent);
  return {inverse_temperature,
          top * inverse_temperature,
          sums.weighted == sums.weighted ? logs.log_sum : NAN,
          logs.entropy,
          top,
          scale,
          exponent,
          sums.total};
}

/// The sums of a row's tiles, by a block of kSoftmaxThreads; the same in every thread. bad: the row has no softmax.
__device__ __forceinline__ SoftmaxSums row_sums(const SoftmaxTile* tiles, int count, float scale, float exponent,
                                                bool bad, Mass* masses, double* scratch) {
  Mass total = 0;
  double weighted = bad ? NAN : 0.0;
  for (int t = thread_x(); t < count; t += kSoftmaxThreads) {
    const SoftmaxSums sums = softmax_sums(tiles[t], exponent, scale);
    total += sums.total;
    weighted += sums.weighted;
  }
  total = block_sum(total, masses);
  weighted = block_sum(weighted, scratch);
  return {total, weighted};
}

/// Merges a row's tiles, by a block of kSoftmaxThreads; the same in every thread.
__device__ inline RowSoftmax row_softmax(const SoftmaxTile* tiles, int count, float inverse_temperature, float scale) {
  __shared__ double scratch[kWarp];
  __shared__ Mass masses[kWarp];
  float top = -INFINITY;
  bool bad = false;
  for (int t = thread_x(); t < count; t += kSoftmaxThreads) {
    const float max = tiles[t].max;
    bad |= max != max;
    top = fmaxf(top, max);
  }
  top = block_max(top, reinterpret_cast<float*>(scratch));
  const float exponent = softmax_exponent(top, scale);
  bad |= !(fabsf(exponent) < INFINITY);
  return softmax_of(row_sums(tiles, count, scale, exponent, bad, masses, scratch), top, inverse_temperature, scale,
                    exponent);
}

}  // namespace dapo::cuda
