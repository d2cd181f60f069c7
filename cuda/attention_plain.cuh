// Attention by plain FMAs: for f32, and for head dimensions that the tensor-core kernels do not support. One warp for
// each query row and head, so that the bits depend on nothing but the row.
#pragma once

#include <cmath>

#include "core/sizes.h"
#include "cuda/attention_keys.cuh"
#include "cuda/attention_shape.h"
#include "cuda/launch.h"
#include "cuda/reduce.cuh"
#include "cuda/thread.cuh"
#include "cuda/vec.cuh"

namespace dapo::cuda {

inline constexpr int kPlainWarps = 4;  // of a block
inline constexpr int kPlainMaxD = 256;
inline constexpr int kPlainDims = kPlainMaxD / kWarp;  // elements of a row a lane holds

/// Scaled scores of keys lane and lane + 32 of a tile, -inf past `valid`.
template <class T>
__device__ __forceinline__ void plain_scores(float (&s)[2], const T* q, const T* k, int64_t ld, int d, int valid,
                                             float scale, int lane) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int j = lane + h * kWarp;
    float dot = 0.0f;
    if (j < valid)
      for (int i = 0; i < d; ++i) dot = fmaf(to_float(q[i]), to_float(k[j * ld + i]), dot);
    s[h] = j < valid ? __fmul_rn(dot, scale) : -INFINITY;
  }
}

/// to[i] += sum over the tile's rows of p_j x_j, in order; lane l holds elements l, l + 32, ... The warp's numbers p go
/// through `shared`.
template <class T>
__device__ __forceinline__ void plain_add(float (&to)[kPlainDims], const float (&p)[2], const T* x, int64_t ld, int d,
                                          int valid, int lane, float (&shared)[kKvTile]) {
  shared[lane] = p[0];
  shared[lane + kWarp] = p[1];
  __syncwarp();
  const int rows = valid < kKvTile ? valid : kKvTile;
  for (int j = 0; j < rows; ++j) {
    const float pj = shared[j];
#pragma unroll
    for (int i = 0; i < kPlainDims; ++i)
      if (lane + i * kWarp < d) to[i] = fmaf(pj, to_float(x[j * ld + lane + i * kWarp]), to[i]);
  }
  __syncwarp();
}

/// Grid: (blocks over rows x heads of a sequence, sequences).
template <class T, class Keys>
__global__ void __launch_bounds__(kPlainWarps* kWarp)
    plain_attention_kernel(T* out, float* lse, const T* qkv, Keys keys, int64_t width, int heads, int group, int d,
                           float scale) {
  __shared__ float shared[kPlainWarps][kKvTile];
  const int lane = thread_x() % kWarp, warp = thread_x() / kWarp;
  const int sequence = block_y();
  const int item = block_x() * kPlainWarps + warp;
  const AttentionWork work = keys.work(sequence);
  const int row = item / heads, head = item % heads;
  if (row >= work.rows) return;
  const int own = work.first_own + row + 1;  // own keys that the row sees
  const int prefix_tiles = ceil_div(work.prefix, kKvTile), tiles = prefix_tiles + ceil_div(own, kKvTile);
  const T* q = qkv + (work.row0 + row) * width + int64_t{head} * d;
  float o[kPlainDims] = {}, top = -INFINITY, sum = 0.0f;
  for (int t = 0; t < tiles; ++t) {
    const bool prefix = t < prefix_tiles;
    const int at = prefix ? t : t - prefix_tiles, valid = (prefix ? work.prefix : own) - at * kKvTile;
    const T *k, *v;
    int64_t ld;
    keys.tile(sequence, head / group, prefix, at, d, k, v, ld);
    float p[2];
    plain_scores(p, q, k, ld, d, valid, scale, lane);
    const float m = fmaxf(top, warp_max(fmaxf(p[0], p[1])));
    const float alpha = expf(top - m);
#pragma unroll
    for (int h = 0; h < 2; ++h) p[h] = expf(p[h] - m);
    sum = fmaf(sum, alpha, warp_sum(p[0] + p[1]));
    top = m;
#pragma unroll
    for (int i = 0; i < kPlainDims; ++i) o[i] *= alpha;
    plain_add(o, p, v, ld, d, valid, lane, shared[warp]);
  }
  const int64_t at = (work.row0 + row) * heads + head;
#pragma unroll
  for (int i = 0; i < kPlainDims; ++i)
    if (lane + i * kWarp < d) out[at * d + lane + i * kWarp] = from_float<T>(o[i] / sum);
  if (lse != nullptr && lane == 0) lse[at] = top + logf(sum);
}

template <class T, class Keys>
void launch_plain(T* out, float* lse, const T* qkv, const Keys& keys, const ForwardArgs& a) {
  CHECK_LE(a.d, kPlainMaxD, "head_dim");
  const int64_t blocks = ceil_div(int64_t{a.max_rows} * a.heads, kPlainWarps);
  launch(plain_attention_kernel<T, Keys>, {dim3(narrow(blocks), a.sequences), dim3(kPlainWarps * kWarp), 0, a.stream},
         out, lse, qkv, keys, a.width, a.heads, a.group, a.d, 1.0f / std::sqrt(static_cast<float>(a.d)));
}

