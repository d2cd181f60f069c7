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
                         .wgmma = attention_choice_->wgmma(AttentionPass::forward, dims, longest_segment(segments)),
                         .stream = stream_};
  if constexpr (sizeof(T) == 2) {
    if (with_head_dim(dims.head_dim, [&]<int D>() {
          launch_forward<D, 4>(out.as<T>(), lse.as<float>(), qkv.as<const T>(), keys, args);
        }))
      return;
  }
  launch_plain<T>(out.as<T>(), lse.as<float>(), qkv.as<const T>(), keys, args);
}

/// Compares the kernels of both passes on random numbers, and times them, for this head dimension and group.
template <class T>
void CudaBackend<T>::prepare_attention(const AttentionDims& dims, int64_t rows) {
  if (dtype() != DType::bf16 || !attention_choice_->open(dims)) return;
  constexpr int64_t kLeastRows = 8, kMostRows = 4096;  // the least: three segments
  const auto n = static_cast<int32_t>(std::clamp(rows, kLeastRows, kMostRows)), prompt = n / 4, answer = n / 2;
  const std::vector<Segment> pack{{0, prompt, -1}, {prompt, answer, 0}, {prompt + answer, n - prompt - answer, -1}};
  std::vector<int32_t> flat;
  for (const Segment& s : pack) flat.insert(flat.end(), {s.begin, s.length, s.prefix});
  const int64_t qkv_bytes = n * dims.qkv_width() * 2, out_bytes = n * dims.q_width() * 2,
                lse_bytes = n * dims.heads * 4;
  WorkspaceNeeds needs{};
  needs.attention = dims;
  needs.max_tokens = n;
  const size_t scratch_bytes = attention_workspace(needs, dtype());
  struct Result {
    Scratch out, lse, dqkv;
    bool complete() const { return out && lse && dqkv; }
  };
  const Scratch qkv(qkv_bytes), dout(out_bytes), list(std::ssize(flat) * 4), count(sizeof(unsigned));
  const Scratch scratch(static_cast<int64_t>(scratch_bytes));
  const Result mma{Scratch(out_bytes), Scratch(lse_bytes), Scratch(qkv_bytes)};
  const Result wgmma{Scratch(out_bytes), Scratch(lse_bytes), Scratch(qkv_bytes)};
  if (!qkv || !dout || !list || !count || !scratch || !mma.complete() || !wgmma.complete()) {
    for (const AttentionPass pass : {AttentionPass::forward, AttentionPass::backward})
      attention_choice_->choose(pass, dims, false, "no memory to compare it with wgmma");
    return;
  }
  fill_normal(qkv, n * dims.qkv_width(), 1, 1.0f, stream_);
  fill_normal(dout, n * dims.q_width(), 2, 1.0f, stream_);
  const Segments segments{pack, Tensor(list.as<void>(), DType::i32, {std::ssize(pack), 3})};
  copy_in(segments.device, flat.data());
  Arena arena("attention's comparison at start", scratch.as<void>(), scratch_bytes);
  set_workspace(&arena);
  const auto tensor = [n](const Scratch& s, DType type, int64_t columns) {
    return Tensor(s.as<void>(), type, {n, columns});
  };
  const auto forward = [&](const Result& r) {
    attention(tensor(r.out, dtype(), dims.q_width()), tensor(r.lse, DType::f32, dims.heads),
              tensor(qkv, dtype(), dims.qkv_width()), segments, dims);
  };
  const auto backward = [&](const Result& r) {  // of one forward pass
    attention_backward(tensor(r.dqkv, dtype(), dims.qkv_width()), tensor(dout, dtype(), dims.q_width()),
                       tensor(qkv, dtype(), dims.qkv_width()), tensor(mma.out, dtype(), dims.q_width()),
                       tensor(mma.lse, DType::f32, dims.heads), segments, dims);
  };
  const auto same = [&](Scratch Result::*of, int64_t bytes) {
    return same_words(mma.*of, wgmma.*of, bytes / 4, count, stream_);
  };
  const auto compare = [&](AttentionPass pass, const auto& run, const auto& equal) {
    const auto run_mma = [&] { attention_choice_->use(AttentionKernel::mma), run(mma); };
    const auto run_wgmma = [&] { attention_choice_->use(AttentionKernel::wgmma), run(wgmma); };
    run_mma();
    run_wgmma();
    if (!equal()) return attention_choice_->choose(pass, dims, false, "wgmma has other bits");
    const int64_t l2 = properties_.l2CacheSize;
    const double ratio = seconds_of(stream_, l2, run_mma) / seconds_of(stream_, l2, run_wgmma);
    attention_choice_->choose(pass, dims, ratio > 1,
                              fmt::format("{:.2f} times as fast as the other", ratio > 1 ? ratio : 1 / ratio));
  };
  compare(AttentionPass::forward, forward,
          [&] { return same(&Result::out, out_bytes) && same(&Result::lse, lse_bytes); });
  compare(AttentionPass::backward, backward, [&] { return same(&Result::dqkv, qkv_bytes); });
  attention_choice_->use(AttentionKernel::automatic);
  set_workspace(nullptr);
}

#define DAPO_INSTANTIATE(T)                                                                             \
  template void CudaBackend<T>::attention(const Tensor&, const Tensor&, const Tensor&, const Segments&, \
                                          const AttentionDims&);                                        \
  template void CudaBackend<T>::prepare_attention(const AttentionDims&, int64_t);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
