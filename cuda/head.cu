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

/// Of rows whose columns are split over ranks, what these have gathered: maxima before sums.
struct RankRows {
  float* tops;        ///< [ranks, 2, rows]: the largest logit; the target's, or -inf where another rank has it
  SoftmaxSums* sums;  ///< [ranks, rows]
  int ranks, rows;
  int first_column;  ///< of this rank

  /// Of all ranks; NaN where one is.
  __device__ float top(int r) const {
    float most = -INFINITY;
    bool bad = false;
    for (int p = 0; p < ranks; ++p) {
      const float x = tops[int64_t{2 * p} * rows + r];
      bad |= x != x;
      most = fmaxf(most, x);
    }
    return bad ? NAN : most;
  }
  __device__ float target_logit(int r) const {
    float logit = -INFINITY;
    for (int p = 0; p < ranks; ++p) logit = fmaxf(logit, tops[int64_t{2 * p + 1} * rows + r]);
    return logit;
  }
  __device__ RowSoftmax softmax(int r, float inverse_temperature, float scale) const {
    const float most = top(r);
    SoftmaxSums all{0, 0.0};
    for (int p = 0; p < ranks; ++p) {
      const SoftmaxSums own = sums[int64_t{p} * rows + r];
      all.total += own.total;
      all.weighted += own.weighted;
    }
    return softmax_of(all, most, inverse_temperature, scale, softmax_exponent(most, scale));
  }
};

/// A rank's own part of `tops`.
__global__ void __launch_bounds__(kSoftmaxThreads)
    own_tops_kernel(float* tops, const float* logits, const SoftmaxTile* tiles, const int32_t* targets,
                    int first_column, int columns, int count) {
  __shared__ float scratch[kWarp];
  const int r = block_x(), rows = static_cast<int>(gridDim.x), target = targets[r] - first_column;
  float most = -INFINITY, bad = 0.0f;
  for (int t = thread_x(); t < count; t += kSoftmaxThreads) {
    const float max = tiles[int64_t{r} * count + t].max;
    if (max != max) bad = 1.0f;
    most = fmaxf(most, max);
  }
  most = block_max(most, scratch);
  bad = block_max(bad, scratch);
  if (threadIdx.x != 0) return;
  tops[r] = bad != 0.0f ? NAN : most;
  tops[rows + r] = target >= 0 && target < columns ? logits[int64_t{r} * columns + target] : -INFINITY;
}

/// A rank's own part of `sums`, relative to the largest logit of all.
__global__ void __launch_bounds__(kSoftmaxThreads)
    own_sums_kernel(SoftmaxSums* sums, RankRows ranks, const SoftmaxTile* tiles, float scale, int count) {
  __shared__ double scratch[kWarp];
  __shared__ Mass masses[kWarp];
  const int r = block_x();
  const float exponent = softmax_exponent(ranks.top(r), scale);
  const bool bad = !(fabsf(exponent) < INFINITY);
  const SoftmaxSums own = row_sums(tiles + int64_t{r} * count, count, scale, exponent, bad, masses, scratch);
  if (threadIdx.x == 0) sums[r] = own;
}

