// attention_backward: delta, then dq, dk and dv by attention_backward_launch.cuh (bf16) or attention_plain.cuh.
#include <cmath>

#include "core/op_checks.h"
#include "cuda/attention_backward_launch.cuh"
#include "cuda/attention_plain.cuh"
#include "cuda/attention_shape.h"
#include "cuda/launch.h"
#include "cuda/shape.h"
#include "cuda/thread.cuh"

namespace dapo::cuda {
namespace {

/// delta[n, h] = sum over d of dout * out; one warp for each row and head.
template <class T>
__global__ void __launch_bounds__(kPlainWarps* kWarp)
    delta_kernel(float* delta, const T* dout, const T* out, int64_t items, int d) {
  const int lane = thread_x() % kWarp;
  const int64_t item = int64_t{blockIdx.x} * kPlainWarps + thread_x() / kWarp;
  if (item >= items) return;
  float sum = 0.0f;
  for (int i = lane; i < d; i += kWarp) sum = fmaf(to_float(dout[item * d + i]), to_float(out[item * d + i]), sum);
  sum = warp_sum(sum);
  if (lane == 0) delta[item] = sum;
}

/// The same where D / 8 lanes hold a row: 16 bytes of each operand a thread.
template <int D>
__global__ void __launch_bounds__(kPlainWarps* kWarp)
    delta_vector_kernel(float* delta, const bf16* dout, const bf16* out, int64_t items) {
  constexpr int kLanes = D / 8;
  const int64_t at = int64_t{blockIdx.x} * kPlainWarps * kWarp + threadIdx.x, item = at / kLanes;
  float x[8] = {}, y[8] = {}, sum = 0.0f;
  if (item < items) load_floats(x, dout + at * 8), load_floats(y, out + at * 8);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(x[i], y[i], sum);
#pragma unroll
  for (int m = kLanes / 2; m > 0; m /= 2) sum += __shfl_xor_sync(kFullMask, sum, m);
  if (item < items && at % kLanes == 0) delta[item] = sum;
}

}  // namespace

template <class T>
void CudaBackend<T>::attention_backward(const Tensor& dqkv, const Tensor& dout, const Tensor& qkv, const Tensor& out,
                                        const Tensor& lse, const Segments& segments, const AttentionDims& dims) {
  check_attention_backward(dtype(), dqkv, dout, qkv, out, lse, segments, dims);
  const int64_t rows = qkv.dim(0);
  if (rows == 0) return;
  const ArenaScope scope(workspace());
  const Tensor delta = workspace().take("delta", DType::f32, {rows, dims.heads});
  const int64_t items = rows * dims.heads;
  const dim3 block(kPlainWarps * kWarp);
  const PackKeys<T> keys{.qkv = qkv.as<const T>(),
                         .segments = segments.device.as<const int32_t>(),
                         .width = dims.qkv_width(),
                         .heads = dims.heads,
                         .kv_heads = dims.kv_heads};
  const int longest = longest_segment(segments), group = dims.heads / dims.kv_heads;
  const int count = narrow(std::ssize(segments.host));
  const float scale = 1.0f / std::sqrt(static_cast<float>(dims.head_dim));
  if constexpr (sizeof(T) == 2) {
    BackwardArgs args{.dqkv = dqkv.as<T>(),
                      .dout = dout.as<const T>(),
                      .delta = delta.as<const float>(),
                      .lse = lse.as<const float>(),
                      .keys = keys,
                      .group = Divisor(group),
                      .segments = count,
                      .scale = scale,
                      .scale_log2 = scale * kLog2e,
                      .part_steps = 0,
                      .most_parts = 1,
                      .parts = nullptr,
                      .rows = rows};
    CHECK_LT(rows * group * group, int64_t{1} << 32, "rows of a pack: Divisor holds");
    CHECK_LT(rows * dims.qkv_width(), int64_t{1} << 31, "elements of a pack: load_packed holds");
    const bool done = with_head_dim(dims.head_dim, [&]<int D>() {
      launch(delta_vector_kernel<D>, {grid_of(ceil_div(items * (D / 8), kPlainWarps * kWarp)), block, 0, stream_},
             delta.as<float>(), dout.as<const T>(), out.as<const T>(), items);
      cut_into_parts<D>(args, segments.host);
      if (args.most_parts > 1)
        args.parts = workspace()
                         .take("parts of dk, dv", DType::f32, {args.most_parts, rows, dims.kv_heads, 2, D})
                         .template as<float>();
      launch_backward<D>(args, longest, attention_choice_->wgmma(AttentionPass::backward, dims, longest), stream_);
    });
    if (done) return;
  }
  launch(delta_kernel<T>, {grid_of(ceil_div(items, kPlainWarps)), block, 0, stream_}, delta.as<float>(),
         dout.as<const T>(), out.as<const T>(), items, dims.head_dim);
  CHECK_LE(dims.head_dim, kPlainMaxD, "head_dim");
  const auto grid = [&](int heads) { return dim3(ceil_div(int64_t{longest} * heads, kPlainWarps), count); };
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
