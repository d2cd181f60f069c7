// attention_backward: delta, then dq, then dk and dv; launchers over attention_backward.cuh (bf16) and
// attention_plain.cuh.
#include <algorithm>
#include <cmath>

#include "cuda/attention_backward.cuh"
#include "cuda/attention_plain.cuh"
#include "cuda/attention_shape.h"
#include "cuda/launch.h"
#include "cuda/shape.h"

namespace dapo::cuda {
namespace {

constexpr float kLog2e = 1.4426950408889634f;

/// delta[n, h] = sum over d of dout * out; a warp a row and head.
template <class T>
__global__ void __launch_bounds__(kPlainWarps* kWarp)
    delta_kernel(float* delta, const T* dout, const T* out, int64_t items, int d) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t item = int64_t{blockIdx.x} * kPlainWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (item >= items) return;
  float sum = 0.0f;
  for (int i = lane; i < d; i += kWarp) sum = fmaf(to_float(dout[item * d + i]), to_float(out[item * d + i]), sum);
  sum = warp_sum(sum);
  if (lane == 0) delta[item] = sum;
}

template <int D>
void launch_backward(const BackwardArgs& args, int longest, cudaStream_t stream) {
  const unsigned kv_heads = static_cast<unsigned>(args.keys.kv_heads), segments = static_cast<unsigned>(args.segments);
  constexpr int kRows = kBackwardWarps * 16, kQueries = D == 128 ? 32 : 64;
  const dim3 block(kBackwardWarps * 32);
  const unsigned row_tiles = static_cast<unsigned>(ceil_div(int64_t{longest} * args.group, kRows));
  launch(dq_kernel<D>,
         {dim3(row_tiles, kv_heads, segments), block, size_t{2} * (kRows + kKvTile) * D * sizeof(bf16), stream}, args);
  const unsigned key_tiles = static_cast<unsigned>(ceil_div(longest, kRows));
  launch(dkv_kernel<D>,
         {dim3(key_tiles, kv_heads, segments), block, size_t{2} * (kRows + kQueries) * D * sizeof(bf16), stream}, args);
}

}  // namespace

template <class T>
void CudaBackend<T>::attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                                        const Tensor& lse, const Segments& segments, const AttentionDims& dims) {
  const int64_t rows = qkv.dim(0);
  expect("attention_backward dqkv", dqkv, dtype(), {rows, dims.qkv_width()});
  expect("attention_backward qkv", qkv, dtype(), {rows, dims.qkv_width()});
  for (const Tensor* t : {&dout, &out}) expect("attention_backward dout, out", *t, dtype(), {rows, dims.q_width()});
  expect("attention_backward lse", lse, DType::f32, {rows, dims.heads});
  if (rows == 0) return;
  const ArenaScope scope(workspace());
  const Tensor delta = workspace().take("delta", DType::f32, {rows, dims.heads});
  const int64_t items = rows * dims.heads;
  const dim3 block(kPlainWarps * kWarp);
  launch(delta_kernel<T>, {grid_of(ceil_div(items, kPlainWarps)), block, 0, stream_}, delta.as<float>(),
         dout.as<const T>(), out.as<const T>(), items, dims.head_dim);
  const PackKeys<T> keys{qkv.as<const T>(), segments.device.as<const int32_t>(), dims.qkv_width(), dims.heads,
                         dims.kv_heads};
  const int longest = longest_segment(segments), group = dims.heads / dims.kv_heads;
  const int count = narrow(static_cast<int64_t>(segments.host.size()));
  const float scale = 1.0f / std::sqrt(static_cast<float>(dims.head_dim));
  if constexpr (sizeof(T) == 2) {
    const BackwardArgs args{
        dqkv.as<T>(), dout.as<const T>(), delta.as<const float>(), lse.as<const float>(), keys, group, count,
        scale,        scale * kLog2e};
    if (with_head_dim(dims.head_dim, [&]<int D>() { launch_backward<D>(args, longest, stream_); })) return;
  }
  CHECK_LE(dims.head_dim, kPlainMaxD, "head_dim");
  const auto grid = [&](int heads) {
    return dim3(static_cast<unsigned>(ceil_div(int64_t{longest} * heads, kPlainWarps)), static_cast<unsigned>(count));
  };
  launch(plain_dq_kernel<T>, {grid(dims.heads), block, 0, stream_}, dqkv.as<T>(), dout.as<const T>(),
         delta.as<const float>(), lse.as<const float>(), keys, group, dims.head_dim, scale);
  launch(plain_dkv_kernel<T>, {grid(dims.kv_heads), block, 0, stream_}, dqkv.as<T>(), dout.as<const T>(),
         delta.as<const float>(), lse.as<const float>(), keys, count, dims.head_dim, scale);
}

#define DAPO_INSTANTIATE(T)                                                                                    \
  template void CudaBackend<T>::attention_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, \
                                                   const Tensor&, const Segments&, const AttentionDims&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