__global__ void split_logprob_kernel(float* log_prob, float* entropy, RankRows ranks, float inverse_temperature,
                                     float scale) {
  const int r = block_x() * block_width() + thread_x();
  if (r >= ranks.rows) return;
  const RowSoftmax s = ranks.softmax(r, inverse_temperature, scale);
  log_prob[r] = row_log_prob(s, ranks.target_logit(r));
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
/// term, of the entropy bonus, has kernels of its own, so that those without it keep their instructions; and so have
/// columns that are split over ranks.
template <class T, int W, bool kBonus, bool kSplit>
__global__ void __launch_bounds__(kSoftmaxThreads, 2)
    dapo_kernel(float* logits, const SoftmaxTile* tiles, LossRows rows, float inverse_temperature, float scale,
                DapoLoss params, int vocab, int count, RankRows ranks) {
  __shared__ float shared_factor, shared_bonus;
  const int r = block_x(), target = rows.targets[r] - (kSplit ? ranks.first_column : 0);
  float* row = logits + int64_t{r} * vocab;
  const RowSoftmax s = kSplit ? ranks.softmax(r, inverse_temperature, scale)
                              : row_softmax(tiles + int64_t{r} * count, count, inverse_temperature, scale);
  const float target_log_prob = row_log_prob(s, kSplit ? ranks.target_logit(r) : row[target]);
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

template <class T, bool kSplit>
auto choose_dapo_kernel(bool wide, bool bonus) {
  if (bonus) return wide ? dapo_kernel<T, 8, true, kSplit> : dapo_kernel<T, 1, true, kSplit>;
  return wide ? dapo_kernel<T, 8, false, kSplit> : dapo_kernel<T, 1, false, kSplit>;
}

/// Merges the sums of this rank's columns with those of the others, for chunks of up to `rows` rows.
class SplitRows {
 public:
  SplitRows(Arena& workspace, const VocabularySplit& split, int64_t rows) : split_(split) {
    if (split.ranks != nullptr) lay(workspace, split.parts(), rows);
  }
  /// Measures what the other takes.
  SplitRows(Arena& workspace, int ranks, int64_t rows) { lay(workspace, ranks, rows); }

  bool split() const { return split_.ranks != nullptr; }
  RankRows merge(const Tensor& logits, const SoftmaxTile* tiles, const int32_t* targets, float scale,
                 cudaStream_t stream) const {
    const int64_t n = logits.dim(0), columns = logits.dim(1), ranks = split_.parts();
    const int count = narrow(softmax_tiles(columns));
    const Tensor tops(tops_.data, DType::f32, {ranks, 2, n});
    const Tensor sums(sums_.data, DType::u8, {ranks, n, int64_t{sizeof(SoftmaxSums)}});
    const RankRows all{tops.as<float>(), static_cast<SoftmaxSums*>(sums.data), narrow(ranks), narrow(n),
                       narrow(split_.of(split_.own()).begin)};
    const Tensor own_tops = tops.rows(split_.own(), 1), own_sums = sums.rows(split_.own(), 1);
    launch(own_tops_kernel, {grid_of(n), dim3(kSoftmaxThreads), 0, stream}, own_tops.as<float>(),
           logits.as<const float>(), tiles, targets, all.first_column, narrow(columns), count);
    split_.ranks->all_gather(tops, own_tops);
    launch(own_sums_kernel, {grid_of(n), dim3(kSoftmaxThreads), 0, stream}, static_cast<SoftmaxSums*>(own_sums.data),
           all, tiles, scale, count);
    split_.ranks->all_gather(sums, own_sums);
    return all;
  }

 private:
  void lay(Arena& workspace, int64_t ranks, int64_t rows) {
    tops_ = workspace.take("tops", DType::f32, {ranks, 2, rows});
    sums_ = workspace.take("sums", DType::u8, {ranks, rows, int64_t{sizeof(SoftmaxSums)}});
  }
  const VocabularySplit split_;
  Tensor tops_, sums_;
};

int64_t most_rows(int64_t vocab, int64_t bytes) {
  constexpr int64_t kStep = 128;
  return std::max(kStep, bytes / (vocab * int64_t{sizeof(float)}) / kStep * kStep);
}

}  // namespace

int64_t head_chunk_rows(int64_t rows, int64_t vocab, int64_t bytes) {
  constexpr int64_t kStep = 128;
  if (rows == 0) return 0;
  const int64_t chunks = ceil_div(rows, most_rows(vocab, bytes));
  return std::min(rows, ceil_div(ceil_div(rows, chunks), kStep) * kStep);
}

int64_t head_part(int64_t vocab) {
  constexpr int64_t kMost = 16384, kStep = 128;
  if (vocab == 0) return 0;
  return std::min(vocab, round_up(ceil_div(vocab, ceil_div(vocab, kMost)), kStep));
}

size_t head_workspace(const WorkspaceNeeds& needs, DType t) {
  Arena measure("head");
  int64_t rows = std::min(std::max(needs.max_head_rows, needs.max_batch), most_rows(needs.vocab, kScoredLogits));
  if (needs.max_tokens > 0)
    rows = std::max(rows, std::min(needs.max_head_rows, most_rows(needs.vocab, kTrainedLogits)));
  const int ranks = needs.tensor_ranks;
  measure.take("logits", DType::f32, {round_up(rows, ranks), needs.vocab});
  measure.take("tiles", DType::u8, {rows, softmax_tiles(needs.vocab), sizeof(SoftmaxTile)});
  if (ranks > 1) {
    const ArenaScope scope(measure);
    SplitDraws(measure, rows, needs.vocab, ranks, needs.vocab_size);
  }
  if (ranks > 1) SplitRows(measure, ranks, rows);
  if (needs.max_tokens > 0 && ranks > 1) measure.take("parts of dx", t, {ranks, rows, needs.hidden});
  if (needs.max_tokens > 0) measure.take("dx", DType::f32, {rows, needs.hidden});
  return measure.peak();
}

template <class T>
void CudaBackend<T>::lm_logprob(const Tensor& log_prob, const Tensor& entropy, const Tensor& x, const Tensor& head,
                                const Tensor& targets, float temperature) {
  const VocabularySplit& split = vocabulary_split();
  check_lm_logprob(dtype(), log_prob, entropy, x, head, targets, temperature, split);
  const int vocab = narrow(head.dim(0));
  const float inverse = 1.0f / temperature, scale = softmax_scale(inverse);
  const ArenaScope scope(workspace());
  const SplitRows rows(workspace(), split, head_chunk_rows(x.dim(0), chunk_columns(split, vocab), kScoredLogits));
  const auto chunk = [&](int64_t first, int64_t n, const Tensor& logits, SoftmaxTile* tiles) {
    float *const to = log_prob.as<float>() + first, *const entropy_to = entropy ? entropy.as<float>() + first : nullptr;
    const int32_t* const of = targets.as<const int32_t>() + first;
    if (rows.split()) {
      constexpr int kThreads = 128;
      launch(split_logprob_kernel, {grid_of(ceil_div(n, kThreads)), dim3(kThreads), 0, stream_}, to, entropy_to,
             rows.merge(logits, tiles, of, scale, stream_), inverse, scale);
    } else {
      launch(logprob_kernel, {grid_of(n), dim3(kSoftmaxThreads), 0, stream_}, to, entropy_to, logits.as<const float>(),
             tiles, of, inverse, scale, vocab, narrow(softmax_tiles(vocab)));
    }
  };
  for_head_chunks(*products_, workspace(), stream_, kScoredLogits, scale, split, x, head, chunk);
}

template <class T>
void CudaBackend<T>::lm_dapo(const Tensor& dx, const Tensor& dhead, const Tensor& log_prob, const Tensor& entropy,
                             const Tensor& loss, const Tensor& clip, const Tensor& x, const Tensor& head,
                             const Tensor& targets, const Tensor& old_log_prob, const Tensor& advantage,
                             const Tensor& weight, const Tensor& log_ratio, const Tensor& ref_log_prob,
                             float temperature, const DapoLoss& params) {
  const VocabularySplit& split = vocabulary_split();
  check_lm_dapo(dtype(), dx, dhead, log_prob, entropy, loss, clip, x, head, targets, old_log_prob, advantage, weight,
                log_ratio, ref_log_prob, temperature, params, split);
  const int64_t hidden = head.dim(1);
  const int vocab = narrow(head.dim(0));
  const float inverse = 1.0f / temperature, scale = softmax_scale(inverse);
  const int64_t ld = vocab * int64_t{sizeof(float) / sizeof(T)};  // of d logits, which are written over the logits
  const int64_t part = head_part(vocab);
  const bool wide = vocab % 8 == 0, bonus = params.entropy_coef != 0.0f;
  const auto kernel =
      split.ranks != nullptr ? choose_dapo_kernel<T, true>(wide, bonus) : choose_dapo_kernel<T, false>(wide, bonus);
  const ArenaScope whole(workspace());
  const SplitRows rows(workspace(), split, head_chunk_rows(x.dim(0), chunk_columns(split, vocab), kTrainedLogits));
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
    const RankRows ranks = rows.split() ? rows.merge(logits, tiles, at.targets, scale, stream_) : RankRows{};
    launch(kernel, {grid_of(n), dim3(kSoftmaxThreads), 0, stream_}, logits.as<float>(), tiles, at, inverse, scale,
           params, vocab, narrow(softmax_tiles(vocab)), ranks);
    const ArenaScope scope(workspace());
    const Tensor parts = rows.split() ? workspace().take("parts of dx", dtype(), {split.parts(), n, hidden})
                                      : dx.rows(first, n).view({1, n, hidden});
    const Tensor own_part = parts.rows(split.own(), 1), to = own_part.view({n, hidden});
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
    if (vocab == 0) zero(to);
    if (vocab > 0)
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
    if (!rows.split()) return;
    split.ranks->all_gather(parts, own_part);
    add_parts(dx.rows(first, n), parts);
  };
  for_head_chunks(*products_, workspace(), stream_, kTrainedLogits, scale, split, x, head, chunk);
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
