// lm_logprob and lm_dapo: logits by chunks of rows, and the policy loss with its gradients from each chunk.
#include <algorithm>

#include "core/op_checks.h"
#include "cuda/cuda_backend.h"
#include "cuda/head_chunks.h"
#include "cuda/launch.h"
#include "cuda/shape.h"
#include "cuda/softmax.cuh"
#include "cuda/thread.cuh"
#include "cuda/workspace.h"

namespace dapo::cuda {
namespace {

__global__ void __launch_bounds__(kSoftmaxThreads)
    logprob_kernel(float* log_prob, float* entropy, const float* logits, const SoftmaxTile* tiles,
                   const int32_t* targets, float inverse_temperature, float scale, int vocab, int count) {
  const int r = block_x();
  const RowSoftmax s = row_softmax(tiles + int64_t{r} * count, count, inverse_temperature, scale);
  if (threadIdx.x != 0) return;
  log_prob[r] = row_log_prob(s, logits[int64_t{r} * vocab + targets[r]]);
  if (entropy != nullptr) entropy[r] = s.entropy;
}

struct LossRows {
  float *log_prob, *entropy, *loss;
  uint8_t* clip;
  const int32_t* targets;
  const float *advantage, *weight;
  const float *old_log_prob, *log_ratio, *ref_log_prob;  ///< null: not given
};

/// W elements of a row, in vectors of 16 bytes; W = 1: one.
template <int W>
__device__ __forceinline__ void load_part(float (&to)[W], const float* from) {
  if constexpr (W == 1)
    to[0] = *from;
  else
    load_vectors(to, from);
}
template <int W>
__device__ __forceinline__ void store_part(float* to, const float (&from)[W]) {
  if constexpr (W == 1)
    *to = from[0];
  else
    store_vectors(to, from);
}
template <int W>
__device__ __forceinline__ void store_part(bf16* to, const float (&from)[W]) {
  store_floats<W>(to, from);
}

/// d logits = weight * (dloss/dlogp * (onehot(target) - p) + entropy_coef * p * (log p + entropy)) / temperature,
/// written as T over the beginning of the logits' own row: only over columns that the block has already read. The second
/// term, of the entropy bonus, has kernels of its own, so that those without it keep their instructions.
template <class T, int W, bool kBonus>
__global__ void __launch_bounds__(kSoftmaxThreads, 2)
    dapo_kernel(float* logits, const SoftmaxTile* tiles, LossRows rows, float inverse_temperature, float scale,
                DapoLoss params, int vocab, int count) {
  __shared__ float shared_factor, shared_bonus;
  const int r = block_x(), target = rows.targets[r];
  float* row = logits + int64_t{r} * vocab;
  const RowSoftmax s = row_softmax(tiles + int64_t{r} * count, count, inverse_temperature, scale);
  const float target_log_prob = row_log_prob(s, row[target]);
  if (threadIdx.x == 0) {
    const float lp = target_log_prob, a = rows.advantage[r], w = rows.weight[r];
    const TokenInputs in{rows.old_log_prob != nullptr ? rows.old_log_prob + r : nullptr,
                         rows.log_ratio != nullptr ? rows.log_ratio + r : nullptr,
                         rows.ref_log_prob != nullptr ? rows.ref_log_prob + r : nullptr};
    const TokenLoss l = objective_loss(lp, s.entropy, a, in, params);
    rows.log_prob[r] = lp;
    rows.entropy[r] = s.entropy;
    rows.loss[r] = l.loss;
    rows.clip[r] = l.clip;
    shared_factor = w == 0.0f ? 0.0f : w * l.dlogp * inverse_temperature;
    if (kBonus) shared_bonus = w * params.entropy_coef * inverse_temperature;
  }
  __syncthreads();
  const float factor = shared_factor, bonus = kBonus ? shared_bonus : 0.0f;
  const bool none = factor == 0.0f && bonus == 0.0f;  // a row of weight 0 may hold any logits, NaN too
  T* to = reinterpret_cast<T*>(row);
  constexpr int kStep = kSoftmaxThreads * W;
  const int first = thread_x() * W;
  float x[W], next[W];
  if (first < vocab) load_part<W>(x, row + first);
  for (int begin = 0; begin < vocab; begin += kStep) {
    const int c = begin + first;
    if (c + kStep < vocab) load_part<W>(next, row + c + kStep);
    __syncthreads();
    if (c < vocab) {
      float d[W];
#pragma unroll
      for (int i = 0; i < W; ++i) {
        const float log_p = row_log_prob(s, x[i]);
        d[i] = none ? 0.0f : expf(log_p) * (kBonus ? fmaf(log_p + s.entropy, bonus, -factor) : -factor);
      }
      if (!none && target >= c && target < c + W) {
        const float p = expf(target_log_prob), plain = factor * (1.0f - p);
#pragma unroll
        for (int i = 0; i < W; ++i)
          if (c + i == target) d[i] = kBonus ? fmaf(p, (target_log_prob + s.entropy) * bonus, plain) : plain;
      }
      store_part<W>(to + c, d);
    }
#pragma unroll
    for (int i = 0; i < W; ++i) x[i] = next[i];
  }
}

int64_t most_rows(int64_t vocab, int64_t bytes) {
  constexpr int64_t kStep = 128;
  return std::max(kStep, bytes / (vocab * int64_t{sizeof(float)}) / kStep * kStep);
}

}  // namespace

int64_t head_chunk_rows(int64_t rows, int64_t vocab, int64_t bytes) {
  constexpr int64_t kStep = 128;
  const int64_t chunks = ceil_div(rows, most_rows(vocab, bytes));
  return std::min(rows, ceil_div(ceil_div(rows, chunks), kStep) * kStep);
}

int64_t head_part(int64_t vocab) {
  constexpr int64_t kMost = 16384, kStep = 128;
  return std::min(vocab, round_up(ceil_div(vocab, ceil_div(vocab, kMost)), kStep));
}

size_t head_workspace(const WorkspaceNeeds& needs, DType) {
  Arena measure("head");
  int64_t rows = std::min(std::max(needs.max_head_rows, needs.max_batch), most_rows(needs.vocab, kScoredLogits));
  if (needs.max_tokens > 0)
    rows = std::max(rows, std::min(needs.max_head_rows, most_rows(needs.vocab, kTrainedLogits)));
  if (needs.max_tokens > 0) measure.take("dx", DType::f32, {rows, needs.hidden});
  measure.take("logits", DType::f32, {rows, needs.vocab});
  measure.take("tiles", DType::u8, {rows, softmax_tiles(needs.vocab), sizeof(SoftmaxTile)});
  return measure.peak();
}

template <class T>
void CudaBackend<T>::lm_logprob(const Tensor& log_prob, const Tensor& entropy, const Tensor& x, const Tensor& head,
                                const Tensor& targets, float temperature) {
  check_lm_logprob(dtype(), log_prob, entropy, x, head, targets, temperature, vocabulary_split());
  const int vocab = narrow(head.dim(0));
  const float inverse = 1.0f / temperature, scale = softmax_scale(inverse);
  for_head_chunks(*products_, workspace(), stream_, kScoredLogits, scale, x, head,
                  [&](int64_t first, int64_t n, const Tensor& logits, SoftmaxTile* tiles) {
                    launch(logprob_kernel, {grid_of(n), dim3(kSoftmaxThreads), 0, stream_},
                           log_prob.as<float>() + first, entropy ? entropy.as<float>() + first : nullptr,
                           logits.as<const float>(), tiles, targets.as<const int32_t>() + first, inverse, scale, vocab,
                           narrow(softmax_tiles(vocab)));
                  });
}

template <class T>
void CudaBackend<T>::lm_dapo(const Tensor& dx, const Tensor& dhead, const Tensor& log_prob, const Tensor& entropy,
                             const Tensor& loss, const Tensor& clip, const Tensor& x, const Tensor& head,
                             const Tensor& targets, const Tensor& old_log_prob, const Tensor& advantage,
                             const Tensor& weight, const Tensor& log_ratio, const Tensor& ref_log_prob,
                             float temperature, const DapoLoss& params) {
  check_lm_dapo(dtype(), dx, dhead, log_prob, entropy, loss, clip, x, head, targets, old_log_prob, advantage, weight,
                log_ratio, ref_log_prob, temperature, params, vocabulary_split());
  const int64_t hidden = head.dim(1);
  const int vocab = narrow(head.dim(0));
  const float inverse = 1.0f / temperature, scale = softmax_scale(inverse);
  const int64_t ld = vocab * int64_t{sizeof(float) / sizeof(T)};  // of d logits, which are written over the logits
  const int64_t part = head_part(vocab);
  const bool wide = vocab % 8 == 0;
  const auto kernel = params.entropy_coef != 0.0f ? (wide ? dapo_kernel<T, 8, true> : dapo_kernel<T, 1, true>)
                                                  : (wide ? dapo_kernel<T, 8, false> : dapo_kernel<T, 1, false>);
  const auto chunk = [&](int64_t first, int64_t n, const Tensor& logits, SoftmaxTile* tiles) {
    const LossRows at{log_prob.as<float>() + first,
                      entropy.as<float>() + first,
                      loss.as<float>() + first,
                      clip.as<uint8_t>() + first,
                      targets.as<const int32_t>() + first,
                      advantage.as<const float>() + first,
                      weight.as<const float>() + first,
                      old_log_prob ? old_log_prob.as<const float>() + first : nullptr,
                      log_ratio ? log_ratio.as<const float>() + first : nullptr,
                      ref_log_prob ? ref_log_prob.as<const float>() + first : nullptr};
    launch(kernel, {grid_of(n), dim3(kSoftmaxThreads), 0, stream_}, logits.as<float>(), tiles, at, inverse, scale,
           params, vocab, narrow(softmax_tiles(vocab)));
    const ArenaScope scope(workspace());
    const Tensor to = dx.rows(first, n);
    const bool direct = part == vocab || to.dtype == DType::f32;
    const Tensor sum = direct ? to : workspace().take("dx", DType::f32, {n, hidden});
    for (int64_t k = 0; k < vocab; k += part)
      products_->run({.m = n,
                      .n = hidden,
                      .k = std::min(part, vocab - k),
                      .a_type = dtype(),
                      .b_type = dtype(),
                      .c_type = sum.dtype,
                      .lda = ld,
                      .ldb = hidden,
                      .ldc = hidden,
                      .accumulate = k > 0},
                     sum.data, static_cast<const T*>(logits.data) + k, head.as<const T>() + k * hidden);
    if (!direct) cast(to, sum);
    products_->run({.m = vocab,
                    .n = hidden,
                    .k = n,
                    .a_type = dtype(),
                    .b_type = dtype(),
                    .c_type = DType::f32,
                    .a_transposed = true,
                    .lda = ld,
                    .ldb = hidden,
                    .ldc = hidden,
                    .accumulate = true},
                   dhead.data, logits.data, x.rows(first, n).data);
  };
  for_head_chunks(*products_, workspace(), stream_, kTrainedLogits, scale, x, head, chunk);
}

#define DAPO_INSTANTIATE(T)                                                                                           \
  template void CudaBackend<T>::lm_logprob(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, \
                                           float);                                                                    \
  template void CudaBackend<T>::lm_dapo(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,    \
                                        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,    \
                                        const Tensor&, const Tensor&, const Tensor&, const Tensor&, float,            \
                                        const DapoLoss&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
