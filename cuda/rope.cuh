// The rotation of pairs, shared by rope and rope_kv_write: the same expression, so that both give the same bits.
#pragma once

#include "cuda/vec.cuh"

namespace dapo::cuda {

/// Rotates the W pairs (a, b), elements i and i + D/2 of a head; angles: their cosines, and `half` further on their
/// sines. sign -1: back.
template <int W>
__device__ __forceinline__ void rotate(float (&a)[W], float (&b)[W], const float* angles, int half, float sign) {
  float c[W], s[W];
  load_floats<W>(c, angles);
  load_floats<W>(s, angles + half);
#pragma unroll
  for (int j = 0; j < W; ++j) {
    const float x = a[j], sine = sign * s[j];
    a[j] = x * c[j] - b[j] * sine;
    b[j] = b[j] * c[j] + x * sine;
  }
}

}  // namespace dapo::cuda
