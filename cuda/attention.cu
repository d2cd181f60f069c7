// attention over segments, by the kernels of attention_forward.cuh (bf16) and attention_plain.cuh (f32, and head
// dimensions that the first do not take); its scratch. Backward: attention_backward.cu; pages: paged_attention.cu.
#include "core/op_checks.h"
#include "cuda/attention_backward.cuh"
#include "cuda/attention_choice.h"
#include "cuda/attention_forward.cuh"
#include "cuda/attention_plain.cuh"
#include "cuda/attention_shape.h"
#include "cuda/cuda_backend.h"
#include "cuda/launch.h"
#include "cuda/shape.h"
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

#define DAPO_INSTANTIATE(T)                                                                             \
  template void CudaBackend<T>::attention(const Tensor&, const Tensor&, const Tensor&, const Segments&, \
                                          const AttentionDims&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
