// Attention on KV pages: rope_kv_write, and paged_attention by the kernels of attention_decode.cuh (one new token a
// sequence), attention_forward.cuh and attention_plain.cuh.
#include "core/op_checks.h"
#include "cuda/attention_choice.h"
#include "cuda/attention_decode.cuh"
#include "cuda/attention_decode_wide.cuh"
#include "cuda/attention_forward.cuh"
#include "cuda/attention_plain.cuh"
#include "cuda/attention_shape.h"
#include "cuda/cuda_backend.h"
#include "cuda/decode_form.h"
#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "cuda/rope.cuh"
#include "cuda/shape.h"
#include "cuda/thread.cuh"

namespace dapo::cuda {
namespace {

/// A block takes a new token. First come its pairs of q and k, W of them at a time, then the elements of v. Without a
/// table k is only copied. Lengths, pages and a thread's first angles are read while the kernel ahead runs.
template <class T, int W>
__global__ void rope_kv_write_kernel(T* cache, T* qkv, const float* table, PageKeys<T> keys, int64_t width, int heads,
                                     int d) {
  const int sequence = block_y(), row = block_x(), half = d / 2, first = thread_x() * W;
  const AttentionWork work = keys.work(sequence);
  const bool mine = row < work.rows;
  const int own = work.first_own + row, q_pairs = heads * half, pairs = q_pairs + keys.kv_heads * half;
  const float* angles = table + int64_t{work.prefix + own} * d;
  const int64_t key = mine ? keys.key_offset(sequence, 0, false, own, d) : 0, head_step = int64_t{keys.page_size} * d;
  float cosine[W], sine[W];
  const auto load_angles = [&](int i) {
    load_floats<W>(cosine, angles + i);
    load_floats<W>(sine, angles + i + half);
  };
  if (mine && table != nullptr && first < pairs) load_angles(first % half);
  begin_overlapped();
  if (!mine) return;
  T* const token = qkv + (work.row0 + row) * width;
  for (int at = first; at < pairs; at += block_width() * W) {
    const int head = at / half, i = at - head * half;
    T* p = token + int64_t{head} * d + i;
    if (table == nullptr && head < heads) continue;
    float a[W], b[W];
    load_floats<W>(a, p);
    load_floats<W>(b, p + half);
    if (table != nullptr) {
      if (at != first) load_angles(i);
      rotate_by(a, b, cosine, sine, 1.0f);
      store_floats<W>(p, a);
      store_floats<W>(p + half, b);
    }
    if (head < heads) continue;
    T* to = cache + key + (head - heads) * head_step + i;
    store_floats<W>(to, a);
    store_floats<W>(to + half, b);
  }
  const T* v = token + int64_t{heads + keys.kv_heads} * d;
  for (int at = first; at < keys.kv_heads * d; at += block_width() * W) {
    float a[W];
    load_floats<W>(a, v + at);
    store_floats<W>(cache + key + keys.value_step(d) + at / d * head_step + at % d, a);
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

/// Few items: a block of eight warps each. Else a warp each, with the longest ring that lets all of them run at once. Only
/// items that cannot all run at once read a prefix together: fewer of them would leave SMs idle (64 sequences of 512 + 512
/// tokens at 0.5B: 34.5 us together, on an H100; apart 20.8, on an H200).
template <int D>
void launch_decode(DecodeQueries q, const PageKeys<bf16>& keys, const Partials& partials, const cudaDeviceProp& card,
                   cudaStream_t stream) {
  using Deep = DecodeRing < D, D<128 ? 7 : 5>;
  const dim3 grid(partials.splits * q.row_tiles, keys.kv_heads, q.sequences);
  switch (decode_form(int64_t{grid.x} * grid.y * grid.z, WideLayout<D>::kSmem, Deep::kSmem, card)) {
    case DecodeForm::wide:
      return launch_overlapped(wide_attention_kernel<D>,
                               {grid, dim3(kSplitTiles * kWarp), WideLayout<D>::kSmem, stream}, q, keys, partials);
    case DecodeForm::deep:
      q.together = 1;
      return launch_overlapped(decode_attention_kernel < D, D < 128 ? 7 : 5 >, {grid, dim3(kWarp), Deep::kSmem, stream},
                               q, keys, partials);
    case DecodeForm::shallow:
      return launch_overlapped(decode_attention_kernel<D, 3>, {grid, dim3(kWarp), DecodeRing<D, 3>::kSmem, stream}, q,
                               keys, partials);
  }
}

}  // namespace

template <class T>
void CudaBackend<T>::rope_kv_write(const Tensor& cache, const Tensor& qkv, const Tensor& table,
                                   const PagedSequences& seqs, const AttentionDims& dims) {
  check_rope_kv_write(dtype(), cache, qkv, table, seqs, dims);
  const int64_t sequences = seqs.own_length.numel();
  if (sequences == 0 || qkv.dim(0) == 0) return;
  const int half = dims.head_dim / 2;
  with_width<T>(half, [&]<int W>() {
    launch_overlapped(rope_kv_write_kernel<T, W>,
                      {dim3(seqs.max_rows, sequences), row_threads((dims.heads + dims.kv_heads) * half, W), 0, stream_},
                      cache.as<T>(), qkv.as<T>(), table ? table.as<const float>() : nullptr,
                      page_keys<T>(cache, seqs, dims), dims.qkv_width(), dims.heads, dims.head_dim);
  });
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
                         .wgmma = attention_choice_->wgmma(AttentionPass::forward, dims, seqs.max_rows),
                         .stream = stream_};
  if constexpr (sizeof(T) == 2) {
    const bool done = with_head_dim(dims.head_dim, [&]<int D>() {
      if (seqs.max_rows > 1) {
        launch_forward<D, 4>(out.as<T>(), nullptr, qkv.as<const T>(), keys, args);
        return;
      }
      const ArenaScope scope(workspace());
      const int splits = most_splits(seqs.max_length);
      const int64_t parts = rows * dims.heads * splits;
      unsigned* arrived = zeroed_counters(sequences * dims.kv_heads);
      const Partials partials{workspace().take("partial o", DType::f32, {parts, D}).template as<float>(),
                              workspace().take("partial max", DType::f32, {parts}).template as<float>(),
                              workspace().take("partial sum", DType::f32, {parts}).template as<float>(), splits,
                              arrived};
      launch_decode<D>({.out = out.as<T>(),
                        .qkv = qkv.as<const T>(),
                        .width = args.width,
                        .heads = args.heads,
                        .group = args.group,
                        .row_tiles = ceil_div(args.group, 16),
                        .sequences = args.sequences,
                        .together = std::max(1, kDecodeTiles<D> * 16 / args.group),
                        .scale_log2 = kLog2e / std::sqrt(static_cast<float>(D))},
                       keys, partials, properties_, stream_);
    });
    if (done) return;
  }
  launch_plain<T>(out.as<T>(), nullptr, qkv.as<const T>(), keys, args);
}

#define DAPO_INSTANTIATE(T)                                                                                         \
  template void CudaBackend<T>::rope_kv_write(const Tensor&, const Tensor&, const Tensor&, const PagedSequences&,   \
                                              const AttentionDims&);                                                \
  template void CudaBackend<T>::paged_attention(const Tensor&, const Tensor&, const Tensor&, const PagedSequences&, \
                                                const AttentionDims&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
