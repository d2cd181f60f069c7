// The rotation of pairs, shared by rope and rope_kv_write: the same expression, so that both give the same bits.
#pragma once

#include "cuda/vec.cuh"

namespace dapo::cuda {

/// Rotates the W pairs (a, b), elements i and i + D/2 of a head, by angles of these cosines and sines. sign -1: back. The fma
/// are written out: where the compiler may choose which product to fuse, kernels differ.
template <int W>
__device__ __forceinline__ void rotate_by(float (&a)[W], float (&b)[W], const float (&cosine)[W],
                                          const float (&sine)[W], float sign) {
#pragma unroll
  for (int j = 0; j < W; ++j) {
    const float x = a[j], s = sign * sine[j];
    a[j] = fmaf(x, cosine[j], -(b[j] * s));
    b[j] = fmaf(b[j], cosine[j], x * s);
  }
}

/// The same; angles: the cosines, and `half` further on the sines.
template <int W>
__device__ __forceinline__ void rotate(float (&a)[W], float (&b)[W], const float* angles, int half, float sign) {
  float cosine[W], sine[W];
  load_floats<W>(cosine, angles);
  load_floats<W>(sine, angles + half);
  rotate_by(a, b, cosine, sine, sign);
}

}  // namespace dapo::cuda