/// dq of each row and head; grid as above.
template <class T>
__global__ void __launch_bounds__(kPlainWarps* kWarp)
    plain_dq_kernel(T* dqkv, const T* dout, const float* delta, const float* lse, PackKeys<T> keys, int group, int d,
                    float scale) {
  __shared__ float shared[kPlainWarps][kKvTile];
  const int lane = thread_x() % kWarp, warp = thread_x() / kWarp;
  const int sequence = block_y(), heads = keys.heads;
  const int item = block_x() * kPlainWarps + warp;
  const AttentionWork work = keys.work(sequence);
  const int row = item / heads, head = item % heads;
  if (row >= work.rows) return;
  const int prefix_tiles = ceil_div(work.prefix, kKvTile), tiles = prefix_tiles + row / kKvTile + 1;
  const int64_t n = work.row0 + row, at = n * heads + head;
  const T *q = keys.qkv + n * keys.width + int64_t{head} * d, *g = dout + at * d;
  float dq[kPlainDims] = {};
  for (int t = 0; t < tiles; ++t) {
    const bool prefix = t < prefix_tiles;
    const int tile = prefix ? t : t - prefix_tiles, valid = (prefix ? work.prefix : row + 1) - tile * kKvTile;
    const T *k, *v;
    int64_t ld;
    keys.tile(sequence, head / group, prefix, tile, d, k, v, ld);
    float p[2], dp[2];
    plain_scores(p, q, k, ld, d, valid, scale, lane);
    plain_scores(dp, g, v, ld, d, valid, 1.0f, lane);
#pragma unroll
    for (int h = 0; h < 2; ++h)
      p[h] = lane + h * kWarp < valid ? expf(p[h] - lse[at]) * (dp[h] - delta[at]) * scale : 0.0f;
    plain_add(dq, p, k, ld, d, valid, lane, shared[warp]);
  }
#pragma unroll
  for (int i = 0; i < kPlainDims; ++i)
    if (lane + i * kWarp < d) dqkv[n * keys.width + int64_t{head} * d + lane + i * kWarp] = from_float<T>(dq[i]);
}

/// dk and dv of each key row and KV head: over the rows of its own segment from the key on, then, in order, over all
/// rows of the segments that it is the prefix of. Grid: (blocks over rows x KV heads of a segment, segments).
template <class T>
__global__ void __launch_bounds__(kPlainWarps* kWarp)
    plain_dkv_kernel(T* dqkv, const T* dout, const float* delta, const float* lse, PackKeys<T> keys, int segments,
                     int d, float scale) {
  __shared__ float shared[kPlainWarps][kKvTile];
  const int lane = thread_x() % kWarp, warp = thread_x() / kWarp;
  const int own = block_y(), item = block_x() * kPlainWarps + warp;
  const int row = item / keys.kv_heads, kv_head = item % keys.kv_heads, group = keys.heads / keys.kv_heads;
  const AttentionWork key_work = keys.work(own);
  if (row >= key_work.rows) return;
  const int64_t k_at = (key_work.row0 + row) * keys.width + int64_t{keys.heads + kv_head} * d;
  const int64_t v_at = k_at + int64_t{keys.kv_heads} * d, q_width = int64_t{keys.heads} * d;
  float dk[kPlainDims] = {}, dv[kPlainDims] = {};
  for (int s = own; s < segments; ++s) {
    if (s != own && keys.segments[3 * s + 2] != own) continue;
    const AttentionWork work = keys.work(s);
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int r = s == own ? row : 0; r < work.rows; r += kKvTile) {
        const int64_t n = work.row0 + r;
        const int valid = work.rows - r;
        const T *q = keys.qkv + n * keys.width + int64_t{head} * d, *g = dout + n * q_width + int64_t{head} * d;
        float p[2], ds[2];
        plain_scores(p, keys.qkv + k_at, q, keys.width, d, valid, scale, lane);
        plain_scores(ds, keys.qkv + v_at, g, q_width, d, valid, 1.0f, lane);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int j = lane + h * kWarp;
          const int64_t at = (n + j) * keys.heads + head;
          p[h] = j < valid ? expf(p[h] - lse[at]) : 0.0f;
          ds[h] = j < valid ? p[h] * (ds[h] - delta[at]) * scale : 0.0f;
        }
        plain_add(dv, p, g, q_width, d, valid, lane, shared[warp]);
        plain_add(dk, ds, q, keys.width, d, valid, lane, shared[warp]);
      }
  }
#pragma unroll
  for (int i = 0; i < kPlainDims; ++i)
    if (lane + i * kWarp < d) {
      dqkv[k_at + lane + i * kWarp] = from_float<T>(dk[i]);
      dqkv[v_at + lane + i * kWarp] = from_float<T>(dv[i]);
    }
}

}  // namespace dapo::cuda
