// attention over segments, by the kernels of attention_forward.cuh (bf16) and attention_plain.cuh (f32, and head
// dimensions that the first do not take); its scratch. Backward: attention_backward.cu; pages: paged_attention.cu.
#include <algorithm>
#include <vector>

#include "core/op_checks.h"
#include "cuda/attention_backward.cuh"
#include "cuda/attention_choice.h"
#include "cuda/attention_forward.cuh"
#include "cuda/attention_plain.cuh"
#include "cuda/attention_shape.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/shape.h"
#include "cuda/trial.h"
#include "cuda/workspace.h"

namespace dapo::cuda {

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
  check_attention(dtype(), out, lse, qkv, segments, dims);
  const int64_t rows = qkv.dim(0);
  if (rows == 0) return;
  const PackKeys<T> keys{.qkv = qkv.as<const T>(),
                         .segments = segments.device.as<const int32_t>(),
                         .width = dims.qkv_width(),
                         .heads = dims.heads,
                         .kv_heads = dims.kv_heads};
  const ForwardArgs args{.width = dims.qkv_width(),
                         .heads = dims.heads,
                         .group = dims.heads / dims.kv_heads,
                         .max_rows = longest_segment(segments),
                         .sequences = narrow(std::ssize(segments.host)),
                         .kv_heads = dims.kv_heads,
                         .d = dims.head_dim,
                         .wgmma = attention_choice_->wgmma(dims, longest_segment(segments)),
                         .stream = stream_};
  if constexpr (sizeof(T) == 2) {
    if (with_head_dim(dims.head_dim, [&]<int D>() {
          launch_forward<D, 4>(out.as<T>(), lse.as<float>(), qkv.as<const T>(), keys, args);
        }))
      return;
  }
  launch_plain<T>(out.as<T>(), lse.as<float>(), qkv.as<const T>(), keys, args);
}

/// Compares the two kernels on random numbers, and times them, for this head dimension and group.
template <class T>
void CudaBackend<T>::prepare_attention(const AttentionDims& dims, int64_t rows) {
  if (dtype() != DType::bf16 || !attention_choice_->open(dims)) return;
  constexpr int64_t kLeastRows = 8, kMostRows = 4096;  // the least: three segments
  const auto n = static_cast<int32_t>(std::clamp(rows, kLeastRows, kMostRows)), prompt = n / 4, answer = n / 2;
  const std::vector<Segment> pack{{0, prompt, -1}, {prompt, answer, 0}, {prompt + answer, n - prompt - answer, -1}};
  std::vector<int32_t> flat;
  for (const Segment& s : pack) flat.insert(flat.end(), {s.begin, s.length, s.prefix});
  const int64_t out_bytes = n * dims.q_width() * 2, lse_bytes = n * dims.heads * 4;
  struct Result {
    Scratch out, lse;
  };
  const Scratch qkv(n * dims.qkv_width() * 2), list(std::ssize(flat) * 4), count(sizeof(unsigned));
  const Result mma{Scratch(out_bytes), Scratch(lse_bytes)}, wgmma{Scratch(out_bytes), Scratch(lse_bytes)};
  if (!qkv || !list || !count || !mma.out || !mma.lse || !wgmma.out || !wgmma.lse)
    return attention_choice_->choose(dims, false, "no memory to compare it with wgmma");
  fill_normal(qkv, n * dims.qkv_width(), 1, 1.0f, stream_);
  const Segments segments{pack, Tensor(list.as<void>(), DType::i32, {std::ssize(pack), 3})};
  copy_in(segments.device, flat.data());
  const auto run = [&](AttentionKernel kind, const Result& r) {
    attention_choice_->use(kind);
    attention(Tensor(r.out.template as<void>(), dtype(), {n, dims.q_width()}),
              Tensor(r.lse.template as<void>(), DType::f32, {n, dims.heads}),
              Tensor(qkv.as<void>(), dtype(), {n, dims.qkv_width()}), segments, dims);
  };
  const auto run_mma = [&] { run(AttentionKernel::mma, mma); };
  const auto run_wgmma = [&] { run(AttentionKernel::wgmma, wgmma); };
  run_mma();
  run_wgmma();
  if (!same_words(mma.out, wgmma.out, out_bytes / 4, count, stream_) ||
      !same_words(mma.lse, wgmma.lse, lse_bytes / 4, count, stream_)) {
    attention_choice_->choose(dims, false, "wgmma has other bits");
  } else {
    const int64_t l2 = properties_.l2CacheSize;
    const double ratio = seconds_of(stream_, l2, run_mma) / seconds_of(stream_, l2, run_wgmma);
    attention_choice_->choose(dims, ratio > 1,
                              fmt::format("{:.2f} times as fast as the other", ratio > 1 ? ratio : 1 / ratio));
  }
  attention_choice_->use(AttentionKernel::automatic);
}

#define DAPO_INSTANTIATE(T)                                                                             \
  template void CudaBackend<T>::attention(const Tensor&, const Tensor&, const Tensor&, const Segments&, \
                                          const AttentionDims&);                                        \
  template void CudaBackend<T>::prepare_attention(const AttentionDims&, int64_t);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
