// Attention over packed segments, forward; its scratch. Backward: attention_backward.cpp; pages: paged_attention.cpp.
#include <omp.h>

#include "core/op_checks.h"
#include "cpu/attention_rows.h"
#include "cpu/attention_work.h"
#include "cpu/cpu_backend.h"
#include "cpu/workspace.h"

namespace dapo::cpu {

size_t attention_workspace_bytes(const WorkspaceNeeds& needs, DType) {
  const AttentionDims& dims = needs.attention;
  const int64_t threads = omp_get_max_threads();
  Arena forward("attention"), backward("attention_backward");
  forward.take("items", DType::i32, {std::max(needs.max_tokens, needs.max_rows), 2});
  forward.take("rows", DType::f32, {threads, AttentionRows::scratch_floats(dims)});
  if (needs.max_tokens > 0) {
    backward.take("dk, dv", DType::f32, {dims.kv_heads, needs.max_tokens, 2, padded(dims.head_dim)});
    backward.take("rows", DType::f32, {threads, attention_backward_floats(dims)});
  }
  return std::max(forward.peak(), backward.peak());
}

template <class T>
void CpuBackend<T>::attention(const Tensor& out, const Tensor& lse, const Tensor& qkv, const Segments& segments,
                              const AttentionDims& dims) {
  check_attention(dtype(), out, lse, qkv, segments, dims);
  const int64_t n = qkv.dim(0), ld = dims.qkv_width();
  const ArenaScope scope(workspace());
  const Tensor items = workspace().take("items", DType::i32, {n, 2});
  const Tensor scratch =
      workspace().take("rows", DType::f32, {omp_get_max_threads(), AttentionRows::scratch_floats(dims)});
  QueryBlock* blocks = reinterpret_cast<QueryBlock*>(items.as<int32_t>());
  int64_t count = 0, sums = 0;
  for (int32_t s = 0; s < std::ssize(segments.host); ++s)
    for (int32_t q = 0; q < segments.host[s].length; q += kQueryBlock) {
      blocks[count++] = {s, q};
      sums += kQueryBlock * (q + kQueryBlock) * dims.q_width();
    }

  const int64_t group = dims.heads / dims.kv_heads, d = dims.head_dim;
#pragma omp parallel for schedule(dynamic) if (sums > kParallelSums)
  for (int64_t item = count * dims.kv_heads - 1; item >= 0; --item) {  // the last blocks of a segment see most keys
    const QueryBlock block = blocks[item / dims.kv_heads];
    const int64_t kv_head = item % dims.kv_heads, head = kv_head * group;
    const Segment segment = segments.host[block.sequence];
    const T* q = qkv.as<T>() + (segment.begin + block.first) * ld + head * d;
    const T* k = qkv.as<T>() + dims.q_width() + kv_head * d;
    const auto visit = [&](AttentionRows& rows, int64_t begin, int64_t length, bool own) {
      for (int64_t j = 0; j < length; j += kKvTile) {
        const T* tile = k + (begin + j) * ld;
        rows.visit_rows(tile, tile + dims.kv_width(), ld, std::min<int64_t>(kKvTile, length - j), own ? j : -1);
      }
    };
    const int64_t queries = std::min<int64_t>(kQueryBlock, segment.length - block.first);
    AttentionRows rows(scratch.as<float>() + omp_get_thread_num() * scratch.dim(1), dims);
    rows.begin(q, ld, queries, block.first);
    if (segment.prefix >= 0) {
      const Segment prefix = segments.host[segment.prefix];
      visit(rows, prefix.begin, prefix.length, false);
    }
    visit(rows, segment.begin, block.first + queries, true);
    const int64_t row = segment.begin + block.first;
    rows.finish(out.as<T>() + row * dims.q_width() + head * d, dims.q_width(),
                lse.as<float>() + row * dims.heads + head, dims.heads);
  }
}

template class CpuBackend<float>;
template class CpuBackend<bf16>;

}  // namespace dapo::cpu
