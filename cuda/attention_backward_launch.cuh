// Launches the bf16 kernels of attention's backward pass, but for delta: dq, then dk and dv.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "cuda/attention_choice.h"
#include "cuda/attention_dkv.cuh"
#include "cuda/attention_dkv_wgmma.cuh"
#include "cuda/attention_dq_wgmma.cuh"
#include "cuda/launch.h"
#include "cuda/shape.h"

namespace dapo::cuda {

/// Cuts the query tiles of a key tile into parts (part_steps, most_parts): the same for all kernels.
template <int D>
void cut_into_parts(BackwardArgs& args, std::span<const Segment> segments) {
  std::vector<int64_t> tiles(segments.size());  // of queries that any key tile of the segment is summed over
  for (size_t i = 0; i < tiles.size(); ++i) {
    const Segment& s = segments[i];
    const int64_t own = ceil_div(int64_t{s.length} * args.group.d, kStep<D>);
    tiles[i] += own;
    if (s.prefix >= 0) tiles[s.prefix] += own;
  }
  const int64_t most = *std::max_element(tiles.begin(), tiles.end());
  // Parts of at least 4,096 packed rows: at most one for every 585 tokens of Qwen2.5-0.5B.
  args.part_steps = narrow(std::max<int64_t>(4096 / kStep<D>, ceil_div(most, kMostParts)));
  args.most_parts = narrow(ceil_div(most, args.part_steps));
}

/// longest: tokens of the longest segment. By wgmma (D = 64 or 128, sm_90) or by mma.sync: the bits are the same.
template <int D>
void launch_backward(const BackwardArgs& args, int longest, bool wgmma, cudaStream_t stream) {
  const unsigned kv_heads = args.keys.kv_heads, count = args.segments;
  const auto launch_dq = [&](auto kernel, int rows, int threads, size_t smem) {
    const unsigned tiles = ceil_div(int64_t{longest} * args.group.d, rows);
    launch(kernel, {dim3(kv_heads, count, tiles), dim3(threads), smem, stream}, args);
  };
  const auto launch_dkv = [&](auto kernel, int keys, int threads, size_t smem) {
    const unsigned tiles = ceil_div(longest, keys);
    launch(kernel, {dim3(kv_heads, count, tiles * args.most_parts), dim3(threads), smem, stream}, args);
  };
  const auto launch_both = [&] {
    if constexpr (has_wgmma_attention(D))
      if (wgmma) {
        using Q = WgmmaDq<D>;
        using K = WgmmaDkv<D>;
        launch_dq(wgmma_dq_kernel<D>, Q::kRows, Q::kThreads, Q::kBytes);
        return launch_dkv(wgmma_dkv_kernel<D>, K::kKeys, K::kThreads, K::kBytes);
      }
    const auto smem = [](int resident, int step) { return size_t{2} * (resident + 2 * step) * D * sizeof(bf16); };
    launch_dq(dq_kernel<D>, kRowTile, kBackwardThreads, smem(kRowTile, kStep<D>));
    launch_dkv(dkv_kernel<D>, kKeyTile<D>, kBackwardThreads, smem(kKeyTile<D>, kStep<D>));
  };
  launch_both();
  if (args.most_parts > 1)
    launch(dkv_sum_kernel<D>,
           {dim3(ceil_div(longest, kKeyTile<D>), kv_heads, count), dim3(kBackwardThreads), 0, stream}, args);
}

}  // namespace dapo::cuda
