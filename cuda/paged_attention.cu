// Attention on KV pages: kv_write, and paged_attention by the kernels of attention_forward.cuh and attention_plain.cuh.
#include "core/op_checks.h"
#include "cuda/attention_forward.cuh"
#include "cuda/attention_plain.cuh"
#include "cuda/attention_shape.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/shape.h"
#include "cuda/thread.cuh"

namespace dapo::cuda {
namespace {

template <class T>
__global__ void kv_write_kernel(T* cache, const T* qkv, PageKeys<T> keys, int64_t width, int heads, int d) {
  const int sequence = block_y(), row = block_x();
  const AttentionWork work = keys.work(sequence);
  if (row >= work.rows) return;
  const T* from = qkv + (work.row0 + row) * width + int64_t{heads} * d;
  const int kv_width = keys.kv_heads * d;
  for (int i = thread_x(); i < kv_width; i += block_width()) {
    const int64_t to = keys.key_offset(sequence, i / d, false, work.first_own + row, d) + i % d;
    cache[to] = from[i];
    cache[to + keys.value_step(d)] = from[kv_width + i];
  }
}

template <class T>
PageKeys<T> page_keys(const Tensor& cache, const PagedSequences& seqs, const AttentionDims& dims) {
  return {.cache = cache.as<const T>(),
          .row_begin = seqs.row_begin.as<const int32_t>(),
          .prefix_length = seqs.prefix_length.as<const int32_t>(),
          .own_length = seqs.own_length.as<const int32_t>(),
          .pages = seqs.pages.as<const int32_t>(),
          .max_pages = narrow(seqs.pages.dim(1)),
          .page_size = seqs.page_size,
          .kv_heads = dims.kv_heads};
}

}  // namespace

template <class T>
void CudaBackend<T>::kv_write(const Tensor& cache, const Tensor& qkv, const PagedSequences& seqs,
                              const AttentionDims& dims) {
  check_kv_write(dtype(), cache, qkv, seqs, dims);
  const int64_t sequences = seqs.own_length.numel();
  if (sequences == 0 || qkv.dim(0) == 0) return;
  launch(kv_write_kernel<T>, {dim3(seqs.max_rows, sequences), row_threads(narrow(dims.kv_width()), 1), 0, stream_},
         cache.as<T>(), qkv.as<const T>(), page_keys<T>(cache, seqs, dims), dims.qkv_width(), dims.heads,
         dims.head_dim);
}

template <class T>
void CudaBackend<T>::paged_attention(const Tensor& out, const Tensor& qkv, const Tensor& cache,
                                     const PagedSequences& seqs, const AttentionDims& dims) {
  check_paged_attention(dtype(), out, qkv, cache, seqs, dims);
  const int64_t rows = qkv.dim(0), sequences = seqs.own_length.numel();
  if (sequences == 0 || rows == 0) return;
  const PageKeys<T> keys = page_keys<T>(cache, seqs, dims);
  const ForwardArgs args{.width = dims.qkv_width(),
                         .heads = dims.heads,
                         .group = dims.heads / dims.kv_heads,
                         .max_rows = seqs.max_rows,
                         .sequences = narrow(sequences),
                         .kv_heads = dims.kv_heads,
                         .d = dims.head_dim,
                         .stream = stream_};
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
      launch(merge_kernel<D>, {dim3(dims.heads, sequences), dim3(D), 0, stream_}, out.as<T>(), keys, partials,
             dims.heads);
    });
    if (done) return;
  }
  launch_plain<T>(out.as<T>(), nullptr, qkv.as<const T>(), keys, args);
}

#define DAPO_INSTANTIATE(T)                                                                                          \
  template void CudaBackend<T>::kv_write(const Tensor&, const Tensor&, const PagedSequences&, const AttentionDims&); \
  template void CudaBackend<T>::paged_attention(const Tensor&, const Tensor&, const Tensor&, const PagedSequences&,  \
                                                const AttentionDims&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
