// The head: logits by chunks of rows, the policy loss and its gradients while they are there.
#include <algorithm>

#include "cuda/cuda_backend.h"
#include "cuda/head_chunks.h"
#include "cuda/launch.h"
#include "cuda/shape.h"
#include "cuda/softmax.cuh"
#include "cuda/workspace.h"

namespace dapo::cuda {
namespace {

__global__ void __launch_bounds__(kSoftmaxThreads)
    logprob_kernel(float* log_prob, float* entropy, const float* logits, const int32_t* targets,
                   float inverse_temperature, int vocab) {
  const float* row = logits + int64_t{blockIdx.x} * vocab;
  const RowSoftmax s = row_softmax(row, vocab, inverse_temperature);
  if (threadIdx.x != 0) return;
  log_prob[blockIdx.x] = row_log_prob(s, row[targets[blockIdx.x]]);
  if (entropy != nullptr) entropy[blockIdx.x] = s.entropy;
}

struct LossRows {
  float *log_prob, *entropy, *loss;
  uint8_t* clip;
  const int32_t* targets;
  const float *old_log_prob, *advantage, *weight;  ///< old_log_prob: null for ratio 1
};

/// d logits = weight * dloss/dlogp * (onehot(target) - p) / temperature. dlogits may lie on the logits (T = f32).
template <class T>
__global__ void __launch_bounds__(kSoftmaxThreads)
    dapo_kernel(T* dlogits, const float* logits, LossRows rows, float inverse_temperature, DapoLoss params, int vocab) {
  __shared__ float shared_scale;
  const int r = static_cast<int>(blockIdx.x), target = rows.targets[r];
  const float* row = logits + int64_t{r} * vocab;
  const RowSoftmax s = row_softmax(row, vocab, inverse_temperature);
  if (threadIdx.x == 0) {
    const float lp = row_log_prob(s, row[target]), a = rows.advantage[r], w = rows.weight[r];
    const TokenLoss l =
        rows.old_log_prob != nullptr ? token_loss(lp, rows.old_log_prob[r], a, params) : on_policy_loss(lp, a);
    rows.log_prob[r] = lp;
    rows.entropy[r] = s.entropy;
    rows.loss[r] = l.loss;
    rows.clip[r] = l.clip;
    shared_scale = w == 0.0f ? 0.0f : w * l.dlogp * inverse_temperature;
  }
  __syncthreads();
  const float scale = shared_scale;
  T* to = dlogits + int64_t{r} * vocab;
  for (int i = static_cast<int>(threadIdx.x); i < vocab; i += kSoftmaxThreads) {
    float d = 0.0f;  // a row of weight 0 may hold anything
    if (scale != 0.0f) {
      const float p = expf(row_log_prob(s, row[i]));
      d = scale * ((i == target ? 1.0f : 0.0f) - p);
    }
    to[i] = from_float<T>(d);
  }
}

}  // namespace

int64_t head_chunk_rows(int64_t rows, int64_t vocab) {
  constexpr int64_t kBytes = int64_t{512} << 20, kStep = 128;
  return std::min(rows, std::max(kStep, kBytes / (vocab * int64_t{sizeof(float)}) / kStep * kStep));
}

size_t head_workspace(const WorkspaceNeeds& needs, DType t) {
  Arena measure("head");
  const int64_t rows = std::max(needs.max_head_rows, needs.max_batch);
  measure.take("logits", DType::f32, {head_chunk_rows(rows, needs.vocab), needs.vocab});
  if (needs.max_tokens > 0 && t != DType::f32)
    measure.take("dlogits", t, {head_chunk_rows(needs.max_head_rows, needs.vocab), needs.vocab});
  return measure.peak();
}

template <class T>
void CudaBackend<T>::lm_logprob(const Tensor& log_prob, const Tensor& entropy, const Tensor& x, const Tensor& head,
                                const Tensor& targets, float temperature) {
  const int64_t rows = x.dim(0);
  const int vocab = narrow(head.dim(0));
  expect("lm_logprob log_prob", log_prob, DType::f32, {rows});
  expect("lm_logprob targets", targets, DType::i32, {rows});
  if (entropy) expect("lm_logprob entropy", entropy, DType::f32, {rows});
  CHECK(temperature > 0.0f, "temperature {}", temperature);
  for_head_chunks(*products_, workspace(), x, head, [&](int64_t first, int64_t n, const Tensor& logits) {
    launch(logprob_kernel, {grid_of(n), dim3(kSoftmaxThreads), 0, stream_}, log_prob.as<float>() + first,
           entropy ? entropy.as<float>() + first : nullptr, logits.as<const float>(),
           targets.as<const int32_t>() + first, 1.0f / temperature, vocab);
  });
}

template <class T>
void CudaBackend<T>::lm_dapo(const Tensor& dx, const Tensor& dhead, const Tensor& log_prob, const Tensor& entropy,
                             const Tensor& loss, const Tensor& clip, const Tensor& x, const Tensor& head,
                             const Tensor& targets, const Tensor& old_log_prob, const Tensor& advantage,
                             const Tensor& weight, float temperature, const DapoLoss& params) {
  const int64_t rows = x.dim(0), hidden = head.dim(1);
  const int vocab = narrow(head.dim(0));
  expect("lm_dapo dx", dx, dtype(), {rows, hidden});
  expect("lm_dapo dhead", dhead, DType::f32, {vocab, hidden});
  for (const Tensor* t : {&log_prob, &entropy, &loss, &advantage, &weight})
    expect("lm_dapo log_prob, entropy, loss, advantage, weight", *t, DType::f32, {rows});
  if (old_log_prob) expect("lm_dapo old_log_prob", old_log_prob, DType::f32, {rows});
  expect("lm_dapo clip", clip, DType::u8, {rows});
  expect("lm_dapo targets", targets, DType::i32, {rows});
  CHECK(temperature > 0.0f, "temperature {}", temperature);
  for_head_chunks(*products_, workspace(), x, head, [&](int64_t first, int64_t n, const Tensor& logits) {
    const ArenaScope scope(workspace());
    const Tensor dlogits =
        dtype() == DType::f32 ? logits : workspace().take("dlogits", dtype(), {logits.dim(0), logits.dim(1)});
    const LossRows at{log_prob.as<float>() + first,
                      entropy.as<float>() + first,
                      loss.as<float>() + first,
                      clip.as<uint8_t>() + first,
                      targets.as<const int32_t>() + first,
                      old_log_prob ? old_log_prob.as<const float>() + first : nullptr,
                      advantage.as<const float>() + first,
                      weight.as<const float>() + first};
    launch(dapo_kernel<T>, {grid_of(n), dim3(kSoftmaxThreads), 0, stream_}, dlogits.as<T>(), logits.as<const float>(),
           at, 1.0f / temperature, params, vocab);
    const Tensor part = x.rows(first, n);
    products_->run({n, hidden, vocab, dtype(), dtype(), dtype(), false, false, vocab, hidden, hidden},
                   dx.rows(first, n).data, dlogits.data, head.data);
    products_->run({vocab, hidden, n, dtype(), dtype(), DType::f32, true, false, vocab, hidden, hidden, true},
                   dhead.data, dlogits.data, part.data);
  });
}

#define DAPO_INSTANTIATE(T)                                                                                           \
  template void CudaBackend<T>::lm_logprob(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, \
                                           float);                                                                    \
  template void CudaBackend<T>::lm_dapo(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,    \
                                        const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,    \
                                        const Tensor&, const Tensor&, float, const DapoLoss&);
DAPO_INSTANTIATE(float)
DAPO_INSTANTIATE(bf16)
#undef DAPO_INSTANTIATE

}  // namespace dapo::cuda
