// attention over segments, kv_write, paged_attention: launchers over the kernels of attention_forward.cuh (bf16) and
// attention_plain.cuh (f32, odd head dimensions).
#include <algorithm>
#include <cmath>

#include "cuda/attention_backward.cuh"
#include "cuda/attention_forward.cuh"
#include "cuda/attention_plain.cuh"
#include "cuda/attention_shape.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/shape.h"
#include "cuda/workspace.h"

namespace dapo::cuda {
namespace {

constexpr float kLog2e = 1.4426950408889634f;

template <class T>
__global__ void kv_write_kernel(T* cache, const T* qkv, PageKeys<T> keys, int64_t width, int heads, int d) {
  const int sequence = static_cast<int>(blockIdx.y), row = static_cast<int>(blockIdx.x);
  const AttentionWork work = keys.work(sequence);
  if (row >= work.rows) return;
  const T* from = qkv + (work.row0 + row) * width + int64_t{heads} * d;
  const int kv_width = keys.kv_heads * d;
  for (int i = static_cast<int>(threadIdx.x); i < kv_width; i += static_cast<int>(blockDim.x)) {
    const int64_t to = keys.key_offset(sequence, i / d, false, work.first_own + row, d) + i % d;
    cache[to] = from[i];
    cache[to + keys.value_step(d)] = from[kv_width + i];
  }
}

struct ForwardArgs {
  int64_t width;
  int heads, group, max_rows, sequences, kv_heads, d;
  cudaStream_t stream;
};

template <int D, int WARPS, bool kSplitGrid, class Keys>
void launch_forward(bf16* out, float* lse, const bf16* qkv, const Keys& keys, const Partials& partials,
                    const ForwardArgs& a) {
  const int tiles = narrow(ceil_div(int64_t{a.max_rows} * a.group, WARPS * 16)) * (kSplitGrid ? partials.splits : 1);
  constexpr size_t kStages = kSplitGrid ? kDecodeStages : 2;
  constexpr size_t kSmem = (size_t{WARPS} * 16 + kStages * 2 * kKvTile) * D * sizeof(bf16);
  launch(attention_kernel<Keys, D, WARPS, kSplitGrid>,
         {dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(a.kv_heads), static_cast<unsigned>(a.sequences)),
          dim3(WARPS * 32), kSmem, a.stream},
         out, lse, qkv, keys, partials, a.width, a.heads, a.group, kLog2e / std::sqrt(static_cast<float>(D)));
}

template <class T, class Keys>
void launch_plain(T* out, float* lse, const T* qkv, const Keys& keys, const ForwardArgs& a) {
  CHECK_LE(a.d, kPlainMaxD, "head_dim");
  const int64_t blocks = ceil_div(int64_t{a.max_rows} * a.heads, kPlainWarps);
  launch(plain_attention_kernel<T, Keys>,
         {dim3(static_cast<unsigned>(narrow(blocks)), static_cast<unsigned>(a.sequences)), dim3(kPlainWarps * kWarp), 0,
          a.stream},
         out, lse, qkv, keys, a.width, a.heads, a.group, a.d, 1.0f / std::sqrt(static_cast<float>(a.d)));
}

int most_splits(int max_length) {
  return narrow(ceil_div(max_length, kKvSplit)) + 1;
}

template <class T>
PageKeys<T> page_keys(const Tensor& cache, const PagedSequences& seqs, const AttentionDims& dims) {
  CHECK(seqs.page_size % kKvTile == 0 && seqs.page_size > 0, "page_size {}", seqs.page_size);
  expect("cache", cache, dtype_of<T>::value, {cache.dim(0), 2, dims.kv_heads, seqs.page_size, dims.head_dim});
  return {cache.as<const T>(),
          seqs.row_begin.as<const int32_t>(),
          seqs.prefix_length.as<const int32_t>(),
          seqs.own_length.as<const int32_t>(),
          seqs.pages.as<const int32_t>(),
          narrow(seqs.pages.dim(1)),
          seqs.page_size,
          dims.kv_heads};
}

}  // namespace

size_t attention_workspace(const WorkspaceNeeds& needs, DType t) {
  Arena measure("attention");
  const AttentionDims& a = needs.attention;
  if (needs.max_tokens > 0) {
    measure.take("delta", DType::f32, {needs.max_tokens, a.heads});
    if (t == DType::bf16)
      measure.take("parts of dk, dv", DType::f32, {kMostParts, needs.max_tokens, a.kv_heads, 2, a.head_dim});
  }
  measure.release(0);
  if (needs.max_batch > 0 && t == DType::bf16) {
    const int64_t parts = needs.max_batch * a.heads * most_splits(narrow(needs.max_length));
    measure.take("partial o", DType::f32, {parts, a.head_dim});
    measure.take("partial max", DType::f32, {parts});
    measure.take("partial sum", DType::f32, {parts});
  }
  return measure.peak();
}

template <class T>
void CudaBackend<T>::attention(const Tensor& out, const Tensor& lse, const Tensor& qkv, const Segments& segments,
                               const AttentionDims& dims) {
  const int64_t rows = qkv.dim(0);
  expect("attention out", out, dtype(), {rows, dims.q_width()});
  expect("attention lse", lse, DType::f32, {rows, dims.heads});
  expect("attention qkv", qkv, dtype(), {rows, dims.qkv_width()});
  if (rows == 0) return;
  const PackKeys<T> keys{qkv.as<const T>(), segments.device.as<const int32_t>(), dims.qkv_width(), dims.heads,
                         dims.kv_heads};
  const ForwardArgs args{dims.qkv_width(),
                         dims.heads,
                         dims.heads / dims.kv_heads,
                         longest_segment(segments),
                         narrow(static_cast<int64_t>(segments.host.size())),
                         dims.kv_heads,
                         dims.head_dim,
                         stream_};
  if constexpr (sizeof(T) == 2) {
    if (with_head_dim(dims.head_dim, [&]<int D>() {
          launch_forward<D, 4, false>(out.as<T>(), lse.as<float>(), qkv.as<const T>(), keys, Partials{}, args);
        }))
      return;
  }
  launch_plain<T>(out.as<T>(), lse.as<float>(), qkv.as<const T>(), keys, args);
}

template <class T>
void CudaBackend<T>::kv_write(const Tensor& cache, const Tensor& qkv, const PagedSequences& seqs,
                              const AttentionDims& dims) {
  const int64_t sequences = seqs.own_length.numel();
  if (sequences == 0 || qkv.dim(0) == 0) return;
  expect("kv_write qkv", qkv, dtype(), {qkv.dim(0), dims.qkv_width()});
  launch(kv_write_kernel<T>,
         {dim3(static_cast<unsigned>(seqs.max_rows), static_cast<unsigned>(sequences)),
          row_threads(narrow(dims.kv_width()), 1), 0, stream_},
         cache.as<T>(), qkv.as<const T>(), page_keys<T>(cache, seqs, dims), dims.qkv_width(), dims.heads,
         dims.head_dim);
}

template <class T>
void CudaBackend<T>::paged_attention(const Tensor& out, const Tensor& qkv, const Tensor& cache,
                                     const PagedSequences& seqs, const AttentionDims& dims) {
  const int64_t rows = qkv.dim(0), sequences = seqs.own_length.numel();
  expect("paged_attention out", out, dtype(), {rows, dims.q_width()});
  expect("paged_attention qkv", qkv, dtype(), {rows, dims.qkv_width()});
  if (sequences == 0 || rows == 0) return;
  const PageKeys<T> keys = page_keys<T>(cache, seqs, dims);
  const ForwardArgs args{
      dims.qkv_width(), dims.heads, dims.heads / dims.kv_heads, seqs.max_rows, narrow(sequences), dims.kv_heads,
      dims.head_dim,    stream_};
  if constexpr (sizeof(T) == 2) {
    const bool done = with_head_dim(dims.head_dim, [&]<int D>() {
      if (seqs.max_rows > 1) {
        launch_forward<D, 4, false>(out.as<T>(), nullptr, qkv.as<const T>(), keys, Partials{}, args);
        return;
      }
      const ArenaScope scope(workspace());
      const int splits = most_splits(seqs.max_length);
      const int64_t parts = rows * dims.heads * splits;
      const Partials partials{workspace().take("partial o", DType::f32, {parts, D}).template as<float>(),
                              workspace().take("partial max", DType::f32, {parts}).template as<float>(),
                              workspace().take("partial sum", DType::f32, {parts}).template as<float>(), splits};
      launch_forward<D, 1, true>(out.as<T>(), nullptr, qkv.as<const T>(), keys, partials, args);
      launch(merge_kernel<D>,
             {dim3(static_cast<unsigned>(dims.heads), static_cast<unsigned>(sequences)), dim3(D), 0, stream_},
             out.as<T>(), keys, partials, dims.heads);
    });
    if (done) return;
  }
  launch_plain<T>(out.as<T>(), nullptr, qkv.as<const T>(), keys, args);
}

#define DAPO_INSTANTIATE(T)                                                                                          \
  template void CudaBackend<T>::attention(const Tensor&, const Tensor&, const Tensor&, const Segments&,              \
                                          const AttentionDims&);                                                     \
  template void CudaBackend<T>::kv_write(const Tensor&, const Tensor&, const PagedSequences&, const AttentionDims&); \
  template void CudaBackend<T>::paged_attention(const Tensor&, const Tensor&, const Tensor&, const PagedSequences&,  \
                                                const AttentionDims&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
